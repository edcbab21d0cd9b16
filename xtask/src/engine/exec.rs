//! Commands inside a container.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures_util::StreamExt;

use super::{Engine, Sink};

/// A command that has not ended by then hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// More than any command here prints; the rest would only fill memory.
const MOST_OUTPUT: usize = 1 << 20;

/// Runs the command in its arguments, and ends it when standard input ends, as it does when nobody is connected any longer:
/// a program that follows a quiet log would else stay in the container for ever. Both outputs are one, in order.
const HELD: &str = "exec 3<&0; \"$@\" </dev/null 2>&1 3<&- & it=$!; \
     { cat <&3; kill $it; } >/dev/null 2>&1 & holder=$!; \
     wait $it; code=$?; kill $holder 2>/dev/null; exit $code";

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

/// The command, in a shell that ends it together with its connection.
#[must_use]
pub fn held<'a>(command: &[&'a str]) -> Vec<&'a str> {
    ["sh", "-c", HELD, "sh"].iter().chain(command).copied().collect()
}

/// A command in words; of a script, the first line says enough.
#[must_use]
pub fn in_words(command: &[&str]) -> String {
    let words = command.join(" ");
    let mut lines = words.lines();
    let (first, more) = (lines.next().unwrap_or_default().trim_end(), lines.next().is_some());
    format!("{first}{}", if more { " …" } else { "" })
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
            .with_context(|| format!("failed to run `{}` in the container `{name}`", in_words(command)))
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

    /// Runs a command in a container that runs, and hands on what it prints as it prints it, for as long as it takes. The
    /// command ends with the connection. Tells whether it succeeded.
    ///
    /// # Errors
    /// When the command could not be run at all, or `out` refuses.
    pub async fn exec_stream(&self, name: &str, command: &[&str], out: &mut Sink<'_>) -> Result<bool> {
        self.pass_on(name, command, out)
            .await
            .with_context(|| format!("failed to run `{}` in the container `{name}`", command.join(" ")))
    }

    async fn pass_on(&self, name: &str, command: &[&str], out: &mut Sink<'_>) -> Result<bool> {
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(held(command).into_iter().map(str::to_owned).collect()),
            ..ExecConfig::default()
        };
        let id = self.docker.create_exec(name, config).await.map_err(|error| self.told(error))?.id;
        let started = self.docker.start_exec(&id, None).await.map_err(|error| self.told(error))?;
        // The input is held open until the end.
        let StartExecResults::Attached { mut output, input: _input } = started else {
            bail!("the engine does not pass on what it prints");
        };
        while let Some(chunk) = output.next().await {
            out(&chunk.map_err(|error| self.told(error))?.into_bytes())?;
        }
        let code = self.docker.inspect_exec(&id).await.map_err(|error| self.told(error))?.exit_code;
        Ok(code == Some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_ends_with_its_connection_and_keeps_its_exit_code() {
        let run = |command: &str, input: &str| {
            let script = format!("{input} | {{ \"$@\"; echo code $?; }}");
            let argv = held(&["sh", "-c", command]).into_iter().map(str::to_owned);
            crate::process::Process::new("run", "sh")
                .args(["-c".to_owned(), script, "sh".to_owned()].into_iter().chain(argv))
                .limit(Duration::from_secs(20))
                .read()
        };
        // While the input is open, it goes on to its own end.
        assert_eq!(
            run("echo one; echo two >&2; exit 3", "sleep 1").await.unwrap().trim(),
            "one\ntwo\ncode 3"
        );
        // `true` closes it at once.
        assert_eq!(run("exec sleep 60", "true").await.unwrap().trim(), "code 143");
    }
}
