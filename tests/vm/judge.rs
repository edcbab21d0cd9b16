//! What came out of the machine, against what has to. Reading and judging are pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

/// The tiers that a plain Docker has, from the weakest to the strongest.
pub(crate) const TIERS: [&str; 3] = ["privileged", "confined", "userns"];

/// What came of the attacks in one tier.
#[derive(Debug, Default, PartialEq, Eq)]
struct Attacks {
    /// What confines the edge, as the kernel tells it.
    facts: BTreeMap<String, String>,
    outcomes: Vec<Outcome>,
}

/// What came of one attempt.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    name: String,
    /// What was tried.
    what: String,
    /// Its cell of the table.
    cell: String,
}

/// The cell of what works.
const WORKS: &str = "**works**";

impl Attacks {
    fn parse(text: &str) -> Self {
        let mut attacks = Self::default();
        let outcome = |name: &str, what: &str, cell| Outcome { name: name.into(), what: what.into(), cell };
        for line in text.lines() {
            match line.split('\t').collect::<Vec<_>>()[..] {
                ["fact", name, value] => {
                    attacks.facts.insert(name.into(), value.into());
                }
                [name, what, "worked"] => attacks.outcomes.push(outcome(name, what, WORKS.into())),
                [name, what, "refused", _, error, by] => {
                    attacks.outcomes.push(outcome(name, what, cell(error, by)));
                }
                _ => attacks.outcomes.push(outcome(line, line, "failed".into())),
            }
        }
        attacks
    }

    /// The names of what works.
    fn working(&self) -> BTreeSet<&str> {
        let works = |outcome: &&Outcome| outcome.cell == WORKS;
        self.outcomes.iter().filter(works).map(|outcome| outcome.name.as_str()).collect()
    }
}

/// What stopped an attempt, and how the kernel put it.
fn cell(error: &str, by: &str) -> String {
    match (error, by) {
        ("-", by) => by.into(),
        (error, "-") => error.into(),
        (error, by) => format!("{by} ({error})"),
    }
}

