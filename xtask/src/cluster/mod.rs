//! Access to a Kubernetes cluster: apply, look, and run a command in the pod, without kubectl.

pub mod apply;
pub mod confinement;
pub mod diff;
pub mod exec;
pub mod listing;
pub mod logs;
pub mod manifests;
pub mod pulls;
pub mod refusal;
pub mod render;
pub mod rollout;

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Node, Pod};
use kube::api::{DeleteParams, LogParams};
use kube::client::AuthError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

pub use self::apply::{apply, drifts};

/// An API server that says nothing for so long hangs.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// A client for the cluster of a kubeconfig file; the user's own file is never read.
///
/// # Errors
/// When the file is missing or cannot be used.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    client_with(kubeconfig, Some(READ_LIMIT)).await
}

/// As [`client`], but one that never gives up a connection on which nothing comes: for following a log.
///
/// # Errors
/// As [`client`].
pub async fn patient_client(kubeconfig: &Path) -> Result<Client> {
    client_with(kubeconfig, None).await
}

async fn client_with(kubeconfig: &Path, read_limit: Option<Duration>) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("failed to read `{}`; is the cluster up?", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("`{}` is not a usable kubeconfig", kubeconfig.display()))?;
    // The API server is on the loopback interface, whatever proxy the environment names for the rest.
    config.proxy_url = None;
    config.read_timeout = read_limit;
    Client::try_from(config).context("failed to make a client for the cluster")
}

/// Whether the node's condition `Ready` holds.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// Whether the pod is ready and not about to end.
#[must_use]
pub fn is_pod_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the pod's containers run and it is not about to end.
#[must_use]
pub fn is_pod_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
}

/// Whether the edge's container in the pod runs: between two starts the pod itself is called running as well.
#[must_use]
pub fn is_container_running(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut states = containers.filter(|it| it.name == manifests::CONTAINER).map(|it| it.state.as_ref());
    states.any(|state| state.is_some_and(|state| state.running.is_some()))
}

/// The states of all containers of a pod, in the order in which they start.
fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let statuses = pod.status.iter();
    statuses
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten())
}

/// The container that tells most of how its pod is: one that keeps the others from starting, else the edge's.
fn telling(pod: &Pod) -> Option<&ContainerStatus> {
    let hinders = |container: &&ContainerStatus| {
        container.state.as_ref().is_some_and(|state| {
            state.waiting.is_some() || state.terminated.as_ref().is_some_and(|ended| ended.exit_code != 0)
        })
    };
    let before = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    let mut containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let first = containers.clone().next();
    let edge = containers.find(|container| container.name == manifests::CONTAINER);
    before.into_iter().find(hinders).or(edge).or(first)
}

/// How a container has ended, with what it has said.
fn end(ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let said = ended.message.as_deref().and_then(|message| message.trim().lines().last());
    format!(
        "ended with code {}{reason}{}",
        ended.exit_code,
        said.map(|said| format!(": {said}")).unwrap_or_default()
    )
}

/// A pod in a few words: its phase, and why its container does not run.
#[must_use]
pub fn describe(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or("?");
    let Some(status) = &pod.status else { return format!("{name}: no status yet") };
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    let Some(container) = telling(pod) else {
        let unscheduled = status.conditions.iter().flatten().find(|condition| condition.status == "False");
        return format!(
            "{name}: {phase} {}",
            unscheduled.and_then(|it| it.message.clone()).unwrap_or_default()
        );
    };
    let state = match &container.state {
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            format!(
                "{}: {}",
                waiting.reason.as_deref().unwrap_or("waiting"),
                waiting.message.as_deref().unwrap_or("")
            )
        }
        Some(ContainerState { terminated: Some(ended), .. }) => end(ended),
        Some(ContainerState { running: Some(_), .. }) => format!("running, ready: {}", container.ready),
        _ => String::new(),
    };
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = before.map(|ended| format!("; before that it {}", end(ended))).unwrap_or_default();
    format!("{name}: {phase}, restarts {}, {state}{before}", container.restart_count)
}

/// All pods in a few words.
#[must_use]
pub fn describe_all(pods: &[Pod]) -> String {
    if pods.is_empty() {
        "no pod yet".into()
    } else {
        pods.iter().map(describe).collect::<Vec<_>>().join("; ")
    }
}

/// The pods of KEdge's Deployment.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn pods(client: &Client, namespace: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = kube::api::ListParams::default().labels(manifests::SELECTOR);
    let found = pods.list(&selector).await.map_err(plainly);
    Ok(found.with_context(|| format!("failed to list the pods in `{namespace}`"))?.items)
}

/// The name of KEdge's pod that runs.
///
/// # Errors
/// When none does, or the API server cannot be asked.
pub async fn running_pod(client: &Client, namespace: &str) -> Result<String> {
    let running = pods(client, namespace).await?.into_iter().find(is_pod_running);
    let name = running.and_then(|pod| pod.metadata.name);
    name.with_context(|| format!("no pod runs in the namespace `{namespace}`"))
}

/// The nodes of the cluster.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn nodes(client: &Client) -> Result<Vec<Node>> {
    let nodes: Api<Node> = Api::all(client.clone());
    Ok(nodes.list(&kube::api::ListParams::default()).await.context("failed to list the nodes")?.items)
}

