//! What exists of a deployment in the engine, found by labels and by the network that it alone uses; and its
//! removal. Nothing that somebody else has made is ever listed here.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bollard::errors::Error;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, NetworkCreateRequest};
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};

use super::{Engine, EngineKind, Foreign, KIND_LABEL, OWNER_LABEL, is_missing, label_filter, podman};
use crate::wait::{Observation, wait_for};

/// How long an engine may take to put away a container that has ended.
const LIST_LIMIT: Duration = Duration::from_secs(10);

/// Everything of a deployment that the engine holds, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Nodes of the kind cluster.
    pub nodes: Vec<String>,
    /// Other containers.
    pub containers: Vec<String>,
    /// Volumes of nodes, which kind makes.
    pub volumes: Vec<String>,
    /// Volumes of other containers.
    pub container_volumes: Vec<String>,
    /// Networks.
    pub networks: Vec<String>,
}

impl Inventory {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Inventory {
    /// Only what belongs to the cluster.
    #[must_use]
    pub fn of_cluster(self) -> Self {
        Self { nodes: self.nodes, volumes: self.volumes, ..Self::default() }
    }

    /// Everything that is listed, in the order in which it is removed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.nodes, &self.containers, &self.volumes, &self.container_volumes, &self.networks]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

impl std::fmt::Display for Inventory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = [
            ("node", self.nodes.len()),
            ("container", self.containers.len()),
            ("volume", self.volumes.len() + self.container_volumes.len()),
            ("network", self.networks.len()),
        ];
        let counted: Vec<_> = kinds
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}{}", if *count == 1 { "" } else { "s" }))
            .collect();
        f.write_str(&if counted.is_empty() { "nothing".into() } else { counted.join(", ") })
    }
}

