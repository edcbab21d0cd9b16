use super::*;

fn docker() -> Facts {
    Facts {
        host: Host::Docker { remaps: false, rootless: false },
        kernel: Some(Version(6, 1)),
        cgroups: Some(2),
        nsdelegate: Some(true),
        apparmor: AppArmor::Ready,
        sysbox: None,
    }
}

fn cluster() -> Cluster {
    Cluster {
        server: Some(Version(1, 36)),
        containerd: Some(Version(2, 1)),
        honours_userns: Some(true),
        own_cgroups: Some("kedge".into()),
        lacks_handler: None,
        is_ours: false,
        level: None,
        namespace: "edge".into(),
    }
}

fn pod(cluster: Cluster) -> Facts {
    Facts { host: Host::Kubernetes(cluster), kernel: Some(Version(6, 8)), ..docker() }
}

#[test]
fn the_strongest_tier_that_works_is_taken() {
    use Tier::{Confined, Privileged, Userns};
    let remapping = Host::Docker { remaps: true, rootless: false };
    let podman = Host::Podman { has_ids: true, rootless: false };
    for (facts, expected) in [
        (docker(), Confined),
        (Facts { host: remapping.clone(), ..docker() }, Userns),
        (Facts { host: podman, ..docker() }, Confined),
        (Facts { cgroups: Some(1), apparmor: AppArmor::Off, ..docker() }, Confined),
        (Facts { apparmor: AppArmor::NotLoaded("no root".into()), ..docker() }, Privileged),
        (Facts { host: Host::Docker { remaps: false, rootless: true }, ..docker() }, Privileged),
    ] {
        let decision = decide(&facts, Choice::Auto).unwrap();
        assert_eq!(decision.tier, expected, "{facts:?}");
        // Every stronger one is accounted for, in order.
        let told: Vec<_> = decision.stronger.iter().map(|(tier, _)| *tier).collect();
        assert_eq!(told, Tier::ALL[..told.len()], "{facts:?}");
        assert_eq!(Tier::ALL[told.len()], expected);
    }
    let facts = Facts { host: remapping, cgroups: Some(1), ..docker() };
    let error = decide(&facts, Choice::Auto).unwrap_err().to_string();
    assert!(
        error.contains("\n  `userns`: its cgroups") && error.contains("\n  `privileged`: this Docker remaps"),
        "{error}"
    );
}

#[test]
fn an_edge_that_is_there_does_not_get_less_than_it_has_unless_that_is_asked_for() {
    use Tier::{Confined, Privileged, Userns};
    let unloaded = Facts { apparmor: AppArmor::NotLoaded("only root can".into()), ..docker() };
    let decided = |facts: &Facts, choice, before| decide(facts, choice).unwrap().for_one_made_in(before);
    for before in [Userns, Confined] {
        let error = decided(&unloaded, Choice::Auto, Some(before)).unwrap_err();
        let Unobtainable::Weaker { before: had, now, reason } = &error else { panic!("{error}") };
        assert_eq!((*had, *now), (before, Privileged));
        assert_eq!(reason.contains("apparmor_parser --replace"), before == Confined, "{reason}");
        assert!(error.next().ends_with("`--tier privileged`"), "{}", error.next());
    }
    for (facts, choice, before, expected) in [
        (&unloaded, Choice::Privileged, Some(Confined), Privileged),
        (&unloaded, Choice::Auto, Some(Privileged), Privileged),
        (&unloaded, Choice::Auto, None, Privileged),
        (&docker(), Choice::Auto, Some(Confined), Confined),
        (&docker(), Choice::Auto, Some(Privileged), Confined),
        (&docker(), Choice::Confined, Some(Userns), Confined),
    ] {
        assert_eq!(decided(facts, choice, before).unwrap().tier, expected, "{facts:?}, {before:?}");
    }
}

#[test]
fn in_a_pod_the_strongest_tier_that_works_is_taken() {
    let of = |change: fn(&mut Cluster)| {
        let mut cluster = cluster();
        change(&mut cluster);
        pod(cluster)
    };
    use Tier::{Confined, Privileged, Userns};
    let without = |apparmor| Facts { apparmor, ..of(|it| it.own_cgroups = None) };
    for (facts, strongest, userns, confined) in [
        (of(|_| {}), Userns, true, true),
        (of(|it| it.honours_userns = None), Confined, true, true),
        (of(|it| it.honours_userns = Some(false)), Confined, false, true),
        (of(|it| it.own_cgroups = None), Confined, false, true),
        (of(|it| it.lacks_handler = Some("node-2".into())), Confined, false, true),
        (of(|it| it.containerd = None), Confined, true, true),
        (of(|it| it.is_ours = true), Privileged, true, true),
        (of(|it| it.server = Some(Version(1, 32))), Confined, false, true),
        (of(|it| it.containerd = Some(Version(2, 0))), Confined, false, true),
        (of(|it| it.server = Some(Version(1, 18))), Privileged, false, false),
        (Facts { kernel: Some(Version(5, 14)), ..pod(cluster()) }, Confined, false, true),
        (Facts { cgroups: Some(1), ..pod(cluster()) }, Privileged, false, false),
        (without(AppArmor::Off), Privileged, false, true),
        (without(AppArmor::Unknown("nobody says so".into())), Privileged, false, true),
        (without(AppArmor::NotLoaded("some have it".into())), Privileged, false, false),
    ] {
        assert_eq!(decide(&facts, Choice::Auto).unwrap().tier, strongest, "{facts:?}");
        let works = |choice| decide(&facts, choice).is_ok();
        assert_eq!((works(Choice::Userns), works(Choice::Confined)), (userns, confined), "{facts:?}");
    }
}

