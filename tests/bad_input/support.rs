//! A machine of its own for each case: an empty `PATH`, a home folder, no engine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use tempfile::TempDir;

/// Stands where a credential could stand, and must never be told.
pub(crate) const SECRET: &str = "s3cret-hunter2";
/// No refusal takes as long; a case that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// An invocation with folders of its own, no engine, and nothing on `PATH`.
pub(crate) struct Machine {
    home: TempDir,
}

impl Machine {
    pub(crate) fn bare() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file outside of what the tool may make, and gives back its path.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A program on `PATH` that does nothing.
    pub(crate) fn program(&self, name: &str) {
        let path = self.write(name, "#!/bin/sh\n");
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn xtask(&self, args: &[&str]) -> Command {
        self.command(Path::new(env!("CARGO_BIN_EXE_xtask")), args)
    }

    pub(crate) fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", self.home.path())
            .env("HOME", self.home.path())
            .env("DOCKER_HOST", "unix:///no/such/docker.sock")
            .timeout(PATIENCE)
            .args(args);
        command
    }

    /// Whether secrets or a cluster's files were made.
    pub(crate) fn has_state(&self) -> bool {
        self.path(".local/state/kedge/kedge").exists()
    }

    /// Whether the tool has made anything at all.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.path(".local").exists() && !self.path(".cache").exists()
    }
}

/// What a refusal says: nothing on standard output, the exit code, and no secret.
pub(crate) fn refusal(command: &mut Command, code: i32) -> String {
    let assert = command.assert().code(code);
    let output = assert.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "a refusal prints nothing to standard output");
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!told.contains(SECRET), "{told}");
    told
}

/// A file with a mistake in it.
pub(crate) struct Case {
    /// What is wrong, in words.
    pub(crate) name: &'static str,
    /// The file.
    pub(crate) text: String,
    /// What stands on the line that has to be named; nothing for the file as a whole.
    pub(crate) at: &'static str,
    /// What has to be told.
    pub(crate) told: &'static str,
}

impl Case {
    /// Runs the program; gives back what is wrong with what it does.
    pub(crate) fn failure(&self, machine: &Machine, file: &str, args: &[&str]) -> Option<String> {
        let output = machine.xtask(args).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = self.text.lines().position(|line| !self.at.is_empty() && line.contains(self.at));
        let place = line.map_or_else(|| format!("{file}:"), |line| format!("{file}:{}:", line + 1));
        let on_place = told.lines().any(|line| line.contains(&place) && line.contains(self.told));
        let problem = if output.status.code() != Some(3) {
            format!("the exit code is {:?}", output.status.code())
        } else if !output.stdout.is_empty() {
            "something is on standard output".into()
        } else if !on_place {
            format!("{place} is not told with {:?}", self.told)
        } else if told.contains(SECRET) {
            "the secret is told".into()
        } else if !told.contains("nothing was changed") || !machine.is_untouched() {
            "something was made".into()
        } else {
            return None;
        };
        Some(format!("{}: {problem}\n{told}", self.name))
    }
}

/// Fails with all that went wrong in any case.
pub(crate) fn report(failures: impl Iterator<Item = String>) {
    let failures: Vec<_> = failures.collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
