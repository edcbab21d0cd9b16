//! The container engine: one type for Docker and for Podman's compatible interface.
//!
//! This module is the only one that knows `bollard`. Everything that it makes carries [`OWNER_LABEL`], so that
//! clean-up can find exactly that, whatever an aborted run left behind.

mod answer;
mod containers;
mod detect;
mod evidence;
mod exec;
mod images;
mod inventory;
mod life;
mod logs;
mod podman;
mod probe;
mod security;
mod spec;
mod version;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bollard::Docker;
use tokio::sync::OnceCell;

pub use self::containers::{ContainerState, Fit};
pub use self::detect::{
    Abilities, Choice, Connector, Demand, NoEngine, Silent, is_docker_installed, may_be_docker,
};
pub use self::exec::{Output, held, in_words};
pub use self::images::{Build, Login};
pub use self::inventory::Inventory;
pub use self::logs::{LogRequest, Sink};
pub use self::security::SYSBOX;
pub use self::spec::{ContainerFile, ContainerSpec, Named, Rights};

/// The label on every container, network and volume of a deployment, with its name as value.
pub const OWNER_LABEL: &str = "io.kedge.owner";
/// The label on every image. Containers inherit an image's labels and deployments share images, so it must
/// not say whose they are.
const IMAGE_LABEL: &str = "io.kedge.image";
/// What a container was made from, so that a changed wish is seen.
const SPEC_LABEL: &str = "io.kedge.spec";
/// kind's label on the nodes of a cluster.
const KIND_LABEL: &str = "io.x-k8s.kind.cluster";
/// Where Docker listens when nothing else is said.
const DOCKER_SOCKET: &str = "unix:///var/run/docker.sock";

/// A thing of a wanted name exists that this tool has not made, and must not touch.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Foreign(String);

impl Foreign {
    /// Somebody else's thing, in a sentence that says what to do.
    pub fn at(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Which program answers behind the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker, Moby and whatever else speaks for itself.
    Docker,
    /// Podman, through a service that this tool has started.
    Podman,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        })
    }
}

/// A connection to the container engine.
#[derive(Debug)]
pub struct Engine {
    docker: Docker,
    kind: EngineKind,
    version: String,
    owner: String,
    /// Where files are that the engine reads.
    folder: PathBuf,
    /// Whether a container that only exits could be confined by the edge's AppArmor profile, once that was tried.
    profile_tried: OnceCell<bool>,
    /// Kept for its end: the service dies with the connection.
    service: Option<podman::Service>,
}

impl Engine {
    /// Which program answers.
    #[must_use]
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// Kind and version, for example `podman 4.3.1`.
    #[must_use]
    pub fn description(&self) -> String {
        format!("{} {}", self.kind, self.version)
    }

    /// The environment in which `kind` finds this engine, with the engine settings of this tool.
    #[must_use]
    pub fn environment(&self, network: &str) -> Vec<(OsString, OsString)> {
        let kind = self.kind.to_string();
        let variable = format!("KIND_EXPERIMENTAL_{}_NETWORK", kind.to_uppercase());
        let mut environment: Vec<(OsString, OsString)> =
            vec![("KIND_EXPERIMENTAL_PROVIDER".into(), kind.into()), (variable.into(), network.into())];
        if self.kind == EngineKind::Docker && std::env::var_os("DOCKER_HOST").is_none() {
            // The command line that kind calls might otherwise follow a context to another engine.
            environment.push(("DOCKER_HOST".into(), DOCKER_SOCKET.into()));
        }
        environment.extend(self.service.iter().flat_map(podman::Service::environment));
        environment
    }

    /// Whether the engine still answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<()> {
        self.docker
            .ping()
            .await
            .map_err(|error| self.told(error))
            .context("the container engine does not answer")?;
        Ok(())
    }

    /// The folder in which the engine keeps images, containers and volumes.
    ///
    /// # Errors
    /// When the engine does not tell.
    pub async fn storage(&self) -> Result<PathBuf> {
        let info = self
            .docker
            .info()
            .await
            .map_err(|error| self.told(error))
            .context("the container engine does not answer")?;
        info.docker_root_dir
            .map(PathBuf::from)
            .context("the container engine does not tell where it keeps its images")
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(OWNER_LABEL.to_owned(), self.owner.clone())])
    }

    /// The engine's filter for what belongs to this deployment.
    fn own(&self) -> HashMap<String, Vec<String>> {
        label_filter(OWNER_LABEL, &self.owner)
    }
}

fn label_filter(label: &str, value: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])])
}

/// Whether the engine says that the thing asked for does not exist.
fn is_missing(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })
}
