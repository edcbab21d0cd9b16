//! Which engine to use: the first that is reachable and can do what is asked of it. Whether it can run a privileged
//! container is found out by running one, and only where one is asked for, or where that decides between engines.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use bollard::Docker;
use tokio::sync::OnceCell;

use super::answer::Refusal;
use super::podman::{REQUEST_LIMIT, Service};
use super::spec::Rights;
use super::{DOCKER_SOCKET, Engine, EngineKind};
use crate::capabilities;
use crate::paths::Paths;
use crate::process::find_on_path;
use crate::settings::Settings;

/// The engine that the user wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The first one that can do the work.
    #[default]
    Auto,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

/// What is asked of an engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// To run privileged containers.
    pub privileged: bool,
    /// To be called by kind.
    pub cluster: bool,
}

/// What an engine can do here, and if not, why.
#[derive(Debug)]
pub struct Abilities {
    /// Running privileged containers.
    pub privileged: Result<()>,
    /// Running a kind cluster.
    pub cluster: Result<()>,
}

/// No engine here can do the work.
#[derive(Debug, thiserror::Error)]
#[error("no container engine here {work}:{reasons}{cure}")]
pub struct NoEngine {
    work: &'static str,
    reasons: String,
    cure: String,
}

/// Docker does not answer, whether it is absent, stopped, or closed to this user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Silent(String);

/// kind calls an engine by its command line, which is not there.
#[derive(Debug, thiserror::Error)]
#[error(
    "the command line `docker`, which kind needs, is not on PATH; install Debian's package `docker-cli` (`docker.io` before Debian 13)"
)]
struct NoCommandLine;

/// How a connection is to be made.
#[derive(Debug)]
pub struct Connector<'a> {
    /// The engine that the user wants.
    pub choice: Choice,
    /// The deployment's name, which labels what is made.
    pub owner: &'a str,
    /// The folder for the engine's settings.
    pub folder: PathBuf,
    /// The port of the registry, which the engine reaches without TLS.
    pub registry_port: u16,
}

impl Choice {
    /// The engines that it admits, in order.
    #[must_use]
    pub fn kinds(self) -> &'static [EngineKind] {
        match self {
            Self::Auto => &[EngineKind::Docker, EngineKind::Podman],
            Self::Docker => &[EngineKind::Docker],
            Self::Podman => &[EngineKind::Podman],
        }
    }
}

impl Demand {
    /// What is asked, in words that fit after "no container engine here".
    fn words(self) -> &'static str {
        match self {
            Self { cluster: true, .. } => "can run a kind cluster",
            Self { privileged: true, .. } => "can run a privileged container",
            _ => "answers",
        }
    }
}

impl<'a> Connector<'a> {
    /// How to connect with these settings.
    #[must_use]
    pub fn of(settings: &'a Settings, paths: &Paths) -> Self {
        Self {
            choice: settings.engine.choice,
            owner: &settings.cluster.name,
            folder: paths.cache.join("engine"),
            registry_port: settings.registry.port,
        }
    }

    /// The first engine that is reachable and can do what is asked. Where nothing needs privileges, one that can give
    /// them comes first all the same, so that all parts of a deployment meet in one engine.
    ///
    /// # Errors
    /// [`NoEngine`], with the reason against each.
    pub async fn choose(&self, demand: Demand) -> Result<Engine> {
        let kinds = self.choice.kinds();
        let mut limited = None;
        let mut cures = String::new();
        let mut reasons = String::new();
        for kind in kinds {
            let engine = match self.reach(*kind).await {
                Ok(engine) => engine,
                Err(error) => {
                    let _ = write!(reasons, "\n  {kind}: {error:#}");
                    continue;
                }
            };
            // With nothing to choose between, there is nothing to try.
            if !demand.privileged && limited.is_none() && kinds.last() == Some(kind) {
                return Ok(engine);
            }
            match engine.meets(Demand { privileged: true, ..demand }).await {
                Ok(()) => return Ok(engine),
                Err(error) => {
                    let _ = write!(reasons, "\n  {}: {error:#}", engine.description());
                    if cures.is_empty() && !error.is::<NoCommandLine>() {
                        cures = cure(*kind, self.choice);
                    }
                    limited.get_or_insert(engine);
                }
            }
        }
        match limited {
            Some(engine) if !demand.privileged => Ok(engine),
            _ => Err(NoEngine { work: demand.words(), reasons, cure: cures }.into()),
        }
    }

    /// Connects to an engine, whatever it can do.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn reach(&self, kind: EngineKind) -> Result<Engine> {
        let (docker, service) = match kind {
            EngineKind::Docker => (reach_docker().await?, None),
            EngineKind::Podman => {
                let podman = find_on_path("podman").context("it is not installed")?;
                let (service, docker) = Service::start(&podman, &self.folder, self.registry_port).await?;
                (docker, Some(service))
            }
        };
        let version = docker.version().await.map_err(|error| Refusal::of(kind, error));
        let version = version.context("it does not tell its version")?;
        super::version::check(&version)?;
        let components = version.components.unwrap_or_default();
        if kind == EngineKind::Docker && components.iter().any(|component| component.name.contains("Podman"))
        {
            bail!("its socket belongs to Podman, which KEdge starts itself: use `--engine podman`");
        }
        Ok(Engine {
            docker,
            kind,
            version: version.version.unwrap_or_default(),
            owner: self.owner.to_owned(),
            folder: self.folder.clone(),
            profile_tried: OnceCell::new(),
            service,
        })
    }
}

