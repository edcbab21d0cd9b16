//! The Deployment: rendered, applied, and waited for.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::cluster::confinement::{Confined, remove_profiles, superfluous_profiles, tier_of};
use crate::cluster::rollout::{Rollout, Watcher};
use crate::cluster::{self, manifests};
use crate::context::Context;
use crate::execute::Effect;
use crate::images::Image;
use crate::place::Place;
use crate::plan::Condition;
use crate::steps::{device, registry, userns};
use crate::tier;
use crate::tier::nodes::{Asked, Inside, SCRIPT};
use crate::verify::{self, Lookout};
use crate::wait::Observation;

const READY_LIMIT: Duration = Duration::from_secs(240);

/// The objects of this deployment, exactly as they are applied.
///
/// # Errors
/// When the hub does not know the device, the registry has no image, or the sources are not valid.
pub async fn render(context: &Context) -> Result<Vec<manifests::Object>> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    render_confined(context, &confinement(context, &client).await?).await
}

/// How the pod is confined: chosen by what the cluster is like, and its nodes.
async fn confinement(context: &Context, client: &Client) -> Result<Confined> {
    let server = client.apiserver_version().await?.git_version;
    let nodes = cluster::nodes(client).await?;
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    let classes = classes.list(&ListParams::default()).await.context("failed to list the runtime classes")?;
    let facts = tier::nodes::facts(&Asked {
        server: &server,
        nodes: Some(&nodes),
        classes: Some(&classes.items),
        is_ours: true,
        namespace: &context.settings.deploy.namespace,
        // The namespace is ours, and is labelled for the tier.
        level: None,
        inside: inside(context).await?,
    });
    let mut confined = Confined::choose(&context.paths.project, facts, context.settings.security.tier)?;
    let before = cluster::deployed_pod(client, &context.settings.deploy.namespace).await?;
    confined.decision = confined.decision.for_one_made_in(before.as_ref().and_then(tier_of))?;
    context.findings().decision = Some(confined.decision.clone());
    Ok(confined)
}

/// What the nodes do not say of themselves. All are on this machine, and so alike.
async fn inside(context: &Context) -> Result<Inside> {
    let nodes = context.engine.nodes().await?;
    let Some(node) = nodes.first() else { return Ok(Inside::default()) };
    Ok(Inside::read(&context.engine.exec(node, &["sh", "-c", SCRIPT]).await?.stdout))
}

async fn render_confined(context: &Context, confined: &Confined) -> Result<Vec<manifests::Object>> {
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
            confinement: confined.values(),
        },
    )
}

/// Whether the cluster holds the objects as they are wanted.
///
/// # Errors
/// When they cannot be rendered or the API server not be asked.
pub async fn observe(context: &Context) -> Result<Condition> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let confined = confinement(context, &client).await?;
    let objects = render_confined(context, &confined).await?;
    let mut drifts = cluster::drifts(&client, &objects).await?;
    if superfluous_profiles(&client, &objects, &context.settings.deploy.namespace).await?.is_some() {
        drifts.push(format!("DaemonSet `{}` is of another tier", manifests::PROFILES));
    }
    let unprepared = userns::unprepared(context, &client, confined.decision.tier).await?;
    drifts.extend(unprepared.into_iter().map(|it| format!("{it} is not there")));
    Ok(if drifts.is_empty() {
        Condition::Holds(format!("{} objects, {}", objects.len(), confined.decision))
    } else {
        Condition::Differs(format!("{}; {}", drifts.join("; "), confined.decision))
    })
}

/// Applies those of the objects that the cluster does not hold as they are wanted.
///
/// # Errors
/// When they cannot be rendered or the API server refuses.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    let confined = confinement(context, &client).await?;
    let objects = render_confined(context, &confined).await?;
    let mut applied = Vec::new();
    applied.extend(userns::prepare(context, &client, confined.decision.tier).await?);
    let namespace = &context.settings.deploy.namespace;
    let unwell = cluster::unwell_pods(&client, namespace).await?;
    for object in &objects {
        // One after the other: until the namespace is there, nothing in it can be looked at.
        if cluster::apply::drift(&client, object).await?.is_some() {
            cluster::apply(&client, object).await?;
            applied.push(object.title());
        }
        let tell = |status: &str| context.progress.detail("deploy", status);
        rollout(context).wait_for_profiles(&client, object, tell).await?;
    }
    if superfluous_profiles(&client, &objects, namespace).await?.is_some() {
        remove_profiles(&client, namespace).await?;
        applied.push(format!("removal of the DaemonSet `{}`", manifests::PROFILES));
    }
    if applied.iter().any(|title| *title == format!("Secret `{}`", manifests::CREDENTIALS)) {
        // A pod takes its credentials when it starts: one that was not well before may have taken others.
        cluster::restart(&client, namespace, &unwell).await?;
    }
    if !applied.is_empty() {
        confined.decision.lines().iter().for_each(|line| context.progress.say(line));
    }
    Ok(if applied.is_empty() {
        Effect::unchanged(format!("{} objects", objects.len()))
    } else {
        Effect::changed(format!("applied {}", applied.join(", ")))
    })
}

fn rollout(context: &Context) -> Rollout<'_> {
    Rollout { namespace: &context.settings.deploy.namespace, limit: READY_LIMIT, may_grow: false }
}

/// Whether the pod is ready.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn observe_pod(context: &Context) -> Result<Condition> {
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    if rollout(context).is_complete(&client).await? {
        return Ok(verify::confined_and_ready(context, Place::Cluster).await);
    }
    let pods = cluster::pods(&client, &context.settings.deploy.namespace).await?;
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
    replace_unconfined_pod(context, &client).await?;
    let watcher = RuntimeWatcher { context, lookout: Lookout::default() };
    if let Err(error) = rollout(context).wait(&client, &watcher).await {
        let known = watcher.lookout.found();
        return Err(verify::diagnose(context, Place::Cluster, error.into(), known).await);
    }
    Ok(Effect::changed("ready"))
}

/// Ends a pod that was there and is not confined as its tier promises: a profile may have come back that it has lost. One that is
/// about to be replaced anyway says nothing of the one to come.
async fn replace_unconfined_pod(context: &Context, client: &Client) -> Result<()> {
    if !rollout(context).is_complete(client).await? {
        return Ok(());
    }
    let Some(broken) = verify::broken_promise(context, Place::Cluster).await else { return Ok(()) };
    context.progress.say(&format!("{broken}; its pod is replaced"));
    let namespace = &context.settings.deploy.namespace;
    let pods = cluster::pods(client, namespace).await?.into_iter().filter_map(|pod| pod.metadata.name);
    cluster::restart(client, namespace, &pods.collect::<Vec<_>>()).await?;
    context.forget_edge();
    Ok(())
}

/// Gives up as well when what is seen inside the edge will not pass.
struct RuntimeWatcher<'a> {
    context: &'a Context,
    lookout: Lookout,
}

impl Watcher for RuntimeWatcher<'_> {
    fn tell(&self, status: &str) {
        self.context.progress.detail("pod", status);
    }

    async fn confirm(&self) -> Observation<()> {
        verify::observe_tier(self.context, Place::Cluster).await
    }

    async fn hopeless(&self, pods: &[Pod]) -> Option<String> {
        if !pods.iter().any(|pod| cluster::is_pod_running(pod) && cluster::is_container_running(pod)) {
            return None;
        }
        let stuck = self.lookout.stuck(self.context, Place::Cluster).await;
        stuck.map(|layer| layer.detail)
    }
}
