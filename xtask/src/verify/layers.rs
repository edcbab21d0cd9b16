//! One look at each layer, from the machine to the gateway in the edge.

use std::fmt;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde::Serialize;

use super::runtime::Found;
use super::scene::{Means, Scene};
use super::{real, simulated};
use crate::cluster;
use crate::place::Place;
use crate::wait::Observation;

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

impl Name {
    /// What helps when this layer is broken and nothing more is known.
    #[must_use]
    pub fn next(self) -> &'static str {
        match self {
            Self::Engine => "start the container engine, and run `cargo xtask up`",
            Self::Node => "run `cargo xtask up`: a node that does not recover is made anew",
            Self::Pod | Self::Container => {
                "run `cargo xtask logs edge` for its last words, then `cargo xtask up`"
            }
            Self::Systemd => "run `cargo xtask logs edge`; the units that failed are named there",
            Self::InnerEngine => "run `cargo xtask logs edge` for why docker.service does not run",
            Self::Runtime => "run `cargo xtask logs edge` for why the runtime's service does not run",
            Self::Agent => "compare the device's credentials and the hub's name with what the hub knows",
            Self::Module => "correct the module in the deployment manifest, and run `cargo xtask up`",
            Self::Gateway => "run `cargo xtask logs edge` for why the module does not connect",
            Self::Hub => "run `cargo xtask hub watch` to see what arrives, and from whom",
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
pub(super) async fn observe(scene: &Scene<'_>, name: Name) -> Observation<String> {
    let seen = match name {
        Name::Engine => engine(scene).await,
        Name::Node => node(scene).await,
        Name::Pod => pod(scene).await,
        Name::Container => container(scene).await,
        Name::Systemd => systemd(scene).await,
        Name::InnerEngine => {
            command(scene, &["docker", "info", "--format", "{{.ServerVersion}} {{.Driver}}"]).await
        }
        Name::Runtime | Name::Agent | Name::Module | Name::Gateway => runtime(scene, name).await,
        Name::Hub => Ok(Err("the hub is judged by its telemetry".into())),
    };
    match seen {
        Ok(Ok(fine)) => Observation::Ready(fine),
        Ok(Err(status)) => dead_or(scene, status).await,
        Err(error) => dead_or(scene, format!("{error:#}")).await,
    }
}

/// Waiting makes no sense for what has died.
async fn dead_or(scene: &Scene<'_>, status: String) -> Observation<String> {
    match scene.death().await {
        Some(death) => Observation::Failed(death),
        None => Observation::NotYet(status),
    }
}

/// What a look found: fine, or not fine, in words. An error means that one could not look.
pub(super) type Seen = std::result::Result<String, String>;

async fn engine(scene: &Scene<'_>) -> Result<Seen> {
    let Means::Own(context, _) = scene.means else { return Ok(Err("the engine is somebody else's".into())) };
    context.engine.ping().await.map(|()| Ok(context.engine.description()))
}

/// In a cluster of somebody else only the node that has the pod matters, and not everybody may look at nodes.
async fn node(scene: &Scene<'_>) -> Result<Seen> {
    let client = scene.client().await?;
    let nodes = Api::<Node>::all(client.clone());
    if let Means::Foreign(..) = scene.means {
        let pods = cluster::pods(&client, &scene.settings.deploy.namespace).await?;
        let Some(name) = pods.iter().find_map(|pod| pod.spec.as_ref()?.node_name.clone()) else {
            return Ok(Err(format!("no node has the pod: {}", cluster::describe_all(&pods))));
        };
        return Ok(match nodes.get(&name).await {
            Ok(node) if cluster::is_ready(&node) => Ok(described(&name, &node)),
            Ok(_) => Err(format!("the node {name} is not ready")),
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                Ok(format!("{name}; you may not look at nodes"))
            }
            Err(error) => return Err(error).with_context(|| format!("failed to look at the node {name}")),
        });
    }
    let nodes = nodes.list(&kube::api::ListParams::default()).await?.items;
    let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
    match nodes.iter().find(|node| !cluster::is_ready(node)) {
        Some(node) => Ok(Err(format!("the node {} is not ready", name(node)))),
        None if nodes.is_empty() => Ok(Err("the cluster has no node".into())),
        None => Ok(Ok(nodes.iter().map(name).collect::<Vec<_>>().join(", "))),
    }
}

/// What decides whether systemd and an engine can run on it.
fn described(name: &str, node: &Node) -> String {
    let Some(info) = node.status.as_ref().and_then(|status| status.node_info.as_ref()) else {
        return name.to_owned();
    };
    format!(
        "{name}: Linux {}, {}, {}",
        info.kernel_version, info.container_runtime_version, info.kubelet_version
    )
}

/// A pod that runs is enough for this layer. Kubernetes calls it ready only when all that follows is well, and
/// the walk is there to tell which of these is not.
async fn pod(scene: &Scene<'_>) -> Result<Seen> {
    let client = scene.client().await?;
    let pods = cluster::pods(&client, &scene.settings.deploy.namespace).await?;
    match pods.iter().find(|pod| cluster::is_pod_running(pod)) {
        Some(pod) => Ok(Ok(pod.metadata.name.clone().unwrap_or_default())),
        None => Ok(Err(cluster::describe_all(&pods))),
    }
}

/// One that has ended is told with its last lines.
async fn container(scene: &Scene<'_>) -> Result<Seen> {
    let Means::Own(context, place) = scene.means else { return Ok(Err("there is no container".into())) };
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
async fn systemd(scene: &Scene<'_>) -> Result<Seen> {
    let output = scene.run(&["systemctl", "is-system-running"]).await?;
    let state = output.text();
    Ok(if ["running", "degraded"].contains(&state) {
        Ok(state.to_owned())
    } else {
        Err(format!("systemd is {state}"))
    })
}

/// Runs a command in the edge; its words are the status.
async fn command(scene: &Scene<'_>, command: &[&str]) -> Result<Seen> {
    let output = scene.run(command).await?;
    let text = output.text().to_owned();
    Ok(if output.success { Ok(text) } else { Err(text) })
}

/// A layer of the runtime that is really there.
async fn runtime(scene: &Scene<'_>, name: Name) -> Result<Seen> {
    match (scene.runtime().await?, name) {
        (Found::Simulated { .. }, Name::Runtime) => {
            let active = command(scene, &["systemctl", "is-active", "aziot-edged.service"]).await?;
            Ok(active.map(|state| format!("{state}, simulated")))
        }
        (Found::Simulated { daemon }, _) => simulated::look(scene, daemon, name).await,
        (Found::Azure, _) => real::look(scene, name).await,
    }
}

/// Whether the runtime says that it cannot carry out its deployment.
pub(super) async fn is_refused(scene: &Scene<'_>) -> bool {
    match scene.runtime().await {
        Ok(Found::Simulated { daemon }) => simulated::is_refused(scene, daemon).await,
        Ok(Found::Azure) => real::is_refused(scene).await,
        Err(_) => false,
    }
}
