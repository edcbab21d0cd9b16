//! Podman's Docker-compatible service, started as a child with settings of our own.
//!
//! The settings stand in files in the cache folder, where they stay for the containers that outlive this program,
//! and reach Podman by environment; neither the user's nor
//! the system's configuration is read for them or written.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::task::JoinHandle;

use crate::paths::{private_folder, write_private};
use crate::process::{Process, end_group};
use crate::wait::{Observation, wait_for};

/// How long the service waits for work before it ends: it outlives a killed tool by this.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// How long the service may take to answer its first ping.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a request may take; image builds run inside one request.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(60 * 60);
/// No container needs more open files than this, and some runtimes allocate by the limit.
const MOST_FILES: u64 = 65_536;
/// Enough processes for a cluster on one node.
const MOST_PROCESSES: u64 = 20_000;

/// The running service and the environment that makes other Podman commands act alike.
#[derive(Debug)]
pub(super) struct Service {
    handle: duct::Handle,
    keep_alive: JoinHandle<()>,
    log: PathBuf,
    // Removed with the socket in it when the service ends.
    _socket_folder: tempfile::TempDir,
    environment: Vec<(OsString, OsString)>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.keep_alive.abort();
        end_group(&self.handle);
    }
}

impl Service {
    /// Starts the service and waits until it answers.
    pub(super) async fn start(podman: &Path, folder: &Path, registry_port: u16) -> Result<(Self, Docker)> {
        let environment = write_settings(folder, registry_port)?;
        let socket_folder = tempfile::Builder::new()
            .prefix("kedge-")
            .tempdir()
            .context("failed to make a folder for Podman's socket")?;
        let socket = socket_folder.path().join("podman.sock");
        let log = folder.join("podman-service.log");
        let handle = Process::new("start Podman's service", podman)
            .args(["system", "service"])
            .args([format!("--time={}", IDLE_LIMIT.as_secs())])
            .args([format!("unix://{}", socket.display())])
            .envs(environment.clone())
            .log(&log)
            // Killed while it sets up a container's network, it would leave firewall rules that nobody removes.
            .outlives_its_parent()
            .start()?;
        let idle = tokio::spawn(async {});
        let mut service = Self { handle, keep_alive: idle, log, _socket_folder: socket_folder, environment };
        let docker = service.wait_until_answering(&socket).await?;
        service.keep_alive = tokio::spawn(keep_alive(docker.clone()));
        Ok((service, docker))
    }

    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        self.environment.clone()
    }

    /// Whether the service still runs.
    ///
    /// # Errors
    /// When it has ended; the error says how.
    pub(super) fn has_not_ended(&self) -> Result<()> {
        let log = self.log.display();
        match self.handle.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(output)) => {
                bail!("Podman's service has ended ({}); its output is in `{log}`", output.status)
            }
            Err(error) => {
                Err(error).with_context(|| format!("Podman's service has ended; its output is in `{log}`"))
            }
        }
    }

    async fn wait_until_answering(&self, socket: &Path) -> Result<Docker> {
        let connection = wait_for("Podman's service", START_LIMIT, || async {
            if let Err(error) = self.has_not_ended() {
                return Observation::Failed(format!("{error:#}"));
            }
            let docker = Docker::connect_with_unix(
                &socket.to_string_lossy(),
                REQUEST_LIMIT.as_secs(),
                API_DEFAULT_VERSION,
            );
            match docker {
                Ok(docker) => match docker.ping().await {
                    Ok(_) => Observation::Ready(docker),
                    Err(error) => Observation::NotYet(error.to_string()),
                },
                Err(error) => Observation::NotYet(error.to_string()),
            }
        })
        .await?;
        Ok(connection)
    }
}

/// Keeps the service from ending for want of work while this program runs.
async fn keep_alive(docker: Docker) {
    let mut ticks = tokio::time::interval(IDLE_LIMIT / 3);
    loop {
        ticks.tick().await;
        // A service that has died is told by the next request that matters.
        let _ = docker.ping().await;
    }
}

/// Writes the settings files; returns the variables that point to them.
fn write_settings(folder: &Path, registry_port: u16) -> Result<Vec<(OsString, OsString)>> {
    private_folder(folder)?;
    let limits = fs_err::read_to_string("/proc/self/limits").unwrap_or_default();
    let systemd = Path::new("/run/systemd/system").exists();
    let file = |name: &str, contents: String| -> Result<PathBuf> {
        let path = folder.join(name);
        write_private(&path, contents.as_bytes())?;
        Ok(path)
    };
    let containers = file("containers.conf", containers_conf(&limits, systemd))?;
    let registries = file(&format!("registries-{registry_port}.conf"), registries_conf(registry_port))?;
    Ok(vec![
        ("CONTAINERS_CONF".into(), containers.into()),
        ("CONTAINERS_REGISTRIES_CONF".into(), registries.into()),
    ])
}

