//! Which engine to use: the first that is reachable and can run a privileged container here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bollard::Docker;

use super::podman::{REQUEST_LIMIT, Service};
use super::{Engine, EngineKind};
use crate::process::find_on_path;

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

/// No engine here can do the work.
#[derive(Debug, thiserror::Error)]
#[error("no container engine here can run a privileged container:{reasons}")]
pub struct NoEngine {
    reasons: String,
}

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

impl Connector<'_> {
    /// Connects to Docker, if it is wanted and can do the work; else tells why not.
    ///
    /// # Errors
    /// [`NoEngine`] when Docker and nothing else was wanted.
    pub async fn docker(&self) -> Result<std::result::Result<Engine, String>> {
        if self.choice == Choice::Podman {
            return Ok(Err("docker: not wanted".into()));
        }
        match self.prove(EngineKind::Docker).await {
            Ok(engine) => Ok(Ok(engine)),
            Err(error) if self.choice == Choice::Docker => {
                Err(NoEngine { reasons: format!("\n  docker: {error:#}") }.into())
            }
            Err(error) => Ok(Err(format!("docker: {error:#}"))),
        }
    }

    /// Connects to Podman.
    ///
    /// # Errors
    /// [`NoEngine`] with the reason, and with `docker`, the reason against Docker.
    pub async fn podman(&self, docker: &str) -> Result<Engine> {
        self.prove(EngineKind::Podman)
            .await
            .map_err(|error| NoEngine { reasons: format!("\n  {docker}\n  podman: {error:#}") }.into())
    }

    async fn prove(&self, kind: EngineKind) -> Result<Engine> {
        let engine = reach(kind, self.owner, &self.folder, self.registry_port).await?;
        engine.prove_privileged().await?;
        Ok(engine)
    }
}

async fn reach(kind: EngineKind, owner: &str, folder: &Path, registry_port: u16) -> Result<Engine> {
    let (docker, service) = match kind {
        EngineKind::Docker => (reach_docker().await?, None),
        EngineKind::Podman => {
            let podman = find_on_path("podman").context("it is not installed")?;
            let (service, docker) = Service::start(&podman, folder, registry_port).await?;
            (docker, Some(service))
        }
    };
    let version = docker.version().await.context("it does not tell its version")?;
    super::version::check(&version)?;
    let components = version.components.unwrap_or_default();
    if kind == EngineKind::Docker && components.iter().any(|component| component.name.contains("Podman")) {
        bail!("its socket belongs to Podman, which KEdge starts itself: use `--engine podman`");
    }
    Ok(Engine {
        docker,
        kind,
        version: version.version.unwrap_or_default(),
        owner: owner.to_owned(),
        service,
    })
}

async fn reach_docker() -> Result<Docker> {
    let docker = Docker::connect_with_defaults().context("no socket")?.with_timeout(REQUEST_LIMIT);
    find_on_path("docker").context("the command line `docker`, which kind needs, is not on PATH")?;
    // An older engine refuses requests of a newer version of the interface.
    docker.negotiate_version().await.context("no engine answers at its socket")
}