#[test]
fn a_tier_that_was_asked_for_is_had_or_refused_with_the_repair() {
    let refused = |facts: &Facts, choice| decide(facts, choice).unwrap_err().to_string();
    let told = refused(&docker(), Choice::Userns);
    assert!(
        told.starts_with("the tier `userns` cannot be had here: Docker does not remap users; put"),
        "{told}"
    );
    let podman = Facts { host: Host::Podman { has_ids: false, rootless: false }, ..docker() };
    assert!(refused(&podman, Choice::Userns).contains("/etc/subuid"));
    assert!(refused(&docker(), Choice::Sysbox).contains("`sysbox-runc`"));
    assert!(refused(&pod(cluster()), Choice::Sysbox).contains("RuntimeClass"));
    let unloaded = Facts { apparmor: AppArmor::NotLoaded("the engine is elsewhere".into()), ..docker() };
    let told = refused(&unloaded, Choice::Confined);
    assert!(told.contains("the engine is elsewhere") && told.contains("apparmor_parser --replace"), "{told}");
    for choice in [Choice::Confined, Choice::Privileged] {
        let decision = decide(&docker(), choice).unwrap();
        assert_eq!((Some(decision.tier), decision.stronger), (choice.tier(), Vec::new()));
    }
}

#[test]
fn of_a_cluster_to_come_the_kernel_is_known() {
    let old = Facts { cgroups: Some(1), apparmor: AppArmor::Off, ..docker() }.of_nodes_to_come();
    for choice in [Choice::Userns, Choice::Confined] {
        assert!(decide(&old, choice).unwrap_err().to_string().contains("version 1"), "{choice:?}");
    }
    for choice in [Choice::Auto, Choice::Sysbox, Choice::Privileged] {
        assert!(decide(&old, choice).is_ok(), "{choice:?}");
    }
    assert!(decide(&docker().of_nodes_to_come(), Choice::Userns).is_err(), "its Linux is 6.1");
    let new = Facts { kernel: Some(Version(6, 8)), ..docker() }.of_nodes_to_come();
    assert!(decide(&new, Choice::Userns).is_ok());
}

#[test]
fn what_nobody_has_seen_is_taken_only_when_it_is_asked_for() {
    let bare =
        Facts { apparmor: AppArmor::Off, ..pod(Cluster { server: Some(Version(1, 30)), ..cluster() }) };
    let decision = decide(&bare, Choice::Auto).unwrap();
    assert_eq!(decision.tier, Tier::Privileged);
    assert!(decision.stronger[2].1.ends_with("`--tier confined` takes it all the same"), "{decision:?}");
    let decision = decide(&bare, Choice::Confined).unwrap();
    assert!(decision.gaps.iter().all(|gap| gap.contains("AppArmor")), "{decision:?}");
    let silent = Facts { apparmor: AppArmor::Unknown("no kubelet says so".into()), ..bare.clone() };
    let decision = decide(&silent, Choice::Confined).unwrap();
    assert!(decision.gaps[0].starts_with("no kubelet says so; a node without it"), "{decision:?}");
    let old = Facts { cgroups: Some(1), ..bare };
    assert_eq!(decide(&old, Choice::Auto).unwrap().tier, Tier::Privileged);
    assert!(decide(&old, Choice::Confined).unwrap_err().to_string().contains("/dev/console"));
    let sysbox =
        Facts { sysbox: Some("sysbox-runc".into()), ..pod(Cluster { honours_userns: None, ..cluster() }) };
    assert_eq!(decide(&sysbox, Choice::Auto).unwrap().tier, Tier::Confined);
    assert_eq!(decide(&sysbox, Choice::Sysbox).unwrap().tier, Tier::Sysbox);
}

#[test]
fn what_a_tier_lacks_is_told() {
    let gaps = |facts: &Facts| decide(facts, Choice::Confined).unwrap().gaps;
    assert_eq!(gaps(&docker()), [""; 0]);
    let bare = Facts { apparmor: AppArmor::Off, nsdelegate: Some(false), ..docker() };
    assert!(
        gaps(&bare)[0].starts_with("AppArmor is not there")
            && gaps(&bare)[1].contains("mount -o remount,rw,nsdelegate")
    );
    let old = Facts { cgroups: Some(1), nsdelegate: None, ..bare };
    assert_eq!(gaps(&old).len(), 1, "version 1 has no such option");
}

#[test]
fn a_namespace_of_somebody_else_lets_in_what_its_level_lets_in() {
    let level =
        |level: &str, server| Cluster { level: Some(level.into()), server: Some(server), ..cluster() };
    let works = |cluster: Cluster, choice| {
        decide(&Facts { sysbox: Some("sysbox-runc".into()), ..pod(cluster) }, choice).is_ok()
    };
    let (old, new) = (Version(1, 34), Version(1, 35));
    for choice in [Choice::Userns, Choice::Confined, Choice::Privileged] {
        for strict in ["restricted", "baseline"] {
            let error = decide(&pod(level(strict, new)), choice).unwrap_err().to_string();
            assert!(
                error.contains(&format!("level `{strict}`")) && error.contains("enforce=privileged"),
                "{error}"
            );
        }
        assert!(works(level("privileged", new), choice));
    }
    assert!(works(level("baseline", old), Choice::Sysbox) && works(level("restricted", new), Choice::Sysbox));
    let error = decide(
        &Facts { sysbox: Some("sysbox-runc".into()), ..pod(level("restricted", old)) },
        Choice::Sysbox,
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("enforce=baseline"), "{error}");
    assert_eq!(level_of(Tier::Confined, Some(new)), "privileged");
    let error = decide(&pod(level("baseline", new)), Choice::Auto).unwrap_err().to_string();
    assert!(
        error.contains("\n  `userns`, `confined`, `privileged`: the namespace `edge` is not ours"),
        "{error}"
    );
}
