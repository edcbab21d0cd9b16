//! Containers: described, started, looked at.

use std::collections::HashMap;
use std::io::Read as _;

use anyhow::{Context, Result, anyhow, bail};
use bollard::models::{ContainerStateStatusEnum, Volume, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, KillContainerOptionsBuilder,
    LogsOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::spec::{ContainerFile, ContainerSpec, pack};
use super::{Engine, Foreign, OWNER_LABEL, SPEC_LABEL, is_missing};
use crate::tier::{TIER, Tier};

/// What the engine says of a container.
#[derive(Debug)]
pub struct ContainerState {
    /// The fingerprint of what it was made from.
    spec: String,
    /// Whether it has ever been started.
    complete: bool,
    /// Whether it runs.
    pub running: bool,
    /// Whether it has all privileges.
    pub privileged: bool,
    /// The tier that it was made for, where it is the edge.
    pub tier: Option<Tier>,
    /// Since when it runs, or when it was started last.
    pub started: Option<Timestamp>,
    /// Its exit code, once it has ended.
    pub exit_code: Option<i64>,
    /// The port on the loopback interface for each published port inside.
    pub ports: HashMap<u16, u16>,
}

/// How a container agrees with its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It runs as described.
    Runs,
    /// There is none.
    Absent,
    /// It was made as described, and has stopped.
    Stopped,
    /// It was made otherwise, or not completely.
    Other,
}

impl Fit {
    /// Why something has to be done; nothing when it runs as described.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Runs => None,
            Self::Absent => Some("its container is not there"),
            Self::Stopped => Some("its container has stopped"),
            Self::Other => Some("its container was made from another description or image"),
        }
    }
}

impl Engine {
    /// How the container of this name agrees with the description.
    ///
    /// # Errors
    /// When a name is taken by somebody else ([`Foreign`]), or the engine cannot be asked.
    pub async fn fit(&self, spec: &ContainerSpec) -> Result<Fit> {
        self.refuse_foreign_volumes(spec.all_volumes()).await?;
        Ok(match self.container(&spec.name).await? {
            None => Fit::Absent,
            // One that was made and never started may lack its files, because a run was killed in between.
            Some(state) if state.spec != spec.fingerprint() || !state.complete => Fit::Other,
            Some(state) if state.running => Fit::Runs,
            Some(_) => Fit::Stopped,
        })
    }

    /// Makes sure that a container runs as described: one that was made otherwise is replaced, one that has
    /// stopped is started again. Tells how it was found.
    ///
    /// # Errors
    /// When the name is taken by somebody else, or the engine refuses.
    pub async fn ensure_container(&self, spec: &ContainerSpec) -> Result<Fit> {
        let fit = self.fit(spec).await?;
        match fit {
            Fit::Runs => {}
            Fit::Stopped => self.start(&spec.name).await?,
            Fit::Absent => self.start_container(spec).await?,
            Fit::Other => self.replace_container(spec).await?,
        }
        Ok(fit)
    }

