//! The load section of `bench`: messages a second with QoS 1, and memory by the number of connections, of the real static
//! programs on the loopback interface, with Debian's mosquitto beside them. The same generator puts the load on each: on a
//! hub, and on the gateway of an edge device, whose hub has to get all of it.
//!
//! mosquitto keeps nothing of a message that nobody has subscribed to, while the hub acknowledges what is on disk: the
//! comparison is not in the hub's favour.

mod edge;
mod servers;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kedge_sim::identity::Identity;
use kedge_sim::load::Figures;
use kedge_sim::sas::{SharedAccessKey, sign, unix_seconds};
use serde_json::{Value, json};

use self::edge::Edge;
use self::servers::{Child, Hub, Mosquitto, Server};
use crate::bench::Measure;
use crate::preflight;
use crate::process::{Process, ProcessError};
use crate::session::Setup;
use crate::steps::binaries;
use crate::wait::{Observation, wait_for};

/// Clients that publish at once: enough that no server waits for them.
const PUBLISHERS: usize = 64;
/// Messages of each that may wait for their acknowledgement.
const WINDOW: usize = 16;
/// Bytes of a message.
const SIZE: usize = 256;
/// How long each server is measured.
const SECONDS: u64 = 10;
/// With how many connections the hub's memory is measured.
const CONNECTED: [usize; 2] = [1_000, 5_000];
/// Devices that are registered at once.
const REGISTRATIONS: usize = 8;
/// Messages a second.
const RATE: &str = "/s";
const LIMIT: Duration = Duration::from_secs(180);
const COMPILE_LIMIT: Duration = Duration::from_secs(20 * 60);
const TOKEN_SECONDS: u64 = 3600;

/// What mosquitto is measured with.
const BROKERS: [(bool, &str); 2] = [(false, "mosquitto, plain"), (true, "mosquitto, TLS")];
const NO_BROKER: &str = "mosquitto is not installed";
/// Looks at the memory of an idle server, of which none is lower than those before, until it counts as settled.
const STEADY_LOOKS: u32 = 30;

/// What is done, for a dry run.
#[must_use]
pub fn outline() -> String {
    let broker = if has_broker() { "mosquitto" } else { "mosquitto, once it is installed," };
    format!(
        "- the programs, compiled for release when they are not\n\
         - {PUBLISHERS} clients that publish with QoS 1 for {SECONDS} s, to the hub, to {broker} with and without TLS, and\n  \
           to the gateway of an edge device until its hub has all of it\n\
         - the memory of the hub with no, {} and {} devices connected, and that of the edge daemon, also after the load\n",
        CONNECTED[0], CONNECTED[1]
    )
}

fn has_broker() -> bool {
    preflight::absent(&preflight::LOAD).is_empty()
}

/// Measures.
///
/// # Errors
/// When a program cannot be compiled or does not do its work.
pub async fn measure(setup: &Setup) -> Result<Vec<Measure>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("compiling the programs");
    let compile = Process::new("compile KEdge's programs", cargo).limit(COMPILE_LIMIT);
    binaries::compilation(&setup.paths, "kedge-sim", compile).cancelled_by(&setup.cancel).run().await?;
    let folder = tempfile::tempdir()?;
    let load = Load { setup, folder: folder.path(), programs: binaries::folder(&setup.paths) };
    let mut measures = load.beside_mosquitto().await?;
    // Last is the one with TLS, which the hub speaks as well.
    let goal = measures.iter().rev().find(|measure| measure.unit == RATE).and_then(Measure::median);
    measures.extend(load.hub(goal).await?);
    measures.extend(load.edge().await?);
    Ok(measures)
}

struct Load<'a> {
    setup: &'a Setup,
    folder: &'a Path,
    /// Where the static programs are.
    programs: PathBuf,
}

