//! The hub's program on an address of its own, which can be killed and started again with what it knows.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kedge_sim::http::{HttpClient, Method, Request};
use kedge_sim::pki::CertificateAuthority;
use kedge_sim::sas::{OWNER_POLICY, SharedAccessKey, sign, unix_seconds};
use kedge_sim::service::{ServiceClient, TelemetryFilter, TelemetryMessage};
use kedge_sim::tls::{Endpoint, Trust, client_config};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::sdk::LIMIT;

/// MQTT over TLS, the port that SDKs connect to.
pub(crate) const MQTT: u16 = 8883;
/// HTTPS, and with it MQTT over WebSockets.
const HTTPS: u16 = 443;

static NEXT: AtomicU8 = AtomicU8::new(1);

pub(crate) struct Hub {
    /// Its address, which is also its name: nothing has to be resolved.
    pub(crate) host: String,
    pub(crate) folder: TempDir,
    https: SocketAddr,
    ca_pem: String,
    owner_key: SharedAccessKey,
    child: Child,
}

impl Hub {
    pub(crate) async fn start() -> Self {
        let address = own_address();
        let host = address.to_string();
        let folder = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::generate("KEdge test CA").unwrap();
        let issued = authority.issue_server(&[&host], Duration::from_secs(24 * 3600)).unwrap();
        let owner_key = SharedAccessKey::generate().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs_err::write(&path, text).unwrap();
            path
        };
        let certificate = file("hub.pem", &issued.chain_pem);
        let key = file("hub.key", issued.key_pem.expose());
        let owner = file("owner.key", owner_key.to_base64().expose());
        file("ca.pem", authority.certificate_pem());
        let https = https_address(address).await;
        let config = format!(
            "host_name = \"{host}\"\nhttps = \"{https}\"\nmqtt = \"{host}:{MQTT}\"\ncertificate_file = {certificate:?}\n\
             key_file = {key:?}\nowner_key_file = {owner:?}\nstate_folder = {:?}\n",
            folder.path().join("state")
        );
        file("hub.toml", &config);
        let child = spawn(&folder);
        let ca_pem = authority.certificate_pem().to_owned();
        let hub = Self { host, folder, https, ca_pem, owner_key, child };
        hub.answers().await;
        hub
    }

    /// The file with the authority that its clients trust.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Whether it listens on the port of MQTT over WebSockets, which is root's.
    pub(crate) fn has_web_sockets(&self) -> bool {
        self.https.port() == HTTPS
    }

    pub(crate) fn service(&self) -> ServiceClient {
        let endpoint = Endpoint::at(self.host.as_str(), self.https);
        ServiceClient::new(endpoint, self.host.as_str(), self.owner_key.clone(), Some(&self.ca_pem)).unwrap()
    }

    /// Sends a request to its REST side as the owner, which must work.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let expiry = unix_seconds(Timestamp::now()) + 300;
        let token = sign(&self.host, &self.owner_key, expiry, Some(OWNER_POLICY));
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?api-version=2021-04-12"))
            .header("authorization", token)
            .header("content-type", "application/json");
        let tls = client_config(Trust::SystemAnd(Some(&self.ca_pem))).unwrap();
        let client = HttpClient::new(Endpoint::at(self.host.as_str(), self.https), tls);
        let answer = client.send(request.body(body.to_string().into()).unwrap()).await.unwrap();
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(answer.status().is_success(), "{path}: {} {text}", answer.status());
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Ends it at once, as a crash does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again with what it knew.
    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(&self.folder);
        self.answers().await;
    }

    async fn answers(&self) {
        let service = self.service();
        let up = async {
            while service.health().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, up).await.expect("the hub answers");
    }

    /// The telemetry from an offset on, once there are `count` messages.
    pub(crate) async fn telemetry(&self, count: usize) -> Vec<TelemetryMessage> {
        let (service, mut messages, mut after) = (self.service(), Vec::new(), 0);
        let enough = async {
            while messages.len() < count {
                let wait = Duration::from_secs(5);
                let page = service.telemetry(&TelemetryFilter::default(), after, wait).await.unwrap();
                after = page.next;
                messages.extend(page.messages);
            }
        };
        timeout(LIMIT, enough).await.unwrap_or_else(|_| panic!("there are fewer than {count} messages"));
        messages
    }
}

impl Drop for Hub {
    /// A test that has failed tells what the hub has seen.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs_err::read_to_string(self.folder.path().join("hub.log")).unwrap_or_default();
            eprintln!("the hub has written:\n{log}");
        }
    }
}

/// An address that nobody else has; tests of other processes take other networks of the loopback interface.
pub(crate) fn own_address() -> Ipv4Addr {
    let [high, low, ..] = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The port of HTTPS where this process may have it, else one that is free.
async fn https_address(address: Ipv4Addr) -> SocketAddr {
    match TcpListener::bind((address, HTTPS)).await {
        Ok(_) => (address, HTTPS).into(),
        Err(_) => TcpListener::bind((address, 0)).await.unwrap().local_addr().unwrap(),
    }
}

fn spawn(folder: &TempDir) -> Child {
    let log =
        fs_err::OpenOptions::new().create(true).append(true).open(folder.path().join("hub.log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_kedge-hub"))
        .arg("--config")
        .arg(folder.path().join("hub.toml"))
        .stdout(Stdio::from(log.into_file()))
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
