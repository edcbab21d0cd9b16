//! Containers, volumes and the network of a deployment.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail};
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, NetworkCreateRequest, NetworkingConfig, PortBinding,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use super::{Engine, OWNER_LABEL, is_missing};

/// A container to be started.
#[derive(Debug, Default)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// The network that it joins, besides none.
    pub network: Option<String>,
    /// Further names of the container on that network.
    pub aliases: Vec<String>,
    /// Ports inside and the loopback port outside; 0 lets the engine choose.
    pub ports: Vec<(u16, u16)>,
    /// Files put into it before it starts, for settings and secrets.
    pub files: Vec<ContainerFile>,
    /// Whether it gets all privileges.
    pub privileged: bool,
}

/// A file that is put into a container before it starts. Neither the image nor the environment nor the
/// argument vector ever holds its contents.
pub struct ContainerFile {
    /// Absolute path inside the container.
    pub path: String,
    /// What is in it.
    pub contents: Vec<u8>,
}

impl std::fmt::Debug for ContainerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What the engine says of a container.
#[derive(Debug)]
pub struct ContainerState {
    /// The image that it was made from.
    pub image: String,
    /// Whether it runs.
    pub running: bool,
    /// Its exit code, once it has ended.
    pub exit_code: Option<i64>,
    /// The port on the loopback interface for each published port inside.
    pub ports: HashMap<u16, u16>,
}

impl Engine {
    /// Makes the network unless it exists.
    ///
    /// # Errors
    /// When a network of that name exists that this tool has not made, or the engine refuses.
    pub async fn ensure_network(&self, name: &str) -> Result<bool> {
        match self.docker.inspect_network(name, None).await {
            Ok(network) => {
                let owner = network.labels.unwrap_or_default().remove(OWNER_LABEL);
                if owner.as_deref() == Some(&self.owner) {
                    return Ok(false);
                }
                bail!(
                    "a network `{name}` exists that KEdge has not made; remove it or choose another `cluster.name`"
                )
            }
            Err(error) if is_missing(&error) => {
                let request = NetworkCreateRequest {
                    name: name.to_owned(),
                    driver: Some("bridge".into()),
                    labels: Some(self.labels()),
                    ..NetworkCreateRequest::default()
                };
                self.docker
                    .create_network(request)
                    .await
                    .with_context(|| format!("failed to make the network `{name}`"))?;
                Ok(true)
            }
            Err(error) => Err(anyhow!(error).context(format!("failed to look for the network `{name}`"))),
        }
    }

    /// Makes a container, puts its files into it, and starts it.
    ///
    /// # Errors
    /// When the name is taken or the engine refuses.
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<()> {
        let name = &spec.name;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.docker
            .create_container(Some(options), self.create_body(spec))
            .await
            .with_context(|| format!("failed to make the container `{name}`"))?;
        if !spec.files.is_empty() {
            self.put_files(name, &spec.files).await?;
        }
        self.docker
            .start_container(name, None)
            .await
            .with_context(|| format!("failed to start the container `{name}`"))
    }

