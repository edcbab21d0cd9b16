//! What the cluster says: its API server, its nodes, and KEdge's pods.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;

use super::{LIMIT, Part, inside, up, within};
use crate::cluster;
use crate::cluster::confinement::tier_of;
use crate::edge::Way;
use crate::engine::Inventory;
use crate::session::Setup;

/// What was seen of a cluster, from the outside to the inside.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The API server and the nodes.
    pub(super) parts: Vec<Part>,
    /// The pods.
    pub(super) pods: Vec<Part>,
    /// What is in the pod that runs.
    pub(super) inside: Vec<Part>,
}

/// Looks at the deployment's own cluster.
pub(super) async fn look(setup: &Setup, inventory: &Inventory) -> Seen {
    if inventory.nodes.is_empty() {
        return Seen { parts: vec![Part::new("cluster", "absent", "")], ..Seen::default() };
    }
    let kubeconfig = setup.paths.kubeconfig();
    let opened = within(LIMIT, "its API server", async {
        let client = cluster::client(&kubeconfig).await?;
        let version = client.apiserver_version().await?;
        anyhow::Ok((client, version.git_version))
    });
    let Ok((client, version)) = opened.await else {
        let silent = Part::new("cluster", "down", "its API server does not answer");
        return Seen { parts: vec![silent], ..Seen::default() };
    };
    let detail = format!("{version}, KUBECONFIG={}", kubeconfig.display());
    let namespace = &setup.settings.deploy.namespace;
    let (nodes, pods) = tokio::join!(nodes(&client), pods(&client, namespace, LIMIT));
    let mut seen = Seen { parts: vec![Part::new("cluster", "up", detail)], pods, ..Seen::default() };
    seen.parts.extend(nodes);
    if seen.pods.is_empty() {
        seen.pods.push(Part::new("pod", "absent", format!("namespace {namespace}")));
    }
    if seen.pods.iter().any(|pod| pod.detail.contains("Running"))
        && let Ok(way) = within(LIMIT, "the cluster", Way::pod(client, namespace)).await
    {
        seen.inside = inside::look(&way, LIMIT).await;
    }
    seen
}

async fn nodes(client: &Client) -> Vec<Part> {
    let found: Result<Vec<Node>> = within(LIMIT, "the API server", cluster::nodes(client)).await;
    match found {
        Ok(nodes) => nodes.iter().map(node).collect(),
        Err(error) => vec![Part::new("node", "down", format!("{error:#}"))],
    }
}

fn node(node: &Node) -> Part {
    let name = node.metadata.name.as_deref().unwrap_or("?");
    let kubelet = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let kubelet = kubelet.map_or("", |info| info.kubelet_version.as_str());
    let ready = cluster::is_ready(node);
    let word = if ready { "Ready" } else { "NotReady" };
    let since = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    Part::new("node", up(ready), format!("{name}, {word}, kubelet {kubelet}")).since(since)
}

/// KEdge's pods in a namespace.
pub(super) async fn pods(client: &Client, namespace: &str, limit: Duration) -> Vec<Part> {
    match within(limit, "the API server", cluster::pods(client, namespace)).await {
        Ok(pods) => pods.iter().map(pod).collect(),
        Err(error) => vec![Part::new("pod", "down", format!("{error:#}"))],
    }
}

fn pod(pod: &Pod) -> Part {
    let statuses = || pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let (ready, all) = (statuses().filter(|container| container.ready).count(), statuses().count());
    let name = pod.metadata.name.as_deref().unwrap_or("?");
    let is_up = cluster::is_pod_ready(pod);
    let detail = if pod.metadata.deletion_timestamp.is_some() {
        format!("{name}, Terminating")
    } else if is_up {
        let tier = tier_of(pod).map(|tier| format!(", tier `{tier}`")).unwrap_or_default();
        format!("{name}, Running, ready {ready}/{all}{tier}")
    } else {
        // Why it is not is worth more words.
        cluster::describe(pod)
    };
    let since = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let restarts = statuses().map(|container| i64::from(container.restart_count)).max();
    Part { restarts, ..Part::new("pod", up(is_up), detail).since(since) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(ready: &str, restarts: i32) -> Part {
        let container = json!({ "name": "edge", "ready": ready == "True", "restartCount": restarts, "image": "", "imageID": "",
            "state": { "running": {} } });
        let status = json!({ "phase": "Running", "containerStatuses": [container],
            "conditions": [{ "type": "Ready", "status": ready }] });
        let annotations = json!({ "kedge.io/tier": "userns" });
        let metadata = json!({ "name": "kedge-1", "annotations": annotations, "creationTimestamp": "2025-01-01T00:00:00Z" });
        pod(&serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap())
    }

    #[test]
    fn a_pod_is_told_with_its_readiness_restarts_and_age() {
        let well = of("True", 2);
        assert_eq!((well.state, well.restarts), ("up", Some(2)));
        assert_eq!(well.detail, "kedge-1, Running, ready 1/1, tier `userns`");
        assert_eq!(well.since, Some("2025-01-01T00:00:00Z".parse().unwrap()));
        let unwell = of("False", 0);
        assert_eq!(unwell.state, "down");
        assert!(unwell.detail.contains("ready: false"), "{}", unwell.detail);
        assert_eq!(pod(&Pod::default()).detail, "?: no status yet");
        assert_eq!(node(&Node::default()).state, "down");
    }
}
