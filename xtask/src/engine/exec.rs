//! Commands inside a container.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures_util::StreamExt;

use super::Engine;

/// A command that has not ended by then hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// More than any command here prints; the rest would only fill memory.
const MOST_OUTPUT: usize = 1 << 20;

/// What a command inside a container printed, and whether it succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Whether its exit code was 0.
    pub success: bool,
    /// Its standard output, trimmed.
    pub stdout: String,
    /// Its standard error, trimmed.
    pub stderr: String,
}

impl Output {
    /// What it said, wherever it said it.
    #[must_use]
    pub fn text(&self) -> &str {
        if self.stdout.is_empty() { &self.stderr } else { &self.stdout }
    }
}

impl Engine {
    /// The first process of a container, by its number on the machine; `None` when the container does not run.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn process_id(&self, name: &str) -> Result<Option<i64>> {
        let found = self.docker.inspect_container(name, None).await;
        let found = found.with_context(|| format!("failed to look at the container `{name}`"))?;
        Ok(found.state.and_then(|state| state.pid).filter(|pid| *pid > 0))
    }

    /// Runs a command in a container that runs.
    ///
    /// # Errors
    /// When the command could not be run at all; one that fails is an [`Output`] without success.
    pub async fn exec(&self, name: &str, command: &[&str]) -> Result<Output> {
        tokio::time::timeout(LIMIT, self.exchange(name, command))
            .await
            .with_context(|| format!("it did not end within {} s", LIMIT.as_secs()))
            .and_then(|ended| ended)
            .with_context(|| format!("failed to run `{}` in the container `{name}`", command.join(" ")))
    }

    async fn exchange(&self, name: &str, command: &[&str]) -> Result<Output> {
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.iter().map(ToString::to_string).collect()),
            ..ExecConfig::default()
        };
        let id = self.docker.create_exec(name, config).await.map_err(|error| self.told(error))?.id;
        let started = self.docker.start_exec(&id, None).await.map_err(|error| self.told(error))?;
        let StartExecResults::Attached { mut output, .. } = started else {
            bail!("the engine does not pass on what it prints");
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = output.next().await {
            let (stream, bytes) = match chunk.map_err(|error| self.told(error))? {
                LogOutput::StdErr { message } => (&mut stderr, message),
                other => (&mut stdout, other.into_bytes()),
            };
            let room = MOST_OUTPUT.saturating_sub(stream.len());
            stream.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        let code = self.docker.inspect_exec(&id).await.map_err(|error| self.told(error))?.exit_code;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok(Output { success: code == Some(0), stdout: text(stdout), stderr: text(stderr) })
    }
}