    /// Removes a container of this deployment, and makes it anew with empty volumes, but for those that are kept.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn replace_container(&self, spec: &ContainerSpec) -> Result<()> {
        self.discard(spec).await?;
        self.start_container(spec).await
    }

    /// Removes a container of this deployment, and makes it anew with the volumes that it had.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn replace_container_alone(&self, spec: &ContainerSpec) -> Result<()> {
        self.remove_container(&spec.name).await?;
        self.start_container(spec).await
    }

    /// Makes a container and its volumes, puts its files into it, and starts it.
    ///
    /// # Errors
    /// When a name is taken or the engine refuses.
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<()> {
        for (volume, _) in spec.all_volumes() {
            self.make_volume(volume).await?;
        }
        let name = &spec.name;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let seccomp = self.seccomp_option(&spec.rights)?;
        self.docker
            .create_container(Some(options), self.create_body(spec, seccomp.as_deref()))
            .await
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to make the container `{name}`"))?;
        if !spec.files.is_empty() {
            self.put_files(name, &spec.files).await?;
        }
        self.start(name).await
    }

    /// Removes a container that was made otherwise, and the volumes that the next one is to have empty.
    async fn discard(&self, spec: &ContainerSpec) -> Result<()> {
        self.remove_container(&spec.name).await?;
        for (volume, _) in &spec.volumes {
            self.remove_volume(volume).await?;
        }
        Ok(())
    }

    async fn make_volume(&self, name: &str) -> Result<()> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(self.labels()),
            ..VolumeCreateRequest::default()
        };
        // Where there is one of that name already, the engine answers with that one.
        let volume = self.docker.create_volume(request).await;
        let volume = volume
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to make the volume `{name}`"))?;
        refuse_foreign_volume(&volume, &self.owner)
    }

    /// Refuses volumes that somebody else has made; those that do not exist are fine.
    ///
    /// # Errors
    /// [`Foreign`], or when the engine cannot be asked.
    pub async fn refuse_foreign_volumes<'a, T: 'a>(
        &self,
        volumes: impl IntoIterator<Item = &'a (String, T)>,
    ) -> Result<()> {
        for (name, _) in volumes {
            match self.docker.inspect_volume(name).await {
                Ok(volume) => refuse_foreign_volume(&volume, &self.owner)?,
                Err(error) if is_missing(&error) => {}
                Err(error) => {
                    return Err(
                        anyhow!(self.told(error)).context(format!("failed to look for the volume `{name}`"))
                    );
                }
            }
        }
        Ok(())
    }

    /// Kills a container, and leaves it as it is.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn kill(&self, name: &str) -> Result<()> {
        let kill = KillContainerOptionsBuilder::new().signal("KILL").build();
        let killed = self.docker.kill_container(name, Some(kill)).await;
        killed
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to kill the container `{name}`"))
    }

    /// Starts a container that has ended.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn start(&self, name: &str) -> Result<()> {
        let started = self.docker.start_container(name, None).await;
        started
            .map_err(|error| self.told(error))
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
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to put files into the container `{name}`"))
    }

    /// The contents of a file in a container, running or not; `None` when there is no such file.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn read_file(&self, name: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let chunks: Result<Vec<Bytes>, _> =
            self.docker.download_from_container(name, Some(options)).try_collect().await;
        let archive = match chunks {
            Ok(chunks) => chunks.concat(),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => {
                return Err(anyhow!(self.told(error))
                    .context(format!("failed to read `{path}` in the container `{name}`")));
            }
        };
        let mut contents = Vec::new();
        let mut archive = tar::Archive::new(archive.as_slice());
        if let Some(entry) = archive.entries()?.next() {
            entry?.read_to_end(&mut contents)?;
        }
        Ok(Some(contents))
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
            Some(Err(error)) => Err(self.told(error))
                .with_context(|| format!("failed to wait for the container `{}`", spec.name)),
            None => bail!("the engine does not tell how the container `{}` ended", spec.name),
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
                return Err(
                    anyhow!(self.told(error)).context(format!("failed to look for the container `{name}`"))
                );
            }
        };
        let mut labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        if labels.get(OWNER_LABEL) != Some(&self.owner) {
            let text = format!(
                "a container `{name}` exists that KEdge has not made; remove or rename it, or choose another `cluster.name`"
            );
            return Err(Foreign(text).into());
        }
        let state = found.state.unwrap_or_default();
        let bindings = found.network_settings.and_then(|network| network.ports).unwrap_or_default();
        let ports = bindings.iter().filter_map(|(inside, outside)| {
            let outside = outside.as_ref()?.first()?.host_port.as_ref()?.parse().ok()?;
            Some((inside.split('/').next()?.parse().ok()?, outside))
        });
        Ok(Some(ContainerState {
            spec: labels.remove(SPEC_LABEL).unwrap_or_default(),
            complete: matches!(
                state.status,
                Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::EXITED)
            ),
            running: state.running.unwrap_or_default(),
            tier: labels.get(TIER).and_then(|word| Tier::named(word)),
            privileged: found.host_config.and_then(|config| config.privileged).unwrap_or_default(),
            started: state.started_at.and_then(|time| time.parse().ok()),
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
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to read the log of the container `{name}`"))?;
        Ok(chunks
            .into_iter()
            .map(|chunk| String::from_utf8_lossy(&chunk.into_bytes()).into_owned())
            .collect())
    }
}

fn refuse_foreign_volume(volume: &Volume, owner: &str) -> Result<()> {
    if volume.labels.get(OWNER_LABEL).is_some_and(|label| label == owner) {
        return Ok(());
    }
    let text = format!(
        "a volume `{}` exists that KEdge has not made; remove it or choose another `cluster.name`",
        volume.name
    );
    Err(Foreign(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_somebody_else_is_in_the_way() {
        let volume = |owner: &str| Volume {
            name: "kedge-edge-state".into(),
            labels: HashMap::from([(OWNER_LABEL.to_owned(), owner.to_owned())]),
            ..Volume::default()
        };
        refuse_foreign_volume(&volume("kedge"), "kedge").unwrap();
        let error = refuse_foreign_volume(&volume("other"), "kedge").unwrap_err();
        assert!(error.is::<Foreign>() && error.to_string().contains("`kedge-edge-state`"), "{error}");
    }
}
