//! How the pod is confined in one cluster: decided by what that is like, and rendered.

use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};

use super::manifests::{self, Object, PROFILES};
use super::{fine_when_gone, plainly};
use crate::tier::facts::AppArmor;
use crate::tier::{Choice, Decision, Facts, Profiles, TIER, Tier, judge};

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
            class: self.facts.runtime_class(self.decision.tier),
            profiles: &self.manifest,
        }
    }
}

/// Whether the cluster has this RuntimeClass.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn has_runtime_class(client: &Client, class: &RuntimeClass) -> Result<bool> {
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    let found = classes.get_opt(class.metadata.name.as_deref().unwrap_or_default()).await.map_err(plainly);
    Ok(found
        .context("failed to look for the RuntimeClass")?
        .is_some_and(|found| found.handler == class.handler))
}

/// Makes the RuntimeClass anew: its handler cannot be changed.
///
/// # Errors
/// When the API server refuses.
pub async fn replace_runtime_class(client: &Client, class: &RuntimeClass) -> Result<()> {
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let replaced = async {
        fine_when_gone(classes.delete(name, &DeleteParams::default()).await)?;
        classes.create(&PostParams::default(), class).await
    };
    replaced.await.map_err(plainly).with_context(|| format!("failed to make the RuntimeClass `{name}`"))?;
    Ok(())
}

/// The tier that a pod was made for.
#[must_use]
pub fn tier_of(pod: &Pod) -> Option<Tier> {
    Tier::named(pod.metadata.annotations.as_ref()?.get(TIER)?)
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
    use crate::tier::facts::{Cluster, Host};

    #[test]
    fn only_nodes_that_are_known_to_have_no_apparmor_are_treated_so() {
        let cluster = Cluster { own_cgroups: Some("kedge".into()), ..Cluster::default() };
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (apparmor, expected) in [
            (AppArmor::Off, false),
            (AppArmor::Ready, true),
            (AppArmor::NotLoaded("1 of 2 nodes have AppArmor".into()), true),
            (AppArmor::Unknown("no kubelet says so".into()), true),
        ] {
            let facts = Facts {
                host: Host::Kubernetes(cluster.clone()),
                kernel: None,
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
