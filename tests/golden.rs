//! What is applied to Kubernetes, as text, and what was measured. After a wanted change: `INSTA_UPDATE=always cargo test --test golden`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use kedge_sim::secret::Secret;
use xtask::cluster::manifests::{self, Confinement, Object, Pull, Tailoring, Values};
use xtask::cluster::render;
use xtask::engine::Login;
use xtask::provisioning::{HUB_CA, SecretFiles};
use xtask::tier::Tier;
use xtask::tier::facts::Version;

const SOURCE: &str = include_str!("../manifests/kedgedeployment.yaml");
const PROFILES: &str = include_str!("../manifests/profiles.yaml");

/// What the tiers withstand, as it was measured in the virtual machine.
const ATTACKS: &str = include_str!("golden/attacks.snap");
const README: &str = include_str!("../README.md");

fn login() -> Login {
    Login { username: "kedge".into(), password: Secret::new("registry-password") }
}

fn files(config: &str) -> SecretFiles {
    SecretFiles::new(&Secret::new(config))
}

fn objects(source: &str) -> anyhow::Result<Vec<Object>> {
    manifests::deployment(
        source,
        &Values {
            namespace: "edge-lab",
            image: "localhost:5001/kedge/edge@sha256:0123",
            pull: Pull::With { registry: "localhost:5001", login: &login() },
            tailoring: None,
            confinement: Confinement::NONE,
            files: &files("hostname = \"kedge-edge\"\n# device-key\n")
                .with(HUB_CA, "-----BEGIN CERTIFICATE-----\n"),
        },
    )
}

#[test]
fn the_deployment_is_rendered_as_it_is_applied() {
    insta::assert_snapshot!(render::documents(&objects(SOURCE).unwrap()).unwrap());
}

#[test]
fn for_a_cluster_of_somebody_else_it_is_tailored() {
    let values = Values {
        namespace: "edge",
        image: "factory.example/kedge/edge@sha256:0123",
        pull: Pull::Without,
        files: &files("hostname = \"kedge-edge\"\n"),
        tailoring: Some(Tailoring {
            storage_class: Some("managed-csi"),
            state_size: "4Gi",
            engine_size: "16Gi",
            cpu: "1",
            memory: "1Gi",
            memory_limit: Some("3Gi"),
        }),
        confinement: Confinement::NONE,
    };
    let objects = manifests::deployment(SOURCE, &values).unwrap();
    insta::assert_snapshot!(render::documents(&objects).unwrap());
}

/// A cluster of somebody else, as one of its servers sees the pod.
fn confined(tier: Tier, server: Version, apparmor: bool, profiles: &str) -> anyhow::Result<Vec<Object>> {
    confined_from(SOURCE, tier, server, apparmor, profiles)
}

fn confined_from(
    source: &str,
    tier: Tier,
    server: Version,
    apparmor: bool,
    profiles: &str,
) -> anyhow::Result<Vec<Object>> {
    let values = Values {
        namespace: "edge",
        image: "factory.example/kedge/edge@sha256:0123",
        pull: Pull::AsBefore,
        files: &files("hostname = \"kedge-edge\"\n"),
        tailoring: None,
        confinement: Confinement {
            tier,
            server: Some(server),
            apparmor,
            seccomp: "kedge/edge-0123abcd.json",
            class: Some(if tier == Tier::Sysbox { "sysbox-runc" } else { "kedge" }),
            profiles,
        },
    };
    manifests::deployment(source, &values)
}

/// What differs by tier: the namespace, the DaemonSet with the profiles, and of the Deployment what confines its pod.
fn what_confines(tier: Tier, server: Version, apparmor: bool) -> String {
    let mut objects = confined(tier, server, apparmor, PROFILES).unwrap();
    objects.retain(|it| matches!(it, Object::Namespace(_) | Object::DaemonSet(_) | Object::Deployment(_)));
    for object in &mut objects {
        if let Object::Deployment(deployment) = object {
            let pod = deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
            pod.volumes = None;
            let edge = &mut pod.containers[0];
            (edge.startup_probe, edge.readiness_probe, edge.liveness_probe) = (None, None, None);
            (edge.volume_mounts, edge.ports, edge.resources) = (None, None, None);
        }
    }
    render::documents(&objects).unwrap()
}

#[test]
fn each_tier_confines_the_pod_in_its_own_way() {
    let new = Version(1, 36);
    for tier in Tier::ALL {
        insta::assert_snapshot!(format!("tier_{tier}"), what_confines(tier, new, true));
    }
    insta::assert_snapshot!(
        "tier_confined_by_an_old_server",
        what_confines(Tier::Confined, Version(1, 20), true)
    );
    insta::assert_snapshot!("tier_confined_without_apparmor", what_confines(Tier::Confined, new, false));
    let bare = what_confines(Tier::Userns, new, false);
    assert_eq!(
        what_confines(Tier::Userns, new, true)
            .replace("          appArmorProfile:\n            type: Unconfined\n", ""),
        bare
    );
    assert!(what_confines(Tier::Sysbox, Version(1, 34), true).contains("/enforce: baseline"));
}

