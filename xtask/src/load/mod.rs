//! The load section of `bench`: messages a second with QoS 1, and memory by the number of connections, of the real static
//! programs on the loopback interface, with Debian's mosquitto beside them. The same generator puts the load on each.
//!
//! mosquitto keeps nothing of a message that nobody has subscribed to, while the hub acknowledges what is on disk: the
//! comparison is not in the hub's favour.

mod servers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kedge_sim::identity::Identity;
use kedge_sim::load::Figures;
use kedge_sim::sas::{SharedAccessKey, sign, unix_seconds};
use kedge_sim::service::ServiceClient;
use serde_json::{Value, json};

use self::servers::{Hub, Mosquitto, Server};
use crate::bench::{Measure, resident_megabytes};
use crate::process::{Process, ProcessError};
use crate::session::Setup;
use crate::steps::binaries;

/// Clients that publish at once.
const PUBLISHERS: usize = 16;
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

/// What is done, for a dry run.
#[must_use]
pub fn outline() -> String {
    format!(
        "- {PUBLISHERS} clients that publish with QoS 1 for {SECONDS} s, to the hub, and to mosquitto with and without TLS\n\
         - the memory of the hub with no, {} and {} devices connected, and after the load\n",
        CONNECTED[0], CONNECTED[1]
    )
}

/// Measures.
///
/// # Errors
/// When a program cannot be compiled or does not do its work.
pub async fn measure(setup: &Setup) -> Result<Vec<Measure>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("compiling the programs");
    let compile = Process::new("compile KEdge's programs", cargo).limit(COMPILE_LIMIT);
    binaries::compilation(&setup.paths, compile).cancelled_by(&setup.cancel).run().await?;
    let folder = tempfile::tempdir()?;
    let load = Load { setup, folder: folder.path(), programs: binaries::folder(&setup.paths) };
    let mut measures = load.beside_mosquitto().await?;
    // Last is the one with TLS, which the hub speaks as well.
    let goal = measures.iter().rev().find(|measure| measure.unit == RATE).and_then(Measure::median);
    measures.extend(load.hub(goal).await?);
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
        let mut measures = Vec::new();
        for (tls, name) in [(false, "mosquitto, plain"), (true, "mosquitto, TLS")] {
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
        let hub = Hub::start(self.folder, &self.programs).await?;
        let mut memory = vec![megabytes("memory of the hub, nobody connected", hub.memory()?)];
        let most = CONNECTED.into_iter().max().unwrap_or_default();
        eprintln!("registering {most} devices");
        let accounts = self.register(&hub.service()?, most).await?;
        eprintln!("load on the hub");
        let figures = self.publish(&hub.server, &accounts[..PUBLISHERS]).await?;
        let mut measures = rates("hub", &figures, goal);
        let idle = hub.memory()?;
        memory.push(megabytes("memory of the hub after the load", idle));
        for count in CONNECTED {
            eprintln!("{count} devices connected");
            let used = self.held(&hub, &accounts[..count]).await?;
            memory.push(megabytes(&format!("memory of the hub, {count} connected"), used));
            let each = (used - idle) * 1000.0 / f64::from(u32::try_from(count)?);
            let mut per_connection =
                Measure::new(format!("memory per connection, {count} connected"), "kB", 30.0);
            per_connection.values.push(each);
            memory.push(per_connection);
        }
        measures.extend(memory);
        Ok(measures)
    }

    /// The hub's memory while these clients are connected.
    async fn held(&self, hub: &Hub, accounts: &[Value]) -> Result<f64> {
        let log = self.folder.join(format!("hold-{}.log", accounts.len()));
        let process = self.generator("hold", &hub.server, accounts)?.log(&log);
        let held = servers::Child::start(&process)?;
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
        hub.memory()
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
        if let Some(ca) = &server.ca {
            process = process.args(["--name", "localhost"]).args(["--ca".as_ref(), ca.as_os_str()]);
        }
        Ok(process)
    }

    /// Registers devices at the hub; their accounts.
    async fn register(&self, service: &ServiceClient, count: usize) -> Result<Vec<Value>> {
        let registering = stream::iter(0..count).map(async |number| {
            let device = format!("load-{number:05}");
            let string = service.register_device(&device).await?;
            let key = string.expose().rsplit_once("SharedAccessKey=").map_or("", |(_, key)| key);
            let key = SharedAccessKey::from_base64(key)?;
            let identity = Identity::device(&device)?;
            let expiry = unix_seconds(Timestamp::now()) + TOKEN_SECONDS;
            anyhow::Ok(json!({
                "clientId": identity.client_id(),
                "username": identity.username(servers::HUB),
                "password": sign(&identity.resource(servers::HUB), &key, expiry, None),
                "topic": format!("devices/{device}/messages/events/"),
            }))
        });
        registering.buffered(REGISTRATIONS).try_collect().await.context("failed to register devices")
    }
}

/// A client that needs no credentials.
fn anonymous(number: usize) -> Value {
    let device = format!("load-{number:05}");
    let topic = format!("devices/{device}/messages/events/");
    json!({ "clientId": device, "username": device, "password": "", "topic": topic })
}

fn rates(name: &str, figures: &Figures, goal: Option<f64>) -> Vec<Measure> {
    let title = format!("QoS 1 through {name}");
    let mut rate = match goal {
        Some(goal) => Measure::at_least(title, RATE, goal),
        None => Measure::told(title, RATE),
    };
    rate.values.push(figures.messages as f64 / figures.seconds);
    let mut median = Measure::told(format!("acknowledged by {name}, half within"), "ms");
    median.values.push(figures.median_milliseconds);
    let mut slow = Measure::told(format!("acknowledged by {name}, 99 % within"), "ms");
    slow.values.push(figures.slow_milliseconds);
    vec![rate, median, slow]
}

fn megabytes(name: &str, value: f64) -> Measure {
    let mut measure = Measure::told(name, "MB");
    measure.values.push(value);
    measure
}

/// Resident memory of a process.
fn memory_of(pid: u32) -> Result<f64> {
    resident_megabytes(&fs_err::read_to_string(format!("/proc/{pid}/status"))?)
}
