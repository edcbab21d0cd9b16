//! What the engine tells of itself and of all that is ours, as it tells it, to be shown to people.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Engine, is_missing};

impl Engine {
    /// The engine, its host and its settings.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn about(&self) -> Result<Value> {
        let failed = "the container engine does not answer";
        let version = self.docker.version().await.map_err(|error| self.told(error)).context(failed)?;
        let info = self.docker.info().await.map_err(|error| self.told(error)).context(failed)?;
        Ok(json!({"version": version, "info": info}))
    }

    /// All of the deployment: its containers as the engine describes them, with their environments, and the names of the
    /// rest.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn inspected(&self) -> Result<Value> {
        let inventory = self.inventory().await?;
        let mut containers = Vec::new();
        for name in inventory.nodes.iter().chain(&inventory.containers) {
            match self.docker.inspect_container(name, None).await {
                Ok(found) => containers.push(serde_json::to_value(found)?),
                // It has gone meanwhile.
                Err(error) if is_missing(&error) => {}
                Err(error) => {
                    let error = anyhow::anyhow!(self.told(error));
                    return Err(error.context(format!("failed to look at the container `{name}`")));
                }
            }
        }
        let volumes: Vec<_> = inventory.volumes.iter().chain(&inventory.container_volumes).collect();
        Ok(json!({"containers": containers, "volumes": volumes, "networks": inventory.networks}))
    }
}
