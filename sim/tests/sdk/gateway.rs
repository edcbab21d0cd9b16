//! The edge daemon's program on an address of its own, with a leaf device below it; it can be killed and started again.

use std::path::PathBuf;
use std::process::Stdio;

use kedge_sim::secret::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::hub::{Hub, MQTT, own_address};

const EDGE: &str = "edge-1";
pub(crate) const LEAF: &str = "leaf-1";

pub(crate) struct Gateway {
    /// Its address, which is also its name.
    host: String,
    /// The hub's authority, which it trusts.
    trusted: PathBuf,
    folder: TempDir,
    leaf: Secret,
    child: Child,
}

impl Gateway {
    pub(crate) async fn start(hub: &Hub) -> Self {
        let service = hub.service();
        let edge = service.register_edge_device(EDGE).await.unwrap();
        let leaf = service.register_leaf_device(LEAF, EDGE).await.unwrap();
        service.apply_configuration_content(EDGE, &deployment()).await.unwrap();
        let (folder, host) = (tempfile::tempdir().unwrap(), own_address().to_string());
        // There is no engine, and with no modules there is nothing to do for one.
        let config = format!(
            "hostname = \"{host}\"\n[provisioning]\nsource = \"manual\"\nconnection_string = \"{}\"\n\
             [moby_runtime]\nuri = \"unix://{}\"\nnetwork = \"azure-iot-edge\"\n",
            edge.expose(),
            folder.path().join("docker.sock").display()
        );
        fs_err::write(folder.path().join("config.toml"), config).unwrap();
        let trusted = hub.ca();
        let child = spawn(&folder, &host, &trusted);
        Self { host, trusted, folder, leaf, child }
    }

    /// What the SDK needs to connect as the leaf. It trusts the gateway's authority and knows nothing of the hub's.
    pub(crate) fn create(&self) -> Value {
        let connection_string = format!("{};GatewayHostName={}", self.leaf.expose(), self.host);
        json!({"do": "create", "connection_string": connection_string, "ca": self.ca()})
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("state/certd/aziot-edged-ca.pem")
    }

    /// Ends it at once, as a crash does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again with what it knew.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.folder, &self.host, &self.trusted);
    }
}

impl Drop for Gateway {
    /// A test that has failed tells what the gateway has seen.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs_err::read_to_string(self.folder.path().join("edge.log")).unwrap_or_default();
            eprintln!("the gateway has written:\n{log}");
        }
    }
}

/// A deployment without modules that routes everything to the hub.
fn deployment() -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}},
            "systemModules": {
                "edgeAgent": {"type": "docker", "settings": {"image": "a"}},
                "edgeHub": {
                    "type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "h"},
                },
            },
            "modules": {},
        }},
        "$edgeHub": {"properties.desired": {
            "schemaVersion": "1.1",
            "routes": {"all": {"route": "FROM /messages/* INTO $upstream"}},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
        }},
    }})
}

fn spawn(folder: &TempDir, host: &str, trusted: &std::path::Path) -> Child {
    let path = |name: &str| folder.path().join(name);
    let log = fs_err::OpenOptions::new().create(true).append(true).open(path("edge.log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kedge-edged"));
    command.env_clear().env("SSL_CERT_FILE", trusted).arg("run");
    command.arg("--gateway").arg(format!("{host}:{MQTT}"));
    for (flag, name) in [("--config", "config.toml"), ("--state", "state"), ("--socket", "mgmt.sock")] {
        command.arg(flag).arg(path(name));
    }
    command.stderr(Stdio::from(log.into_file())).kill_on_drop(true).spawn().unwrap()
}
