//! The kind cluster: made with its own kubeconfig, and told where the registry is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use serde_yaml::Value;

use crate::cluster::{self, manifests};
use crate::context::Context;
use crate::engine::{ContainerFile, Inventory};
use crate::execute::Effect;
use crate::inputs::Fingerprint;
use crate::plan::Condition;
use crate::steps::node_image::{self, NodeImage};
use crate::steps::{kind, registry};
use crate::wait::{Observation, wait_for};

const CREATE_LIMIT: Duration = Duration::from_secs(10 * 60);
const READY_LIMIT: Duration = Duration::from_secs(120);
/// A cluster that does not answer within this is unwell.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// One that was made as it is wanted may take this long to work again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// The annotation on every node that tells clusters of different make apart.
const MADE_OF: &str = "io.kedge.made-of";

/// How the cluster was found.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// There is none.
    Absent,
    /// It is of no use: half made, or made from something else.
    Useless(&'static str),
    /// Nodes of it have stopped, as after a restart of the machine; they are started again.
    Stopped(Vec<String>),
    /// It was made as it is wanted and does not work now, for this reason. It may come back.
    Unwell(String),
    /// It works, and has this version.
    Works(String),
}

/// Whether the cluster was made as it is wanted, and its node is ready.
///
/// # Errors
/// When somebody else has a cluster of this name, or the engine cannot be asked.
pub async fn observe(context: &Context) -> Result<Condition> {
    Ok(match look(context).await? {
        State::Absent => Condition::Differs("there is none".into()),
        State::Useless(reason) => {
            Condition::Differs(format!("{reason}: it is removed with all that is in it, and made anew"))
        }
        State::Stopped(nodes) => {
            let limit = RECOVERY_LIMIT.as_secs();
            Condition::Differs(format!(
                "{} has stopped: it is started, and gets {limit} s before the cluster is made anew",
                nodes.join(", ")
            ))
        }
        State::Unwell(reason) => {
            let limit = RECOVERY_LIMIT.as_secs();
            Condition::Differs(format!("{reason}: it gets {limit} s to recover before it is made anew"))
        }
        State::Works(version) => Condition::Holds(format!("Kubernetes {version}")),
    })
}

async fn look(context: &Context) -> Result<State> {
    context.engine.refuse_foreign_cluster().await?;
    let nodes = context.engine.nodes().await?;
    if nodes.is_empty() {
        return Ok(State::Absent);
    }
    // kind writes it last.
    if !context.paths.kubeconfig().exists() {
        return Ok(State::Useless("its making was not finished"));
    }
    let mut stopped = Vec::new();
    for node in nodes {
        if context.engine.process_id(&node).await?.is_none() {
            stopped.push(node);
        }
    }
    if !stopped.is_empty() {
        return Ok(State::Stopped(stopped));
    }
    let asked = async {
        let client = cluster::client(&context.paths.kubeconfig()).await?;
        let version = client.apiserver_version().await?.git_version;
        let nodes = Api::<Node>::all(client).list(&kube::api::ListParams::default()).await?.items;
        anyhow::Ok((version, nodes))
    };
    let (version, nodes) = match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Ok(State::Unwell(format!("its API server does not answer: {error:#}"))),
        Err(_) => return Ok(State::Unwell("its API server does not answer".into())),
    };
    if nodes.is_empty() {
        return Ok(State::Unwell("no node has registered".into()));
    }
    let wanted = Description::candidates(context)?;
    let Some(found) = wanted.iter().find(|wanted| nodes.iter().all(|node| wanted.is_that_of(node))) else {
        return Ok(State::Useless("it was made from another node image or configuration"));
    };
    if let Some(node) = nodes.iter().find(|node| !cluster::is_ready(node)) {
        let name = node.metadata.name.as_deref().unwrap_or("?");
        return Ok(State::Unwell(format!("its node {name} is not ready")));
    }
    let mut findings = context.findings();
    findings.kubernetes = Some(version.clone());
    findings.node_image = Some(found.image.reference.clone());
    Ok(State::Works(version))
}

/// What a cluster is made of.
struct Description {
    image: NodeImage,
    /// kind's configuration.
    config: String,
}

impl Description {
    /// What a new cluster is made of.
    async fn of(context: &Context) -> Result<Self> {
        Self::with(context, node_image::choice(context).await?)
    }

    /// What the cluster may be made of to be the one that is wanted.
    fn candidates(context: &Context) -> Result<Vec<Self>> {
        node_image::candidates(context)?.into_iter().map(|image| Self::with(context, image)).collect()
    }

    fn with(context: &Context, image: NodeImage) -> Result<Self> {
        let source = if image.debian { "kind-cluster/kind.yaml" } else { "kind-cluster/kind-upstream.yaml" };
        let text = fs_err::read_to_string(context.paths.project.join(source))?;
        let config = render_config(&text, &context.settings.cluster.name)
            .with_context(|| format!("`{source}` cannot be used"))?;
        Ok(Self { image, config })
    }

    fn fingerprint(&self) -> Result<String> {
        Ok(Fingerprint::of(&[], &[&self.image.reference, &self.config])?.to_string())
    }

    /// Whether the node says that it was made of this.
    fn is_that_of(&self, node: &Node) -> bool {
        let kept = node.metadata.annotations.as_ref().and_then(|all| all.get(MADE_OF));
        kept.is_some() && kept.cloned() == self.fingerprint().ok()
    }

