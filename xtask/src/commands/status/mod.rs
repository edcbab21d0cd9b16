//! `cargo xtask status`: what is up, as the engine and the cluster tell it, or what `deploy` has brought to a context.

use anyhow::Result;
use serde::Serialize;

use crate::cluster;
use crate::deploy::target::Target;
use crate::engine::{ContainerState, Engine, Inventory};
use crate::session::Setup;
use crate::settings::Hub;

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
#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    /// `up`, `down`, `absent`, or `yours` for what KEdge neither makes nor removes.
    state: &'static str,
    detail: String,
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
    for (engine, inventory) in setup.holders().await?.iter().filter(|(_, inventory)| !inventory.is_empty()) {
        parts.extend(observe(&setup, engine, inventory).await?);
    }
    print(&parts, args.json)
}

fn print(parts: &[Part], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(&parts)?);
        return Ok(());
    }
    if parts.is_empty() {
        println!("nothing is up; `cargo xtask up` brings everything up");
    }
    for part in parts {
        println!("{:10} {:7} {}", part.name, part.state, part.detail);
    }
    Ok(())
}

/// What a cluster of the user's has of `deploy`.
async fn observe_context(setup: &Setup, context: &str) -> Result<Vec<Part>> {
    let settings = &setup.settings.deploy;
    let target = Target::open(&setup.paths.project, settings, Some(context)).await?;
    let version = target.version().await?;
    let cluster = format!("{version}, {}, context {context}", target.server);
    let mut parts = vec![Part { name: "cluster", state: "up", detail: cluster }];
    let image = crate::deploy::deployed_image(&target.client, &settings.namespace).await?;
    parts.push(match image {
        Some(image) => Part { name: "deploy", state: "up", detail: image },
        None => Part { name: "deploy", state: "absent", detail: format!("namespace {}", settings.namespace) },
    });
    for pod in cluster::pods(&target.client, &settings.namespace).await? {
        let state = if cluster::is_pod_ready(&pod) { "up" } else { "down" };
        parts.push(Part { name: "pod", state, detail: cluster::describe(&pod) });
    }
    Ok(parts)
}

/// What the engine holds of the deployment, and what the cluster says.
async fn observe(setup: &Setup, engine: &Engine, inventory: &Inventory) -> Result<Vec<Part>> {
    let kubeconfig = setup.paths.kubeconfig();
    let api = match cluster::client(&kubeconfig).await {
        Ok(client) => client.apiserver_version().await.ok().map(|version| (client, version.git_version)),
        Err(_) => None,
    };
    let mut parts = vec![
        Part { name: "engine", state: "up", detail: format!("{}: {inventory}", engine.description()) },
        match (&api, inventory.nodes.is_empty()) {
            (_, true) => Part { name: "cluster", state: "absent", detail: String::new() },
            (None, false) => {
                Part { name: "cluster", state: "down", detail: "its API server does not answer".into() }
            }
            (Some((_, version)), false) => Part {
                name: "cluster",
                state: "up",
                detail: format!("{version}, KUBECONFIG={}", kubeconfig.display()),
            },
        },
    ];
    let containers = [
        ("registry", setup.settings.registry_container()),
        ("hub", setup.settings.hub_container()),
        ("edge", setup.settings.edge_container()),
    ];
    for (name, container) in containers {
        parts.push(match engine.container(&container).await? {
            Some(state) if state.running => Part { name, state: "up", detail: detail(&state) },
            Some(state) => Part {
                name,
                state: "down",
                detail: format!("exit code {}", state.exit_code.unwrap_or_default()),
            },
            // Without Kubernetes only: beside a cluster it is not missed.
            None if name == "edge" => continue,
            None if name == "hub" && setup.settings.hub.kind == Hub::Azure => {
                Part { name, state: "yours", detail: "your IoT Hub; `cargo xtask verify` asks it".into() }
            }
            None => Part { name, state: "absent", detail: String::new() },
        });
    }
    if let Some((client, _)) = api {
        for pod in cluster::pods(&client, &setup.settings.deploy.namespace).await? {
            let state = if cluster::is_pod_ready(&pod) { "up" } else { "down" };
            parts.push(Part { name: "pod", state, detail: pod.metadata.name.unwrap_or_default() });
        }
    }
    Ok(parts)
}

/// What there is to know of a container that runs.
fn detail(state: &ContainerState) -> String {
    let mut ports: Vec<_> = state.ports.iter().collect();
    ports.sort();
    let mut details: Vec<_> =
        ports.iter().map(|(inside, outside)| format!("127.0.0.1:{outside} -> {inside}")).collect();
    if state.privileged {
        details.push("privileged".into());
    }
    details.join(", ")
}
