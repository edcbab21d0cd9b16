//! How the pod is confined in one cluster: decided by what that is like, rendered, and its profiles waited for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};

use super::manifests::{self, Object, PROFILES};
use super::{fine_when_gone, plainly};
use crate::tier::facts::AppArmor;
use crate::tier::{Choice, Decision, Facts, Profiles, TIER, Tier, judge};
use crate::wait::{Observation, wait_for};

/// How long the profiles may take to come onto every node; the pod's image comes with them.
const PROFILES_LIMIT: Duration = Duration::from_secs(90);

/// How the pod is confined.
#[derive(Debug)]
pub struct Confined {
    /// The tier, and why so.
    pub decision: Decision,
    facts: Facts,
    seccomp: String,
    manifest: String,
}

impl Confined {
    /// Decides by these facts.
    ///
    /// # Errors
    /// [`crate::tier::Unobtainable`] when what was asked for cannot be had; else when a profile or the manifest cannot be read.
    pub fn choose(project: &Path, facts: Facts, choice: Choice) -> Result<Self> {
        let decision = judge::decide(&facts, choice)?;
        let seccomp = Profiles::read(project)?.seccomp_name;
        let manifest = fs_err::read_to_string(project.join("manifests/profiles.yaml"))?;
        Ok(Self { decision, facts, seccomp, manifest })
    }

    /// What the manifests are filled in with.
    #[must_use]
    pub fn values(&self) -> manifests::Confinement<'_> {
        manifests::Confinement {
            tier: self.decision.tier,
            server: self.facts.server(),
            apparmor: self.facts.apparmor != AppArmor::Off,
            seccomp: &self.seccomp,
            sysbox: self.facts.sysbox.as_deref(),
            profiles: &self.manifest,
        }
    }
}

/// The tier that a pod was made for.
#[must_use]
pub fn tier_of(pod: &Pod) -> Option<Tier> {
    Tier::named(pod.metadata.annotations.as_ref()?.get(TIER)?)
}

/// After an object was applied: the pod comes after the profiles that it needs.
///
/// # Errors
/// When these do not come onto every node.
pub async fn wait_for_profiles(client: &Client, object: &Object, tell: impl Fn(&str) + Sync) -> Result<()> {
    let (Object::DaemonSet(_), Some(namespace)) = (object, object.namespace()) else { return Ok(()) };
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let waited = wait_for("the profiles on the nodes", PROFILES_LIMIT, || async {
        match sets.get(PROFILES).await {
            Ok(set) => match progress(&set) {
                Ok(()) => Observation::Ready(()),
                Err(status) => {
                    let status = format!("{status}{}", words_of_pods(client, namespace).await);
                    tell(&status);
                    Observation::NotYet(status)
                }
            },
            Err(error) => Observation::NotYet(plainly(error).to_string()),
        }
    });
    waited.await.with_context(|| {
        format!(
            "the DaemonSet `{PROFILES}` has not brought the profiles onto every node; see `kubectl logs --namespace {namespace} \
             daemonset/{PROFILES} --container install`"
        )
    })
}

/// Whether every node has the profiles of this version.
fn progress(set: &DaemonSet) -> Result<(), String> {
    let Some(status) = &set.status else { return Err("it is not looked at yet".to_owned()) };
    let wanted = status.desired_number_scheduled;
    let is_seen = status.observed_generation >= set.metadata.generation;
    let (updated, ready) = (status.updated_number_scheduled.unwrap_or_default(), status.number_ready);
    if is_seen && updated == wanted && ready == wanted {
        return Ok(());
    }
    Err(format!("{ready} of {wanted} nodes have the profiles"))
}

/// Why its pods do not get ready, as far as they say.
async fn words_of_pods(client: &Client, namespace: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = ListParams::default().labels(&format!("app.kubernetes.io/name={PROFILES}"));
    let Ok(found) = pods.list(&selector).await else { return String::new() };
    let statuses = found.items.iter().filter_map(|pod| pod.status.as_ref());
    let containers = statuses
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten());
    let mut words = containers.filter_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some(format!(": {}: {}", waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default()))
    });
    words.find(|words| !words.contains("PodInitializing")).unwrap_or_default()
}

/// The DaemonSet of an earlier tier, by which nothing goes any longer.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn superfluous_profiles(
    client: &Client,
    objects: &[Object],
    namespace: &str,
) -> Result<Option<ObjectMeta>> {
    if objects.iter().any(|object| matches!(object, Object::DaemonSet(_))) {
        return Ok(None);
    }
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let found = match sets.get_opt(PROFILES).await {
        // Who may not look at it cannot have made it.
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        found => found.map_err(plainly),
    };
    Ok(found.context("failed to look for the DaemonSet of the profiles")?.map(|set| set.metadata))
}

/// Removes it.
///
/// # Errors
/// When the API server refuses.
pub async fn remove_profiles(client: &Client, namespace: &str) -> Result<()> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    fine_when_gone(sets.delete(PROFILES, &DeleteParams::default()).await)
        .map_err(plainly)
        .context("failed to remove the DaemonSet of the profiles")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::facts::{Cluster, Host, Version};
    use serde_json::json;

    #[test]
    fn the_profiles_are_there_when_every_node_has_those_of_this_version() {
        let told = |generation, updated, ready| {
            let set = json!({ "metadata": { "generation": generation }, "status": { "observedGeneration": 2,
                "desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberReady": ready,
                "currentNumberScheduled": 2, "numberMisscheduled": 0 } });
            progress(&serde_json::from_value(set).unwrap())
        };
        assert_eq!(told(2, 2, 2), Ok(()));
        assert!(told(3, 2, 2).is_err() && told(2, 1, 2).is_err());
        assert_eq!(told(2, 2, 1), Err("1 of 2 nodes have the profiles".to_owned()));
        assert!(progress(&DaemonSet::default()).is_err());
    }

    #[test]
    fn only_nodes_that_are_known_to_have_no_apparmor_are_treated_so() {
        let cluster = Cluster {
            server: Some(Version(1, 36)),
            containerd: Some(Version(2, 1)),
            honours_userns: Some(true),
            level: None,
            namespace: "edge".into(),
        };
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (apparmor, expected) in [
            (AppArmor::Off, false),
            (AppArmor::Ready, true),
            (AppArmor::NotLoaded("1 of 2 nodes have AppArmor".into()), true),
            (AppArmor::Unknown("no kubelet says so".into()), true),
        ] {
            let facts = Facts {
                host: Host::Kubernetes(cluster.clone()),
                kernel: Some(Version(6, 8)),
                cgroups: Some(2),
                nsdelegate: Some(true),
                apparmor,
                sysbox: None,
            };
            let confined = Confined::choose(&project, facts, Choice::Userns).unwrap();
            assert_eq!(confined.values().apparmor, expected, "{:?}", confined.facts.apparmor);
        }
    }
}
