//! `junit.xml`: steps and layers as test cases, for the viewers of CI systems.

use std::fmt::Write as _;

use super::text::escape;
use super::{Report, StepReport};
use crate::verify::Layer;

/// A test case: what it is called, how long it took in seconds, and what is inside the element.
struct Case {
    name: String,
    seconds: f64,
    outcome: Outcome,
}

enum Outcome {
    Passed(String),
    Failed(String),
    Skipped(String),
}

/// The report as JUnit's XML.
pub(super) fn render(report: &Report) -> String {
    let steps: Vec<_> = report.steps.iter().map(of_step).collect();
    let layers: Vec<_> = report.layers.iter().map(of_layer).collect();
    let mut run = Vec::new();
    // A run can fail before its first step.
    if let Some(error) = report.error.as_ref().filter(|_| !steps.iter().chain(&layers).any(Case::is_failed)) {
        let outcome = Outcome::Failed(error.clone());
        run.push(Case { name: report.command.clone(), seconds: report.seconds, outcome });
    }
    let suites = [("run", run), ("steps", steps), ("layers", layers)];
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let all = || suites.iter().flat_map(|(_, cases)| cases);
    let _ = writeln!(xml, "<testsuites name=\"kedge {}\" {}>", escape(&report.command), counts(all()));
    for (name, cases) in suites.iter().filter(|(_, cases)| !cases.is_empty()) {
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{name}\" timestamp=\"{}\" skipped=\"{}\" {}>",
            report.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            cases.iter().filter(|case| matches!(case.outcome, Outcome::Skipped(_))).count(),
            counts(cases.iter())
        );
        cases.iter().for_each(|case| case.write(name, &mut xml));
        xml.push_str("  </testsuite>\n");
    }
    xml + "</testsuites>\n"
}

/// What Jenkins' schema has on all suites together as well as on each of them.
fn counts<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let (mut all, mut failed, mut seconds) = (0, 0, 0.0);
    for case in cases {
        all += 1;
        failed += usize::from(case.is_failed());
        seconds += case.seconds;
    }
    format!("tests=\"{all}\" failures=\"{failed}\" errors=\"0\" time=\"{seconds:.3}\"")
}

fn of_step(step: &StepReport) -> Case {
    let outcome = match step.result {
        "done" => Outcome::Passed(step.note.clone()),
        "failed" => Outcome::Failed(step.note.clone()),
        other => Outcome::Skipped(other.to_owned()),
    };
    Case { name: format!("{}: {}", step.id, step.purpose), seconds: step.seconds, outcome }
}

fn of_layer(layer: &Layer) -> Case {
    let outcome = match layer.result {
        "ok" => Outcome::Passed(layer.detail.clone()),
        "broken" => {
            let next = layer.next.as_ref().map(|next| format!("\nnext: {next}")).unwrap_or_default();
            Outcome::Failed(format!("{}{next}", layer.detail))
        }
        other => Outcome::Skipped(format!("{other} {}", layer.detail).trim().to_owned()),
    };
    Case { name: layer.name.to_string(), seconds: 0.0, outcome }
}

impl Case {
    fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    fn write(&self, suite: &str, xml: &mut String) {
        let inside = match &self.outcome {
            Outcome::Passed(note) if note.is_empty() => String::new(),
            Outcome::Passed(note) => format!("<system-out>{}</system-out>", escape(note)),
            Outcome::Skipped(why) => format!("<skipped message=\"{}\"/>", attribute(why)),
            Outcome::Failed(why) => {
                let first = why.lines().next().unwrap_or_default();
                format!("<failure message=\"{}\">{}</failure>", attribute(first), escape(why))
            }
        };
        let _ = writeln!(
            xml,
            "    <testcase classname=\"kedge.{suite}\" name=\"{}\" time=\"{:.3}\">{inside}</testcase>",
            attribute(&self.name),
            self.seconds
        );
    }
}

/// An attribute has one line.
fn attribute(text: &str) -> String {
    escape(text).replace(['\n', '\t'], " ")
}
