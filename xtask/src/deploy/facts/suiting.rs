//! What the manifests say about this very cluster alone.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaim,
};

use super::Facts;
use crate::cluster::manifests::{Object, keep_profiles_to_nodes_of_pod};

const ARCHITECTURE: &str = "kubernetes.io/arch";

impl Facts {
    /// Keeps the storage classes of the claims that are there, which cannot be changed, and the pod and its profiles to nodes on
    /// which the image runs, where there are others or may be. `platforms` is empty where it is not known what it runs on.
    pub fn suit(&self, objects: &mut [Object], platforms: &[String]) {
        for object in &mut *objects {
            match object {
                Object::PersistentVolumeClaim(claim) => self.keep_class(claim),
                Object::Deployment(deployment) => self.keep_to_nodes(deployment, platforms),
                _ => {}
            }
        }
        keep_profiles_to_nodes_of_pod(objects);
    }

    fn keep_class(&self, claim: &mut PersistentVolumeClaim) {
        let there = self.claims.iter().find(|(name, _)| claim.metadata.name.as_ref() == Some(name));
        let spec = claim.spec.get_or_insert_default();
        if let (None, Some((_, class))) = (&spec.storage_class_name, there) {
            spec.storage_class_name.clone_from(class);
        }
    }

    fn keep_to_nodes(&self, deployment: &mut Deployment, platforms: &[String]) {
        let runs: BTreeSet<_> = platforms.iter().filter_map(|platform| architecture(platform)).collect();
        let is_mixed = self.nodes.as_ref().map_or(true, |nodes| {
            nodes.iter().filter_map(|node| architecture(&node.platform)).any(|it| !runs.contains(it))
        });
        let Some(pod) = deployment.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()) else { return };
        if runs.is_empty() || !is_mixed {
            return;
        }
        let requirement = NodeSelectorRequirement {
            key: ARCHITECTURE.into(),
            operator: "In".into(),
            values: Some(runs.into_iter().map(str::to_owned).collect()),
        };
        let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None };
        // One that the user has written in the manifest counts.
        pod.affinity.get_or_insert_default().node_affinity.get_or_insert_with(|| NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..NodeAffinity::default()
        });
    }
}

/// The architecture of a platform such as `linux/arm64`; nodes of other systems never get the pod.
fn architecture(platform: &str) -> Option<&str> {
    platform.strip_prefix("linux/")?.split('/').next()
}
