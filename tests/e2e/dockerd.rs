//! A real Docker for the tests. Where none answers, Debian's is fetched, unpacked below `target/`, and run from there;
//! at the end nothing of it is left but its images, which make the next run short.

use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use xtask::process::{Process, end_group};

use crate::harness::{project, wait_until};

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(10 * 60);
const BRIDGE: &str = "docker0";

/// A Docker that answers.
pub(crate) struct Dockerd {
    /// The value of `DOCKER_HOST`.
    pub(crate) host: String,
    /// The one that this fixture has started.
    own: Option<Own>,
}

struct Own {
    process: duct::Handle,
    /// Sockets and mounts of the running engine; short, for a socket's path may not be long.
    folder: tempfile::TempDir,
    bridge_was_there: bool,
    rules_before: Vec<String>,
}

impl Dockerd {
    /// The engine of the machine, or one of our own.
    pub(crate) fn ready() -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
        if answers(&host) {
            return Self { host, own: None };
        }
        let root = unpacked();
        let folder = tempfile::Builder::new().prefix("kedge-docker-").tempdir().unwrap();
        let host = format!("unix://{}", folder.path().join("docker.sock").display());
        let (bridge_was_there, rules_before) = (bridge_exists(), rules());
        let argument = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let path = std::env::var("PATH").unwrap();
        let process = Process::new("start Docker", root.join("usr/sbin/dockerd"))
            .args([
                argument("data-root", &cache().join("data")),
                argument("exec-root", &folder.path().join("exec")),
                argument("pidfile", &folder.path().join("pid")),
                format!("--host={host}"),
            ])
            .envs([("PATH", format!("{0}/usr/bin:{0}/usr/sbin:{path}", root.display()))])
            .log(&cache().join("dockerd.log"))
            // Killed, it would leave containerd, mounts and rules behind.
            .outlives_its_parent()
            .start()
            .unwrap();
        let own = Own { process, folder, bridge_was_there, rules_before };
        let docker = Self { host, own: Some(own) };
        wait_until("Docker", || {
            let ended =
                docker.own.as_ref().is_some_and(|own| own.process.try_wait().is_ok_and(|it| it.is_some()));
            assert!(!ended, "Docker ended; its output is in target/kedge/dockerd/dockerd.log");
            answers(&docker.host)
        });
        docker
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let Some(own) = &self.own else { return };
        end_group(&own.process);
        for mount in mounts_below(own.folder.path()) {
            run("umount", &[&mount]);
        }
        if !own.bridge_was_there && bridge_exists() {
            run("ip", &["link", "delete", BRIDGE]);
        }
        remove_rules(&own.rules_before);
        // A failing test tells its own reason, and not this one.
        if !std::thread::panicking() {
            assert_eq!(mounts_below(own.folder.path()), [""; 0]);
            assert_eq!(mounts_below(&cache()), [""; 0]);
            assert_eq!(bridge_exists(), own.bridge_was_there);
            let left: Vec<_> = rules().into_iter().filter(|it| !own.rules_before.contains(it)).collect();
            assert_eq!(left, [""; 0]);
        }
    }
}

fn cache() -> PathBuf {
    project().join("target/kedge/dockerd")
}

fn answers(host: &str) -> bool {
    let Some(socket) = host.strip_prefix("unix://") else { return false };
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// The folder with Debian's packages of Docker, fetched with the machine's own package sources.
fn unpacked() -> PathBuf {
    let root = cache().join("root");
    if root.join("usr/sbin/dockerd").exists() {
        return root;
    }
    let folder = cache().join("packages");
    fs_err::create_dir_all(&folder).unwrap();
    let download = || {
        let mut command = Command::new("apt-get");
        command.args(["download", "docker.io", "containerd"]).current_dir(&folder).timeout(DOWNLOAD_LIMIT);
        command.output().unwrap().status.success()
    };
    // A machine that has never installed anything has no package lists.
    if !download() {
        Command::new("apt-get").arg("update").timeout(DOWNLOAD_LIMIT).assert().success();
        assert!(download(), "apt-get cannot download docker.io and containerd");
    }
    let partial = cache().join("partial");
    for package in fs_err::read_dir(&folder).unwrap() {
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(package.unwrap().path())
            .arg(&partial)
            .assert()
            .success();
    }
    fs_err::rename(partial, &root).unwrap();
    root
}

fn bridge_exists() -> bool {
    Path::new("/sys/class/net").join(BRIDGE).exists()
}

/// The mounts in a folder, innermost first.
fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = fs_err::read_to_string("/proc/mounts").unwrap();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let below = targets.filter(|target| Path::new(target).starts_with(folder)).map(ToOwned::to_owned);
    let mut below: Vec<_> = below.collect();
    below.reverse();
    below
}

/// Docker's chains and rules of the firewall, each with its table and its policies; those of others do not count.
fn rules() -> Vec<String> {
    let of_table = |table: &&str| {
        let output = Command::new("iptables").args(["--table", table, "--list-rules"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let ours = |line: &&str| {
            ["DOCKER", BRIDGE, "172.17.0.0/16", "-P FORWARD"].iter().any(|it| line.contains(it))
        };
        text.lines().filter(ours).map(|line| format!("{table} {line}")).collect::<Vec<_>>()
    };
    ["filter", "nat"].iter().flat_map(of_table).collect()
}

/// Removes what has come since `before`: first the rules, then the chains that nothing leads to any more.
fn remove_rules(before: &[String]) {
    let new: Vec<_> = rules().into_iter().filter(|rule| !before.contains(rule)).collect();
    for kind in ["-A ", "-N "] {
        for (table, rule) in new.iter().filter_map(|rule| rule.split_once(' ')) {
            let Some(rest) = rule.strip_prefix(kind) else { continue };
            let action = if kind == "-A " { "--delete" } else { "--delete-chain" };
            let words: Vec<_> = rest.split(' ').collect();
            run("iptables", &[&["--table", table, action], words.as_slice()].concat());
        }
    }
    for (table, policy) in before.iter().filter_map(|rule| rule.split_once(" -P ")) {
        run(
            "iptables",
            &[&["--table", table, "--policy"], policy.split(' ').collect::<Vec<_>>().as_slice()].concat(),
        );
    }
}

/// Runs a program of the clean-up; what it could not do is found by the look that follows.
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
}