/// The pod as the Deployment makes it, where there is one.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn deployed_pod(client: &Client, namespace: &str) -> Result<Option<Pod>> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let live = api.get_opt(manifests::DEPLOYMENT).await.map_err(plainly);
    let live = live.context("failed to look at the Deployment")?;
    let template = live.and_then(|live| live.spec).map(|spec| spec.template);
    Ok(template.map(|template| Pod {
        metadata: template.metadata.unwrap_or_default(),
        spec: template.spec,
        status: None,
    }))
}

/// Names of KEdge's pods that run and are not ready.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn unwell_pods(client: &Client, namespace: &str) -> Result<Vec<String>> {
    let pods = pods(client, namespace).await?;
    let unwell = pods.into_iter().filter(|pod| is_pod_running(pod) && !is_pod_ready(pod));
    Ok(unwell.filter_map(|pod| pod.metadata.name).collect())
}

/// Ends pods; the Deployment starts others.
///
/// # Errors
/// When the API server refuses.
pub async fn restart(client: &Client, namespace: &str, pods: &[String]) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods {
        // The Deployment may have replaced the pod by itself.
        fine_when_gone(api.delete(pod, &DeleteParams::default()).await)
            .with_context(|| format!("failed to restart the pod `{pod}`"))?;
    }
    Ok(())
}

/// What the API server does not do, in its own words: kube's error would repeat them three times, with all that goes with
/// them.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The HTTP status.
    pub code: u16,
    message: String,
}

/// The error of kube, in the words of the API server where they are from there.
pub(crate) fn plainly(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => Refused { code: status.code, message: status.message }.into(),
        // Its own text would show the arguments and variables of the program, which may be secrets.
        kube::Error::Auth(AuthError::AuthExecRun { out, .. }) => anyhow::anyhow!(
            "the program of the kubeconfig that logs in ended with {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        ),
        kube::Error::Auth(AuthError::AuthExecStart(error)) => no_login_program(None, &error),
        kube::Error::Service(error) => match error.downcast::<AuthError>() {
            // A login that was renewed.
            Ok(error) => plainly(kube::Error::Auth(*error)),
            Err(error) => anyhow::anyhow!("{}", innermost(&*error)),
        },
        kube::Error::HyperError(error) => anyhow::anyhow!("{}", innermost(&error)),
        other => other.into(),
    }
}

/// The kubeconfig's login program, of which the name may be known, cannot be started.
pub(crate) fn no_login_program(name: Option<&str>, error: &std::io::Error) -> anyhow::Error {
    let name = name.map(|name| format!(", `{name}`,")).unwrap_or_default();
    let why = match error.kind() {
        ErrorKind::NotFound => "is not here".to_owned(),
        _ => format!("cannot be started: {error}"),
    };
    anyhow::anyhow!(
        "the program{name} by which the kubeconfig logs in {why}; install it (for AKS: `az aks install-cli`)"
    )
}

/// What is at the bottom of an error whose upper layers say it again: what the system has said, where that is there.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = || std::iter::successors(Some(error), |error| error.source());
    let refused = chain().find_map(|error| error.downcast_ref::<std::io::Error>());
    match refused.map(std::io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        _ => chain().last().map(ToString::to_string).unwrap_or_default(),
    }
}

/// What is not there any longer need not be removed.
///
/// # Errors
/// When something could not be removed.
pub fn fine_when_gone<T>(deleted: kube::Result<T>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// The last lines that KEdge's pods have written, of the run before as well where the container was restarted.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn pod_log(client: &Client, namespace: &str, lines: i64) -> Result<String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut text = String::new();
    for pod in pods(client, namespace).await? {
        let name = pod.metadata.name.unwrap_or_default();
        for previous in [true, false] {
            let params = LogParams {
                container: Some(manifests::CONTAINER.into()),
                tail_lines: Some(lines),
                previous,
                ..LogParams::default()
            };
            // There is a previous run only after a restart.
            match api.logs(&name, &params).await {
                Ok(log) => text.push_str(&log),
                Err(_) if previous => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("failed to read the log of the pod `{name}`"));
                }
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_already_need_not_be_removed() {
        let refused = |reason: &str| {
            let status = kube::core::Status { reason: reason.into(), ..kube::core::Status::default() };
            Err::<(), _>(kube::Error::Api(Box::new(status)))
        };
        assert!(fine_when_gone(refused("NotFound")).is_ok() && fine_when_gone(Ok(())).is_ok());
        assert!(fine_when_gone(refused("Forbidden")).is_err());
    }

    #[test]
    fn what_cannot_be_reached_is_told_once_and_plainly() {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Outer(#[source] std::io::Error);
        let told = |kind| plainly(kube::Error::Service(Box::new(Outer(std::io::Error::from(kind)))));
        assert_eq!(format!("{:#}", told(ErrorKind::ConnectionRefused)), "connection refused");
        assert_eq!(format!("{:#}", told(ErrorKind::TimedOut)), "timed out");
    }

    #[test]
    fn a_login_program_that_is_not_there_is_told_with_where_to_get_it() {
        let error = std::io::Error::from(ErrorKind::NotFound);
        let told = format!("{:#}", no_login_program(Some("kubelogin"), &error));
        assert!(
            told.contains("the program, `kubelogin`, by which the kubeconfig logs in is not here"),
            "{told}"
        );
        let told = format!("{:#}", plainly(kube::Error::Auth(AuthError::AuthExecStart(error))));
        assert!(told.contains("is not here") && told.contains("az aks install-cli"), "{told}");
    }
}
