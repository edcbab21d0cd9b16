//! `cargo xtask verify`: walk the layers of what is up, from the engine to the hub.

use std::ffi::OsString;

use anyhow::Result;
use jiff::Timestamp;

use crate::cli::Format;
use crate::edge;
use crate::evidence;
use crate::exit::{UNPROVED, code};
use crate::place::Place;
use crate::plan::Action;
use crate::report::{Environment, Report, Results};
use crate::secret_input;
use crate::session::{Setup, write_report};
use crate::verify::{self, Elsewhere, Proof};

/// What is shown while it goes on.
const WALK: &str = "walk the layers";

/// Flags of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look at the edge in the cluster of this context of your kubeconfig, where `deploy` has brought it
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Where the Event-Hub-compatible connection string of your IoT Hub is: a file, `-` for standard input, or `env:NAME`
    #[arg(long, value_name = secret_input::VALUE)]
    events: Option<OsString>,
    /// How the result is told.
    #[command(flatten)]
    pub format: Format,
}

/// Proves that telemetry arrives, now.
///
/// # Errors
/// [`crate::exit::Unproved`] with the first broken layer; [`crate::exit::NotProved`] when none is and nobody could say
/// whether telemetry arrives.
pub async fn run(mut setup: Setup, args: &Args) -> Result<()> {
    setup.read_events(args.events.as_deref()).await?;
    if let Some(name) = &args.context {
        return elsewhere(setup, name).await;
    }
    let context = setup.attach().await?;
    let place = edge::place(&context).await?;
    let walk = async { verify::telemetry_step(&context, place).await.map(|effect| effect.note) };
    let result = context.progress.show(&Action::Telemetry(place).id(), WALK, walk).await.map(drop);
    print(&context.results, &context.findings().proof);
    let broken = result.as_ref().is_err_and(|error| code(error) == UNPROVED);
    if broken {
        evidence::collect(&context).await;
    }
    write_report(&context, "verify", Vec::new(), result.as_ref().err());
    if broken {
        evidence::pack(&context).await;
    }
    result
}

/// The same in the cluster of somebody else, for which this machine needs no engine.
async fn elsewhere(setup: Setup, name: &str) -> Result<()> {
    let started = Timestamp::now();
    let elsewhere = Elsewhere::open(setup, name).await?;
    let scene = elsewhere.scene();
    let (settings, target) = (&elsewhere.setup.settings, &elsewhere.target);
    let place = Place::Cluster;
    let mut proof = Proof::default();
    let walk = async {
        let (walked, result) = verify::prove(&scene).await;
        proof = walked;
        result.map(|()| format!("{} messages", proof.messages.len()))
    };
    let result = elsewhere.progress.show(&Action::Telemetry(place).id(), WALK, walk).await.map(drop);
    print(&elsewhere.setup.results, &proof);
    let report = Report {
        environment: Environment {
            context: Some(target.context.clone()),
            on: Some(place.word()),
            kubernetes: target.client.apiserver_version().await.ok().map(|version| version.git_version),
            ..Environment::of(settings, scene.runtime_kind())
        }
        .confined(None, scene.security()),
        layers: proof.layers,
        messages: proof.messages,
        ..Report::of("verify", started, result.as_ref().err())
    };
    let Setup { paths, results, .. } = &elsewhere.setup;
    let redact = |text: &str| elsewhere.redact(text);
    report.publish(&paths.run(started), &paths.project, &elsewhere.progress, results, redact);
    result
}

/// Tells the layers, if any were walked, each in one line; the error has the whole of what is wrong.
pub fn print(results: &Results, proof: &Proof) {
    for layer in &proof.layers {
        let detail = layer.detail.lines().next().unwrap_or_default();
        results.line(&format!("{:13} {:12} {detail}", layer.name, layer.result));
    }
}
