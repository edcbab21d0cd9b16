//! What every part of the runtime knows of the others: links, deployment, modules, gateway clients.
//!
//! One watched value. The parts change their own section; health, the local APIs and the reported
//! properties are views of the whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::deployment::{Deployment, ModuleSpec};
use super::planner::ObservedModule;
use super::spool::Usage;
use crate::identity::Identity;

/// The state of the runtime.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeState {
    /// Connection of `$edgeAgent` to the hub.
    pub agent: LinkState,
    /// Connection of `$edgeHub` to the hub.
    pub edge_hub: LinkState,
    /// Outcome of the last desired properties of `$edgeAgent`.
    pub deployment: ConfigStatus,
    /// Outcome of the last desired properties of `$edgeHub`.
    pub routes: ConfigStatus,
    /// When the runtime started.
    pub started: Timestamp,
    /// The deployment that is in force.
    pub current: Option<Arc<Deployment>>,
    /// Version of the last deployment that was carried out, also by a former process; 0 before the first.
    pub last_version: u64,
    /// The modules of the deployment.
    pub modules: BTreeMap<String, ModuleState>,
    /// Version of the deployment for which everything was done that can be done; 0 before the first.
    pub modules_version: u64,
    /// Why the deployment cannot be carried out here.
    pub unmet: Option<String>,
    /// Modules and leaf devices that connected to the gateway since the start.
    pub clients: BTreeMap<Identity, ClientState>,
    /// The messages that the gateway keeps.
    pub store: StoreState,
    /// Version of the container engine, when it answered.
    pub engine_version: Option<String>,
    /// Why the container engine cannot be used.
    pub engine_error: Option<String>,
}

/// A connection to the hub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LinkState {
    /// No attempt has ended yet.
    #[default]
    Connecting,
    /// The session is open.
    Connected,
    /// The last attempt or session failed.
    Disconnected(String),
}

/// Outcome of desired properties, as `lastDesiredVersion` and `lastDesiredStatus` show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Version of the desired properties; 0 before the first.
    pub version: u64,
    /// 200, or a code of the real runtime; 0 before the first.
    pub status: u16,
    /// What is wrong.
    pub description: String,
}

/// A module of the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleState {
    /// What the deployment says.
    pub spec: ModuleSpec,
    /// `runtimeStatus` in the words of the real agent.
    pub status: &'static str,
    /// `statusDescription`.
    pub description: String,
    /// Why the last step for it failed.
    pub error: Option<String>,
    /// What the engine shows.
    pub observed: Option<ObservedModule>,
    /// Restarts since it was last stable.
    pub restarts: u32,
    /// When the last of them was.
    pub last_restart: Option<Timestamp>,
}

/// The gateway's store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreState {
    /// How much there is, and what was dropped since the start.
    pub usage: Usage,
    /// Why nothing can be written to it.
    pub trouble: Option<String>,
}

/// A client of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientState {
    /// Whether it is connected now.
    pub connected: bool,
    /// When that began.
    pub since: Timestamp,
}

/// The shared state.
#[derive(Debug)]
pub struct Board(watch::Sender<RuntimeState>);

impl Default for Board {
    fn default() -> Self {
        Self(watch::Sender::new(RuntimeState { started: Timestamp::now(), ..RuntimeState::default() }))
    }
}

impl Board {
    /// Changes the state; watchers are told only when it became another.
    pub fn update(&self, change: impl FnOnce(&mut RuntimeState)) {
        self.0.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> RuntimeState {
        self.0.borrow().clone()
    }

    /// Follows the state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<RuntimeState> {
        self.0.subscribe()
    }
}

impl RuntimeState {
    /// Status of the deployment as reported: 406 until somebody has looked after its modules, 500 when one of them
    /// cannot be brought up.
    #[must_use]
    pub fn deployment_status(&self) -> ConfigStatus {
        if let (200, Some(unmet)) = (self.deployment.status, &self.unmet) {
            return ConfigStatus { status: 500, description: unmet.clone(), ..self.deployment };
        }
        if self.deployment.status == 200 && self.modules_version != self.deployment.version {
            let waiting = self.engine_error.as_ref().map(|error| format!("the container engine: {error}"));
            return ConfigStatus {
                status: 406,
                description: waiting.unwrap_or_else(|| "being applied".to_owned()),
                version: self.deployment.version,
            };
        }
        let failed = self.modules.iter().find_map(|(name, module)| Some((name, module.error.as_ref()?)));
        match failed {
            Some((name, error)) if self.deployment.status == 200 => ConfigStatus {
                status: 500,
                description: format!("module {name}: {error}"),
                version: self.deployment.version,
            },
            _ => self.deployment.clone(),
        }
    }

    /// The same as edgeAgent reports it: what is under way changes nothing yet, and a deployment that is refused has
    /// the version of the one that stays in force.
    #[must_use]
    pub fn reported_status(&self) -> ConfigStatus {
        let status = self.deployment_status();
        match status.status {
            0 => ConfigStatus { version: self.last_version, status: 406, description: String::new() },
            406 => {
                let status = if self.last_version == 0 { 406 } else { 200 };
                ConfigStatus { version: self.last_version, status, description: String::new() }
            }
            200 | 500 => status,
            _ => ConfigStatus { version: self.last_version, ..status },
        }
    }
}
