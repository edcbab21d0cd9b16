//! A deployment of its own that runs are interrupted on, and a run that is watched.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use xtask::wait::{Observation, wait_for};

use crate::harness::{LIMIT, engine, state_of};

/// Not the name of any deployment that others have.
pub(crate) const NAME: &str = "kedge-broken";
/// How the plain progress says that a step has ended.
const ENDS: [&str; 4] = ["done", "unchanged", "FAILED", "stopped"];

/// A deployment, with the folder of its settings.
pub(crate) struct Deployment {
    folder: TempDir,
    name: &'static str,
    /// Where its registry is published.
    pub(crate) port: u16,
}

impl Deployment {
    /// Nothing of it is there.
    pub(crate) fn new() -> Self {
        Self::named(NAME, "")
    }

    /// The same by another name, with more settings.
    pub(crate) fn named(name: &'static str, more: &str) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let deployment = Self { folder: tempfile::tempdir().unwrap(), name, port };
        let settings = format!("[cluster]\nname = {name:?}\n[registry]\nport = {port}\n{more}");
        fs_err::write(deployment.settings(), settings).unwrap();
        deployment.succeed("down");
        deployment
    }

    fn settings(&self) -> PathBuf {
        self.path("kedge.toml")
    }

    /// A file beside the settings.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Exit code and all that a command tells.
    pub(crate) fn xtask(&self, command: &str) -> (i32, String) {
        let mut xtask = Command::cargo_bin("xtask").unwrap();
        let output = xtask
            .args(command.split(' '))
            .arg("--profile")
            .arg(self.settings())
            .timeout(LIMIT)
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let told = told.concat();
        eprintln!("cargo xtask {command}: {}\n{told}", output.status);
        (output.status.code().unwrap(), told)
    }

    pub(crate) fn succeed(&self, command: &str) -> String {
        let (code, told) = self.xtask(command);
        assert_eq!(code, 0, "cargo xtask {command} failed: {told}");
        told
    }

    /// Starts a command and goes on.
    #[expect(clippy::disallowed_methods, reason = "assert_cmd waits for the end of what it starts")]
    pub(crate) fn start(&self, command: &str) -> Run {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(command.split(' '))
            .arg("--profile")
            .arg(self.settings())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (read, heard) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in read.lines().map_while(Result::ok) {
                eprintln!("  {line}");
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Run { child, lines }
    }

    pub(crate) fn state(&self) -> PathBuf {
        state_of(self.name)
    }

    /// Nothing of it is left, also not after what was under way has ended.
    pub(crate) fn nothing_is_left(&self) {
        let since = Instant::now();
        until("time for what was under way", || since.elapsed() > Duration::from_secs(4));
        let left = named(self.name);
        assert!(left.is_empty(), "left: {left:#?}");
        assert!(!self.state().exists(), "the state is left");
    }
}

/// A command that runs, and what it tells.
pub(crate) struct Run {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Run {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn told(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits until it tells a line like this; it must not end before.
    pub(crate) fn wait_until_told(&mut self, what: &str, is_it: impl Fn(&str) -> bool) {
        let mut ended = false;
        until(what, || {
            let told = self.told().lines().any(&is_it);
            assert!(told || !ended, "it ended before {what}");
            ended = self.child.try_wait().unwrap().is_some();
            told
        });
    }

    /// Waits until a step has begun, and then some.
    pub(crate) fn wait_for_step(&mut self, step: &str, more: Duration) {
        self.wait_until_told(&format!("the step {step}"), |line| begins(line, step));
        let since = Instant::now();
        until("the moment to strike", || since.elapsed() >= more);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        kill_process(pid(self.child.id()), Signal::INT).unwrap();
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// A process of the engine that it has started.
    pub(crate) fn engine_service(&self) -> Option<Pid> {
        let all = fs_err::read_dir("/proc").unwrap();
        let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let is_it = |process: &u32| {
            let read =
                |name: &str| fs_err::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
            let parent = format!("PPid:\t{}", self.pid());
            read("status").lines().any(|line| line == parent)
                && read("cmdline").replace('\0', " ").contains("system service")
        };
        all.into_iter().find(is_it).map(pid)
    }
}

pub(crate) fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

fn begins(line: &str, step: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().take(3).collect();
    words.len() == 3 && words[0].ends_with('s') && words[1] == step && !ENDS.contains(&words[2])
}

/// Everything in the engine that has the name, as its own or in a label.
pub(crate) fn named(name: &str) -> Vec<String> {
    let lists: [(&str, &[&str]); 3] = [
        ("container", &["ps", "--all", "--format", "{{.Names}} {{.Labels}}"]),
        ("network", &["network", "ls", "--format", "{{.Name}} {{.Labels}}"]),
        ("volume", &["volume", "ls", "--format", "{{.Name}} {{.Labels}}"]),
    ];
    let all = lists.iter().flat_map(|(kind, command)| {
        let lines: Vec<_> = engine(command).lines().map(|line| format!("{kind} {line}")).collect();
        lines
    });
    all.filter(|line| line.contains(name)).collect()
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let look = || {
        let seen = if condition() { Observation::Ready(()) } else { Observation::NotYet("not yet".into()) };
        std::future::ready(seen)
    };
    runtime.block_on(wait_for(what, LIMIT, look)).unwrap();
}
