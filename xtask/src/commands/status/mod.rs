//! `cargo xtask status`: what is up, as the engine, the cluster, the edge and the hub tell it, or what `deploy` has brought to a
//! context. Every look has a limit, so that one part that hangs does not hide the others.

mod cluster;
mod device;
mod inside;
mod table;

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::credentials::Credentials;
use crate::deploy::target::Target;
use crate::edge::Way;
use crate::engine::{ContainerState, Engine, Inventory};
use crate::provisioning;
use crate::session::Setup;
use crate::settings::Hub;

/// How long one look may take; what is well answers within a fraction of it.
const LIMIT: Duration = Duration::from_secs(4);
/// How long the engines may take: Podman is started for it.
const ENGINE_LIMIT: Duration = Duration::from_secs(20);
/// The same for a cluster that is far away.
const FAR_LIMIT: Duration = Duration::from_secs(15);

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show what `deploy` has brought to the cluster of this context of your kubeconfig, in the place of what is up here
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// One part of the system.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Part {
    name: String,
    /// `up`, `down`, `absent`, or `yours` for what KEdge neither makes nor removes.
    state: &'static str,
    detail: String,
    /// Of a container in the edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// How often it was started again, where somebody counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    restarts: Option<i64>,
    /// Since when it runs, or has been there.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
}

impl Part {
    fn new(name: impl Into<String>, state: &'static str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), state, detail: detail.into(), ..Self::default() }
    }

    fn since(self, since: Option<Timestamp>) -> Self {
        Self { since, ..self }
    }
}

/// The word for whether something is as it should be.
fn up(is_up: bool) -> &'static str {
    if is_up { "up" } else { "down" }
}

/// Does the work within a limit; what takes longer is an error that says who does not answer.
async fn within<T>(limit: Duration, who: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let answered = tokio::time::timeout(limit, work).await;
    answered.with_context(|| format!("{who} did not answer within {} s", limit.as_secs()))?
}

/// Prints what is up.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let mut parts = Vec::new();
    if let Some(context) = &args.context {
        parts = observe_context(&setup, context).await?;
        return print(&parts, args.json);
    }
    let holders = within(ENGINE_LIMIT, "the container engine", setup.holders()).await?;
    for (engine, inventory) in holders.iter().filter(|(_, inventory)| !inventory.is_empty()) {
        parts.extend(observe(&setup, engine, inventory).await?);
    }
    print(&parts, args.json)
}

fn print(parts: &[Part], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(&parts)?);
    } else if parts.is_empty() {
        println!("nothing is up; `cargo xtask up` brings everything up");
    } else {
        print!("{}", table::of(parts, Timestamp::now()));
    }
    Ok(())
}

/// What a cluster of the user's has of `deploy`.
async fn observe_context(setup: &Setup, context: &str) -> Result<Vec<Part>> {
    let settings = &setup.settings.deploy;
    let target = Target::open(&setup.paths.project, settings, Some(context)).await?;
    let version = within(FAR_LIMIT, "the API server", target.version()).await?;
    let cluster = format!("{version}, {}, context {context}", target.server);
    let mut parts = vec![Part::new("cluster", "up", cluster)];
    let image = crate::deploy::deployed_image(&target.client, &settings.namespace).await?;
    parts.push(match image {
        Some(image) => Part::new("deploy", "up", image),
        None => Part::new("deploy", "absent", format!("namespace {}", settings.namespace)),
    });
    let pods = cluster::pods(&target.client, &settings.namespace, FAR_LIMIT).await;
    let runs = pods.iter().any(|pod| pod.state == "up");
    parts.extend(pods);
    if runs {
        let way = Way::pod(target.client, &settings.namespace).await?;
        parts.extend(inside::look(&way, FAR_LIMIT).await);
    }
    Ok(parts)
}

/// What the engine holds of the deployment, and what the cluster, the edge and the hub say.
async fn observe(setup: &Setup, engine: &Engine, inventory: &Inventory) -> Result<Vec<Part>> {
    let containers = within(LIMIT, "the container engine", containers(setup, engine));
    let seen = cluster::look(setup, inventory);
    // Without its secrets, nobody can ask the hub.
    let credentials = Credentials::load(&setup.paths.state).ok().flatten();
    let device = async {
        let credentials = credentials.as_ref().filter(|_| setup.settings.hub.kind == Hub::Local)?;
        let kept = provisioning::kept(&setup.paths).ok().flatten().and_then(|checked| checked.kept);
        let id =
            kept.as_ref().map_or(setup.settings.device.id.as_str(), |kept| kept.provisioning.device_id());
        device::look(setup, engine, credentials, id).await
    };
    let (containers, seen, device) = tokio::join!(containers, seen, device);
    let mut parts = vec![Part::new("engine", "up", format!("{}: {inventory}", engine.description()))];
    parts.extend(seen.parts);
    let containers = containers?;
    let edge_runs = containers.iter().any(|part| part.name == "edge" && part.state == "up");
    parts.extend(containers);
    parts.extend(seen.pods);
    parts.extend(seen.inside);
    if edge_runs {
        parts.extend(inside::look(&Way::Container(engine, setup.settings.edge_container()), LIMIT).await);
    }
    if let Some(device) = device {
        device.count_restarts(&mut parts);
        parts.push(device.part);
    }
    Ok(parts)
}

/// The containers of the deployment beside the nodes.
async fn containers(setup: &Setup, engine: &Engine) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let containers = [
        ("registry", setup.settings.registry_container()),
        ("hub", setup.settings.hub_container()),
        ("edge", setup.settings.edge_container()),
    ];
    for (name, container) in containers {
        parts.push(match engine.container(&container).await? {
            Some(state) if state.running => Part::new(name, "up", detail(&state)).since(state.started),
            Some(state) => {
                Part::new(name, "down", format!("exit code {}", state.exit_code.unwrap_or_default()))
            }
            // Without Kubernetes only: beside a cluster it is not missed.
            None if name == "edge" => continue,
            None if name == "hub" && setup.settings.hub.kind == Hub::Azure => {
                Part::new(name, "yours", "your IoT Hub; `cargo xtask verify` asks it")
            }
            None => Part::new(name, "absent", ""),
        });
    }
    Ok(parts)
}

/// What there is to know of a container that runs.
fn detail(state: &ContainerState) -> String {
    let mut ports: Vec<_> = state.ports.iter().collect();
    ports.sort();
    let mut details: Vec<_> =
        ports.iter().map(|(inside, outside)| format!("127.0.0.1:{outside} -> {inside}")).collect();
    details.extend(state.tier.map(|tier| format!("tier `{tier}`")));
    details.join(", ")
}
