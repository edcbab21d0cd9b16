//! Lists of a cluster's objects as values, to be shown to people.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// More than a small cluster has.
const MOST: u32 = 500;

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What has happened.
    Events,
    /// Pods.
    Pods,
    /// Deployments.
    Deployments,
    /// Nodes.
    Nodes,
    /// Claims to storage.
    Claims,
    /// The storage.
    Volumes,
    /// Secrets, with their values.
    Secrets,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Events,
        Self::Pods,
        Self::Deployments,
        Self::Nodes,
        Self::Claims,
        Self::Volumes,
        Self::Secrets,
    ];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Pods => "pods",
            Self::Deployments => "deployments",
            Self::Nodes => "nodes",
            Self::Claims => "claims",
            Self::Volumes => "volumes",
            Self::Secrets => "secrets",
        }
    }
}

/// The objects of a kind in all namespaces.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn list(client: &Client, kind: Kind) -> Result<Vec<Value>> {
    let client = client.clone();
    match kind {
        Kind::Events => values::<Event>(client).await,
        Kind::Pods => values::<Pod>(client).await,
        Kind::Deployments => values::<Deployment>(client).await,
        Kind::Nodes => values::<Node>(client).await,
        Kind::Claims => values::<PersistentVolumeClaim>(client).await,
        Kind::Volumes => values::<PersistentVolume>(client).await,
        Kind::Secrets => values::<Secret>(client).await,
    }
    .with_context(|| format!("failed to list the {}", kind.name()))
}

async fn values<K>(client: Client) -> Result<Vec<Value>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let found = Api::<K>::all(client).list(&ListParams::default().limit(MOST)).await?;
    Ok(found.items.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}