impl Load<'_> {
    async fn beside_mosquitto(&self) -> Result<Vec<Measure>> {
        if !has_broker() {
            let none = |(_, name): (bool, &str)| Measure::missing(rate_title(name), RATE, NO_BROKER);
            return Ok(BROKERS.map(none).into());
        }
        let mut measures = Vec::new();
        for (tls, name) in BROKERS {
            eprintln!("load on {name}");
            let server = Mosquitto::start(self.folder, tls).await?;
            let accounts: Vec<_> = (0..PUBLISHERS).map(anonymous).collect();
            let figures = self.publish(&server.server, &accounts).await?;
            measures.extend(rates(name, &figures, None));
            drop(server);
        }
        Ok(measures)
    }

    async fn hub(&self, goal: Option<f64>) -> Result<Vec<Measure>> {
        let hub = Hub::start(&self.folder.join("hub"), &self.programs).await?;
        let mut memory = vec![megabytes("memory of the hub, nobody connected", settled(&hub.child).await?)];
        let most = CONNECTED.into_iter().max().unwrap_or_default();
        eprintln!("registering {most} devices");
        let accounts = self.register(&hub, most, None).await?;
        eprintln!("load on the hub");
        let figures = self.publish(&hub.server, &accounts[..PUBLISHERS]).await?;
        let mut measures = rates("hub", &figures, goal);
        let idle = settled(&hub.child).await?;
        memory.push(megabytes("memory of the hub after the load", idle));
        for count in CONNECTED {
            eprintln!("{count} devices connected");
            let used = self.held(&hub, &accounts[..count]).await?;
            memory.push(megabytes(&format!("memory of the hub, {count} connected"), used));
            let each = (used - idle) * 1000.0 / f64::from(u32::try_from(count)?);
            let per_connection =
                Measure::new(format!("memory per connection, {count} connected"), "kB", 30.0);
            memory.push(per_connection.with(each));
        }
        measures.extend(memory);
        Ok(measures)
    }

    async fn edge(&self) -> Result<Vec<Measure>> {
        let hub = Hub::start(&self.folder.join("upstream"), &self.programs).await?;
        let service = hub.service()?;
        service.register_edge_device(edge::DEVICE).await?;
        let accounts = self.register(&hub, PUBLISHERS, Some(edge::DEVICE)).await?;
        let edge = Edge::start(&self.folder.join("edge"), &self.programs, &hub).await?;
        let before = settled(&edge.child).await?;
        eprintln!("load on the edge");
        let figures = self.publish(&edge.server, &accounts).await?;
        let emptied = edge.emptied(&service, figures.sent).await?;
        let seconds = emptied.duration_since(figures.started).as_secs_f64();
        let through = Measure::told(rate_title("edge and hub"), RATE).with(figures.sent as f64 / seconds);
        let all = Measure::told("edge and hub, first sent to last arrived", "s").with(seconds);
        let mut measures = rates("edge gateway", &figures, None);
        measures.extend([through, all]);
        measures.push(megabytes("memory of the edge daemon, idle", before));
        measures.push(megabytes("memory of the edge daemon after the load", settled(&edge.child).await?));
        Ok(measures)
    }

    /// The hub's memory while these clients are connected.
    async fn held(&self, hub: &Hub, accounts: &[Value]) -> Result<f64> {
        let log = self.folder.join(format!("hold-{}.log", accounts.len()));
        let process = self.generator("hold", &hub.server, accounts)?.log(&log);
        let held = Child::start(&process)?;
        let expected = format!("connected {}", accounts.len());
        servers::wait("the connections", LIMIT, async || {
            let text = fs_err::read_to_string(&log)?;
            if text.contains(&expected) {
                return Ok(());
            }
            if held.has_ended() {
                bail!("the generator has ended: {}", text.trim());
            }
            bail!("not all are connected")
        })
        .await?;
        hub.child.memory()
    }

    async fn publish(&self, server: &Server, accounts: &[Value]) -> Result<Figures> {
        let options = [("--seconds", SECONDS), ("--window", WINDOW as u64), ("--size", SIZE as u64)];
        let options = options.map(|(name, value)| [name.to_owned(), value.to_string()]).concat();
        let read: Result<String, ProcessError> = self
            .generator("publish", server, accounts)?
            .args(options)
            .cancelled_by(&self.setup.cancel)
            .read()
            .await;
        serde_json::from_str(&read?).context("the generator's figures cannot be read")
    }

    fn generator(&self, what: &str, server: &Server, accounts: &[Value]) -> Result<Process> {
        let clients = self.folder.join("clients.json");
        crate::paths::write_private(&clients, &serde_json::to_vec(accounts)?)?;
        let mut process =
            Process::new(format!("put load on {}", server.name), self.programs.join("kedge-load"))
                .args([what, "--address", &server.address.to_string()])
                .args(["--clients".as_ref(), clients.as_os_str()])
                .limit(LIMIT);
        if let Some((name, ca)) = &server.tls {
            process = process.args(["--name", name]).args(["--ca".as_ref(), ca.as_os_str()]);
        }
        Ok(process)
    }

    /// Registers devices at the hub, as children of an edge device when there is one; their accounts.
    async fn register(&self, hub: &Hub, count: usize, parent: Option<&str>) -> Result<Vec<Value>> {
        let service = &hub.service()?;
        let registering = stream::iter(0..count).map(async |number| {
            let device = format!("load-{number:05}");
            let string = match parent {
                Some(parent) => service.register_leaf_device(&device, parent).await?,
                None => service.register_device(&device).await?,
            };
            let key = string.expose().rsplit_once("SharedAccessKey=").map_or("", |(_, key)| key);
            let key = SharedAccessKey::from_base64(key)?;
            let identity = Identity::device(&device)?;
            let expiry = unix_seconds(Timestamp::now()) + TOKEN_SECONDS;
            anyhow::Ok(json!({
                "clientId": identity.client_id(),
                "username": identity.username(&hub.name),
                "password": sign(&identity.resource(&hub.name), &key, expiry, None),
                "topic": format!("devices/{device}/messages/events/"),
            }))
        });
        registering.buffered(REGISTRATIONS).try_collect().await.context("failed to register devices")
    }
}

