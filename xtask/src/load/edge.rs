//! Load through an edge device: the daemon's program as the gateway of leaf devices, in front of a hub of its own.
//!
//! There is no engine: the deployment has no modules. The gateway acknowledges what is in its store; the hub has a message
//! when the store has been emptied of it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use kedge_sim::edge::management::ask_health;
use kedge_sim::edge::state::StateFolder;
use kedge_sim::secret::Secret;
use kedge_sim::service::{ServiceClient, TelemetryFilter};
use serde_json::{Value, json};

use super::servers::{Child, Hub, START_LIMIT, Server, free_address, wait};
use crate::process::Process;
use crate::wait::{Observation, wait_for};

/// The edge device.
pub(super) const DEVICE: &str = "load-edge";
/// The name of the gateway, which is in its certificate.
const HOST_NAME: &str = "edge.kedge.test";

/// The daemon's program.
pub(super) struct Edge {
    pub(super) server: Server,
    pub(super) child: Child,
    socket: PathBuf,
}

impl Edge {
    /// Registers the device at the hub, and starts it.
    pub(super) async fn start(folder: &Path, programs: &Path, hub: &Hub) -> Result<Self> {
        let service = hub.service()?;
        service.apply_configuration_content(DEVICE, &deployment()).await?;
        let connection_string = service.register_edge_device(DEVICE).await?;
        let gateway = free_address(hub.server.address.ip())?;
        let (config, socket) = (folder.join("config.toml"), folder.join("mgmt.sock"));
        let state = folder.join("state");
        crate::paths::write_private(&config, config_toml(folder, &connection_string).as_bytes())?;
        // It is made where the daemon looks for it, and found there by the daemon.
        let ca = folder.join("ca.pem");
        fs_err::write(&ca, StateFolder::new(&state).edge_ca(DEVICE)?.certificate_pem())?;
        let process = Process::new("run the edge daemon", programs.join("kedge-edged"))
            .args(["run".as_ref(), "--config".as_ref(), config.as_os_str()])
            .args(["--state".as_ref(), state.as_os_str()])
            .args(["--socket".as_ref(), socket.as_os_str()])
            .args(["--gateway", &gateway.to_string()])
            .envs([("SSL_CERT_FILE", &hub.ca)])
            .log(&folder.join("edge.log"));
        let child = Child::start(&process)?;
        let tls = Some((HOST_NAME.to_owned(), ca));
        let edge = Self { server: Server { name: "the edge", address: gateway, tls }, child, socket };
        edge.wait_until_ready(&service).await?;
        Ok(edge)
    }

    /// Until it is connected and has its routes.
    async fn wait_until_ready(&self, service: &ServiceClient) -> Result<()> {
        wait("the edge daemon", START_LIMIT, async || {
            let health = ask_health(&self.socket).await?;
            if health.hub.edge_hub != "connected" {
                bail!("{}", health.hub.error.unwrap_or_default());
            }
            let twin = service.module_twin(DEVICE, "$edgeHub").await?;
            let reported = &twin["properties"]["reported"]["lastDesiredStatus"];
            if reported["code"] != 200 {
                bail!("its routes are not in force: {reported}");
            }
            Ok(())
        })
        .await
    }

    /// When the last of so many messages arrived at the hub, which has nothing else.
    pub(super) async fn emptied(&self, service: &ServiceClient, count: u64) -> Result<Timestamp> {
        let before_last = count.checked_sub(1).context("no message was sent")?;
        let filter = TelemetryFilter::default();
        let look = async || {
            let queued = ask_health(&self.socket).await?.gateway.queued;
            // Offsets count from 1, so this is a look at the last message alone.
            let page = service.telemetry(&filter, before_last, std::time::Duration::ZERO).await?;
            let last = page.messages.last().map(|message| message.enqueued_time_utc);
            anyhow::Ok((queued, last))
        };
        let waited = wait_for("the messages at the hub", super::LIMIT, || async {
            match look().await {
                Ok((0, Some(last))) => Observation::Ready(last),
                Ok((queued, _)) => Observation::NotYet(format!("{queued} messages wait in the edge's store")),
                Err(error) => Observation::NotYet(format!("{error:#}")),
            }
        });
        Ok(waited.await?)
    }
}

fn config_toml(folder: &Path, connection_string: &Secret) -> String {
    let no_engine = format!("unix://{}", folder.join("docker.sock").display());
    format!(
        "hostname = \"{HOST_NAME}\"\n[provisioning]\nsource = \"manual\"\nconnection_string = \"{}\"\n\
         [moby_runtime]\nuri = {no_engine:?}\n",
        connection_string.expose()
    )
}

/// No modules, and all that devices send goes to the hub.
fn deployment() -> Value {
    let system = |name: &str| json!({ "type": "docker", "status": "running", "restartPolicy": "always", "settings": { "image": name } });
    json!({ "modulesContent": {
        "$edgeAgent": { "properties.desired": {
            "schemaVersion": "1.1",
            "runtime": { "type": "docker", "settings": {} },
            "systemModules": { "edgeAgent": system("edge-agent"), "edgeHub": system("edge-hub") },
            "modules": {},
        } },
        "$edgeHub": { "properties.desired": {
            "schemaVersion": "1.1",
            "routes": { "upstream": "FROM /messages/* INTO $upstream" },
            "storeAndForwardConfiguration": { "timeToLiveSecs": 7200 },
        } },
    } })
}
