//! The Deployment: rendered, applied, and waited for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::DeleteParams;
use kube::{Api, Client};

use crate::cluster::{self, manifests};
use crate::context::Context;
use crate::execute::Effect;
use crate::images::Image;
use crate::place::Place;
use crate::plan::Condition;
use crate::steps::{device, registry};
use crate::verify::{self, Refusal};
use crate::wait::{Observation, wait_for};

const READY_LIMIT: Duration = Duration::from_secs(240);
/// Reasons for waiting that seldom go away by themselves.
const STUCK: [&str; 5] = [
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
];
/// How long such a reason is believed to go away all the same.
const STUCK_LIMIT: Duration = Duration::from_secs(20);

/// The objects of this deployment, exactly as they are applied.
///
/// # Errors
/// When the hub does not know the device, the registry has no image, or the sources are not valid.
pub async fn render(context: &Context) -> Result<Vec<manifests::Object>> {
    let read = |path: &str| fs_err::read_to_string(context.paths.project.join(path));
    let host = registry::published_host(context);
    let digest = registry::pushed_digest(context, Image::Edge).await?;
    let files = device::files(context).await?;
    manifests::deployment(
        &read("manifests/kedgedeployment.yaml")?,
        &manifests::Values {
            namespace: &context.settings.deploy.namespace,
            image: &format!("{host}/{}@{digest}", Image::Edge.repository()),
            pull: manifests::Pull::With { registry: &host, login: &context.credentials.registry_login() },
            files: &files,
            tailoring: None,
        },
    )
}

/// Whether the cluster holds the objects as they are wanted.
///
/// # Errors
/// When they cannot be rendered or the API server not be asked.
pub async fn observe(context: &Context) -> Result<Condition> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let objects = render(context).await?;
    let drifts = cluster::drifts(&client, &objects).await?;
    Ok(if drifts.is_empty() {
        Condition::Holds(format!("{} objects", objects.len()))
    } else {
        Condition::Differs(drifts.join("; "))
    })
}

/// Applies those of the objects that the cluster does not hold as they are wanted.
///
/// # Errors
/// When they cannot be rendered or the API server refuses.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let objects = render(context).await?;
    let unwell = unwell_pods(context, &client).await?;
    let mut applied = Vec::new();
    for object in &objects {
        // One after the other: until the namespace is there, nothing in it can be looked at.
        if cluster::apply::drift(&client, object).await?.is_some() {
            cluster::apply(&client, object).await?;
            applied.push(object.title());
        }
    }
    if applied.iter().any(|title| *title == format!("Secret `{}`", manifests::CREDENTIALS)) {
        // A pod takes its credentials when it starts: one that was not well before may have taken others.
        let api: Api<Pod> = Api::namespaced(client, &context.settings.deploy.namespace);
        for pod in unwell {
            fine_when_gone(api.delete(&pod, &DeleteParams::default()).await)
                .with_context(|| format!("failed to restart the pod `{pod}`"))?;
        }
    }
    Ok(if applied.is_empty() {
        Effect::unchanged(format!("{} objects", objects.len()))
    } else {
        Effect::changed(format!("applied {}", applied.join(", ")))
    })
}

/// The Deployment may have replaced the pod by itself.
fn fine_when_gone<T>(deleted: kube::Result<T>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// Names of the pods that run and are not ready.
async fn unwell_pods(context: &Context, client: &Client) -> Result<Vec<String>> {
    let pods = cluster::pods(client, &context.settings.deploy.namespace).await?;
    let unwell = pods.into_iter().filter(|pod| cluster::is_pod_running(pod) && !cluster::is_pod_ready(pod));
    Ok(unwell.filter_map(|pod| pod.metadata.name).collect())
}

/// Whether the pod is ready.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn observe_pod(context: &Context) -> Result<Condition> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let namespace = &context.settings.deploy.namespace;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployment = deployments.get_opt(manifests::DEPLOYMENT).await?;
    if deployment.as_ref().is_some_and(is_rolled_out) {
        return Ok(Condition::Holds("ready".into()));
    }
    let pods = cluster::pods(&client, namespace).await?;
    Ok(Condition::Differs(pods.first().map_or("there is none".into(), cluster::describe)))
}

