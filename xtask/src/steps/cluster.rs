//! The kind cluster: made with its own kubeconfig, and told where the registry is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_yaml::Value;

use crate::cluster::{self, manifests};
use crate::context::Context;
use crate::engine::{ContainerFile, Inventory};
use crate::steps::{kind, node_image, registry};
use crate::wait::{Observation, wait_for};

const CREATE_LIMIT: Duration = Duration::from_secs(10 * 60);
const READY_LIMIT: Duration = Duration::from_secs(120);
/// A cluster that was there and does not answer within this is made anew.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Makes the cluster unless one answers already, and waits until its node is ready.
///
/// # Errors
/// When somebody else has a cluster of this name, or kind fails; the error has the end of kind's output, the
/// whole of it is in the step's log.
pub async fn ensure(context: &Context) -> Result<String> {
    context.engine.refuse_foreign_cluster().await?;
    let left = context.engine.inventory().await?;
    if !left.nodes.is_empty() {
        if let Some(version) = api_server_version(context).await {
            wait_until_ready(context).await?;
            context.findings().kubernetes = Some(version);
            return Ok("was there".into());
        }
        context
            .engine
            .remove(&Inventory { nodes: left.nodes, volumes: left.volumes, ..Inventory::default() })
            .await?;
    }
    create(context).await
}

async fn create(context: &Context) -> Result<String> {
    // kind mounts this folder of the machine into the node; a kernel without modules has none.
    fs_err::create_dir_all("/lib/modules")
        .context("kind mounts `/lib/modules`; make that folder once: `sudo mkdir -p /lib/modules`")?;
    let image = node_image::choice(context).await?;
    let source = if image.debian { "kind-cluster/kind.yaml" } else { "kind-cluster/kind-upstream.yaml" };
    let text = fs_err::read_to_string(context.paths.project.join(source))?;
    let text = render_config(&text, &context.settings.cluster.name)
        .with_context(|| format!("`{source}` cannot be used"))?;
    let config = context.paths.state.join("kind.yaml");
    crate::paths::write_private(&config, text.as_bytes())?;
    kind::process(context, "cluster", "create the cluster")?
        .args([
            "create",
            "cluster",
            "--retain",
            "--name",
            &context.settings.cluster.name,
            "--image",
            &image.reference,
        ])
        .args([
            "--config".as_ref(),
            config.as_os_str(),
            "--kubeconfig".as_ref(),
            context.paths.kubeconfig().as_os_str(),
        ])
        .limit(CREATE_LIMIT)
        .run()
        .await?;
    wait_until_ready(context).await?;
    let version = api_server_version(context).await;
    let mut findings = context.findings();
    (findings.kubernetes, findings.node_image) = (version, Some(image.reference.clone()));
    drop(findings);
    Ok(format!("created from {}", image.reference))
}

/// Writes `hosts.toml` for the registry into every node, and publishes the registry as KEP-1755 describes.
///
/// # Errors
/// When a node cannot be written to or the API server refuses.
pub async fn wire_registry(context: &Context) -> Result<String> {
    let host = registry::published_host(context);
    let server = format!("http://{}", registry::INNER_HOST);
    let hosts_toml =
        format!("server = \"{server}\"\n\n[host.\"{server}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    let files = [host.as_str(), registry::INNER_HOST].map(|name| ContainerFile {
        path: format!("/etc/containerd/certs.d/{name}/hosts.toml"),
        contents: hosts_toml.clone().into_bytes(),
    });
    let nodes = context.engine.nodes().await?;
    for node in &nodes {
        context.engine.put_files(node, &files).await?;
    }
    let path = context.paths.project.join("manifests/local-registry-hosting.yaml");
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    for object in manifests::local_registry(&fs_err::read_to_string(&path)?, &host)? {
        cluster::apply(&client, &object).await?;
    }
    Ok(format!("{} node(s) pull `{host}` from `{}`", nodes.len(), registry::INNER_HOST))
}

/// The version of the cluster's API server, if it answers.
async fn api_server_version(context: &Context) -> Option<String> {
    if !context.paths.kubeconfig().exists() {
        return None;
    }
    let version = wait_for("the API server", ANSWER_LIMIT, || async {
        let asked = async {
            anyhow::Ok(cluster::client(&context.paths.kubeconfig()).await?.apiserver_version().await?)
        };
        match asked.await {
            Ok(version) => Observation::Ready(version.git_version),
            Err(error) => Observation::NotYet(format!("{error:#}")),
        }
    });
    version.await.ok()
}

async fn wait_until_ready(context: &Context) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster::client(&context.paths.kubeconfig()).await?);
    wait_for("the cluster's node", READY_LIMIT, || async {
        match nodes.list(&kube::api::ListParams::default()).await {
            Ok(list) if list.items.is_empty() => Observation::NotYet("no node has registered".into()),
            Ok(list) => match list.items.iter().find(|node| !cluster::is_ready(node)) {
                None => Observation::Ready(()),
                Some(node) => Observation::NotYet(format!(
                    "{} is not ready",
                    node.metadata.name.as_deref().unwrap_or("?")
                )),
            },
            Err(error) => Observation::NotYet(error.to_string()),
        }
    })
    .await?;
    Ok(())
}

/// The kind configuration of this run: the readable source with the name filled in.
fn render_config(source: &str, name: &str) -> Result<String> {
    let mut config: Value = serde_yaml::from_str(source).context("it is not YAML")?;
    config.as_mapping_mut().context("it is not a mapping")?.insert("name".into(), name.into());
    Ok(serde_yaml::to_string(&config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_filled_in_and_the_rest_is_kept() {
        let source = "kind: Cluster\nname: other\nnetworking:\n  apiServerAddress: 127.0.0.1\n";
        let text = render_config(source, "kedge2").unwrap();
        assert_eq!(text, "kind: Cluster\nname: kedge2\nnetworking:\n  apiServerAddress: 127.0.0.1\n");
        assert!(render_config("- 1\n", "kedge").is_err());
    }
}
