//! `cargo xtask status`: what is up, as the engine and the cluster tell it.

use anyhow::Result;
use serde::Serialize;

use crate::cluster;
use crate::context::Context;
use crate::session::Setup;

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One part of the system.
#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    /// `up`, `down` or `absent`.
    state: &'static str,
    detail: String,
}

/// Prints what is up.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let parts = match crate::credentials::Credentials::load(&setup.paths.state)? {
        None => Vec::new(),
        Some(_) => observe(&*setup.attach().await?).await?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&parts)?);
    } else if parts.is_empty() {
        println!("nothing is up; `cargo xtask up` brings everything up");
    }
    if !args.json {
        for part in &parts {
            println!("{:10} {:7} {}", part.name, part.state, part.detail);
        }
    }
    Ok(())
}

async fn observe(context: &Context) -> Result<Vec<Part>> {
    let mut parts = vec![Part { name: "engine", state: "up", detail: context.engine.description() }];
    let nodes = context.engine.nodes(&context.settings.cluster.name).await?;
    let kubeconfig = context.paths.kubeconfig();
    let api = match cluster::client(&kubeconfig).await {
        Ok(client) => client.apiserver_version().await.ok().map(|version| (client, version.git_version)),
        Err(_) => None,
    };
    parts.push(match (&api, nodes.is_empty()) {
        (Some((_, version)), _) => Part {
            name: "cluster",
            state: "up",
            detail: format!("{version}, KUBECONFIG={}", kubeconfig.display()),
        },
        (None, false) => {
            Part { name: "cluster", state: "down", detail: "its API server does not answer".into() }
        }
        (None, true) => Part { name: "cluster", state: "absent", detail: String::new() },
    });
    for (name, container) in [("registry", context.registry_container()), ("hub", context.hub_container())] {
        parts.push(match context.engine.container(&container).await? {
            Some(state) if state.running => {
                let mut ports: Vec<_> = state.ports.iter().collect();
                ports.sort();
                let ports: Vec<_> = ports
                    .iter()
                    .map(|(inside, outside)| format!("127.0.0.1:{outside} -> {inside}"))
                    .collect();
                Part { name, state: "up", detail: ports.join(", ") }
            }
            Some(state) => Part {
                name,
                state: "down",
                detail: format!("exit code {}", state.exit_code.unwrap_or_default()),
            },
            None => Part { name, state: "absent", detail: String::new() },
        });
    }
    if let Some((client, _)) = api {
        let pods = cluster::pods(&client, &context.settings.deploy.namespace).await?;
        for pod in &pods {
            let ready = cluster::is_pod_ready(pod);
            let detail = pod.metadata.name.clone().unwrap_or_default();
            parts.push(Part { name: "pod", state: if ready { "up" } else { "down" }, detail });
        }
    }
    Ok(parts)
}
