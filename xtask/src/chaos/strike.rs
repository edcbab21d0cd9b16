//! How each fault is made to happen.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kedge_sim::retry::pause;
use kube::Api;
use kube::api::DeleteParams;

use super::Fault;
use crate::cluster;
use crate::context::Context;
use crate::edge_config::SENSOR_MODULE;
use crate::execute::Interrupted;
use crate::verify::Scene;

/// How long the registry is away.
const AWAY: Duration = Duration::from_secs(10);
/// What a pod is given to end: less than its modules need, as when a node is drained in haste.
const GRACE_SECONDS: u32 = 5;

/// Lets the fault happen.
///
/// # Errors
/// When it could not be made to happen.
pub async fn strike(scene: &Scene<'_>, fault: Fault) -> Result<()> {
    match fault {
        Fault::ModuleKilled => run(scene, &["docker", "kill", SENSOR_MODULE]).await,
        Fault::EdgeKilled => run(scene, &kill_service("aziot-edged.service")).await,
        Fault::EngineKilled => run(scene, &kill_service("docker.service")).await,
        Fault::PodDeleted => delete_pod(scene).await.map(drop),
        Fault::NodeRestarted => {
            let context = own(scene)?;
            for node in context.engine.nodes().await? {
                restart(context, &node).await?;
            }
            Ok(())
        }
        Fault::HubRestarted => {
            let context = own(scene)?;
            restart(context, &context.settings.hub_container()).await
        }
        Fault::RegistryStopped => {
            let context = own(scene)?;
            let name = context.settings.registry_container();
            context.engine.kill(&name).await?;
            let waited = pause(AWAY, scene.cancel).await;
            context.engine.start(&name).await?;
            if waited { Ok(()) } else { Err(Interrupted.into()) }
        }
    }
}

/// Kills the main process of a service of the edge.
#[must_use]
pub fn kill_service(unit: &str) -> [&str; 5] {
    ["systemctl", "kill", "--kill-who=main", "--signal=KILL", unit]
}

async fn run(scene: &Scene<'_>, command: &[&str]) -> Result<()> {
    let output = scene.run(command).await?;
    ensure!(output.success, "`{}` in the edge failed: {}", command.join(" "), output.text());
    Ok(())
}

fn own<'a>(scene: &Scene<'a>) -> Result<&'a Context> {
    scene.local_hub().context("that is not a part of this machine's deployment")
}

async fn restart(context: &Context, container: &str) -> Result<()> {
    context.engine.kill(container).await?;
    context.engine.start(container).await
}

/// Deletes the pod that runs; gives its name.
///
/// # Errors
/// When none runs, or the API server refuses.
pub async fn delete_pod(scene: &Scene<'_>) -> Result<String> {
    let client = scene.client().await?;
    let namespace = &scene.settings.deploy.namespace;
    let old = cluster::running_pod(&client, namespace).await?;
    let api: Api<Pod> = Api::namespaced(client, namespace);
    api.delete(&old, &DeleteParams::default().grace_period(GRACE_SECONDS)).await?;
    Ok(old)
}
