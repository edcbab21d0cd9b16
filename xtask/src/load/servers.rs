//! The servers that load is put on: child processes on free ports of the loopback interface, with all that they keep in a
//! folder that is removed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kedge_sim::pki::CertificateAuthority;
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::service::ServiceClient;
use kedge_sim::tls::Endpoint;

use crate::process::{Process, end_group};
use crate::wait::{Observation, wait_for};

/// The name of the hub that is measured.
pub(super) const HUB: &str = "hub.kedge.test";
const START_LIMIT: Duration = Duration::from_secs(20);
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Where load is put.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    /// The authority of its certificate, which is for `localhost`; without one it speaks no TLS.
    pub(super) ca: Option<PathBuf>,
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
    https: SocketAddr,
    ca: String,
    owner_key: SharedAccessKey,
    child: Child,
}

impl Hub {
    pub(super) async fn start(folder: &Path, programs: &Path) -> Result<Self> {
        let folder = folder.join("hub");
        let tls = Files::make(&folder)?;
        let (https, mqtt) = (free_address()?, free_address()?);
        let owner_key = SharedAccessKey::generate()?;
        let owner = folder.join("owner.key");
        crate::paths::write_private(&owner, owner_key.to_base64().expose().as_bytes())?;
        let config = folder.join("hub.toml");
        let text = format!(
            "host_name = \"{HUB}\"\nhttps = \"{https}\"\nmqtt = \"{mqtt}\"\ncertificate_file = {:?}\nkey_file = {:?}\n\
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
        let server = Server { name: "the hub", address: mqtt, ca: Some(tls.authority) };
        let hub = Self { server, https, ca: tls.authority_pem, owner_key, child };
        let service = hub.service()?;
        wait("the hub", START_LIMIT, async || Ok(service.health().await.map(drop)?)).await?;
        Ok(hub)
    }

    pub(super) fn service(&self) -> Result<ServiceClient> {
        let endpoint = Endpoint::at("localhost", self.https);
        Ok(ServiceClient::new(endpoint, HUB, self.owner_key.clone(), Some(&self.ca))?)
    }

    /// Its resident memory, in megabytes.
    pub(super) fn memory(&self) -> Result<f64> {
        super::memory_of(self.child.pid()?)
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
        let files = Files::make(&folder)?;
        let address = free_address()?;
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
        let server = Server { name: "mosquitto", address, ca: tls.then_some(files.authority) };
        Ok(Self { server, _child: child })
    }
}

/// A certificate for `localhost` with its key, and its authority.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
    authority_pem: String,
}

impl Files {
    fn make(folder: &Path) -> Result<Self> {
        crate::paths::private_folder(folder)?;
        let authority = CertificateAuthority::generate("KEdge load CA")?;
        let issued = authority.issue_server(&["localhost"], VALIDITY)?;
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
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
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
