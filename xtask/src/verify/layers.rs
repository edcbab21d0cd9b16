//! One look at each layer, from the machine to the gateway in the edge.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde::Serialize;

use super::cause::{Cause, Kind, Lasting};
use super::runtime::Found;
use super::scene::{Means, Scene};
use super::{Layer, diagnosis, real, security, simulated, units};
use crate::cluster;
use crate::cluster::pulls::Pulls;
use crate::place::Place;
use crate::wait::Observation;

/// How long the API server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

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
    /// What keeps the edge from the machine.
    Security,
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
        const IN_THE_CLUSTER: [Name; 11] = [
            Name::Engine,
            Name::Node,
            Name::Pod,
            Name::Security,
            Name::Systemd,
            Name::InnerEngine,
            Name::Runtime,
            Name::Agent,
            Name::Module,
            Name::Gateway,
            Name::Hub,
        ];
        const ON_THE_HOST: [Name; 10] = [
            Name::Engine,
            Name::Container,
            Name::Security,
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
            Place::Host => &ON_THE_HOST,
        }
    }
}

impl Name {
    /// The layers of an edge in this place, of which one was found broken while the edge was waited for.
    pub(super) fn up_to(place: Place, broken: Layer) -> Vec<Layer> {
        let mut found = Some(broken);
        let layer = |&name: &Self| match found.take_if(|layer| layer.name == name) {
            Some(layer) => layer,
            None if found.is_some() => Layer { name, result: "ok", detail: String::new(), next: None },
            None => Layer { name, result: super::NOT_REACHED, detail: String::new(), next: None },
        };
        Self::all(place).iter().map(layer).collect()
    }

    /// What helps when this layer is broken and nothing more is known.
    #[must_use]
    pub fn next(self) -> &'static str {
        match self {
            Self::Engine => "start the container engine, and run `cargo xtask up`",
            Self::Node => "run `cargo xtask up`: a node that does not recover is made anew",
            Self::Pod | Self::Container => {
                "run `cargo xtask logs edge` for its last words, then `cargo xtask up`"
            }
            Self::Security => {
                "see with `cargo xtask status` why nobody can look into the edge, and run `cargo xtask up`"
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

    /// The same for an edge in the cluster of somebody else.
    #[must_use]
    pub fn next_elsewhere(self) -> &'static str {
        match self {
            Self::Engine | Self::Node => {
                "see that the context leads to a cluster which you can reach: login, VPN, proxy"
            }
            Self::Pod | Self::Container => {
                "see `kubectl describe pod` in its namespace, then run `cargo xtask deploy`"
            }
            Self::Security => "run `cargo xtask deploy`, which tells what works there",
            Self::Systemd | Self::InnerEngine | Self::Runtime | Self::Gateway => {
                "see `kubectl logs` of the pod, which has the journal of its services"
            }
            Self::Agent => self.next(),
            Self::Module => "correct the module in the deployment that the hub has for the device",
            Self::Hub => "see what arrives at the hub, and from whom: `az iot hub monitor-events`",
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
            Self::Security => "security",
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

/// One look at a layer below the hub: what is fine about it, or why it is not.
pub(super) async fn look(scene: &Scene<'_>, name: Name) -> std::result::Result<String, Cause> {
    let seen = match name {
        Name::Security => return security::look(scene).await,
        Name::Engine => engine(scene).await,
        Name::Node => answered(node(scene)).await,
        Name::Pod => answered(pod(scene)).await,
        Name::Container => container(scene).await,
        Name::Systemd => systemd(scene).await,
        Name::InnerEngine => {
            command(scene, &["docker", "info", "--format", "{{.ServerVersion}} {{.Driver}}"]).await
        }
        Name::Runtime | Name::Agent | Name::Module | Name::Gateway => runtime(scene, name).await,
        Name::Hub => Ok(Err("the hub is judged by its telemetry".into())),
    };
    let status = match seen {
        Ok(Ok(fine)) => return Ok(fine),
        Ok(Err(status)) => status,
        Err(error) => format!("{error:#}"),
    };
    // Waiting makes no sense for what has died.
    Err(match scene.death().await {
        Some(death) => Cause { kind: Kind::Ended, text: death, next: None },
        None => diagnosis::of(scene, name, status).await,
    })
}

/// The same while one waits for the layer: what lasts for too long will not come.
pub(super) async fn observe(scene: &Scene<'_>, name: Name, lasting: &Lasting) -> Observation<String> {
    match look(scene, name).await {
        Ok(fine) => Observation::Ready(fine),
        Err(cause) => {
            let (layer, cause) = beneath(scene, name, cause).await;
            if lasting.is_over(layer, &cause) {
                Observation::Failed(cause.text)
            } else {
                Observation::NotYet(cause.text)
            }
        }
    }
}

/// What a layer stands on may break while one waits for it, and then that is the cause.
async fn beneath(scene: &Scene<'_>, name: Name, cause: Cause) -> (Name, Cause) {
    if !matches!(scene.means, Means::Own(..) | Means::Foreign(..)) {
        return (name, cause);
    }
    let below = scene.layers().iter().take_while(|layer| **layer != name);
    for &layer in below.filter(|layer| !matches!(layer, Name::Engine | Name::Node)) {
        if let Err(cause) = look(scene, layer).await {
            return (layer, cause);
        }
    }
    (name, cause)
}

/// An API server that is paused, or whose machine is, would let one wait.
async fn answered(look: impl Future<Output = Result<Seen>>) -> Result<Seen> {
    let silent = || Ok(Err(format!("the API server does not answer within {} s", ANSWER_LIMIT.as_secs())));
    tokio::time::timeout(ANSWER_LIMIT, look).await.unwrap_or_else(|_| silent())
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
    if let Means::Foreign(target, _) = scene.means {
        target.version().await?;
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
    let mut pods = cluster::pods(&client, &scene.settings.deploy.namespace).await?;
    // One that is about to end says nothing of the one to come.
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    match pods.iter().find(|pod| cluster::is_pod_running(pod) && cluster::is_container_running(pod)) {
        Some(pod) => Ok(Ok(pod.metadata.name.clone().unwrap_or_default())),
        None => {
            let mut status = cluster::describe_all(&pods);
            // Kubernetes does not say why while it backs off.
            if status.contains("ImagePullBackOff") {
                let pulls = Pulls::look(&client, &scene.settings.deploy.namespace, &pods).await;
                status.extend(pulls.unwrap_or_default().reason.map(|reason| format!("; {reason}")));
            }
            Ok(Err(status))
        }
    }
}

/// One that has ended is told with its last lines.
async fn container(scene: &Scene<'_>) -> Result<Seen> {
    let Means::Own(context, _) = scene.means else { return Ok(Err("there is no container".into())) };
    let name = context.settings.edge_container();
    Ok(match context.engine.container(&name).await? {
        Some(state) if state.running => Ok(name),
        Some(_) => Err(format!("the container `{name}` does not run")),
        None => Err(format!("there is no container `{name}`")),
    })
}

/// A service that has failed is told here, unless a later layer stands on it.
async fn systemd(scene: &Scene<'_>) -> Result<Seen> {
    let output = scene.run(&["systemctl", "is-system-running"]).await?;
    Ok(match output.text() {
        "running" => Ok("running".to_owned()),
        "degraded" => match units::obstacle(scene, Name::Systemd).await {
            Some(unit) => Err(format!("systemd is degraded: {}", unit.text)),
            None => Ok("degraded".to_owned()),
        },
        state => Err(format!("systemd is {state}")),
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
