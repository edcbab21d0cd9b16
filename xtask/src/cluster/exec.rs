//! Commands inside the pod, as `kubectl exec` runs them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::engine::{Output, Sink, held, in_words};

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
        .with_context(|| failed_in(pod, command))
}

fn failed_in(pod: &str, command: &[&str]) -> String {
    format!("failed to run `{}` in the pod `{pod}`", in_words(command))
}

/// Runs `command` in the container `container` of a pod, and hands on what it prints as it prints it, for as long as it takes.
/// The command ends with the connection. Tells whether it succeeded.
///
/// # Errors
/// When the command could not be run at all, or `out` refuses.
pub async fn stream(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
    out: &mut Sink<'_>,
) -> Result<bool> {
    let failed = || failed_in(pod, command);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = AttachParams::default().stdin(true).stdout(true).stderr(false).container(container);
    let begun = tokio::time::timeout(LIMIT, pods.exec(pod, held(command), &params)).await;
    let mut process =
        begun.context("the API server does not answer").with_context(failed)?.with_context(failed)?;
    // The input is held open until the end.
    let _input = process.stdin();
    let status = process.take_status();
    let mut stdout = process.stdout().context("its output is not passed on").with_context(failed)?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = stdout.read(&mut buffer).await.with_context(failed)?;
        if read == 0 {
            break;
        }
        out(&buffer[..read])?;
    }
    let status = match status {
        Some(status) => tokio::time::timeout(LIMIT, status).await.ok().flatten(),
        None => None,
    };
    Ok(status.is_some_and(|status| status.status.as_deref() == Some("Success")))
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> Result<String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(MOST_OUTPUT).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
