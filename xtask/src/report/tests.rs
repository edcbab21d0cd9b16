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
        ..Report::of("e2e", Timestamp::from_second(0).unwrap(), (!passed).then_some(&error))
    }
}

#[test]
fn no_format_lets_a_text_be_markup() {
    let report = hostile(false);
    for text in [html::render(&report), junit::render(&report), markdown::render(&report, "runs/1")] {
        assert!(!text.contains("<script") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("run `cargo xtask up`") || text.contains("layers"), "{text}");
    }
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

type Names = &'static [&'static str];

/// An element of JUnit's XML as Jenkins' schema `junit-10.xsd` has it: its attributes, those that it must have first, and
/// the elements in it.
const JUNIT: [(&str, Names, Names, Names); 6] = [
    ("testsuites", &[], &["name", "time", "tests", "failures", "errors"], &["testsuite"]),
    (
        "testsuite",
        &["name", "tests", "failures", "errors"],
        &["time", "skipped", "timestamp", "hostname", "id", "package"],
        &["testcase"],
    ),
    ("testcase", &["name"], &["time", "classname"], &["skipped", "failure", "system-out"]),
    ("failure", &[], &["message", "type"], &[]),
    ("skipped", &[], &["message", "type"], &[]),
    ("system-out", &[], &[], &[]),
];

#[test]
fn viewers_of_ci_find_in_the_xml_what_they_look_for() {
    let xml = junit::render(&hostile(false));
    let document = roxmltree::Document::parse(&xml).unwrap_or_else(|error| panic!("{error}: {xml}"));
    for element in document.descendants().filter(roxmltree::Node::is_element) {
        let name = element.tag_name().name();
        let row = JUNIT.iter().find(|(known, ..)| *known == name);
        let (_, needed, more, inside) = row.unwrap_or_else(|| panic!("<{name}> is in no schema"));
        let has: Vec<_> = element.attributes().map(|attribute| attribute.name()).collect();
        assert!(needed.iter().all(|name| has.contains(name)), "<{name}> lacks some of {needed:?}: {has:?}");
        assert!(has.iter().all(|name| needed.contains(name) || more.contains(name)), "<{name}> {has:?}");
        let mut children = element.children().filter(roxmltree::Node::is_element);
        assert!(children.all(|child| inside.contains(&child.tag_name().name())), "<{name}>: {xml}");
        for number in ["time", "tests", "failures", "errors", "skipped"] {
            assert!(element.attribute(number).is_none_or(|text| text.parse::<f64>().is_ok()), "{xml}");
        }
    }
    let root = document.root_element();
    let counted = |node: roxmltree::Node<'_, '_>, names: &[&str]| -> Vec<String> {
        names.iter().map(|name| node.attribute(*name).unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(counted(root, &["tests", "failures", "errors", "time"]), ["5", "2", "0", "60.000"]);
    let suites: Vec<_> = root.children().filter(roxmltree::Node::is_element).collect();
    assert_eq!(counted(suites[0], &["name", "tests", "failures", "skipped"]), ["steps", "2", "1", "0"]);
    assert_eq!(counted(suites[1], &["name", "tests", "failures", "skipped"]), ["layers", "3", "1", "1"]);
    // GitLab shows the text of a failure, GitHub's viewers the message; both know a case by class and name.
    let case = suites[0].last_element_child().unwrap();
    let named: Vec<_> = ["classname", "name", "time"].map(|name| case.attribute(name)).into();
    assert_eq!(named, [Some("kedge.steps"), Some("pod: "), Some("10.000")]);
    let failure = case.first_element_child().unwrap();
    let evil = "<script>alert(1)</script> ]]> [31m | `x` & \"y\"";
    assert_eq!((failure.attribute("message"), failure.text()), (Some(evil), Some(evil)));
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
    let report = report.without_secrets(&redact);
    let json = report.to_json(str::to_owned).unwrap();
    report.write(folder.path(), &json, str::to_owned).unwrap();
    for name in ["report.json", "report.html", "junit.xml"] {
        let text = fs_err::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.contains("[redacted]") && !text.contains("p&"), "{name}: {text}");
    }
}