impl Engine {
    /// Makes the deployment's network unless it exists.
    ///
    /// # Errors
    /// When a network of that name exists that this tool has not made, or the engine refuses.
    pub async fn ensure_network(&self) -> Result<bool> {
        let name = &self.owner;
        if self.has_network().await? {
            return Ok(false);
        }
        self.forget_names(name)?;
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".into()),
            labels: Some(self.labels()),
            ..NetworkCreateRequest::default()
        };
        let made = self.docker.create_network(request).await;
        made.map_err(|error| self.told(error))
            .with_context(|| format!("failed to make the network `{name}`"))?;
        Ok(true)
    }

    /// Whether the deployment's network exists.
    ///
    /// # Errors
    /// [`Foreign`] when a network of that name exists that this tool has not made.
    pub async fn has_network(&self) -> Result<bool> {
        let name = &self.owner;
        match self.network_owner(name).await? {
            Some(owner) if owner == *name => Ok(true),
            Some(_) => Err(Foreign(format!(
                "a network `{name}` exists that KEdge has not made; remove it or choose another `cluster.name`"
            ))
            .into()),
            None => Ok(false),
        }
    }

    /// Names of the nodes of the deployment's cluster: kind's containers on the deployment's own network.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn nodes(&self) -> Result<Vec<String>> {
        let own = self.network_owner(&self.owner).await?.is_some_and(|owner| owner == self.owner);
        let found = if own { self.list(&label_filter(KIND_LABEL, &self.owner)).await? } else { Vec::new() };
        Ok(found.iter().filter(|container| is_on(container, &self.owner)).filter_map(name_of).collect())
    }

    /// Whether a privileged container of the deployment runs.
    pub(super) async fn runs_privileged(&self) -> Result<bool> {
        let nodes = self.nodes().await?;
        for name in self.list(&self.own()).await?.iter().filter_map(name_of) {
            let state = self.container(&name).await?;
            if state.is_some_and(|state| state.running && state.privileged) {
                return Ok(true);
            }
        }
        let of_kind = self.list(&label_filter(KIND_LABEL, &self.owner)).await?;
        let runs = |node: &ContainerSummary| node.state == Some(ContainerSummaryStateEnum::RUNNING);
        Ok(of_kind.iter().any(|node| runs(node) && name_of(node).is_some_and(|name| nodes.contains(&name))))
    }

    /// Refuses to go on when somebody else has a kind cluster of the deployment's name.
    ///
    /// # Errors
    /// When there is one, or the engine cannot be asked.
    pub async fn refuse_foreign_cluster(&self) -> Result<()> {
        let found = self.list(&label_filter(KIND_LABEL, &self.owner)).await?;
        match found.iter().find(|container| !is_on(container, &self.owner)) {
            Some(_) => Err(Foreign(format!(
                "a kind cluster `{}` exists that KEdge has not made; delete it or choose another `cluster.name`",
                self.owner
            ))
            .into()),
            None => Ok(()),
        }
    }

    /// Lists what exists of the deployment.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn inventory(&self) -> Result<Inventory> {
        let nodes = self.nodes().await?;
        let containers = self.list(&self.own()).await?;
        let options = ListNetworksOptionsBuilder::new().filters(&self.own()).build();
        let networks = self
            .docker
            .list_networks(Some(options))
            .await
            .map_err(|error| self.told(error))
            .context("failed to list the networks")?;
        let networks: Vec<_> = networks.into_iter().filter_map(|network| network.name).collect();
        // With Docker, kind's volumes are anonymous and go with the node; with Podman they carry the node's name.
        let volumes =
            if networks.contains(&self.owner) { self.volumes_of_nodes(&nodes).await? } else { Vec::new() };
        Ok(Inventory {
            containers: containers.iter().filter_map(name_of).filter(|name| !nodes.contains(name)).collect(),
            nodes,
            volumes,
            container_volumes: self.volumes(self.own()).await?,
            networks,
        })
    }

    /// Volumes of nodes of a cluster of this name, but for those that somebody else's container has.
    async fn volumes_of_nodes(&self, nodes: &[String]) -> Result<Vec<String>> {
        let mut ours = Vec::new();
        for volume in self.volumes(label_filter(&format!("{}-control-plane", self.owner), "true")).await? {
            let users = self.list(&HashMap::from([("volume".to_owned(), vec![volume.clone()])])).await?;
            if users.iter().filter_map(name_of).all(|user| nodes.contains(&user)) {
                ours.push(volume);
            }
        }
        Ok(ours)
    }

    /// Removes what is listed, and goes on when something cannot be removed.
    ///
    /// # Errors
    /// All that could not be removed.
    pub async fn remove(&self, inventory: &Inventory) -> Result<()> {
        let mut problems = Vec::new();
        for name in inventory.nodes.iter().chain(&inventory.containers) {
            problems.extend(self.remove_container(name).await.err());
        }
        for name in inventory.volumes.iter().chain(&inventory.container_volumes) {
            problems.extend(self.remove_volume(name).await.err());
        }
        // Last, because by the network the rest is found when this is stopped halfway.
        for name in &inventory.networks {
            let removed = fine_when_gone(self.docker.remove_network(name).await)
                .map_err(|error| self.told(error))
                .with_context(|| format!("failed to remove the network `{name}`"));
            problems.extend(removed.and_then(|()| self.forget_names(name)).err());
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(anyhow!(problems.iter().map(|problem| format!("{problem:#}")).collect::<Vec<_>>().join("\n  ")))
    }

    /// Ends a container at once and removes it with its anonymous volumes; one that does not exist is as good.
    /// Nothing here is worth an orderly end, for which an engine waits ten seconds.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove_container(&self, name: &str) -> Result<()> {
        let kill = KillContainerOptionsBuilder::new().signal("KILL").build();
        // One that has ended already cannot be killed, which engines put in different words: the removal tells
        // whether it is gone.
        let _ = self.docker.kill_container(name, Some(kill)).await;
        let id = match self.kind {
            EngineKind::Podman => self.docker.inspect_container(name, None).await.ok().and_then(|it| it.id),
            EngineKind::Docker => None,
        };
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        fine_when_going(self.docker.remove_container(name, Some(options)).await)
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to remove the container `{name}`"))?;
        match id {
            Some(id) => podman::end_orphan(name, &id).await,
            None => Ok(()),
        }
    }

    /// Puts away what the engine remembers of a network that is not there.
    fn forget_names(&self, network: &str) -> Result<()> {
        match self.kind {
            EngineKind::Podman => podman::forget_names(network),
            EngineKind::Docker => Ok(()),
        }
    }

    /// Removes a volume; one that does not exist is as good.
    pub(super) async fn remove_volume(&self, name: &str) -> Result<()> {
        fine_when_gone(self.docker.remove_volume(name, None::<RemoveVolumeOptions>).await)
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to remove the volume `{name}`"))
    }

    /// The owner of a network; empty when the tool has not made it, `None` when there is no such network.
    async fn network_owner(&self, name: &str) -> Result<Option<String>> {
        match self.docker.inspect_network(name, None).await {
            Ok(network) => {
                Ok(Some(network.labels.unwrap_or_default().remove(OWNER_LABEL).unwrap_or_default()))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => {
                Err(anyhow!(self.told(error)).context(format!("failed to look for the network `{name}`")))
            }
        }
    }

    async fn list(&self, filters: &HashMap<String, Vec<String>>) -> Result<Vec<ContainerSummary>> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(filters).build();
        // Podman has a word of its own for a container that has ended and is not put away yet, which the client library
        // does not know.
        let listed = wait_for("the list of containers", LIST_LIMIT, || async {
            match self.docker.list_containers(Some(options.clone())).await {
                Err(error @ Error::JsonDataError { .. }) => Observation::NotYet(error.to_string()),
                answer => Observation::Ready(answer),
            }
        })
        .await?;
        listed.map_err(|error| self.told(error)).context("failed to list the containers")
    }

    async fn volumes(&self, filters: HashMap<String, Vec<String>>) -> Result<Vec<String>> {
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = self
            .docker
            .list_volumes(Some(options))
            .await
            .map_err(|error| self.told(error))
            .context("failed to list the volumes")?;
        Ok(found.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect())
    }
}

