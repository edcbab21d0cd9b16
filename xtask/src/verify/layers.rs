//! One look at each layer, from the machine to the gateway in the edge.

use std::fmt;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde::Serialize;
use serde_json::Value;

use crate::cluster;
use crate::context::Context;
use crate::edge;
use crate::edge_config::SENSOR_MODULE;
use crate::place::Place;
use crate::wait::Observation;

const EDGE_DAEMON: &str = "/usr/libexec/aziot/kedge-edged";

/// The layers between the machine and the hub, in the order in which each rests on the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// The container engine of the machine.
    Engine,
    /// The cluster's node.
    Node,
    /// The pod.
    Pod,
    /// The edge's container, where it runs directly on the engine.
    Container,
    /// systemd, process 1 of the edge.
    Systemd,
    /// The engine inside the edge.
    InnerEngine,
    /// The edge runtime's daemon.
    Runtime,
    /// The agent: connected to the hub, the deployment applied.
    Agent,
    /// The sensor's module.
    Module,
    /// The gateway that the module sends to.
    Gateway,
    /// The hub, where telemetry has to arrive.
    Hub,
}

impl Name {
    /// All layers of an edge in this place, in order.
    #[must_use]
    pub fn all(place: Place) -> &'static [Self] {
        const IN_THE_CLUSTER: [Name; 10] = [
            Name::Engine,
            Name::Node,
            Name::Pod,
            Name::Systemd,
            Name::InnerEngine,
            Name::Runtime,
            Name::Agent,
            Name::Module,
            Name::Gateway,
            Name::Hub,
        ];
        const ON_THE_HOST: [Name; 9] = [
            Name::Engine,
            Name::Container,
            Name::Systemd,
            Name::InnerEngine,
            Name::Runtime,
            Name::Agent,
            Name::Module,
            Name::Gateway,
            Name::Hub,
        ];
        match place {
            Place::Cluster => &IN_THE_CLUSTER,
            Place::Host(_) => &ON_THE_HOST,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Engine => "engine",
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Container => "container",
            Self::Systemd => "systemd",
            Self::InnerEngine => "inner-engine",
            Self::Runtime => "runtime",
            Self::Agent => "agent",
            Self::Module => "module",
            Self::Gateway => "gateway",
            Self::Hub => "hub",
        })
    }
}

/// One look at a layer below the hub.
pub(super) async fn observe(context: &Context, place: Place, name: Name) -> Observation<String> {
    let seen = match name {
        Name::Engine => context.engine.ping().await.map(|()| Ok(context.engine.description())),
        Name::Node => node(context).await,
        Name::Pod => pod(context).await,
        Name::Container => container(context, place).await,
        Name::Systemd => systemd(context, place).await,
        Name::InnerEngine => {
            command(context, place, &["docker", "info", "--format", "{{.ServerVersion}} {{.Driver}}"]).await
        }
        Name::Runtime => command(context, place, &["systemctl", "is-active", "aziot-edged.service"]).await,
        Name::Agent => health(context, place).await.map(|health| agent(&health)),
        Name::Module => health(context, place).await.map(|health| module(&health)),
        Name::Gateway => health(context, place).await.map(|health| gateway(&health)),
        Name::Hub => Ok(Err("the hub is judged by its telemetry".into())),
    };
    match seen {
        Ok(Ok(fine)) => Observation::Ready(fine),
        Ok(Err(status)) => dead_or(context, place, status).await,
        Err(error) => dead_or(context, place, format!("{error:#}")).await,
    }
}

/// Waiting makes no sense for what has died.
async fn dead_or(context: &Context, place: Place, status: String) -> Observation<String> {
    match edge::death(context, place).await {
        Some(death) => Observation::Failed(death),
        None => Observation::NotYet(status),
    }
}

/// What a look found: fine, or not fine, in words. An error means that one could not look.
type Seen = std::result::Result<String, String>;

async fn node(context: &Context) -> Result<Seen> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let nodes = Api::<Node>::all(client).list(&kube::api::ListParams::default()).await?.items;
    let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
    match nodes.iter().find(|node| !cluster::is_ready(node)) {
        Some(node) => Ok(Err(format!("the node {} is not ready", name(node)))),
        None if nodes.is_empty() => Ok(Err("the cluster has no node".into())),
        None => Ok(Ok(nodes.iter().map(name).collect::<Vec<_>>().join(", "))),
    }
}

/// A pod that runs is enough for this layer. Kubernetes calls it ready only when all that follows is well, and
/// the walk is there to tell which of these is not.
async fn pod(context: &Context) -> Result<Seen> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let pods = cluster::pods(&client, &context.settings.deploy.namespace).await?;
    match pods.iter().find(|pod| cluster::is_pod_running(pod)) {
        Some(pod) => Ok(Ok(pod.metadata.name.clone().unwrap_or_default())),
        None => Ok(Err(cluster::describe_all(&pods))),
    }
}

