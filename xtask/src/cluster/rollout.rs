//! The pod on its way: waited for, and given up early for trouble that does not pass by itself.

mod profiles;
mod trouble;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, PodSpec};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};

use self::trouble::{Kind, Trouble};
use super::pulls::Pulls;
use super::{describe_all, manifests};
use crate::wait::{Observation, WaitError, wait_for};

/// Where the pod is to get ready.
#[derive(Debug, Clone, Copy)]
pub struct Rollout<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// How long it may take.
    pub limit: Duration,
    /// Whether nodes may be added for it.
    pub may_grow: bool,
}

/// Who waits for the pod.
pub trait Watcher: Sync {
    /// Gets the status of the pod, again and again.
    fn tell(&self, status: &str);

    /// Whether a pod that the cluster calls ready really is.
    fn confirm(&self) -> impl Future<Output = Observation<()>> + Send {
        std::future::ready(Observation::Ready(()))
    }

    /// Why waiting makes no sense, where more is known than what the cluster tells.
    fn hopeless(&self, _pods: &[Pod]) -> impl Future<Output = Option<String>> + Send {
        std::future::ready(None)
    }
}

/// What one look at the cluster has found.
struct Seen {
    deployment: Deployment,
    pods: Vec<Pod>,
}

impl Rollout<'_> {
    /// Whether the rollout is complete and the pod ready.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn is_complete(&self, client: &Client) -> Result<bool> {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), self.namespace);
        Ok(deployments.get_opt(manifests::DEPLOYMENT).await?.as_ref().is_some_and(is_rolled_out))
    }

    /// Waits until the rollout is complete and the pod ready.
    ///
    /// # Errors
    /// When the pod does not get ready in time, or trouble has lasted too long for it.
    pub async fn wait(&self, client: &Client, watcher: &impl Watcher) -> Result<(), WaitError> {
        let lasting = Lasting::default();
        if let Ok(seen) = self.look(client).await {
            self.try_anew(client, &seen.pods).await;
        }
        wait_for("the pod", self.limit, || async {
            let seen = match self.look(client).await {
                Ok(seen) if is_rolled_out(&seen.deployment) => return watcher.confirm().await,
                Ok(seen) => seen,
                Err(error) => return Observation::NotYet(error.to_string()),
            };
            let trouble = self.trouble(client, &seen).await;
            let status = match &trouble {
                Some(trouble) => trouble.text.clone(),
                None => describe_all(&seen.pods),
            };
            watcher.tell(&status);
            if let Some(reason) = watcher.hopeless(&seen.pods).await {
                return Observation::Failed(reason);
            }
            if lasting.is_over(trouble.map(|trouble| trouble.kind), self.may_grow) {
                return Observation::Failed(status);
            }
            Observation::NotYet(status)
        })
        .await
    }

    /// Removes pods that Kubernetes has failed with before, and tries again after minutes only: what it has failed for may
    /// be mended by now, and its failures say nothing of that. Where that is not allowed, the minutes are waited for.
    async fn try_anew(&self, client: &Client, pods: &[Pod]) {
        for pod in pods.iter().filter(|pod| trouble::backs_off(pod)) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let _ = self.pods(client).delete(name, &DeleteParams::default()).await;
        }
    }

    fn pods(&self, client: &Client) -> Api<Pod> {
        Api::namespaced(client.clone(), self.namespace)
    }

    async fn look(&self, client: &Client) -> kube::Result<Seen> {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), self.namespace);
        let deployment = deployments.get(manifests::DEPLOYMENT).await?;
        let pods = self.pods(client);
        let pods = pods.list(&ListParams::default().labels(manifests::SELECTOR)).await?.items;
        // A pod that is being replaced says nothing about the one to come.
        let pods = pods.into_iter().filter(|pod| is_of(pod, &deployment)).collect();
        Ok(Seen { deployment, pods })
    }

    async fn trouble(&self, client: &Client, seen: &Seen) -> Option<Trouble> {
        let found = trouble::of_deployment(&seen.deployment, self.namespace)
            .or_else(|| trouble::of_pods(&seen.pods))?;
        Some(self.looked_into(client, found, &seen.pods).await)
    }

    /// Trouble of these pods with what else is said about it.
    async fn looked_into(&self, client: &Client, found: Trouble, pods: &[Pod]) -> Trouble {
        match found.kind {
            Kind::Unscheduled => {}
            Kind::Unpulled => {
                let pulls = Pulls::look(client, self.namespace, pods).await.unwrap_or_default();
                return trouble::tried(found, &pulls);
            }
            _ => return found,
        }
        // Why a pod has no node may stand elsewhere: at its volumes, or in what the autoscaler says.
        let events: Api<Event> = Api::namespaced(client.clone(), self.namespace);
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), self.namespace);
        let all = ListParams::default();
        let (claims, events) = tokio::join!(claims.list(&all), events.list(&all));
        let (Ok(claims), Ok(events)) = (claims, events) else { return found };
        trouble::explain(found, pods, &claims.items, &events.items)
    }
}

/// Since when there is trouble of one kind.
#[derive(Default)]
struct Lasting(Mutex<Option<(Kind, Instant)>>);

impl Lasting {
    /// Whether the trouble has lasted for longer than its kind is believed to pass.
    fn is_over(&self, kind: Option<Kind>, may_grow: bool) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = match (kind, *since) {
            (Some(kind), Some((before, start))) if kind == before => start,
            _ => Instant::now(),
        };
        *since = kind.map(|kind| (kind, start));
        kind.and_then(|kind| kind.patience(may_grow)).is_some_and(|patience| start.elapsed() >= patience)
    }
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
    // Others may have put containers beside ours.
    let image = |spec: Option<&PodSpec>| {
        let mut containers = spec?.containers.iter();
        containers.find(|container| container.name == manifests::CONTAINER)?.image.clone()
    };
    pod.metadata.deletion_timestamp.is_none()
        && pod.metadata.annotations.as_ref().and_then(|all| all.get(manifests::CHECKSUM)) == wanted
        && image(pod.spec.as_ref()) == image(template.and_then(|template| template.spec.as_ref()))
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

    fn pod(checksum: &str, image: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "annotations": { manifests::CHECKSUM: checksum } },
            "spec": { "containers": [{ "name": "edge", "image": image }] },
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
        assert!(is_of(&pod("new", "edge@sha256:2"), &wanted));
        assert!(!is_of(&pod("old", "edge@sha256:2"), &wanted));
        assert!(!is_of(&pod("new", "edge@sha256:1"), &wanted));
    }

    #[test]
    fn trouble_is_over_when_its_kind_has_lasted() {
        let lasting = Lasting::default();
        let is_over = |kind| lasting.is_over(kind, false);
        assert!(!is_over(Some(Kind::Stuck)) && !is_over(None));
        assert!(!is_over(Some(Kind::Refused)), "it may be of before");
        assert!(!is_over(Some(Kind::Scaling)));
        assert!(is_over(Some(Kind::Unusable)));
    }
}
