//! The SDK in a process of its own, led line by line.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::OnceCell;

use crate::python;

/// Longer than the SDK takes for anything, its own retries included.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// The environment is made once for all tests.
static ENVIRONMENT: OnceCell<std::path::PathBuf> = OnceCell::const_new();

pub(crate) struct Sdk {
    _child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Sdk {
    pub(crate) async fn start() -> Self {
        let environment =
            ENVIRONMENT.get_or_init(|| python::environment(Path::new(env!("CARGO_TARGET_TMPDIR")))).await;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/client.py");
        let mut child = Command::new(environment.join("bin/python"))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { commands, answers: BufReader::new(answers).lines(), _child: child }
    }

    /// Gives a command, and the answer or the error.
    pub(crate) async fn attempt(&mut self, command: &Value) -> Result<Value, String> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let line = tokio::time::timeout(LIMIT, self.answers.next_line()).await;
        let line =
            line.unwrap_or_else(|_| panic!("no answer to {command}")).unwrap().expect("the script runs");
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        match answer["error"].take() {
            Value::String(error) => Err(error),
            _ => Ok(answer["ok"].take()),
        }
    }

    /// Gives a command that works.
    pub(crate) async fn call(&mut self, command: Value) -> Value {
        self.attempt(&command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// What arrives next that is of this kind.
    pub(crate) async fn next(&mut self, event: &str) -> Value {
        loop {
            let arrived = self.call(json!({"do": "next"})).await;
            if arrived["event"] == event {
                return arrived;
            }
        }
    }
}