/// Waits until the rollout is complete and the pod ready; a pod that cannot start ends the wait early.
///
/// # Errors
/// When the pod does not get ready; the error has its last status.
pub async fn wait_until_ready(context: &Context) -> Result<Effect> {
    if let Ok(Condition::Holds(note)) = observe_pod(context).await {
        return Ok(Effect::unchanged(note));
    }
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let namespace = &context.settings.deploy.namespace;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let (stuck_since, refusal) = (Mutex::new(None), Refusal::default());
    let waited = wait_for("the pod", READY_LIMIT, || async {
        let deployment = match deployments.get(manifests::DEPLOYMENT).await {
            Ok(deployment) if is_rolled_out(&deployment) => return Observation::Ready(()),
            Ok(deployment) => deployment,
            Err(error) => return Observation::NotYet(error.to_string()),
        };
        let pods = match cluster::pods(&client, namespace).await {
            // A pod that is being replaced says nothing about the one to come.
            Ok(pods) => pods.into_iter().filter(|pod| is_of(pod, &deployment)).collect::<Vec<_>>(),
            Err(error) => return Observation::NotYet(format!("{error:#}")),
        };
        let status = cluster::describe_all(&pods);
        context.progress.detail("pod", &status);
        if pods.iter().any(cluster::is_pod_running) && refusal.is_lasting(context, Place::Cluster).await {
            return Observation::Failed("the runtime refuses its deployment".into());
        }
        let mut since = stuck_since.lock().unwrap_or_else(PoisonError::into_inner);
        if !pods.iter().any(is_stuck) {
            *since = None;
        } else if since.get_or_insert_with(Instant::now).elapsed() > STUCK_LIMIT {
            return Observation::Failed(status);
        }
        Observation::NotYet(status)
    })
    .await;
    if let Err(error) = waited {
        return Err(verify::diagnose(context, Place::Cluster, error.into()).await);
    }
    Ok(Effect::changed("ready"))
}

fn is_rolled_out(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas == Some(1)
        && status.available_replicas == Some(1)
        && status.replicas == Some(1)
}

/// Whether the pod is made from the Deployment's present template and is not about to end.
fn is_of(pod: &Pod, deployment: &Deployment) -> bool {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let wanted = template
        .and_then(|template| template.metadata.as_ref()?.annotations.as_ref()?.get(manifests::CHECKSUM));
    let image = |spec: Option<&PodSpec>| spec.and_then(|spec| spec.containers.first()?.image.clone());
    pod.metadata.deletion_timestamp.is_none()
        && pod.metadata.annotations.as_ref().and_then(|all| all.get(manifests::CHECKSUM)) == wanted
        && image(pod.spec.as_ref()) == image(template.and_then(|template| template.spec.as_ref()))
}

/// Whether the pod's container waits for a reason that seldom goes away by itself.
fn is_stuck(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let reasons =
        containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    reasons.into_iter().any(|reason| STUCK.contains(&reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(status: &serde_json::Value) -> Deployment {
        let template = json!({
            "metadata": { "annotations": { manifests::CHECKSUM: "new" } },
            "spec": { "containers": [{ "name": "edge", "image": "edge@sha256:2" }] },
        });
        let selector = json!({ "matchLabels": {} });
        let spec = json!({ "selector": selector, "template": template });
        serde_json::from_value(json!({ "metadata": { "generation": 2 }, "spec": spec, "status": status }))
            .unwrap()
    }

    fn pod(checksum: &str, image: &str, waiting: Option<&str>) -> Pod {
        let state = waiting.map_or(
            json!({ "running": {} }),
            |reason| json!({ "waiting": { "reason": reason, "message": "m" } }),
        );
        let status = json!({ "name": "edge", "image": image, "imageID": "", "ready": false, "restartCount": 0, "state": state });
        serde_json::from_value(json!({
            "metadata": { "name": "p", "annotations": { manifests::CHECKSUM: checksum } },
            "spec": { "containers": [{ "name": "edge", "image": image }] },
            "status": { "phase": "Pending", "containerStatuses": [status] },
        }))
        .unwrap()
    }

    #[test]
    fn a_rollout_is_complete_when_the_one_pod_is_new_and_available() {
        let status = |generation, replicas| json!({ "observedGeneration": generation, "replicas": replicas, "updatedReplicas": 1, "availableReplicas": 1 });
        assert!(is_rolled_out(&deployment(&status(2, 1))));
        assert!(!is_rolled_out(&deployment(&status(1, 1))), "the controller has not seen the change");
        assert!(!is_rolled_out(&deployment(&status(2, 2))), "the old pod is still there");
        assert!(!is_rolled_out(&deployment(&json!({}))));
    }

    #[test]
    fn a_pod_that_is_being_replaced_does_not_count() {
        let wanted = deployment(&json!({}));
        assert!(is_of(&pod("new", "edge@sha256:2", None), &wanted));
        assert!(!is_of(&pod("old", "edge@sha256:2", None), &wanted));
        assert!(!is_of(&pod("new", "edge@sha256:1", None), &wanted));
    }

    #[test]
    fn a_stuck_pod_is_told_from_one_that_is_on_its_way() {
        assert!(is_stuck(&pod("new", "i", Some("ImagePullBackOff"))));
        assert!(!is_stuck(&pod("new", "i", Some("ContainerCreating"))));
        assert!(!is_stuck(&pod("new", "i", None)));
        assert_eq!(
            cluster::describe(&pod("new", "i", Some("CrashLoopBackOff"))),
            "p: Pending, restarts 0, CrashLoopBackOff: m"
        );
    }

    #[test]
    fn a_pod_that_is_gone_already_needs_no_restart() {
        let refused = |reason: &str| {
            let status = kube::core::Status { reason: reason.into(), ..kube::core::Status::default() };
            Err::<(), _>(kube::Error::Api(Box::new(status)))
        };
        assert!(fine_when_gone(refused("NotFound")).is_ok() && fine_when_gone(Ok(())).is_ok());
        assert!(fine_when_gone(refused("Forbidden")).is_err());
    }
}
