//! `cargo xtask soak`: telemetry at an even pace while the hub is stopped, the edge killed and the pod deleted, each several
//! times; then whether everything that was acknowledged is at the hub, in order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kedge_sim::load::{ledger, producer};
use kedge_sim::retry::pause;
use serde_json::json;

use crate::chaos::strike::{delete_pod, strike};
use crate::commands::down;
use crate::context::Context;
use crate::execute::Interrupted;
use crate::exit::{Unproved, Usage};
use crate::place::Place;
use crate::plan::{Action, Shape};
use crate::session::{Setup, reach, write_report};
use crate::soak::judge::{Arrival, Happened, Judgement, judge};
use crate::soak::{Fault, LEDGERS, PRODUCER, deployment, schedule};
use crate::steps::hub;
use crate::verify::Scene;
use crate::wait::{Observation, wait_for};
use crate::{chaos, cluster, edge, evidence};

/// How long the hub is away.
const AWAY: Duration = Duration::from_secs(15);
/// How long anything may take to be well again.
const RECOVERY: Duration = Duration::from_secs(240);
/// A hub that gets nothing new for so long has got all there is.
const SILENCE: SignedDuration = SignedDuration::from_secs(60);

/// Flags of `soak`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For how long faults happen
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    minutes: u32,
    /// Messages a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Leave everything running, whatever the outcome
    #[arg(long)]
    keep: bool,
}

impl Args {
    fn time(&self) -> Duration {
        Duration::from_secs(60) * self.minutes
    }

    /// The number of the last message: as many as are sent within the time.
    fn count(&self) -> u64 {
        self.time().as_secs() * u64::from(self.rate)
    }
}

/// Brings the deployment up with a producer in it, carries the faults out, and judges.
///
/// # Errors
/// [`Unproved`] when something is missing, out of order or came again without a reason.
pub async fn run(mut setup: Setup, args: &Args) -> Result<()> {
    if setup.settings.shape() != Shape::SIMULATED {
        let what = "a soak kills the simulated runtime and counts at the local hub: leave out `--hub` and `--runtime`";
        return Err(Usage(what.into()).into());
    }
    if setup.dry_run {
        println!("would be sent: {} messages, {} a second", args.count(), args.rate);
        for (at, fault) in schedule(args.time()) {
            println!("after {:>4} s {}", at.as_secs(), fault.words());
        }
        return Ok(());
    }
    let folder = setup.paths.project.join("target/kedge/soak");
    fs_err::create_dir_all(&folder)?;
    let name = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let source = fs_err::read_to_string(setup.paths.project.join(&setup.settings.device.deployment))?;
    let manifest = folder.join(format!("{name}-deployment.json"));
    fs_err::write(&manifest, deployment(&source, args.rate, args.count(), &name)?.to_string())?;
    setup.settings.device.deployment =
        manifest.to_str().context("the path of the project is not UTF-8")?.into();
    let goals = [Action::Pod];
    let mut context = setup.open(&goals).await?;
    let (steps, mut result) = reach(&context, &goals).await?;
    if result.is_ok() {
        let soak = Soak {
            context: Arc::clone(&context),
            ledger: format!("{LEDGERS}/{name}"),
            arrivals: Arc::default(),
        };
        result = soak.prove(args, &folder.join(format!("{name}.json"))).await;
    }
    let failed = result.is_err();
    if failed {
        context = context.with_engine().await;
        evidence::collect(&context).await;
    }
    if !args.keep {
        let removed = down::remove_everything(&context.engine, &context.paths).await;
        let removed = removed.map(|all| context.progress.say(&format!("removed: {all}")));
        result = down::both(result, removed);
    }
    write_report(&context, "soak", steps, result.as_ref().err());
    if failed {
        evidence::pack(&context).await;
    }
    result
}