    /// Writes it on the nodes.
    async fn note(&self, client: Client) -> Result<()> {
        let nodes: Api<Node> = Api::all(client);
        let patch = json!({ "metadata": { "annotations": { MADE_OF: self.fingerprint()? } } });
        for node in nodes.list(&kube::api::ListParams::default()).await? {
            let name = node.metadata.name.context("a node has no name")?;
            nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        Ok(())
    }
}

/// Makes the cluster unless it is there as it is wanted, and waits until its node is ready.
///
/// # Errors
/// When somebody else has a cluster of this name, or kind fails; the error has the end of kind's output, the
/// whole of it is in the step's log.
pub async fn ensure(context: &Context) -> Result<Effect> {
    match look(context).await? {
        State::Works(version) => return Ok(Effect::unchanged(format!("Kubernetes {version}"))),
        State::Absent => {}
        State::Useless(_) => remove(context).await?,
        State::Stopped(_) | State::Unwell(_) => match recover(context).await {
            Ok(version) => return Ok(Effect::changed(format!("recovered, Kubernetes {version}"))),
            Err(error) => {
                context.progress.detail("cluster", &format!("{error}; it is made anew"));
                remove(context).await?;
            }
        },
    }
    create(context).await
}

/// Starts what has stopped, and gives a cluster time: after a pause of the machine, or under load, it does not answer
/// or its node is not ready.
async fn recover(context: &Context) -> Result<String> {
    if let State::Stopped(nodes) = look(context).await? {
        for node in &nodes {
            context.engine.start(node).await?;
        }
    }
    let version = wait_for("the cluster", RECOVERY_LIMIT, || async {
        match look(context).await {
            Ok(State::Works(version)) => Observation::Ready(version),
            Ok(State::Unwell(reason)) => Observation::NotYet(reason),
            Ok(State::Stopped(_)) => Observation::Failed("its node has ended again".into()),
            Ok(State::Useless(reason)) => Observation::Failed(reason.into()),
            Ok(State::Absent) => Observation::Failed("it is gone".into()),
            Err(error) => Observation::NotYet(format!("{error:#}")),
        }
    });
    Ok(version.await?)
}

async fn remove(context: &Context) -> Result<()> {
    let left = context.engine.inventory().await?;
    context
        .engine
        .remove(&Inventory { nodes: left.nodes, volumes: left.volumes, ..Inventory::default() })
        .await
}

async fn create(context: &Context) -> Result<Effect> {
    // kind mounts this folder of the machine into the node; a kernel without modules has none.
    fs_err::create_dir_all("/lib/modules")
        .context("kind mounts `/lib/modules`; make that folder once: `sudo mkdir -p /lib/modules`")?;
    let description = Description::of(context).await?;
    let config = context.paths.state.join("kind.yaml");
    crate::paths::write_private(&config, description.config.as_bytes())?;
    kind::process(context, "cluster", "create the cluster")?
        .args([
            "create",
            "cluster",
            "--retain",
            "--name",
            &context.settings.cluster.name,
            "--image",
            &description.image.reference,
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
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    description.note(client.clone()).await.context("failed to note on the node what it was made of")?;
    let version = client.apiserver_version().await?.git_version;
    let reference = description.image.reference;
    let mut findings = context.findings();
    (findings.kubernetes, findings.node_image) = (Some(version), Some(reference.clone()));
    drop(findings);
    Ok(Effect::changed(format!("created from {reference}")))
}

/// What tells every node where the registry is.
fn hosts_files(context: &Context) -> [ContainerFile; 2] {
    let server = format!("http://{}", registry::INNER_HOST);
    let hosts_toml =
        format!("server = \"{server}\"\n\n[host.\"{server}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    [registry::published_host(context).as_str(), registry::INNER_HOST].map(|name| ContainerFile {
        path: format!("/etc/containerd/certs.d/{name}/hosts.toml"),
        contents: hosts_toml.clone().into_bytes(),
    })
}

/// The objects that tell people and tools where the registry is.
fn hosting(context: &Context) -> Result<Vec<manifests::Object>> {
    let path = context.paths.project.join("manifests/local-registry-hosting.yaml");
    let login = context.credentials.registry_login();
    manifests::local_registry(&fs_err::read_to_string(&path)?, &registry::published_host(context), &login)
}

/// Whether nodes and people are told where the registry is.
///
/// # Errors
/// When the node cannot be read or the API server not be asked.
pub async fn observe_wiring(context: &Context) -> Result<Condition> {
    let nodes = context.engine.nodes().await?;
    for node in &nodes {
        for file in hosts_files(context) {
            if context.engine.read_file(node, &file.path).await?.as_ref() != Some(&file.contents) {
                return Ok(Condition::Differs(format!("`{}` in {node} is absent or otherwise", file.path)));
            }
        }
    }
    if nodes.is_empty() {
        return Ok(Condition::Differs("there is no node".into()));
    }
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let drifts = cluster::drifts(&client, &hosting(context)?).await?;
    Ok(match drifts.first() {
        Some(drift) => Condition::Differs(drift.clone()),
        None => Condition::Holds(format!("{} node(s)", nodes.len())),
    })
}

/// Writes `hosts.toml` for the registry into every node, and publishes the registry as KEP-1755 describes.
///
/// # Errors
/// When a node cannot be written to or the API server refuses.
pub async fn wire_registry(context: &Context) -> Result<Effect> {
    if let Ok(Condition::Holds(note)) = observe_wiring(context).await {
        return Ok(Effect::unchanged(note));
    }
    let nodes = context.engine.nodes().await?;
    for node in &nodes {
        context.engine.put_files(node, &hosts_files(context)).await?;
    }
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    for object in hosting(context)? {
        cluster::apply(&client, &object).await?;
    }
    let host = registry::published_host(context);
    Ok(Effect::changed(format!("{} node(s) pull `{host}` from `{}`", nodes.len(), registry::INNER_HOST)))
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