/// One that has ended is told with its last lines.
async fn container(context: &Context, place: Place) -> Result<Seen> {
    let name = context.settings.edge_container();
    Ok(match context.engine.container(&name).await? {
        Some(state) if state.running => {
            Ok(format!("{name}, {}privileged", if place.is_privileged() { "" } else { "un" }))
        }
        Some(_) => Err(format!("the container `{name}` does not run")),
        None => Err(format!("there is no container `{name}`")),
    })
}

/// As the pod's own probes see it: `degraded` is fine as long as nothing that the runtime stands on has failed, and
/// that is for the next layers to tell.
async fn systemd(context: &Context, place: Place) -> Result<Seen> {
    let output = edge::run(context, place, &["systemctl", "is-system-running"]).await?;
    let state = output.text();
    Ok(if ["running", "degraded"].contains(&state) {
        Ok(state.to_owned())
    } else {
        Err(format!("systemd is {state}"))
    })
}

/// Runs a command in the edge; its words are the status.
async fn command(context: &Context, place: Place, command: &[&str]) -> Result<Seen> {
    let output = edge::run(context, place, command).await?;
    let text = output.text().to_owned();
    Ok(if output.success { Ok(text) } else { Err(text) })
}

/// Whether the runtime says that it cannot carry out its deployment.
pub(super) async fn is_refused(context: &Context, place: Place) -> bool {
    health(context, place).await.is_ok_and(|health| refuses(&health))
}

fn refuses(health: &Value) -> bool {
    health.pointer("/deployment/status").and_then(Value::as_i64).is_some_and(|status| status >= 400)
}

/// What the edge daemon says of itself.
async fn health(context: &Context, place: Place) -> Result<Value> {
    let output = edge::run(context, place, &[EDGE_DAEMON, "health", "--json"]).await?;
    serde_json::from_str(&output.stdout)
        .with_context(|| format!("the edge daemon tells no health: {}", output.text()))
}

fn agent(health: &Value) -> Seen {
    let text = |pointer: &str| health.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    for identity in ["agent", "edgeHub"] {
        let state = text(&format!("/hub/{identity}"));
        if state != "connected" {
            return Err(format!("{identity} is {state}: {}", text("/hub/error")));
        }
    }
    let status = health.pointer("/deployment/status").and_then(Value::as_i64);
    let description = text("/deployment/description");
    match status {
        Some(200) => Ok(format!("deployment {} applied", health["deployment"]["version"])),
        Some(code) => Err(format!("the deployment has status {code}: {description}")),
        None => Err("no deployment has arrived yet".into()),
    }
}

fn module(health: &Value) -> Seen {
    let modules = health["modules"].as_array().map(Vec::as_slice).unwrap_or_default();
    match modules.iter().find(|module| module["name"] == SENSOR_MODULE) {
        Some(module) if module["status"] == "running" => Ok(format!("{SENSOR_MODULE} is running")),
        Some(module) => Err(format!(
            "{SENSOR_MODULE} is {}: {}",
            module["status"].as_str().unwrap_or("unknown"),
            module["description"].as_str().unwrap_or_default()
        )),
        None => Err(format!("{SENSOR_MODULE} is not there")),
    }
}

fn gateway(health: &Value) -> Seen {
    let clients: Vec<_> = health
        .pointer("/gateway/clients")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if clients.iter().any(|client| client.rsplit('/').next() == Some(SENSOR_MODULE)) {
        Ok(format!("connected: {}", clients.join(", ")))
    } else {
        Err(format!("{SENSOR_MODULE} is not connected; connected are: {}", clients.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn healthy() -> Value {
        json!({
            "hub": { "agent": "connected", "edgeHub": "connected", "error": null },
            "deployment": { "version": 2, "status": 200, "description": "" },
            "modules": [{ "name": "tempSensor", "status": "running", "description": "" }],
            "gateway": { "clients": ["kedge-device/tempSensor"] },
        })
    }

    #[test]
    fn a_healthy_edge_is_fine_in_every_layer() {
        assert_eq!(agent(&healthy()).unwrap(), "deployment 2 applied");
        assert_eq!(module(&healthy()).unwrap(), "tempSensor is running");
        assert_eq!(gateway(&healthy()).unwrap(), "connected: kedge-device/tempSensor");
    }

    #[test]
    fn each_kind_of_trouble_is_told_by_its_own_layer() {
        let mut health = healthy();
        health["hub"] = json!({ "agent": "connected", "edgeHub": "disconnected", "error": "401" });
        assert_eq!(agent(&health).unwrap_err(), "edgeHub is disconnected: 401");
        let mut health = healthy();
        health["deployment"] =
            json!({ "version": 2, "status": 406, "description": "tempSensor: no such image" });
        assert_eq!(agent(&health).unwrap_err(), "the deployment has status 406: tempSensor: no such image");
        assert!(refuses(&health) && !refuses(&healthy()) && !refuses(&json!({})));
        health["modules"] = json!([]);
        assert_eq!(module(&health).unwrap_err(), "tempSensor is not there");
        health["gateway"]["clients"] = json!(["kedge-device/other"]);
        assert!(gateway(&health).is_err());
        assert!(agent(&json!({})).is_err() && module(&json!(null)).is_err() && gateway(&json!([])).is_err());
    }
}