/// The attempts by tiers, in Markdown.
fn table(tiers: &[(&str, Attacks)]) -> String {
    let mut text = String::from("| root in the edge tries to |");
    for (tier, _) in tiers {
        let _ = write!(text, " `{tier}` |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(tiers.len()));
    let attempts = tiers.iter().map(|(_, attacks)| &attacks.outcomes).max_by_key(|all| all.len());
    for Outcome { name, what, .. } in attempts.into_iter().flatten() {
        let _ = write!(text, "\n| {what} |");
        for (_, attacks) in tiers {
            let found = attacks.outcomes.iter().find(|outcome| outcome.name == *name);
            let _ = write!(text, " {} |", found.map_or("not tried", |outcome| &outcome.cell));
        }
    }
    text
}

/// What confines the edge by tiers, in lines: as the tool proves it, and as the kernel tells a process in the edge.
fn confinement(tiers: &[(&str, Attacks)], proof: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    for (tier, attacks) in tiers {
        let facts: Vec<_> = attacks.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let _ = writeln!(text, "{}\n  {}", proof(tier), facts.join(", "));
    }
    text
}

/// What the report of a run says of a layer.
fn layer(report: &str, name: &str) -> String {
    let report: Value = serde_json::from_str(report).unwrap_or_default();
    let layers = report["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let layer = layers.iter().find(|layer| layer["name"] == name);
    layer.and_then(|layer| layer["detail"].as_str()).unwrap_or("not in the report").to_owned()
}

/// What is not as it has to be in one tier. `file` reads one of its results.
fn problems(tier: &str, file: impl Fn(&str) -> String) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |what: &str, holds: bool, found: &str| {
        if !holds {
            problems.push(format!("{tier}: {what}; found: {}", found.trim()));
        }
    };
    let e2e = file("e2e");
    expect("the edge is proved", e2e.ends_with("ended with 0\n"), &e2e);
    let report = file("report.json");
    let found: Value = serde_json::from_str(&report).unwrap_or_default();
    let environment = &found["environment"];
    expect("the report tells the tier", environment["tier"] == tier, &environment.to_string());
    let systemd = layer(&report, "systemd");
    expect("systemd runs", systemd == "running", &systemd);
    let engine = layer(&report, "inner-engine");
    expect("the inner engine is on overlay2", engine.ends_with("overlay2"), &engine);
    for (name, words) in [
        ("memory-allowed", "has 50 MB"),
        ("memory-refused", "ended with 137"),
        ("processes-allowed", "has 20 processes"),
        ("processes-refused", ": EAGAIN"),
        ("after", "running"),
        ("down", "ended with 0"),
    ] {
        let text = file(name);
        expect(&format!("`{name}` has `{words}`"), text.contains(words), &text);
    }
    problems
}

/// Judges the results in a folder, and compares the tables with those that are kept.
pub(crate) fn judge(results: &Path) {
    let read = |tier: &str, name: &str| {
        fs_err::read_to_string(results.join(tier).join(name)).unwrap_or_else(|error| error.to_string())
    };
    let tiers = TIERS.map(|tier| (tier, Attacks::parse(&read(tier, "attacks"))));
    let problems: Vec<_> = TIERS.iter().flat_map(|tier| problems(tier, |name| read(tier, name))).collect();
    let table = table(&tiers);
    let confinement = confinement(&tiers, |tier| layer(&read(tier, "report.json"), "security"));
    println!("{confinement}\n{table}");
    assert_eq!(problems, [""; 0], "all that the machine has written is in `{}`", results.display());
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("confinement", confinement);
        insta::assert_snapshot!("attacks", table);
    });
    // What works in a stronger tier works in the weaker ones; else the attempts themselves do not do what they say.
    let [privileged, confined, userns] = tiers.each_ref().map(|(_, attacks)| attacks.working());
    assert!(userns.is_subset(&confined) && confined.is_subset(&privileged), "{tiers:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVILEGED: &str =
        "fact\tCapEff\t3f\nfact\tSeccomp\t0\na\tlift the limit\tworked\nb\tread the disk\tworked\n";
    const CONFINED: &str = "fact\tCapEff\t1f\na\tlift the limit\trefused\twrite\tEPERM\tuser namespace\nb\tread the disk\trefused\tlook\t-\tcgroups\n";

    #[test]
    fn the_table_has_an_attempt_a_line_and_a_tier_a_column() {
        let tiers = [("privileged", Attacks::parse(PRIVILEGED)), ("confined", Attacks::parse(CONFINED))];
        assert_eq!(
            table(&tiers),
            "| root in the edge tries to | `privileged` | `confined` |\n|---|---|---|\n\
             | lift the limit | **works** | user namespace (EPERM) |\n| read the disk | **works** | cgroups |"
        );
        assert_eq!(
            confinement(&tiers, |tier| format!("{tier}: few")),
            "privileged: few\n  CapEff 3f, Seccomp 0\nconfined: few\n  CapEff 1f\n"
        );
        assert_eq!(tiers[0].1.working(), BTreeSet::from(["a", "b"]));
        assert_eq!(tiers[1].1.working(), BTreeSet::new());
    }

    #[test]
    fn an_attempt_that_is_missing_or_ended_badly_is_to_be_seen() {
        let tiers = [("one", Attacks::parse(PRIVILEGED)), ("two", Attacks::parse("panicked\n"))];
        assert!(table(&tiers).contains("| lift the limit | **works** | not tried |"));
        assert_eq!(tiers[1].1.outcomes[0].cell, "failed");
    }

    #[test]
    fn everything_that_is_not_as_it_has_to_be_is_told() {
        let report = r#"{"environment": {"tier": "userns"}, "layers": [{"name": "systemd", "detail": "running"},
            {"name": "inner-engine", "detail": "20.10.24 overlay2"}]}"#;
        let good = |name: &str| {
            match name {
                "report.json" => report,
                "e2e" | "down" => "done\nended with 0\n",
                "memory-allowed" => "has 50 MB\nended with 0\n",
                "memory-refused" => "ended with 137\n",
                "processes-allowed" => "has 20 processes\n",
                "processes-refused" => "stopped at 40: EAGAIN\n",
                "after" => "running\n",
                _ => "",
            }
            .to_owned()
        };
        assert_eq!(problems("userns", good), [""; 0]);
        assert!(problems("confined", good)[0].contains("the report tells the tier"));
        let all = problems("userns", |_| "no such file".into());
        assert_eq!(all.len(), 10, "{all:?}");
    }
}
