//! Commands inside the pod, as `kubectl exec` runs them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::engine::Output;

/// A command that has not ended by then hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// More than any command here prints; the rest would only fill memory.
const MOST_OUTPUT: u64 = 1 << 20;

/// Runs `command` in the container `container` of a pod.
///
/// # Errors
/// When the command could not be run at all; one that fails is an [`Output`] without success.
pub async fn run(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
) -> Result<Output> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = AttachParams::default().stdin(false).stdout(true).stderr(true).container(container);
    let exchange = async {
        let mut process = pods.exec(pod, command.iter().copied(), &params).await?;
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let status = process.take_status();
        let (stdout, stderr) = tokio::join!(read(stdout), read(stderr));
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let success = status.is_some_and(|status| status.status.as_deref() == Some("Success"));
        anyhow::Ok(Output { success, stdout: stdout?, stderr: stderr? })
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .with_context(|| format!("it did not end within {} s", LIMIT.as_secs()))
        .and_then(|ended| ended)
        .with_context(|| format!("failed to run `{}` in the pod `{pod}`", command.join(" ")))
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> Result<String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(MOST_OUTPUT).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