#[test]
fn the_profiles_go_to_the_nodes_of_the_pod_alone() {
    const PLACE: &str = "      nodeSelector:
        kubernetes.io/os: linux
        pool: edge
      tolerations:
        - key: edge
          operator: Exists
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - { key: zone, operator: In, values: [a] }
        podAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - { topologyKey: zone, labelSelector: {} }
";
    let plain = "      nodeSelector:\n        kubernetes.io/os: linux\n";
    assert!(SOURCE.contains(plain));
    let objects = confined_from(&SOURCE.replace(plain, PLACE), Tier::Userns, Version(1, 36), true, PROFILES);
    let objects = serde_json::to_value(objects.unwrap()).unwrap();
    let pod = |name: &str| {
        let mut found = objects.as_array().unwrap().iter();
        found.find(|it| it["metadata"]["name"] == name && it["spec"]["template"].is_object()).unwrap()["spec"]
            ["template"]["spec"]
            .clone()
    };
    let (profiles, edge) = (pod("kedge-profiles"), pod("kedge"));
    for field in ["nodeSelector", "tolerations"] {
        assert!(!edge[field].is_null() && profiles[field] == edge[field], "{field}");
    }
    assert_eq!(profiles["affinity"]["nodeAffinity"], edge["affinity"]["nodeAffinity"]);
    assert!(
        profiles["affinity"]["podAffinity"].is_null(),
        "they come before the pods near which the edge is"
    );
}

#[test]
fn profiles_that_are_something_else_are_refused() {
    let refused = |profiles: &str| {
        format!("{:#}", confined(Tier::Confined, Version(1, 36), true, profiles).unwrap_err())
    };
    assert!(refused(SOURCE).contains("has to have the DaemonSet `kedge-profiles`"));
    assert!(refused("").contains("has to have the DaemonSet"));
    let other = PROFILES.replace("readinessProbe:", "readyProbe:");
    assert!(refused(&other).contains("unknown field"), "{}", refused(&other));
    assert!(confined(Tier::Privileged, Version(1, 36), true, "").is_ok(), "it does not go by them");
}

#[test]
fn the_registry_is_published_as_kep_1755_has_it() {
    let source = include_str!("../manifests/local-registry-hosting.yaml");
    let objects = manifests::local_registry(source, "localhost:5777", &login()).unwrap();
    insta::assert_snapshot!(render::documents(&objects).unwrap());
}

#[test]
fn for_people_the_secrets_are_left_out() {
    let text = render::for_people(&objects(SOURCE).unwrap()).unwrap();
    assert!(text.contains("\n# kind: Secret\n") && !text.contains("\nkind: Secret\n"), "{text}");
    let secrets = ["registry-password", "cmVnaXN0cnktcGFzc3dvcmQ", "device-key", "IyBkZXZpY2Uta2V5"];
    assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
}

#[test]
fn a_new_credential_changes_the_pod_template() {
    let annotation = |text: &str| {
        let login = login();
        let values = Values {
            namespace: "kedge",
            image: "i",
            pull: Pull::With { registry: "r", login: &login },
            files: &files(text),
            tailoring: None,
            confinement: Confinement::NONE,
        };
        let objects = manifests::deployment(SOURCE, &values).unwrap();
        let deployment = objects.into_iter().find_map(|object| match object {
            Object::Deployment(deployment) => Some(deployment),
            _ => None,
        });
        deployment.unwrap().spec.unwrap().template.metadata.unwrap().annotations.unwrap()
    };
    assert_eq!(annotation("key one"), annotation("key one"));
    assert_ne!(annotation("key one"), annotation("key two"));
}

#[test]
fn a_manifest_that_kubernetes_would_not_take_as_written_is_refused() {
    let broken = |from: &str, to: &str| {
        assert!(SOURCE.contains(from), "{from}");
        format!("{:#}", objects(&SOURCE.replacen(from, to, 1)).unwrap_err())
    };
    assert!(broken("replicas: 1", "replica: 1").contains("unknown field `spec.replica`"));
    assert!(
        broken("kind: Deployment", "kind: StatefulSet")
            .contains("\"StatefulSet\", which KEdge does not apply")
    );
    assert!(broken("- name: edge\n", "- name: other\n").contains("no container `edge`"));
    assert!(broken("name: regcred", "name: pull").contains("no Secret `regcred`"));
    assert!(broken("replicas: 1", "replicas: one").contains("not a valid Deployment"));
}

#[test]
fn the_readme_has_what_the_tiers_withstand_as_it_was_measured() {
    let measured = ATTACKS.splitn(3, "---\n").nth(2).unwrap();
    let (_, rest) = README.split_once("<!-- attacks: generated by `cargo xtask test --vm` -->\n").unwrap();
    let (told, _) = rest.split_once("<!-- /attacks -->").unwrap();
    assert_eq!(told, measured, "put the table of tests/golden/attacks.snap into the README");
}
