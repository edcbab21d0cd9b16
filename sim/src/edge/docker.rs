//! The container engine over its socket: Docker, or anything that speaks its API.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;

use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum,
    NetworkCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, InspectContainerOptions, InspectNetworkOptions,
    ListContainersOptions, LogsOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use bollard::{ClientVersion, Docker};
use futures_util::{StreamExt, TryStreamExt};

use super::container::{DIGEST_LABEL, OWNER, OWNER_LABEL};
use super::deployment::RegistryCredential;
use super::engine::{Engine, EngineError, EngineVersion, LogFrame, LogRequest, LogStream};
use super::planner::{ContainerState, ObservedModule};

/// The API of Debian 12's engine, and the one that the real runtime uses; newer engines still speak it.
const API_VERSION: &ClientVersion = &ClientVersion { major_version: 1, minor_version: 41 };
/// Above the time that a stop may take.
const REQUEST_TIMEOUT_SECS: u64 = 120;
/// A module that ignores SIGTERM is killed after this; the pod has to end in time.
const STOP_TIMEOUT_SECS: i32 = 5;

/// The engine behind a unix socket. The socket may appear later.
#[derive(Debug)]
pub struct DockerEngine {
    socket: PathBuf,
}

impl DockerEngine {
    /// An engine at this socket.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// A handle; it holds no connection, so it is cheap and cannot go stale.
    fn docker(&self) -> Result<Docker, EngineError> {
        Docker::connect_with_unix(&self.socket.to_string_lossy(), REQUEST_TIMEOUT_SECS, API_VERSION)
            .map_err(EngineError::from)
    }

    async fn network_gateway(&self, name: &str) -> Result<Option<IpAddr>, EngineError> {
        let network = match self.docker()?.inspect_network(name, None::<InspectNetworkOptions>).await {
            Err(error) if status(&error) == Some(404) => return Ok(None),
            other => other?,
        };
        let gateway = network
            .ipam
            .and_then(|ipam| ipam.config)
            .into_iter()
            .flatten()
            .filter_map(|config| config.gateway)
            .find_map(|gateway| gateway.parse().ok());
        gateway.map(Some).ok_or_else(|| EngineError { message: format!("network {name} has no gateway") })
    }
}

impl From<bollard::errors::Error> for EngineError {
    fn from(error: bollard::errors::Error) -> Self {
        let message = match error {
            bollard::errors::Error::DockerResponseServerError { message, .. } => message,
            bollard::errors::Error::DockerStreamError { error } => error,
            other => other.to_string(),
        };
        Self { message }
    }
}

fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Takes an answer that says "it is so already" for success.
fn unless(expected: u16, result: Result<(), bollard::errors::Error>) -> Result<(), EngineError> {
    match result {
        Err(error) if status(&error) == Some(expected) => Ok(()),
        other => Ok(other?),
    }
}

impl Engine for DockerEngine {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        let version = self.docker()?.version().await?;
        Ok(EngineVersion {
            engine: version.version.unwrap_or_default(),
            api: version.api_version.unwrap_or_default(),
        })
    }

    async fn ensure_network(&self, name: &str) -> Result<IpAddr, EngineError> {
        if let Some(gateway) = self.network_gateway(name).await? {
            return Ok(gateway);
        }
        let labels = HashMap::from([("io.kedge.owner".to_owned(), "kedge".to_owned())]);
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            enable_ipv6: Some(false),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        self.docker()?.create_network(request).await?;
        self.network_gateway(name)
            .await?
            .ok_or_else(|| EngineError { message: format!("network {name} was made and is gone") })
    }

    async fn modules(&self) -> Result<BTreeMap<String, ObservedModule>, EngineError> {
        let docker = self.docker()?;
        let filter = HashMap::from([("label".to_owned(), vec![format!("{OWNER_LABEL}={OWNER}")])]);
        let options = ListContainersOptions { all: true, filters: Some(filter), ..Default::default() };
        let mut modules = BTreeMap::new();
        for container in docker.list_containers(Some(options)).await? {
            let Some(id) = container.id else { continue };
            match docker.inspect_container(&id, None::<InspectContainerOptions>).await {
                Ok(details) => modules.extend(observed(details)),
                // It went away between the two calls.
                Err(error) if status(&error) == Some(404) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(modules)
    }

    async fn has_pinned_image(&self, image: &str) -> bool {
        let Ok(docker) = self.docker() else { return false };
        image.contains("@sha256:") && docker.inspect_image(image).await.is_ok()
    }

    async fn pull(&self, image: &str, credential: Option<&RegistryCredential>) -> Result<(), EngineError> {
        let options = CreateImageOptions {
            from_image: Some(image.to_owned()),
            tag: default_tag(image).map(ToOwned::to_owned),
            ..Default::default()
        };
        let credentials = credential.map(|credential| DockerCredentials {
            username: Some(credential.username.clone()),
            password: Some(credential.password.expose().to_owned()),
            serveraddress: Some(credential.address.clone()),
            ..Default::default()
        });
        // Progress is of no interest; the stream must be read to its end, where an error would stand.
        let docker = self.docker()?;
        let mut progress = std::pin::pin!(docker.create_image(Some(options), None, credentials));
        while progress.try_next().await?.is_some() {}
        Ok(())
    }

    async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        self.docker()?.create_container(Some(options), body).await?;
        Ok(())
    }

    async fn start(&self, name: &str) -> Result<(), EngineError> {
        unless(304, self.docker()?.start_container(name, None::<StartContainerOptions>).await)
    }

    async fn stop(&self, name: &str) -> Result<(), EngineError> {
        let options = StopContainerOptions { t: Some(STOP_TIMEOUT_SECS), ..Default::default() };
        match self.docker()?.stop_container(name, Some(options)).await {
            // It is not there any longer.
            Err(error) if status(&error) == Some(404) => Ok(()),
            other => unless(304, other),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        unless(404, self.docker()?.remove_container(name, Some(options)).await)
    }

    fn logs(&self, name: &str, request: LogRequest) -> Result<LogStream, EngineError> {
        let options = LogsOptions {
            follow: request.follow,
            stdout: true,
            stderr: true,
            since: request.since.unwrap_or_default(),
            until: request.until.unwrap_or_default(),
            timestamps: request.timestamps,
            tail: request.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
        };
        let frames = self.docker()?.logs(name, Some(options)).map_err(EngineError::from);
        Ok(frames
            .map_ok(|output| LogFrame {
                is_error: matches!(output, LogOutput::StdErr { .. }),
                text: output.into_bytes(),
            })
            .boxed())
    }
}

/// Without a tag or digest the engine would pull every tag of the repository.
fn default_tag(image: &str) -> Option<&'static str> {
    let last = image.rsplit('/').next().unwrap_or(image);
    (!last.contains([':', '@'])).then_some("latest")
}

