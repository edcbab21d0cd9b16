//! `cargo xtask chaos`: let faults happen to what is up, one after the other, and measure how soon it is well again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::chaos::continuity::{Numbered, longest_silence, missing};
use crate::chaos::strike::strike;
use crate::chaos::{Fault, Survived};
use crate::confirm::{NotAgreed, agreed};
use crate::context::Context;
use crate::edge;
use crate::edge_config::SENSOR_MODULE;
use crate::execute::Interrupted;
use crate::exit::{Unproved, Usage};
use crate::place::Place;
use crate::session::Setup;
use crate::settings::Hub;
use crate::steps::hub;
use crate::verify::{Elsewhere, Name, Scene, prove};
use crate::wait::{Observation, wait_for};

/// How long anything may take to be well again.
const RECOVERY: Duration = Duration::from_secs(300);
/// How far behind the hub those who follow it may be.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Flags of `chaos`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these faults [default: all that can happen to what is up]
    #[arg(value_enum, value_name = "FAULT")]
    faults: Vec<Fault>,
    /// How often
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Do it to the edge in the cluster of this context of your kubeconfig, where `deploy` has brought it
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Lets the faults happen.
///
/// # Errors
/// [`NotAgreed`] when nobody has agreed; [`Unproved`] when the edge does not come back, or messages are missing.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    match &args.context {
        None => here(setup, args).await,
        Some(name) => elsewhere(setup, args, name).await,
    }
}

async fn here(setup: Setup, args: &Args) -> Result<()> {
    let _lock = setup.lock()?;
    let context = setup.clone().attach().await?;
    let place = edge::place(&context).await?;
    let hub = setup.settings.hub.kind;
    let watched = (hub == Hub::Local).then(|| Arc::clone(&context));
    let chaos = Chaos { scene: Scene::own(&context, place), watched };
    let what = format!("the edge of `{}`", setup.settings.cluster.name);
    chaos.carry_out(&setup, args, &what, &Fault::possible(place, hub, true)).await
}

/// The same to the edge in the cluster of somebody else.
async fn elsewhere(setup: Setup, args: &Args, name: &str) -> Result<()> {
    let elsewhere = Elsewhere::open(setup, name).await?;
    let chaos = Chaos { scene: elsewhere.scene(), watched: elsewhere.own.clone() };
    let what = format!("the edge in the cluster of the context `{name}`");
    let possible = Fault::possible(Place::Cluster, elsewhere.setup.settings.hub.kind, false);
    chaos.carry_out(&elsewhere.setup, args, &what, &possible).await
}

struct Chaos<'a> {
    scene: Scene<'a>,
    /// Through which our own hub can be asked for telemetry.
    watched: Option<Arc<Context>>,
}