struct Soak {
    context: Arc<Context>,
    /// Where the edge sees the producer's ledger.
    ledger: String,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl Soak {
    async fn prove(&self, args: &Args, report: &std::path::Path) -> Result<()> {
        let reader = tokio::spawn(read(Arc::clone(&self.context), Arc::clone(&self.arrivals)));
        let proof = self.carry_out(args).await;
        reader.abort();
        let (faults, judgement) = proof?;
        let kept = json!({
            "schema": 1, "started": self.context.started, "ended": Timestamp::now(), "rate": args.rate,
            "minutes": args.minutes, "faults": faults, "proved": judgement.is_proved(), "judgement": judgement,
        });
        fs_err::write(report, format!("{kept:#}\n"))?;
        self.say(&format!("kept: {}", crate::paths::shown(report, &self.context.paths.project)));
        for duplicates in &judgement.duplicates {
            self.say(&format!("{} again after {}", duplicates.count, duplicates.fault.words()));
        }
        if judgement.is_proved() {
            self.say(&format!("proved: {}", judgement.sentence()));
            return Ok(());
        }
        let next = "look into the logs that were kept for what happened at the fault that is named";
        let (layer, detail) = ("telemetry".into(), judgement.sentence());
        Err(Unproved { layer, detail, next: next.into() }.into())
    }

    async fn carry_out(&self, args: &Args) -> Result<(Vec<Happened>, Judgement)> {
        self.wait("the producer's first message", RECOVERY, async || {
            if self.arrivals().is_empty() { Err("none yet".to_owned()) } else { Ok(()) }
        })
        .await?;
        let (began, mut faults) = (tokio::time::Instant::now(), Vec::new());
        for (at, fault) in schedule(args.time()) {
            self.pause(at.saturating_sub(began.elapsed())).await?;
            self.say(&format!("after {} s {}", began.elapsed().as_secs(), fault.words()));
            let began = Timestamp::now();
            self.strike(fault)
                .await
                .with_context(|| format!("after {}, it was not well again", fault.words()))?;
            faults.push(Happened { fault, began, ended: Timestamp::now() });
        }
        self.say("waiting for the rest");
        let limit = args.time() + RECOVERY;
        self.wait("the end of the producer", limit, async || match self.acknowledged().await {
            Ok(last) if last >= args.count() => Ok(()),
            Ok(last) => Err(format!("{last} of {} are acknowledged", args.count())),
            Err(error) => Err(format!("{error:#}")),
        })
        .await?;
        let acknowledged = self.acknowledged().await?;
        self.wait("the rest at the hub", limit, async || self.has_all(acknowledged)).await?;
        Ok((faults.clone(), judge(acknowledged, &self.arrivals(), &faults)))
    }

    /// Whether everything is there, or nothing more comes.
    fn has_all(&self, acknowledged: u64) -> Result<(), String> {
        let arrivals = self.arrivals();
        let Some(last) = arrivals.last() else { return Err("nothing has arrived".into()) };
        if judge(acknowledged, &arrivals, &[]).missing == 0
            || Timestamp::now().duration_since(last.time) > SILENCE
        {
            return Ok(());
        }
        Err(format!("the last one is {} of {acknowledged}", last.number))
    }

    /// Lets a fault happen, and waits until everything is well again.
    async fn strike(&self, fault: Fault) -> Result<()> {
        let context = &self.context;
        match fault {
            Fault::HubStopped => {
                let name = context.settings.hub_container();
                context.engine.kill(&name).await?;
                self.pause(AWAY).await?;
                context.engine.start(&name).await?;
                self.wait("the hub", RECOVERY, async || {
                    let service = hub::service(context).await.map_err(|error| format!("{error:#}"))?;
                    service.health().await.map(drop).map_err(|error| error.to_string())
                })
                .await?;
            }
            Fault::EdgeKilled => {
                strike(&Scene::own(context, edge::place(context).await?), chaos::Fault::EdgeKilled).await?;
            }
            Fault::PodDeleted => self.delete_pod().await?,
        }
        self.wait("the edge", RECOVERY, async || self.is_edge_ready().await).await
    }

    async fn is_edge_ready(&self) -> Result<(), String> {
        let place = edge::place(&self.context).await.map_err(|error| format!("{error:#}"))?;
        match edge::run(&self.context, place, &["/usr/local/bin/kedge-health", "ready"]).await {
            Ok(health) if health.success => Ok(()),
            Ok(health) => Err(health.text().to_owned()),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    async fn delete_pod(&self) -> Result<()> {
        let scene = Scene::own(&self.context, Place::Cluster);
        let old = delete_pod(&scene).await?;
        let (client, namespace) = (scene.client().await?, &self.context.settings.deploy.namespace);
        self.wait("a new pod", RECOVERY, async || {
            let pods = cluster::pods(&client, namespace).await.map_err(|error| format!("{error:#}"))?;
            let is_new = |pod: &Pod| pod.metadata.name.as_ref() != Some(&old) && cluster::is_pod_ready(pod);
            if pods.iter().any(is_new) { Ok(()) } else { Err(cluster::describe_all(&pods)) }
        })
        .await
    }

    /// The last number that was acknowledged to the producer.
    async fn acknowledged(&self) -> Result<u64> {
        let place = edge::place(&self.context).await?;
        // A line may have been cut off.
        let lines = edge::run(&self.context, place, &["tail", "-n", "3", &self.ledger]).await?;
        if !lines.success {
            bail!("the ledger cannot be read: {}", lines.text());
        }
        Ok(ledger::last_number(&lines.stdout))
    }

    async fn wait(
        &self,
        what: &str,
        limit: Duration,
        look: impl AsyncFn() -> Result<(), String>,
    ) -> Result<()> {
        let waiting = wait_for(what, limit, || async {
            match look().await {
                Ok(()) => Observation::Ready(()),
                Err(status) => Observation::NotYet(status),
            }
        });
        match self.context.cancel.run_until_cancelled(waiting).await {
            Some(waited) => Ok(waited?),
            None => Err(Interrupted.into()),
        }
    }

    async fn pause(&self, time: Duration) -> Result<()> {
        if pause(time, &self.context.cancel).await { Ok(()) } else { Err(Interrupted.into()) }
    }

    fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, text: &str) {
        self.context.progress.say(text);
    }
}

/// Reads the producer's messages for as long as the soak takes.
async fn read(context: Arc<Context>, arrivals: Arc<Mutex<Vec<Arrival>>>) {
    hub::follow(&context, PRODUCER, context.started, &context.cancel, |message| {
        let number = message.properties.get(producer::NUMBER).and_then(|number| number.parse().ok());
        let new = number.map(|number| Arrival { number, time: message.enqueued_time_utc });
        arrivals.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
    })
    .await;
}
