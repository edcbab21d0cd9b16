//! `cargo xtask e2e`: up, verify, down, and a report of all three.

use anyhow::Result;
use jiff::Timestamp;

use crate::commands::{down, verify};
use crate::evidence;
use crate::execute::conclude;
use crate::plan::Action;
use crate::report::StepReport;
use crate::session::{Setup, reach, write_report};

/// Flags of `e2e`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave everything running, whatever the outcome
    #[arg(long)]
    keep: bool,
}

/// Proves the whole chain.
///
/// # Errors
/// When a step failed or a layer is broken; what was made is removed all the same.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let context = setup.open().await?;
    let mut records = reach(&context, &[Action::Telemetry]).await;
    let mut result = conclude(&mut records);
    let mut steps: Vec<_> = records.iter().map(StepReport::of).collect();
    verify::print(&context);
    if result.is_err() {
        evidence::keep(&context).await;
    }
    if args.keep {
        context.progress.say(
            "everything is kept; look at it with `cargo xtask status`, remove it with `cargo xtask down`",
        );
    } else {
        let started = Timestamp::now();
        let removed = down::remove_everything(&context.for_cleanup()).await;
        let last = steps.iter().max_by_key(|step| step.ended).map(|step| step.id.clone());
        steps.push(StepReport::of_cleanup(started, last, &removed));
        result = result.and(removed.map(drop));
    }
    write_report(&context, "e2e", steps, result.as_ref().err())?;
    result
}
