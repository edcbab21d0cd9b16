//! What KEdge's pods have written, and go on to write.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};

use super::{is_pod_running, manifests, plainly, pods};
use crate::engine::{LogRequest, Sink};

/// How long the API server may take before it begins to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The name of the pod that a person means: the one that runs, else any.
///
/// # Errors
/// When there is none, or the API server cannot be asked.
pub async fn pod(client: &Client, namespace: &str) -> Result<String> {
    let pods = tokio::time::timeout(ANSWER_LIMIT, pods(client, namespace))
        .await
        .context("the API server does not answer")??;
    let chosen = pods.iter().find(|pod| is_pod_running(pod)).or(pods.first());
    chosen
        .and_then(|pod| pod.metadata.name.clone())
        .with_context(|| format!("there is no pod of KEdge in the namespace `{namespace}`"))
}

/// Hands on the log of a pod, and with [`LogRequest::follow`] what it writes until it ends. For that, the client must not
/// give up a connection on which nothing comes for a while.
///
/// # Errors
/// When the API server cannot be asked, there was no previous run, or `out` refuses.
pub async fn stream(
    client: &Client,
    namespace: &str,
    pod: &str,
    wanted: &LogRequest,
    out: &mut Sink<'_>,
) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = LogParams {
        container: Some(manifests::CONTAINER.into()),
        follow: wanted.follow,
        tail_lines: wanted.tail.map(i64::from),
        // Less than a second is none for the API server.
        since_seconds: wanted.since.map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)),
        timestamps: wanted.timestamps,
        previous: wanted.previous,
        ..LogParams::default()
    };
    let failed = || format!("failed to read the log of the pod `{pod}`");
    let opened = tokio::time::timeout(ANSWER_LIMIT, api.log_stream(pod, &params)).await;
    let log = opened.context("the API server does not answer").with_context(failed)?;
    let log = log.map_err(plainly).with_context(failed)?;
    let mut log = std::pin::pin!(log);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = log.read(&mut buffer).await.with_context(failed)?;
        if read == 0 {
            return Ok(());
        }
        out(&buffer[..read])?;
    }
}