/// What is gone is as good as removed.
fn fine_when_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}

/// So is a container that is being removed already. Of a volume or a network, the same answer means that it is in use.
fn fine_when_going(result: Result<(), Error>) -> Result<(), Error> {
    match fine_when_gone(result) {
        Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
        other => other,
    }
}

fn name_of(container: &ContainerSummary) -> Option<String> {
    Some(container.names.as_ref()?.first()?.trim_start_matches('/').to_owned())
}

fn is_on(container: &ContainerSummary, network: &str) -> bool {
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    networks.is_some_and(|networks| networks.contains_key(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_tells_what_there_is() {
        assert_eq!(Inventory::default().to_string(), "nothing");
        let some = Inventory {
            nodes: vec!["n".into()],
            volumes: vec!["a".into(), "b".into()],
            ..Inventory::default()
        };
        assert_eq!(some.to_string(), "1 node, 2 volumes");
        assert!(!some.is_empty());
    }

    #[test]
    fn the_volumes_of_other_containers_are_not_the_clusters() {
        let all = Inventory {
            nodes: vec!["node".into()],
            containers: vec!["edge".into()],
            volumes: vec!["of-node".into()],
            container_volumes: vec!["of-edge".into()],
            networks: vec!["network".into()],
        };
        assert_eq!(all.to_string(), "1 node, 1 container, 2 volumes, 1 network");
        assert_eq!(all.names().collect::<Vec<_>>(), ["node", "edge", "of-node", "of-edge", "network"]);
        assert_eq!(all.of_cluster().names().collect::<Vec<_>>(), ["node", "of-node"]);
    }

    #[test]
    fn what_is_in_use_is_not_removed() {
        let answer = |status_code| {
            Err(Error::DockerResponseServerError { status_code, message: "a word of the engine".into() })
        };
        assert!(fine_when_gone(answer(404)).is_ok() && fine_when_going(answer(404)).is_ok());
        assert!(fine_when_gone(answer(409)).is_err(), "a volume in use stays");
        assert!(fine_when_going(answer(409)).is_ok(), "a container that is being removed goes");
        assert!(fine_when_going(answer(500)).is_err());
    }
}