/// `crun` refuses hybrid cgroup hierarchies, and default ulimits above the host's hard limits cannot be set;
/// `runc` and limits within those of this process work everywhere.
fn containers_conf(proc_limits: &str, systemd: bool) -> String {
    let manager = if systemd { "systemd" } else { "cgroupfs" };
    let limits: Vec<String> = [
        hard_limit(proc_limits, "Max open files").map(|hard| ("nofile", hard.min(MOST_FILES))),
        hard_limit(proc_limits, "Max processes")
            .map(|hard| ("nproc", hard.saturating_sub(1).min(MOST_PROCESSES))),
    ]
    .into_iter()
    .flatten()
    .map(|(name, limit)| format!("\"{name}={limit}:{limit}\""))
    .collect();
    format!(
        "[engine]\nruntime = \"runc\"\ncgroup_manager = \"{manager}\"\nevents_logger = \"file\"\n\n\
         [network]\nnetwork_backend = \"netavark\"\n\n[containers]\ndefault_ulimits = [{}]\n",
        limits.join(", ")
    )
}

/// Forgets which names a network has had that is not there any longer. A container that was killed while it was made leaves
/// its name with Podman's name server, and with it the network's old address, at which that server would go on to listen: in
/// the next network of that name, nothing would be found.
///
/// # Errors
/// When what is left cannot be removed.
pub(super) fn forget_names(network: &str) -> Result<()> {
    let Some(folder) = runtime_folder() else { return Ok(()) };
    forget_names_in(&folder.join("containers/networks/aardvark-dns"), network)
}

fn forget_names_in(folder: &Path, network: &str) -> Result<()> {
    let path = folder.join(network);
    match fs_err::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
            .with_context(|| format!("failed to make Podman's name server forget the network `{network}`")),
        _ => Ok(()),
    }
}

/// Ends what the runtime still has of a container that Podman has removed. Where Podman is killed while it starts a container,
/// it does not know that the runtime has made it already: a process waits for the start for ever, and holds the ports.
///
/// # Errors
/// When it cannot be ended.
pub(super) async fn end_orphan(name: &str, id: &str) -> Result<()> {
    let Some(folder) = runtime_folder().filter(|_| !id.is_empty()) else { return Ok(()) };
    if !folder.join("runc").join(id).exists() {
        return Ok(());
    }
    let purpose = format!("end what is left of the container `{name}`");
    Ok(Process::new(purpose, "runc").args(["delete", "--force", id]).run().await?)
}

/// Where Podman keeps what ends with the machine.
fn runtime_folder() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/run".into());
    }
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
}

/// Our registry listens on the loopback interface without TLS.
fn registries_conf(port: u16) -> String {
    format!(
        "unqualified-search-registries = []\nshort-name-mode = \"disabled\"\n\n\
         [[registry]]\nlocation = \"localhost:{port}\"\ninsecure = true\n"
    )
}

/// The hard limit called `name` in the text of `/proc/<pid>/limits`; `None` when there is none.
fn hard_limit(proc_limits: &str, name: &str) -> Option<u64> {
    let line = proc_limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max processes             96364                96364                processes
Max open files            1024                 1048576              files
Max locked memory         unlimited            unlimited            bytes
";

    #[test]
    fn limits_stay_within_those_of_the_host() {
        let conf = containers_conf(LIMITS, false);
        assert!(conf.contains(r#"default_ulimits = ["nofile=65536:65536", "nproc=20000:20000"]"#), "{conf}");
        let conf = containers_conf(&LIMITS.replace("96364", "1000"), true);
        assert!(
            conf.contains(r#""nproc=999:999""#) && conf.contains("cgroup_manager = \"systemd\""),
            "{conf}"
        );
    }

    #[test]
    fn of_a_network_that_is_gone_no_name_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| fs_err::write(folder.path().join(name), "10.89.0.1\n").unwrap();
        write("lab");
        write("lab2");
        for _ in 0..2 {
            forget_names_in(folder.path(), "lab").unwrap();
        }
        assert!(!folder.path().join("lab").exists() && folder.path().join("lab2").exists());
        forget_names_in(&folder.path().join("none"), "lab").unwrap();
    }

    #[test]
    fn an_absent_limit_is_left_to_the_engine() {
        assert_eq!(hard_limit(LIMITS, "Max locked memory"), None);
        assert!(containers_conf("", false).contains("default_ulimits = []"));
    }
}