    /// Puts files into a container, running or not; missing folders are made.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn put_files(&self, name: &str, files: &[ContainerFile]) -> Result<()> {
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        self.docker
            .upload_to_container(name, Some(options), bollard::body_full(Bytes::from(pack(files)?)))
            .await
            .with_context(|| format!("failed to put files into the container `{name}`"))
    }

    /// Runs a container to its end and returns its exit code. The container stays.
    ///
    /// # Errors
    /// When the engine could not start it.
    pub(super) async fn run_to_end(&self, spec: &ContainerSpec) -> Result<i64> {
        self.start_container(spec).await?;
        let mut ended = self.docker.wait_container(&spec.name, None);
        match ended.next().await {
            Some(Ok(end)) => Ok(end.status_code),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => {
                Err(error).with_context(|| format!("failed to wait for the container `{}`", spec.name))
            }
            None => bail!("the engine does not tell how the container `{}` ended", spec.name),
        }
    }

    fn create_body(&self, spec: &ContainerSpec) -> ContainerCreateBody {
        let binding = |outside: u16| {
            let port = if outside == 0 { String::new() } else { outside.to_string() };
            Some(vec![PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port) }])
        };
        let endpoint = |network: &String| {
            let settings =
                EndpointSettings { aliases: Some(spec.aliases.clone()), ..EndpointSettings::default() };
            NetworkingConfig { endpoints_config: Some(HashMap::from([(network.clone(), settings)])) }
        };
        ContainerCreateBody {
            image: Some(spec.image.clone()),
            labels: Some(self.labels()),
            exposed_ports: Some(spec.ports.iter().map(|(inside, _)| format!("{inside}/tcp")).collect()),
            networking_config: spec.network.as_ref().map(endpoint),
            host_config: Some(HostConfig {
                network_mode: spec.network.clone().or(Some("none".into())),
                privileged: Some(spec.privileged),
                port_bindings: Some(
                    spec.ports
                        .iter()
                        .map(|(inside, outside)| (format!("{inside}/tcp"), binding(*outside)))
                        .collect(),
                ),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// What the engine says of the container, or `None` when there is none of that name.
    ///
    /// # Errors
    /// When the engine cannot be asked, or the container is not one of this tool.
    pub async fn container(&self, name: &str) -> Result<Option<ContainerState>> {
        let found = match self.docker.inspect_container(name, None).await {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => {
                return Err(anyhow!(error).context(format!("failed to look for the container `{name}`")));
            }
        };
        let config = found.config.unwrap_or_default();
        if config.labels.unwrap_or_default().get(OWNER_LABEL) != Some(&self.owner) {
            bail!("a container `{name}` exists that KEdge has not made; remove or rename it");
        }
        let state = found.state.unwrap_or_default();
        let bindings = found.network_settings.and_then(|network| network.ports).unwrap_or_default();
        let ports = bindings.iter().filter_map(|(inside, outside)| {
            let outside = outside.as_ref()?.first()?.host_port.as_ref()?.parse().ok()?;
            Some((inside.split('/').next()?.parse().ok()?, outside))
        });
        Ok(Some(ContainerState {
            image: config.image.unwrap_or_default(),
            running: state.running.unwrap_or_default(),
            exit_code: state.exit_code,
            ports: ports.collect(),
        }))
    }

    /// The last lines that the container has written.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn container_log(&self, name: &str, lines: usize) -> Result<String> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&lines.to_string()).build();
        let chunks: Vec<_> = self
            .docker
            .logs(name, Some(options))
            .try_collect()
            .await
            .with_context(|| format!("failed to read the log of the container `{name}`"))?;
        Ok(chunks
            .into_iter()
            .map(|chunk| String::from_utf8_lossy(&chunk.into_bytes()).into_owned())
            .collect())
    }

    /// Removes the container with its anonymous volumes; one that does not exist is as good.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove_container(&self, name: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(anyhow!(error).context(format!("failed to remove the container `{name}`"))),
        }
    }

    /// Ends the container at once; one that has ended already is as good.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn kill_container(&self, name: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        match self.docker.kill_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            Err(error) => Err(anyhow!(error).context(format!("failed to end the container `{name}`"))),
        }
    }

    /// Names of all containers of this deployment, but for the cluster's nodes, which belong to kind.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn own_containers(&self) -> Result<Vec<String>> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&self.own()).build();
        let found =
            self.docker.list_containers(Some(options)).await.context("failed to list the containers")?;
        Ok(found
            .into_iter()
            .filter_map(|container| container.names?.into_iter().next())
            .map(|name| trim_name(&name))
            .collect())
    }

    /// Names of the nodes of the kind cluster called `cluster`.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn nodes(&self, cluster: &str) -> Result<Vec<String>> {
        let filter = kind_filter(cluster);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
        let found = self.docker.list_containers(Some(options)).await.context("failed to list the nodes")?;
        Ok(found
            .into_iter()
            .filter_map(|container| container.names?.into_iter().next())
            .map(|name| trim_name(&name))
            .collect())
    }

    /// Removes the networks and volumes of this deployment, those that kind has made for its nodes included;
    /// returns how many. No container may use them any more.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove_networks_and_volumes(&self) -> Result<usize> {
        let options = ListNetworksOptionsBuilder::new().filters(&self.own()).build();
        let networks =
            self.docker.list_networks(Some(options)).await.context("failed to list the networks")?;
        let mut removed = 0;
        for name in networks.into_iter().filter_map(|network| network.name) {
            self.docker
                .remove_network(&name)
                .await
                .with_context(|| format!("failed to remove the network `{name}`"))?;
            removed += 1;
        }
        for filter in [self.own(), kind_filter(&self.owner)] {
            let options = ListVolumesOptionsBuilder::new().filters(&filter).build();
            let volumes =
                self.docker.list_volumes(Some(options)).await.context("failed to list the volumes")?;
            for name in volumes.volumes.unwrap_or_default().into_iter().map(|volume| volume.name) {
                self.docker
                    .remove_volume(&name, None::<RemoveVolumeOptions>)
                    .await
                    .with_context(|| format!("failed to remove the volume `{name}`"))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// The engine's filter for what kind has made for a cluster.
fn kind_filter(cluster: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("io.x-k8s.kind.cluster={cluster}")])])
}

fn trim_name(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

fn pack(files: &[ContainerFile]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(file.contents.len() as u64);
        let name = file.path.trim_start_matches('/');
        archive
            .append_data(&mut header, name, file.contents.as_slice())
            .with_context(|| format!("failed to pack `{name}`"))?;
    }
    archive.into_inner().context("failed to pack the files of a container")
}
