//! `cargo xtask e2e`: up, verify, down, and a report of all three.

use std::ffi::OsString;

use anyhow::Result;
use jiff::Timestamp;

use crate::cli::Format;
use crate::commands::{down, verify};
use crate::context::Context;
use crate::edge_config::SENSOR_MODULE;
use crate::evidence;
use crate::place::Place;
use crate::plan::Action;
use crate::process::find_on_path;
use crate::report::StepReport;
use crate::secret_input;
use crate::session::{Setup, carry_out, reach, write_report};
use crate::settings::{Hub, word};

/// Flags of `e2e`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the edge runs
    #[arg(long, value_enum, value_name = "PLACE", default_value_t = On::Cluster)]
    on: On,
    /// Leave everything running, whatever the outcome
    #[arg(long)]
    keep: bool,
    /// Where the Event-Hub-compatible connection string of your IoT Hub is: a file, `-` for standard input, or `env:NAME`
    #[arg(long, value_name = secret_input::VALUE)]
    events: Option<OsString>,
    /// How the result is told.
    #[command(flatten)]
    pub format: Format,
}

/// Where the edge runs, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum On {
    /// As a pod of the kind cluster.
    Cluster,
    /// As a container directly on the engine, without Kubernetes.
    Host,
}

impl From<On> for Place {
    fn from(on: On) -> Self {
        match on {
            On::Cluster => Self::Cluster,
            On::Host => Self::Host,
        }
    }
}

/// Proves the whole chain.
///
/// # Errors
/// When a step failed or a layer is broken; what was made is removed all the same.
pub async fn run(mut setup: Setup, args: &Args) -> Result<()> {
    let place = Place::from(args.on);
    setup.read_events(args.events.as_deref()).await?;
    let goals = [Action::Telemetry(place)];
    if setup.dry_run {
        let results = setup.results.clone();
        carry_out(setup, "e2e", &goals).await?;
        if !args.keep {
            results.line("then everything that was made is removed");
        }
        return Ok(());
    }
    let mut context = setup.open(&goals).await?;
    if cannot_be_proved(&context) {
        context.progress.say(
            "arrival at your hub will not be proved: neither `--events` is given nor is `az` here; what can be seen without \
             is proved",
        );
    }
    let (mut steps, result) = reach(&context, &goals).await?;
    verify::print(&context.results, &context.findings().proof);
    let failed = result.is_err();
    if failed {
        context = context.with_engine().await;
        evidence::collect(&context).await;
    }
    let removed = if args.keep {
        context.progress.say(
            "everything is kept; look at it with `cargo xtask status`, remove it with `cargo xtask down`",
        );
        Ok(())
    } else {
        clean_up(&context, &mut steps).await
    };
    let result = down::both(result, removed);
    write_report(&context, "e2e", steps, result.as_ref().err());
    if failed {
        evidence::pack(&context).await;
    }
    if result.is_ok() {
        context.progress.say(&proved(&context, place));
    }
    result
}

/// Whether it is known beforehand that nobody can say what arrives.
fn cannot_be_proved(context: &Context) -> bool {
    context.settings.hub.kind == Hub::Azure && context.events.is_none() && find_on_path("az").is_none()
}

async fn clean_up(context: &Context, steps: &mut Vec<StepReport>) -> Result<()> {
    let started = Timestamp::now();
    let work = async {
        let removed = down::remove_everything(&context.engine, &context.paths).await;
        removed.map(|inventory| format!("removed: {inventory}"))
    };
    let removed = context.progress.show("down", "remove everything that was made", work).await;
    let last = steps.iter().max_by_key(|step| step.ended).map(|step| step.id.clone());
    steps.push(StepReport::of_cleanup(started, last, &removed));
    removed.map(drop)
}

/// What was proved, in one sentence that does not claim more than it was.
fn proved(context: &Context, place: Place) -> String {
    let findings = context.findings();
    let messages = &findings.proof.messages;
    // As whom the module has really sent.
    let device = messages.first().map_or(context.device_id(), |message| message.device_id.as_str());
    let (count, settings) = (messages.len(), &context.settings);
    let hub = match settings.hub.kind {
        Hub::Local => settings.hub.host_name.as_str(),
        Hub::Azure => "your IoT Hub",
    };
    let runtime = word(&findings.runtime.unwrap_or(settings.runtime.kind));
    let kind = word(&settings.hub.kind);
    let tier = findings.security.as_ref().map(|found| format!(", {}", found.tier)).unwrap_or_default();
    format!(
        "proved: {count} messages of {device}/{SENSOR_MODULE} arrived at {hub} ({place}{tier}; {kind} hub, {runtime} runtime)"
    )
}
