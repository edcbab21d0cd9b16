//! The health of the runtime, as `GET /kedge/health` answers it and `kedge-edged health` judges it.

use serde::{Deserialize, Serialize};

use super::board::{ConfigStatus, LinkState, RuntimeState};
use super::deployment::DesiredStatus;

/// Answer of `GET /kedge/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The connections to the hub.
    pub hub: HubHealth,
    /// The deployment.
    pub deployment: ConfigStatus,
    /// The modules of the deployment.
    pub modules: Vec<ModuleHealth>,
    /// The gateway.
    pub gateway: GatewayHealth,
}

/// The connections to the hub: `connected` or `disconnected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubHealth {
    /// That of `$edgeAgent`.
    pub agent: String,
    /// That of `$edgeHub`.
    pub edge_hub: String,
    /// Why one of them is not connected.
    pub error: Option<String>,
}

/// A module of the deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleHealth {
    /// Module id.
    pub name: String,
    /// `runtimeStatus`.
    pub status: String,
    /// `statusDescription`.
    pub description: String,
    /// Whether the deployment wants it to run.
    pub desired_status: String,
    /// Image of the deployment.
    pub image: String,
}

/// The gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayHealth {
    /// Modules and leaf devices that are connected.
    pub clients: Vec<String>,
    /// Messages that wait for their endpoint.
    #[serde(default)]
    pub queued: u64,
    /// Messages that were dropped since the start, because their time to live was over.
    #[serde(default)]
    pub expired: u64,
    /// Why no message can be stored.
    #[serde(default)]
    pub error: Option<String>,
}

impl Health {
    /// Why the device does not do its work, in one line; `None` when it does.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        for (name, link) in [("$edgeAgent", &self.hub.agent), ("$edgeHub", &self.hub.edge_hub)] {
            if link != "connected" {
                let error = self.hub.error.as_deref().unwrap_or("not connected yet");
                return Some(format!("{name} is not connected to the hub: {error}"));
            }
        }
        if self.deployment.status != 200 {
            let ConfigStatus { version, status, description } = &self.deployment;
            return Some(format!(
                "the deployment (version {version}) is not applied: {status} {description}"
            ));
        }
        if let Some(error) = &self.gateway.error {
            return Some(format!("the gateway cannot store messages: {error}"));
        }
        let waiting = self.modules.iter().find(|module| module.status != module.desired_status);
        waiting.map(|module| {
            let ModuleHealth { name, status, description, desired_status, .. } = module;
            format!("module {name} is {status}, not {desired_status}: {description}")
        })
    }
}

impl From<&RuntimeState> for Health {
    fn from(state: &RuntimeState) -> Self {
        let word = |link: &LinkState| match link {
            LinkState::Connected => "connected".to_owned(),
            LinkState::Connecting | LinkState::Disconnected(_) => "disconnected".to_owned(),
        };
        let error = [&state.agent, &state.edge_hub].into_iter().find_map(|link| match link {
            LinkState::Disconnected(error) => Some(error.clone()),
            LinkState::Connecting | LinkState::Connected => None,
        });
        let modules = state.modules.iter().map(|(name, module)| ModuleHealth {
            name: name.clone(),
            status: module.status.to_owned(),
            description: module.description.clone(),
            desired_status: match module.spec.status {
                DesiredStatus::Running => "running".to_owned(),
                DesiredStatus::Stopped => "stopped".to_owned(),
            },
            image: module.spec.image.clone(),
        });
        let clients = state.clients.iter().filter(|(_, client)| client.connected);
        Self {
            hub: HubHealth { agent: word(&state.agent), edge_hub: word(&state.edge_hub), error },
            deployment: state.deployment_status(),
            modules: modules.collect(),
            gateway: GatewayHealth {
                clients: clients
                    .map(|(client, _)| client.module_id().unwrap_or(client.device_id()).to_owned())
                    .collect(),
                queued: state.store.usage.messages,
                expired: state.store.usage.expired,
                error: state.store.trouble.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::board::ModuleState;
    use crate::edge::deployment::Deployment;

    fn applied() -> RuntimeState {
        let deployment = Deployment::parse(&serde_json::json!({
            "schemaVersion": "1.0", "runtime": {"type": "docker"},
            "systemModules": {
                "edgeAgent": {"type": "docker", "settings": {"image": "a"}},
                "edgeHub": {"type": "docker", "status": "running", "settings": {"image": "h"}}},
            "modules": {"sensor": {"type": "docker", "status": "running", "settings": {"image": "s"}}},
        }));
        let modules = deployment.unwrap().modules.into_iter().map(|(name, spec)| {
            let description = "running".to_owned();
            (
                name,
                ModuleState {
                    spec,
                    status: "running",
                    description,
                    error: None,
                    observed: None,
                    restarts: 0,
                    last_restart: None,
                },
            )
        });
        RuntimeState {
            agent: LinkState::Connected,
            edge_hub: LinkState::Connected,
            deployment: ConfigStatus { version: 1, status: 200, description: String::new() },
            modules: modules.collect(),
            modules_version: 1,
            ..RuntimeState::default()
        }
    }

    fn problem(change: impl FnOnce(&mut RuntimeState)) -> Option<String> {
        let mut state = applied();
        change(&mut state);
        Health::from(&state).problem()
    }

    #[test]
    fn a_device_that_does_its_work_has_no_problem() {
        assert_eq!(problem(|_| {}), None);
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_named() {
        let lost = LinkState::Disconnected("cannot reach the server".to_owned());
        let link = problem(|state| state.edge_hub = lost).unwrap();
        assert_eq!(link, "$edgeHub is not connected to the hub: cannot reach the server");
        let starting = problem(|state| state.agent = LinkState::Connecting).unwrap();
        assert!(starting.starts_with("$edgeAgent is not connected to the hub"), "{starting}");
        let full = problem(|state| state.store.trouble = Some("disk full".to_owned())).unwrap();
        assert_eq!(full, "the gateway cannot store messages: disk full");
        let empty = problem(|state| state.deployment = ConfigStatus::default()).unwrap();
        assert!(empty.contains("is not applied"), "{empty}");
        let applying = problem(|state| state.modules_version = 0).unwrap();
        assert!(applying.ends_with("is not applied: 406 being applied"), "{applying}");
        let without_engine = |state: &mut RuntimeState| {
            (state.modules_version, state.engine_error) = (0, Some("no socket".to_owned()));
        };
        assert!(problem(without_engine).unwrap().ends_with("406 the container engine: no socket"));
        let change = |state: &mut RuntimeState| {
            state.modules.get_mut("sensor").unwrap().error = Some("manifest unknown".to_owned());
        };
        assert!(problem(change).unwrap().contains("500 module sensor: manifest unknown"));
        let change = |state: &mut RuntimeState| state.modules.get_mut("sensor").unwrap().status = "backoff";
        assert!(problem(change).unwrap().starts_with("module sensor is backoff, not running"));
    }

    #[test]
    fn the_json_has_the_documented_names() {
        let json = serde_json::to_value(Health::from(&applied())).unwrap();
        assert_eq!(
            json["hub"],
            serde_json::json!({"agent": "connected", "edgeHub": "connected", "error": null})
        );
        assert_eq!(json["deployment"]["version"], 1);
        assert_eq!(json["modules"][0]["name"], "sensor");
        assert_eq!(json["gateway"]["clients"], serde_json::json!([]));
    }
}
