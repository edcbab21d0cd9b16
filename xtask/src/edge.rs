//! The edge, wherever it runs: commands inside it, what it has written, and whether it has died. The pod is reached
//! through Kubernetes, the container through the engine.

use std::time::Duration;

use anyhow::Result;
use kube::Client;

use crate::cluster::{self, exec, manifests};
use crate::context::Context;
use crate::engine::{Engine, Foreign, LogRequest, Output, Sink};
use crate::place::Place;

/// How many lines of a container that has died are told.
const LAST_LINES: usize = 10;
/// How long the cluster may take to tell whether it has the edge: less than a look at any part may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Where the edge of this deployment is: what runs counts before what has ended.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn place(context: &Context) -> Result<Place> {
    let container = context.engine.container(&context.settings.edge_container()).await?;
    let counts = match &container {
        None => false,
        Some(state) => state.running || context.engine.nodes().await?.is_empty(),
    };
    Ok(if counts { Place::Host } else { Place::Cluster })
}

/// Refuses to bring the edge up in `place` while it runs in another: the hub allows one connection for each identity of
/// the device. Asked when one looks and again when one acts, because time passes in between.
///
/// # Errors
/// [`Foreign`] when it runs elsewhere; else when the engine cannot be asked.
pub async fn refuse_second(context: &Context, place: Place) -> Result<()> {
    let running = match place {
        Place::Cluster => {
            let container = context.engine.container(&context.settings.edge_container()).await?;
            container
                .is_some_and(|state| state.running)
                .then_some("runs as a container on the engine already")
        }
        Place::Host => in_cluster(context).await?,
    };
    let Some(running) = running else { return Ok(()) };
    let name = &context.settings.cluster.name;
    let text = format!(
        "the edge of `{name}` {running}, and one device cannot run twice; remove it first: `cargo xtask down`"
    );
    Err(Foreign::at(text).into())
}

/// Whether the edge runs in the cluster, in words. One that does not answer may have it.
async fn in_cluster(context: &Context) -> Result<Option<&'static str>> {
    if context.engine.nodes().await?.is_empty() {
        return Ok(None);
    }
    let pods = async {
        let client = cluster::client(&context.paths.kubeconfig()).await?;
        cluster::pods(&client, &context.settings.deploy.namespace).await
    };
    Ok(match tokio::time::timeout(ANSWER_LIMIT, pods).await {
        Ok(Ok(pods)) => (!pods.is_empty()).then_some("runs as a pod of the cluster already"),
        Ok(Err(_)) | Err(_) => Some("may run as a pod of the cluster, which does not answer"),
    })
}

/// Runs a command in the edge.
///
/// # Errors
/// When the edge is not up, or the command could not be run.
pub async fn run(context: &Context, place: Place, command: &[&str]) -> Result<Output> {
    if let Place::Host = place {
        return context.engine.exec(&context.settings.edge_container(), command).await;
    }
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    run_in_pod(&client, &context.settings.deploy.namespace, command).await
}

/// Runs a command in the edge that is the pod of a cluster.
///
/// # Errors
/// When no pod runs, or the command could not be run.
pub async fn run_in_pod(client: &Client, namespace: &str, command: &[&str]) -> Result<Output> {
    let pod = cluster::running_pod(client, namespace).await?;
    exec::run(client, namespace, &pod, manifests::CONTAINER, command).await
}

/// The way into an edge for those who look at it for long: ours, or one in a cluster of somebody else.
pub enum Way<'a> {
    /// It is a container on the engine.
    Container(&'a Engine, String),
    /// It is a pod.
    Pod {
        /// A connection to its cluster.
        client: Client,
        /// Where it is.
        namespace: String,
        /// Its name.
        pod: String,
    },
}

impl<'a> Way<'a> {
    /// Into the edge of this deployment, for as long as one likes.
    ///
    /// # Errors
    /// When the engine or the cluster cannot be asked, or there is no pod.
    pub async fn own(context: &'a Context) -> Result<Self> {
        match place(context).await? {
            Place::Host => Ok(Self::Container(&context.engine, context.settings.edge_container())),
            Place::Cluster => {
                let client = cluster::patient_client(&context.paths.kubeconfig()).await?;
                Self::pod(client, &context.settings.deploy.namespace).await
            }
        }
    }

    /// Into the pod of a cluster.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or there is no pod.
    pub async fn pod(client: Client, namespace: &str) -> Result<Self> {
        let pod = cluster::logs::pod(&client, namespace).await?;
        Ok(Self::Pod { client, namespace: namespace.to_owned(), pod })
    }

    /// Runs a command in the edge.
    ///
    /// # Errors
    /// When the command could not be run.
    pub async fn run(&self, command: &[&str]) -> Result<Output> {
        match self {
            Self::Container(engine, name) => engine.exec(name, command).await,
            Self::Pod { client, namespace, pod } => {
                exec::run(client, namespace, pod, manifests::CONTAINER, command).await
            }
        }
    }

    /// Runs a command in the edge and hands on what it prints; tells whether it succeeded.
    ///
    /// # Errors
    /// When the command could not be run, or `out` refuses.
    pub async fn stream(&self, command: &[&str], out: &mut Sink<'_>) -> Result<bool> {
        match self {
            Self::Container(engine, name) => engine.exec_stream(name, command, out).await,
            Self::Pod { client, namespace, pod } => {
                exec::stream(client, namespace, pod, manifests::CONTAINER, command, out).await
            }
        }
    }

    /// Hands on what the edge itself has written.
    ///
    /// # Errors
    /// When it cannot be asked, or `out` refuses.
    pub async fn stream_log(&self, wanted: &LogRequest, out: &mut Sink<'_>) -> Result<()> {
        match self {
            Self::Container(engine, name) => engine.stream_log(name, wanted, out).await,
            Self::Pod { client, namespace, pod } => {
                cluster::logs::stream(client, namespace, pod, wanted, out).await
            }
        }
    }
}

/// The last lines that the edge has written.
///
/// # Errors
/// When the edge is not there, or cannot be asked.
pub async fn log(context: &Context, place: Place, lines: u16) -> Result<String> {
    if let Place::Host = place {
        return context.engine.container_log(&context.settings.edge_container(), usize::from(lines)).await;
    }
    let client = cluster::client(&context.paths.kubeconfig()).await?;
    cluster::pod_log(&client, &context.settings.deploy.namespace, i64::from(lines)).await
}

/// How the edge has ended, with its last lines, when it will not come back by itself. Kubernetes starts a pod again;
/// nobody starts a container of the engine again.
pub async fn death(context: &Context, place: Place) -> Option<String> {
    let Place::Host = place else { return None };
    let name = context.settings.edge_container();
    // An engine that cannot be asked is told by the layer that rests on it.
    let state = context.engine.container(&name).await.ok()??;
    if state.running {
        return None;
    }
    let log = context.engine.container_log(&name, LAST_LINES).await.unwrap_or_default();
    let code = state.exit_code.unwrap_or_default();
    Some(format!("the container `{name}` has ended with code {code}; its last lines:\n{}", indented(&log)))
}

fn indented(log: &str) -> String {
    let lines = log.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_terminal_are_told_without_its_line_ends() {
        assert_eq!(indented("kedge: one\r\n\r\nkedge: two\r\n"), "    kedge: one\n    kedge: two");
    }
}