/// What to do where an engine answers and cannot run privileged containers.
fn cure(kind: EngineKind, choice: Choice) -> String {
    let without = "do without privileges: `cargo xtask e2e --on host --tier confined";
    match (kind, choice) {
        (EngineKind::Docker, Choice::Docker) => format!(
            "\nuse `--engine podman`, which gives a container what there is to give, or {without} --engine docker`"
        ),
        _ => format!("\n{without}`"),
    }
}

async fn reach_docker() -> Result<Docker> {
    let answers = async {
        let docker = Docker::connect_with_defaults()?.with_timeout(REQUEST_LIMIT);
        // An older engine refuses requests of a newer version of the interface.
        docker.negotiate_version().await
    };
    let host = std::env::var("DOCKER_HOST").ok();
    match answers.await {
        Ok(docker) => Ok(docker),
        Err(error) => {
            Err(anyhow!(Refusal::of(EngineKind::Docker, error)).context(Silent(no_docker(host.as_deref()))))
        }
    }
}

/// That Docker does not answer, and what to do about it.
fn no_docker(host: Option<&str>) -> String {
    if let Some(host) = host {
        return format!("no working engine at `{host}`, where DOCKER_HOST says");
    }
    let cure = match (is_docker_installed(), Path::new("/run/systemd/system").exists()) {
        (false, _) => "it is not installed; Debian's package `docker.io` has it",
        (true, true) => "start it: `sudo systemctl start docker`",
        (true, false) => "start it: `sudo dockerd`",
    };
    format!("no working engine at `{DOCKER_SOCKET}`; {cure}")
}

/// Whether the engine itself is on this machine; its command line alone is not enough.
#[must_use]
pub fn is_docker_installed() -> bool {
    find_on_path("dockerd").is_some() || Path::new("/usr/sbin/dockerd").exists()
}

/// Whether there may be a Docker, though it does not answer: the engine itself, or the socket of one. `host` is
/// `DOCKER_HOST`; what it names beyond this machine may always be there.
#[must_use]
pub fn may_be_docker(host: Option<&str>) -> bool {
    match host {
        None => is_docker_installed() || Path::new(DOCKER_SOCKET.trim_start_matches("unix://")).exists(),
        Some(host) => host
            .strip_prefix("unix://")
            .is_none_or(|socket| Path::new(socket).exists() || find_on_path("dockerd").is_some()),
    }
}

impl Engine {
    /// Whether the engine can do what is asked.
    ///
    /// # Errors
    /// When it cannot; the error says why.
    async fn meets(&self, demand: Demand) -> Result<()> {
        if demand.cluster {
            self.can_be_called_by_kind()?;
        }
        // A privileged container of this deployment that runs is proof enough.
        if !demand.privileged || self.runs_privileged().await? {
            return Ok(());
        }
        let tried = self.try_rights(Rights::All).await;
        tried.with_context(|| unprivileged_words(self.kind, &capabilities::missing()))
    }

    fn can_be_called_by_kind(&self) -> Result<()> {
        if self.kind == EngineKind::Docker {
            find_on_path("docker").ok_or(NoCommandLine)?;
        }
        Ok(())
    }

    /// Tries out what the engine can do here.
    pub async fn abilities(&self) -> Abilities {
        let privileged = self.meets(Demand { privileged: true, cluster: false }).await;
        let cluster = match &privileged {
            Ok(()) => self.can_be_called_by_kind(),
            Err(_) => Err(anyhow!("its nodes are privileged containers")),
        };
        Abilities { privileged, cluster }
    }
}

/// Why privileged containers do not work, as far as the machine tells.
fn unprivileged_words(kind: EngineKind, missing: &[String]) -> String {
    let problem = "it cannot run a privileged container";
    match (kind, missing) {
        (_, []) => problem.to_owned(),
        (EngineKind::Docker, missing) => format!(
            "{problem}, for which it asks for every capability that the kernel knows, and this machine's bounding set lacks {}",
            missing.join(", ")
        ),
        (EngineKind::Podman, missing) => {
            format!("{problem}; this machine's bounding set lacks {}", missing.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_capability_and_the_cure_are_named() {
        let missing = ["CAP_SYS_RESOURCE".to_owned()];
        let words = unprivileged_words(EngineKind::Docker, &missing);
        assert!(words.contains("every capability") && words.ends_with("lacks CAP_SYS_RESOURCE"), "{words}");
        assert!(!unprivileged_words(EngineKind::Podman, &missing).contains("every capability"));
        assert_eq!(unprivileged_words(EngineKind::Docker, &[]), "it cannot run a privileged container");
        let asked_for = cure(EngineKind::Docker, Choice::Docker);
        assert!(asked_for.contains("--engine podman") && asked_for.contains("--on host --tier confined"));
        assert!(!cure(EngineKind::Docker, Choice::Auto).contains("--engine podman"), "it was tried");
    }

    #[test]
    fn what_no_engine_can_do_is_told_as_it_was_asked() {
        let words = |privileged, cluster| Demand { privileged, cluster }.words();
        assert_eq!(words(true, true), "can run a kind cluster");
        assert_eq!(words(true, false), "can run a privileged container");
        assert_eq!(words(false, false), "answers");
    }

    #[test]
    fn a_docker_that_is_closed_or_elsewhere_may_be_there() {
        let socket = tempfile::NamedTempFile::new().unwrap();
        assert!(may_be_docker(Some(&format!("unix://{}", socket.path().display()))));
        assert!(may_be_docker(Some("tcp://lab:2376")));
    }

    #[test]
    fn a_docker_elsewhere_is_not_ours_to_install_or_start() {
        let words = no_docker(Some("tcp://lab:2376"));
        assert_eq!(words, "no working engine at `tcp://lab:2376`, where DOCKER_HOST says");
    }
}
