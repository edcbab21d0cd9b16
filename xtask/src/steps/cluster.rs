//! The kind cluster: made with its own kubeconfig, and told where the registry is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_yaml::Value;

use crate::cluster::{self, manifests};
use crate::context::Context;
use crate::engine::ContainerFile;
use crate::steps::{kind, node_image, registry};
use crate::wait::{Observation, wait_for};

const CREATE_LIMIT: Duration = Duration::from_secs(10 * 60);
const READY_LIMIT: Duration = Duration::from_secs(120);
const DELETE_LIMIT: Duration = Duration::from_secs(120);

/// Makes the cluster unless one answers already, and waits until its node is ready.
///
/// # Errors
/// When kind fails; the error has the end of kind's output, the whole of it is in the step's log.
pub async fn ensure(context: &Context) -> Result<String> {
    if let Some(version) = api_server_version(context).await {
        context.findings().kubernetes = Some(version);
        return Ok("was there".into());
    }
    delete(context).await?;
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

/// Deletes the cluster, if there is one; its entry in the kubeconfig goes with it.
///
/// # Errors
/// When kind fails.
pub async fn delete(context: &Context) -> Result<bool> {
    let name = &context.settings.cluster.name;
    let nodes = context.engine.nodes(name).await?;
    if nodes.is_empty() {
        return Ok(false);
    }
    for node in &nodes {
        // Nothing in the node is worth an orderly end, for which kind would wait ten seconds.
        context.engine.kill_container(node).await?;
    }
    if kind::find(&context.paths.cache).is_some() {
        kind::process(context, "cluster", "delete the cluster")?
            .args(["delete", "cluster", "--name", name, "--kubeconfig"])
            .args([context.paths.kubeconfig()])
            .limit(DELETE_LIMIT)
            .run()
            .await?;
    }
    // A node that kind has lost sight of, or all of them when kind itself is gone.
    for node in context.engine.nodes(name).await? {
        context.engine.remove_container(&node).await?;
    }
    Ok(true)
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
    let nodes = context.engine.nodes(&context.settings.cluster.name).await?;
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
    let client = cluster::client(&context.paths.kubeconfig()).await.ok()?;
    client.apiserver_version().await.ok().map(|version| version.git_version)
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