fn observed(details: ContainerInspectResponse) -> Option<(String, ObservedModule)> {
    let name = details.name?.trim_start_matches('/').to_owned();
    let state = details.state?;
    let config = details.config.unwrap_or_default();
    let unhealthy = state.health.and_then(|health| health.status) == Some(HealthStatusEnum::UNHEALTHY);
    let container_state = match state.status? {
        ContainerStateStatusEnum::EMPTY | ContainerStateStatusEnum::CREATED => ContainerState::Created,
        ContainerStateStatusEnum::RUNNING if unhealthy => ContainerState::Unhealthy,
        ContainerStateStatusEnum::RUNNING
        | ContainerStateStatusEnum::PAUSED
        | ContainerStateStatusEnum::RESTARTING
        | ContainerStateStatusEnum::STOPPING
        | ContainerStateStatusEnum::REMOVING => ContainerState::Running,
        ContainerStateStatusEnum::EXITED => ContainerState::Exited,
        ContainerStateStatusEnum::DEAD => ContainerState::Dead,
    };
    // The engine writes this for "never".
    let time = |text: Option<String>| text.filter(|text| !text.starts_with("0001-01-01"));
    let module = ObservedModule {
        digest: config.labels.and_then(|mut labels| labels.remove(DIGEST_LABEL)),
        image: config.image.unwrap_or_default(),
        image_id: details.image.unwrap_or_default(),
        state: container_state,
        exit_code: (container_state == ContainerState::Exited).then_some(state.exit_code).flatten(),
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
    };
    Some((name, module))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_bare_repository_gets_the_default_tag() {
        for bare in ["sensor", "library/sensor", "registry:5000/a/sensor"] {
            assert_eq!(default_tag(bare), Some("latest"), "{bare}");
        }
        for full in ["sensor:1", "registry:5000/sensor:1", "registry:5000/a@sha256:00"] {
            assert_eq!(default_tag(full), None, "{full}");
        }
    }

    #[test]
    fn the_engines_view_of_a_container_becomes_a_module() {
        let details = |status: &str, health: &str| {
            serde_json::from_value::<ContainerInspectResponse>(json!({
                "Name": "/tempSensor",
                "Image": "sha256:1",
                "Config": {"Image": "image:1", "Labels": {DIGEST_LABEL: "abc"}},
                "State": {"Status": status, "ExitCode": 3, "Health": {"Status": health},
                    "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"},
            }))
            .unwrap()
        };
        let (name, module) = observed(details("exited", "none")).unwrap();
        assert_eq!(
            (name.as_str(), module.digest.as_deref(), module.exit_code),
            ("tempSensor", Some("abc"), Some(3))
        );
        assert_eq!((module.started_at.is_some(), module.finished_at), (true, None));
        for (status, health, expected) in [
            ("created", "none", ContainerState::Created),
            ("running", "healthy", ContainerState::Running),
            ("running", "unhealthy", ContainerState::Unhealthy),
            ("paused", "none", ContainerState::Running),
            ("dead", "none", ContainerState::Dead),
        ] {
            let module = observed(details(status, health)).unwrap().1;
            assert_eq!((module.state, module.exit_code), (expected, None), "{status}");
        }
        assert_eq!(observed(ContainerInspectResponse::default()), None);
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_an_error_and_not_a_panic() {
        let engine = DockerEngine::new(PathBuf::from("/nonexistent/docker.sock"));
        assert!(engine.version().await.unwrap_err().message.contains("/nonexistent/docker.sock"));
        assert!(!engine.has_pinned_image("a@sha256:00").await);
    }
}
