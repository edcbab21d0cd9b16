//! The Deployment: rendered, applied, and waited for.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::{Api, Client};

use crate::cluster::{self, manifests};
use crate::context::Context;
use crate::edge_config;
use crate::images::Image;
use crate::steps::{device, registry};
use crate::wait::{Observation, wait_for};

const READY_LIMIT: Duration = Duration::from_secs(240);
/// Reasons for waiting that do not go away by themselves.
const HOPELESS: [&str; 5] = [
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
];

/// The objects of this deployment, exactly as they are applied.
///
/// # Errors
/// When the hub does not know the device, the registry has no image, or the sources are not valid.
pub async fn render(context: &Context) -> Result<Vec<manifests::Object>> {
    let read = |path: &str| fs_err::read_to_string(context.paths.project.join(path));
    let host = registry::published_host(context);
    let digest = registry::pushed_digest(context, Image::Edge).await?;
    let connection_string = device::connection_string(context).await?;
    manifests::deployment(
        &read("manifests/kedgedeployment.yaml")?,
        &manifests::Values {
            namespace: &context.settings.deploy.namespace,
            image: &format!("{host}/{}@{digest}", Image::Edge.repository()),
            registry: &host,
            login: &context.credentials.registry_login(),
            config: &edge_config::runtime(&read("config/config.toml")?, &connection_string)?,
            hub_ca: &context.credentials.hub_ca,
        },
    )
}

/// Applies the manifests.
///
/// # Errors
/// When they cannot be rendered or the API server refuses.
pub async fn ensure(context: &Context) -> Result<String> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let objects = render(context).await?;
    for object in &objects {
        cluster::apply(&client, object).await?;
    }
    Ok(format!("{} objects applied", objects.len()))
}

/// Waits until the rollout is complete and the pod ready; a pod that cannot start ends the wait at once.
///
/// # Errors
/// When the pod does not get ready; the error has its last status.
pub async fn wait_until_ready(context: &Context) -> Result<String> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let namespace = &context.settings.deploy.namespace;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    wait_for("the pod", READY_LIMIT, || async {
        match deployments.get(manifests::DEPLOYMENT).await {
            Ok(deployment) if is_rolled_out(&deployment) => Observation::Ready(()),
            Ok(_) => look_at_pods(context, &client, namespace).await,
            Err(error) => Observation::NotYet(error.to_string()),
        }
    })
    .await?;
    Ok("ready".into())
}

fn is_rolled_out(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas == Some(1)
        && status.available_replicas == Some(1)
        && status.replicas == Some(1)
}

async fn look_at_pods(context: &Context, client: &Client, namespace: &str) -> Observation<()> {
    match cluster::pods(client, namespace).await {
        Ok(pods) => {
            let seen: Vec<_> = pods.iter().map(describe).collect();
            if let Some(hopeless) =
                seen.iter().find(|status| HOPELESS.iter().any(|reason| status.contains(reason)))
            {
                return Observation::Failed(hopeless.clone());
            }
            let status = if seen.is_empty() { "no pod yet".into() } else { seen.join("; ") };
            context.progress.detail("pod", &status);
            Observation::NotYet(status)
        }
        Err(error) => Observation::NotYet(format!("{error:#}")),
    }
}

/// A pod in a few words: its phase, and why its container does not run.
fn describe(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or("?");
    let Some(status) = &pod.status else { return format!("{name}: no status yet") };
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    let container =
        status.container_statuses.iter().flatten().find(|container| container.name == manifests::CONTAINER);
    let Some(container) = container else {
        let unscheduled = status.conditions.iter().flatten().find(|condition| condition.status == "False");
        return format!(
            "{name}: {phase} {}",
            unscheduled.and_then(|it| it.message.clone()).unwrap_or_default()
        );
    };
    let state = match &container.state {
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            format!(
                "{}: {}",
                waiting.reason.as_deref().unwrap_or("waiting"),
                waiting.message.as_deref().unwrap_or("")
            )
        }
        Some(ContainerState { terminated: Some(ended), .. }) => {
            format!("ended with code {}", ended.exit_code)
        }
        Some(ContainerState { running: Some(_), .. }) => format!("running, ready: {}", container.ready),
        _ => String::new(),
    };
    format!("{name}: {phase}, restarts {}, {state}", container.restart_count)
}