/// The resident memory of a server that has nothing to do, once it has given back what it does not need.
async fn settled(child: &Child) -> Result<f64> {
    let (least, looks) = (Cell::new(f64::INFINITY), Cell::new(0));
    let waited = wait_for("the memory to settle", LIMIT, || {
        let observation = match child.memory() {
            Ok(memory) if memory < least.get() => {
                least.set(memory);
                looks.set(0);
                Observation::NotYet(format!("{memory:.1} MB"))
            }
            Ok(memory) if looks.get() >= STEADY_LOOKS => Observation::Ready(memory),
            Ok(memory) => {
                looks.set(looks.get() + 1);
                Observation::NotYet(format!("{memory:.1} MB"))
            }
            Err(error) => Observation::Failed(format!("{error:#}")),
        };
        std::future::ready(observation)
    });
    Ok(waited.await?)
}

/// A client that needs no credentials.
fn anonymous(number: usize) -> Value {
    let device = format!("load-{number:05}");
    let topic = format!("devices/{device}/messages/events/");
    json!({ "clientId": device, "username": device, "password": "", "topic": topic })
}

fn rates(name: &str, figures: &Figures, goal: Option<f64>) -> Vec<Measure> {
    let rate = match goal {
        Some(goal) => Measure::at_least(rate_title(name), RATE, goal),
        None => Measure::told(rate_title(name), RATE),
    };
    let median = Measure::told(format!("acknowledged by {name}, half within"), "ms");
    let slow = Measure::told(format!("acknowledged by {name}, 99 % within"), "ms");
    vec![
        rate.with(figures.messages as f64 / figures.seconds),
        median.with(figures.median_milliseconds),
        slow.with(figures.slow_milliseconds),
    ]
}

fn rate_title(name: &str) -> String {
    format!("QoS 1 through {name}")
}

fn megabytes(name: &str, value: f64) -> Measure {
    Measure::told(name, "MB").with(value)
}
