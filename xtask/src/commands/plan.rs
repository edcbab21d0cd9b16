//! `cargo xtask plan`: what `up` would do and why. It changes nothing.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use crate::plan::{Action, Plan, Step, Work};
use crate::preview::Preview;
use crate::report::Results;
use crate::session::Setup;

/// Flags of `plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the plan.
///
/// # Errors
/// When something is in the way, after the plan was printed.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let preview = Preview::of(setup, &[Action::Pod]).await?;
    preview.show(&Results::of(args.json.then_some("plan")))?;
    preview.verdict()
}

impl Preview {
    /// Prints the preview.
    ///
    /// # Errors
    /// Never in practice; JSON could be refused.
    pub fn show(&self, results: &Results) -> Result<()> {
        if results.is_json() {
            results.give(&serde_json::to_string_pretty(&self.to_json())?);
        } else {
            print!("{}", self.to_text());
        }
        Ok(())
    }

    /// The preview for people: a line for each package that would be installed, and the plan.
    #[must_use]
    pub fn to_text(&self) -> String {
        let install =
            self.install.iter().map(|tool| format!("+ install       {}: {}\n", tool.package, tool.purpose));
        install.collect::<String>() + &self.plan.to_text()
    }

    /// The preview for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = self.plan.to_json();
        value["install"] = self.install.iter().map(|tool| tool.package).collect();
        value
    }
}

impl Plan {
    /// The plan for people: a line for each step, in an order in which they could be done one after the other.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let (mark, why) = describe(step);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{mark} {:13} {why}", step.action.id());
            if mark == '~' && !step.needs.is_empty() {
                let _ = writeln!(text, "  {:13} after {}", "", list(&step.needs));
            }
        }
        let count = |wanted: char| self.steps.iter().filter(|step| describe(step).0 == wanted).count();
        let _ = match (count('~'), count('?')) {
            (0, 0) => {
                writeln!(text, "nothing to do: all {} parts are as they are described", self.steps.len())
            }
            (due, open) => writeln!(
                text,
                "steps: {}; with something to do (~): {due}; to be looked at again after these (?): {open}",
                self.steps.len()
            ),
        };
        text
    }

    /// The plan for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let step = |step: &Step| {
            let work = match &step.work {
                Work::Nothing(note) => json!({ "work": "nothing", "found": note }),
                Work::Due(reason) => json!({ "work": "due", "reason": reason }),
                Work::Open(needs) => {
                    json!({ "work": "open", "after": needs.iter().map(|it| it.id()).collect::<Vec<_>>() })
                }
                Work::Blocked(reason) => json!({ "work": "blocked", "reason": reason }),
            };
            let mut value = json!({
                "id": step.action.id(),
                "purpose": step.action.purpose(),
                "needs": step.needs.iter().map(|it| it.id()).collect::<Vec<_>>(),
                "limitSeconds": step.limit.as_secs(),
            });
            if let (Value::Object(all), Value::Object(more)) = (&mut value, work) {
                all.extend(more);
            }
            value
        };
        json!({ "converged": self.is_converged(), "steps": self.steps.iter().map(step).collect::<Vec<_>>() })
    }
}

fn describe(step: &Step) -> (char, String) {
    let purpose = step.action.purpose();
    match &step.work {
        Work::Nothing(note) => ('=', note.clone()),
        Work::Due(reason) => ('~', format!("{purpose}: {reason}")),
        Work::Open(needs) => ('?', format!("{purpose}, unless it is fine after {}", list(needs))),
        Work::Blocked(reason) => ('!', reason.clone()),
    }
}

fn list(actions: &[Action]) -> String {
    actions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Condition, Observed, Shape};

    #[test]
    fn a_plan_says_what_is_done_why_and_after_what() {
        let mut observed: Observed = Action::leading_to(&[Action::Device], Shape::SIMULATED)
            .into_iter()
            .map(|action| (action, Condition::Holds("there".into())))
            .collect();
        observed.insert(Action::Hub, Condition::Differs("its container has stopped".into()));
        let plan = Plan::new(&[Action::Device], Shape::SIMULATED, &observed);
        let text = plan.to_text();
        assert!(text.contains("~ hub           start the local IoT Hub: its container has stopped\n                after network, image-hub\n"), "{text}");
        assert!(text.contains("? device "), "{text}");
        assert!(
            text.ends_with("with something to do (~): 1; to be looked at again after these (?): 1\n"),
            "{text}"
        );
        assert_eq!(plan.to_json()["converged"], false);
    }
}
