//! The servers that load is put on: child processes on free ports of the loopback interface, with all that they keep in a
//! folder that is removed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kedge_sim::pki::CertificateAuthority;
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::service::ServiceClient;
use kedge_sim::tls::Endpoint;

use crate::bench::resident_megabytes;
use crate::process::{Process, end_group};
use crate::wait::{Observation, wait_for};

/// Where every client of a hub connects to, the edge's as well, so each hub has an address of its own.
const MQTT_PORT: u16 = 8883;
const LOCALHOST: &str = "localhost";
pub(super) const START_LIMIT: Duration = Duration::from_secs(20);
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Where load is put.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    /// The name of its certificate and the file with its authority; without them it speaks no TLS.
    pub(super) tls: Option<(String, PathBuf)>,
}

/// A child process that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Child(duct::Handle);

impl Child {
    pub(super) fn start(process: &Process) -> Result<Self> {
        Ok(Self(process.start()?))
    }

    pub(super) fn has_ended(&self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Its resident memory, in megabytes.
    pub(super) fn memory(&self) -> Result<f64> {
        let pid = self.pid()?;
        resident_megabytes(&fs_err::read_to_string(format!("/proc/{pid}/status"))?)
    }

    fn pid(&self) -> Result<u32> {
        self.0.pids().first().copied().context("the process has ended")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        end_group(&self.0);
    }
}

/// The hub's program.
pub(super) struct Hub {
    pub(super) server: Server,
    /// Its address and the port of its REST side, which is all that a daemon needs to find it.
    pub(super) name: String,
    pub(super) ca: PathBuf,
    pub(super) child: Child,
    https: SocketAddr,
    ca_pem: String,
    owner_key: SharedAccessKey,
}

impl Hub {
    pub(super) async fn start(folder: &Path, programs: &Path) -> Result<Self> {
        crate::paths::private_folder(folder)?;
        let mqtt = free_hub_address()?;
        let https = free_address(mqtt.ip())?;
        let (host, name) = (mqtt.ip().to_string(), https.to_string());
        let tls = Files::make(folder, &host)?;
        let owner_key = SharedAccessKey::generate()?;
        let owner = folder.join("owner.key");
        crate::paths::write_private(&owner, owner_key.to_base64().expose().as_bytes())?;
        let config = folder.join("hub.toml");
        let text = format!(
            "host_name = \"{name}\"\nhttps = \"{https}\"\nmqtt = \"{mqtt}\"\ncertificate_file = {:?}\nkey_file = {:?}\n\
             owner_key_file = {owner:?}\nstate_folder = {:?}\n",
            tls.certificate,
            tls.key,
            folder.join("state")
        );
        fs_err::write(&config, text)?;
        let process = Process::new("run the hub", programs.join("kedge-hub"))
            .args(["--config".as_ref(), config.as_os_str()])
            .envs([("KEDGE_LOG", "warn")])
            .log(&folder.join("hub.log"));
        let child = Child::start(&process)?;
        let server = Server { name: "the hub", address: mqtt, tls: Some((host, tls.authority.clone())) };
        let (ca, ca_pem) = (tls.authority, tls.authority_pem);
        let hub = Self { server, name, ca, child, https, ca_pem, owner_key };
        let service = hub.service()?;
        wait("the hub", START_LIMIT, async || Ok(service.health().await.map(drop)?)).await?;
        Ok(hub)
    }

    pub(super) fn service(&self) -> Result<ServiceClient> {
        let endpoint = Endpoint::at(self.https.ip().to_string(), self.https);
        Ok(ServiceClient::new(endpoint, &self.name, self.owner_key.clone(), Some(&self.ca_pem))?)
    }
}

/// Debian's mosquitto.
pub(super) struct Mosquitto {
    pub(super) server: Server,
    _child: Child,
}

impl Mosquitto {
    pub(super) async fn start(folder: &Path, tls: bool) -> Result<Self> {
        let folder = folder.join(if tls { "mosquitto-tls" } else { "mosquitto" });
        crate::paths::private_folder(&folder)?;
        let files = Files::make(&folder, LOCALHOST)?;
        let address = free_address(Ipv4Addr::LOCALHOST.into())?;
        let mut text = format!("listener {} {}\nallow_anonymous true\n", address.port(), address.ip());
        // As root it would otherwise become another user, who cannot read the key.
        if crate::preflight::is_root() {
            text += "user root\n";
        }
        if tls {
            let (chain, key) = (files.certificate.display(), files.key.display());
            text += &format!("certfile {chain}\nkeyfile {key}\n");
        }
        let config = folder.join("mosquitto.conf");
        fs_err::write(&config, text)?;
        let process = Process::new("run mosquitto", "/usr/sbin/mosquitto")
            .args(["-c".as_ref(), config.as_os_str()])
            .log(&folder.join("mosquitto.log"));
        let child = Child::start(&process)?;
        wait("mosquitto", START_LIMIT, async || {
            tokio::net::TcpStream::connect(address).await?;
            Ok(())
        })
        .await?;
        let tls = tls.then(|| (LOCALHOST.to_owned(), files.authority));
        let server = Server { name: "mosquitto", address, tls };
        Ok(Self { server, _child: child })
    }
}

/// A server's certificate with its key, and its authority.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
    authority_pem: String,
}

impl Files {
    fn make(folder: &Path, host: &str) -> Result<Self> {
        let authority = CertificateAuthority::generate("KEdge load CA")?;
        let issued = authority.issue_server(&[host], VALIDITY)?;
        let files = Self {
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
            authority: folder.join("ca.pem"),
            authority_pem: authority.certificate_pem().to_owned(),
        };
        fs_err::write(&files.certificate, issued.chain_pem)?;
        crate::paths::write_private(&files.key, issued.key_pem.expose().as_bytes())?;
        fs_err::write(&files.authority, &files.authority_pem)?;
        Ok(files)
    }
}

/// An address that nothing listens on. Somebody else may take it meanwhile, which the server then tells.
pub(super) fn free_address(ip: IpAddr) -> Result<SocketAddr> {
    Ok(TcpListener::bind((ip, 0))?.local_addr()?)
}

/// An address of the loopback network on which nobody has the port of hubs.
fn free_hub_address() -> Result<SocketAddr> {
    let [high, low, ..] = std::process::id().to_le_bytes();
    let mut addresses = (1..u8::MAX).map(|last| (Ipv4Addr::new(127, high.max(1), low, last), MQTT_PORT));
    let free = addresses.find(|address| TcpListener::bind(address).is_ok());
    Ok(free.context("no loopback address has port 8883 free")?.into())
}

pub(super) async fn wait(what: &str, limit: Duration, look: impl AsyncFn() -> Result<()>) -> Result<()> {
    let waited = wait_for(what, limit, || async {
        match look().await {
            Ok(()) => Observation::Ready(()),
            Err(error) => Observation::NotYet(format!("{error:#}")),
        }
    });
    Ok(waited.await?)
}
