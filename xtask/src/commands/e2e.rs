//! `cargo xtask e2e`: up, verify, down, and a report of all three.

use anyhow::Result;
use jiff::Timestamp;

use crate::commands::{down, verify};
use crate::context::Context;
use crate::edge_config::SENSOR_MODULE;
use crate::evidence;
use crate::plan::Action;
use crate::progress::Mark;
use crate::report::StepReport;
use crate::session::{Setup, carry_out, reach, write_report};

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
    let goals = [Action::Telemetry];
    if setup.dry_run {
        carry_out(setup, "e2e", &goals).await?;
        if !args.keep {
            println!("then everything that was made is removed");
        }
        return Ok(());
    }
    let context = setup.open().await?;
    let (mut steps, result) = reach(&context, &goals).await?;
    verify::print(&context);
    if result.is_err() {
        evidence::keep(&context).await;
    }
    let removed = if args.keep {
        context.progress.say(
            "everything is kept; look at it with `cargo xtask status`, remove it with `cargo xtask down`",
        );
        Ok(())
    } else {
        clean_up(&context, &mut steps).await
    };
    // Both are told when both went wrong: what was to be proved, and what is left behind.
    let result = match (result, removed) {
        (Err(error), Err(left)) => Err(error.context(format!("{left:#}"))),
        (result, removed) => result.and(removed),
    };
    write_report(&context, "e2e", steps, result.as_ref().err());
    if result.is_ok() {
        context.progress.say(&proved(&context));
    }
    result
}

async fn clean_up(context: &Context, steps: &mut Vec<StepReport>) -> Result<()> {
    let started = Timestamp::now();
    context.progress.begin("down", "remove everything that was made");
    let removed = down::remove_everything(&context.engine, &context.paths).await;
    let removed = removed.map(|inventory| format!("removed: {inventory}"));
    let (mark, note) = match &removed {
        Ok(note) => (Mark::Done, note.as_str()),
        Err(_) => (Mark::Failed, ""),
    };
    context.progress.end("down", mark, Timestamp::now().duration_since(started).unsigned_abs(), note);
    let last = steps.iter().max_by_key(|step| step.ended).map(|step| step.id.clone());
    steps.push(StepReport::of_cleanup(started, last, &removed));
    removed.map(drop)
}

/// What was proved, in one sentence that does not claim more than it was.
fn proved(context: &Context) -> String {
    let (count, device) = (context.findings().proof.messages.len(), &context.settings.device.id);
    let hub = &context.settings.hub.host_name;
    format!(
        "proved: {count} messages of {device}/{SENSOR_MODULE} arrived at {hub} (local hub, simulated runtime)"
    )
}
