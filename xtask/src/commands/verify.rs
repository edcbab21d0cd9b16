//! `cargo xtask verify`: walk the layers of what is up, from the engine to the hub.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;

use crate::context::Context;
use crate::deploy::target::Target;
use crate::edge;
use crate::evidence;
use crate::exit::{UNPROVED, code};
use crate::place::Place;
use crate::plan::Action;
use crate::progress::{Mark, Progress};
use crate::provisioning::{self, Kept, Redaction};
use crate::report::{CriticalPath, Environment, Report};
use crate::secret_input;
use crate::session::{Setup, result_word, write_report};
use crate::settings::{Hub, word};
use crate::verdict::Verdict;
use crate::verify::{self, Means, Proof, Scene};

/// Flags of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look at the edge in the cluster of this context of your kubeconfig, where `deploy` has brought it
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Where the Event-Hub-compatible connection string of your IoT Hub is: a file, `-` for standard input, or `env:NAME`
    #[arg(long, value_name = secret_input::VALUE)]
    events: Option<OsString>,
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
    let result = timed(&context.progress, Action::Telemetry(place), async {
        verify::telemetry_step(&context, place).await.map(|effect| effect.note)
    });
    let result = result.await;
    print(&context.findings().proof);
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

/// Shows that the walk goes on, and how it ended.
async fn timed(
    progress: &Progress,
    action: Action,
    walk: impl Future<Output = Result<String>>,
) -> Result<()> {
    let (step, started) = (action.id(), Instant::now());
    progress.begin(&step, "walk the layers");
    let result = walk.await;
    let (mark, note) = match &result {
        Ok(note) => (Mark::Done, note.as_str()),
        Err(_) => (Mark::Failed, ""),
    };
    progress.end(&step, mark, started.elapsed(), note);
    result.map(drop)
}

/// The same in the cluster of somebody else, for which this machine needs no engine.
async fn elsewhere(setup: Setup, name: &str) -> Result<()> {
    let started = Timestamp::now();
    let target = Target::open(&setup.paths.project, &setup.settings.deploy, Some(name)).await?;
    let kept = provisioning::kept(&setup.paths)?.and_then(|checked| checked.kept);
    if kept.is_some() {
        // With the wrong hub, a sound edge would be told to be broken. Somebody else may have the credentials.
        provisioning::fit(kept.as_ref(), &setup.settings)?;
    }
    // Our own hub may be up beside a cluster that is not ours.
    let own = match setup.settings.hub.kind {
        Hub::Local => setup.clone().attach().await.ok(),
        Hub::Azure => None,
    };
    let progress = Arc::new(Progress::default());
    let device =
        kept.as_ref().map_or(setup.settings.device.id.as_str(), |kept| kept.provisioning.device_id());
    let means = Means::Foreign(&target, own.as_deref());
    let events = setup.events.as_ref();
    let scene = Scene::other(means, &setup.settings, device, &progress, &setup.cancel, events);
    let place = Place::Cluster;
    let mut proof = Proof::default();
    let result = timed(&progress, Action::Telemetry(place), async {
        let (walked, result) = verify::prove(&scene).await;
        proof = walked;
        result.map(|()| format!("{} messages", proof.messages.len()))
    });
    let result = result.await;
    print(&proof);
    let runtime = scene.runtime_kind().unwrap_or(setup.settings.runtime.kind);
    let report = Report {
        schema: 1,
        command: "verify".to_owned(),
        started,
        ended: Timestamp::now(),
        seconds: Timestamp::now().duration_since(started).as_secs_f64(),
        result: result_word(result.as_ref().err()),
        error: result.as_ref().err().map(|error| format!("{error:#}")),
        verdict: result.as_ref().err().map(Verdict::of),
        environment: Environment {
            context: Some(target.context.clone()),
            on: Some(place.word()),
            cluster: setup.settings.cluster.name.clone(),
            kubernetes: target.client.apiserver_version().await.ok().map(|version| version.git_version),
            runtime: word(&runtime),
            hub: word(&setup.settings.hub.kind),
            ..Environment::default()
        },
        steps: Vec::new(),
        critical_path: CriticalPath::default(),
        layers: proof.layers,
        messages: proof.messages,
    };
    write(&setup, started, &progress, &report, own.as_deref(), kept.as_ref());
    result
}

/// Writes the report without any secret that is known here.
fn write(
    setup: &Setup,
    started: Timestamp,
    progress: &Progress,
    report: &Report,
    own: Option<&Context>,
    kept: Option<&Kept>,
) {
    let redact = |text: &str| {
        let mut text = own.map_or_else(|| text.to_owned(), |own| own.redact(text));
        if let Some(kept) = kept {
            text = Redaction::of(kept).apply(&text);
        }
        setup.events.as_ref().map_or_else(|| text.clone(), |events| events.redact(&text))
    };
    let folder = setup.paths.runs().join(started.strftime("%Y%m%dT%H%M%S%.3fZ").to_string());
    match report.write(&folder, redact) {
        Ok((path, _)) => {
            let path = path.strip_prefix(&setup.paths.project).unwrap_or(&path);
            progress.say(&format!("report: {}", path.display()));
        }
        Err(error) => progress.say(&format!("the report could not be written: {error:#}")),
    }
}

/// Prints the layers, if any were walked, each in one line; the error has the whole of what is wrong.
pub fn print(proof: &Proof) {
    for layer in &proof.layers {
        let detail = layer.detail.lines().next().unwrap_or_default();
        println!("{:13} {:12} {detail}", layer.name, layer.result);
    }
}