impl Chaos<'_> {
    async fn carry_out(&self, setup: &Setup, args: &Args, what: &str, possible: &[Fault]) -> Result<()> {
        let faults = chosen(&args.faults, possible)?;
        if setup.dry_run {
            faults.iter().for_each(|fault| println!("{fault:18} {}", fault.words()));
            return Ok(());
        }
        let words = faults.iter().map(|fault| fault.words()).collect::<Vec<_>>().join(", ");
        if !setup.yes && !agreed(&format!("let this happen to {what}: {words}?"))? {
            return Err(NotAgreed("nobody has agreed, and nothing was changed; `--yes` agrees".into()).into());
        }
        self.recover().await.context("the edge is not well to begin with")?;
        let stop = CancellationToken::new();
        let arrivals = Arrivals::default();
        if let Some(context) = &self.watched {
            let (context, stop, numbered) = (Arc::clone(context), stop.clone(), Arc::clone(&arrivals.0));
            tokio::spawn(async move {
                hub::follow(&context, SENSOR_MODULE, Timestamp::now(), &stop, |message| {
                    let new = Numbered::of(message);
                    numbered.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
                })
                .await;
            });
        }
        let mut survived = Vec::new();
        for fault in faults.iter().cycle().take(faults.len() * args.rounds as usize) {
            survived.push(self.survive(*fault, &arrivals).await?);
        }
        stop.cancel();
        self.judge(&survived, &missing(&arrivals.lock()), args.json)
    }

    /// Lets one fault happen, and waits until telemetry is proved to arrive again.
    async fn survive(&self, fault: Fault, arrivals: &Arrivals) -> Result<Survived> {
        let (began, since) = (Instant::now(), Timestamp::now());
        let work = async {
            strike(&self.scene, fault).await?;
            self.recover().await.map(|()| "well again".to_owned())
        };
        let shown = self.scene.progress.show(&fault.to_string(), fault.words(), work).await;
        shown.with_context(|| format!("after {}, it was not well again", fault.words()))?;
        let seconds = began.elapsed();
        if self.watched.is_some() {
            arrivals.catch_up(Timestamp::now()).await;
        }
        let silence = longest_silence(&arrivals.lock(), since);
        Ok(Survived { fault, seconds: seconds.as_secs_f64(), silence })
    }

    /// Waits until all layers are well, and messages that are newer than the look at them have arrived.
    async fn recover(&self) -> Result<()> {
        let waiting = wait_for("the edge", RECOVERY, || async {
            match Box::pin(prove(&self.scene.from_now())).await.1 {
                Ok(()) => Observation::Ready(()),
                Err(error) => Observation::NotYet(format!("{error:#}")),
            }
        });
        match self.scene.cancel.run_until_cancelled(waiting).await {
            Some(waited) => Ok(waited?),
            None => Err(Interrupted.into()),
        }
    }

    fn judge(&self, survived: &[Survived], missing: &[String], json: bool) -> Result<()> {
        if json {
            let all = serde_json::json!({ "schema": 1, "survived": survived, "missing": missing });
            println!("{all:#}");
        } else {
            println!("{:18} {:>12} {:>16}", "FAULT", "WELL AFTER", "LONGEST SILENCE");
            for one in survived {
                let silence = one.silence.map_or_else(|| "?".to_owned(), |seconds| format!("{seconds:.1} s"));
                println!("{:18} {:>10.1} s {silence:>16}", one.fault, one.seconds);
            }
        }
        if missing.is_empty() {
            let how = if self.watched.is_some() { ", without a gap" } else { "" };
            self.scene
                .progress
                .say(&format!("survived: telemetry arrives after each of {} faults{how}", survived.len()));
            return Ok(());
        }
        let (layer, next) = (Name::Hub.to_string(), Name::Hub.next().to_owned());
        Err(Unproved { layer, detail: format!("messages were lost: {}", missing.join(", ")), next }.into())
    }
}

/// The faults that are to happen.
fn chosen(wanted: &[Fault], possible: &[Fault]) -> Result<Vec<Fault>, Usage> {
    match wanted.iter().find(|fault| !possible.contains(fault)) {
        Some(other) => {
            let possible: Vec<_> = possible.iter().map(ToString::to_string).collect();
            Err(Usage(format!(
                "`{other}` cannot happen to what is up; possible are: {}",
                possible.join(", ")
            )))
        }
        None if wanted.is_empty() => Ok(possible.to_vec()),
        None => Ok(wanted.to_vec()),
    }
}

/// What has arrived since the faults began.
#[derive(Debug, Default)]
struct Arrivals(Arc<Mutex<Vec<Numbered>>>);

impl Arrivals {
    /// Waits until a message is here that has arrived later: whoever follows is behind the hub by a moment, and the message
    /// that ends a silence tells how long that was.
    async fn catch_up(&self, time: Timestamp) {
        let look = || {
            let is_here = self.lock().iter().any(|message| message.time >= time);
            std::future::ready(if is_here {
                Observation::Ready(())
            } else {
                Observation::NotYet("nothing new".into())
            })
        };
        // Without it, the silence is told as far as it is known.
        let _ = wait_for("what arrives", CATCH_UP, look).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Numbered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_happen_is_chosen() {
        let possible = [Fault::ModuleKilled, Fault::EdgeKilled];
        assert_eq!(chosen(&[], &possible).unwrap(), possible);
        assert_eq!(chosen(&[Fault::EdgeKilled], &possible).unwrap(), [Fault::EdgeKilled]);
        let error = chosen(&[Fault::PodDeleted], &possible).unwrap_err().to_string();
        assert_eq!(
            error,
            "`pod-deleted` cannot happen to what is up; possible are: module-killed, edge-killed"
        );
    }
}
