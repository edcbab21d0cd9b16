use super::*;
use crate::verify::{Layer, Name};

fn step(id: &str, needs: &[&str], from: i64, to: i64) -> StepReport {
    StepReport {
        id: id.into(),
        purpose: String::new(),
        needs: needs.iter().map(ToString::to_string).collect(),
        started: Timestamp::from_second(from).unwrap(),
        ended: Timestamp::from_second(to).unwrap(),
        seconds: (to - from) as f64,
        result: "done",
        changed: true,
        note: String::new(),
    }
}

#[test]
fn the_critical_path_is_the_chain_that_ended_last() {
    let steps = [
        step("base", &[], 0, 10),
        step("cluster", &["base"], 10, 50),
        step("hub", &[], 0, 20),
        step("deploy", &["cluster", "hub"], 50, 60),
    ];
    let path = CriticalPath::of(&steps);
    assert_eq!(path.steps, ["base", "cluster", "deploy"]);
    assert!((path.seconds - 60.0).abs() < f64::EPSILON);
}

#[test]
fn a_run_that_did_nothing_has_no_critical_path() {
    assert_eq!(CriticalPath::of(&[]), CriticalPath::default());
}

/// A report with text of somebody who means no good.
fn hostile(passed: bool) -> Report {
    let evil = "<script>alert(1)</script> ]]> \u{1b}[31m | `x` & \"y\"";
    let mut failed = step("pod", &["cluster"], 50, 60);
    (failed.result, failed.note) = ("failed", evil.into());
    let steps =
        if passed { vec![step("cluster", &[], 0, 50)] } else { vec![step("cluster", &[], 0, 50), failed] };
    let layer =
        |name, result: &'static str, detail: &str| Layer { name, result, detail: detail.into(), next: None };
    let error = anyhow::Error::from(crate::exit::Unproved {
        layer: "pod".into(),
        detail: evil.into(),
        next: "run `cargo xtask up`".into(),
    });
    Report {
        schema: 1,
        command: "e2e".into(),
        started: Timestamp::from_second(0).unwrap(),
        ended: Timestamp::from_second(60).unwrap(),
        seconds: 60.0,
        result: if passed { "passed" } else { "failed" },
        error: (!passed).then(|| format!("{error:#}")),
        verdict: (!passed).then(|| Verdict::of(&error)),
        environment: Environment {
            engine: evil.into(),
            runtime: "simulated".into(),
            hub: "local".into(),
            ..Environment::default()
        },
        critical_path: CriticalPath::of(&steps),
        steps,
        layers: vec![
            layer(Name::Node, "ok", "n"),
            layer(Name::Pod, "broken", evil),
            layer(Name::Hub, "not reached", ""),
        ],
        messages: Vec::new(),
    }
}

#[test]
fn no_format_lets_a_text_be_markup() {
    let report = hostile(false);
    for text in [html::render(&report), junit::render(&report), markdown::render(&report, "runs/1")] {
        assert!(!text.contains("<script") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("run `cargo xtask up`") || text.contains("layers"), "{text}");
    }
    assert!(junit::render(&report).contains("tests=\"5\" failures=\"2\" errors=\"0\" skipped=\"1\""));
    assert!(markdown::render(&report, "runs/1").lines().all(|line| !line.contains(" | `x`")));
}

#[test]
fn a_page_says_what_was_simulated_and_has_no_empty_parts() {
    let page = html::render(&hostile(true));
    assert!(page.contains("passed (local hub, simulated runtime)"), "{page}");
    assert!(!page.contains("Temperature received") && page.contains("class=\"timeline\""), "{page}");
    let empty = Report { steps: Vec::new(), layers: Vec::new(), ..hostile(true) };
    let page = html::render(&empty);
    assert!(
        !page.contains("<h2>Steps") && !page.contains("<h2>Timeline") && !page.contains("<h2>Layers"),
        "{page}"
    );
}

#[test]
fn the_tier_and_its_proof_are_in_the_report() {
    use crate::tier::{Decision, Proof, Tier};
    use crate::verify::Security;
    let decision = Decision {
        tier: Tier::Confined,
        gaps: Vec::new(),
        stronger: vec![(Tier::Userns, "Docker does not remap users".into())],
    };
    let decided = Environment::default().confined(Some(decision.clone()), None);
    assert_eq!((decided.tier, decided.security.is_none()), (Some(Tier::Confined), true));
    let proof = Proof { cap_eff: 0x21, seccomp: 2, uid_map: "0 0 4294967295".into(), ..Proof::default() };
    let found = Security { tier: Tier::Confined, proof, lacks: vec!["no AppArmor"] };
    let environment = Environment::default().confined(Some(decision), Some(found));
    let page = html::render(&Report { environment: environment.clone(), ..hostile(true) });
    for row in [
        "<tr><th>tier</th><td>confined</td></tr>",
        "<tr><th>security cap eff</th><td>0000000000000021</td></tr>",
        "<tr><th>security lacks</th><td>no AppArmor</td></tr>",
        "<tr><th>stronger tiers userns</th><td>Docker does not remap users</td></tr>",
    ] {
        assert!(page.contains(row), "{row} is not in {page}");
    }
    let json = serde_json::to_value(&environment).unwrap();
    assert_eq!(
        (&json["security"]["seccomp"], &json["strongerTiers"]["userns"]),
        (&2.into(), &"Docker does not remap users".into())
    );
}

#[test]
fn a_run_that_failed_before_its_first_step_is_a_failed_case() {
    let report = Report { steps: Vec::new(), layers: Vec::new(), ..hostile(false) };
    assert!(junit::render(&report).contains("tests=\"1\" failures=\"1\""), "{}", junit::render(&report));
}

#[test]
fn a_secret_is_in_no_format_however_that_writes_it() {
    let secret = "p&<\"'w";
    let mut report = hostile(false);
    report.error = Some(format!("login {secret} refused"));
    report.steps[1].note = format!("{secret} again");
    report.layers[1].detail = format!("with {secret}");
    report.layers[1].next = Some(format!("not {secret}"));
    report.verdict = report.verdict.map(|verdict| Verdict { cause: secret.into(), ..verdict });
    let folder = tempfile::tempdir().unwrap();
    let redact = |text: &str| text.replace(secret, "[redacted]");
    report.without_secrets(&redact).write(folder.path(), str::to_owned).unwrap();
    for name in ["report.json", "report.html", "junit.xml"] {
        let text = fs_err::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.contains("[redacted]") && !text.contains("p&"), "{name}: {text}");
    }
}
