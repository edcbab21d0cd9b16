//! edgeAgent's connection: the deployment comes in, the modules' state goes out, methods are answered.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::backup::Backup;
use super::board::{ConfigStatus, LinkState, RuntimeState};
use super::deployment::{Deployment, DeploymentError};
use super::engine::Engine;
use super::link::{Session, SessionEnd, Upstream};
use super::methods::Methods;
use super::reported;
use crate::identity::EDGE_AGENT;
use crate::module_client::{ModuleClient, Notices};

/// The session of `$edgeAgent`.
pub struct AgentSession<E> {
    upstream: Arc<Upstream>,
    methods: Methods<E>,
    deployments: watch::Sender<Option<Arc<Deployment>>>,
    backup: Backup,
}

impl<E: Engine> AgentSession<E> {
    /// A session that hands the deployments that it accepts to `deployments`, and answers `methods`.
    #[must_use]
    pub fn new(
        upstream: Arc<Upstream>,
        methods: Methods<E>,
        deployments: watch::Sender<Option<Arc<Deployment>>>,
        backup: Backup,
    ) -> Self {
        Self { upstream, methods, deployments, backup }
    }

    /// Puts the deployment into force that was so before the start: modules do not wait for the hub.
    pub fn restore(&self) {
        let Some(desired) = self.backup.deployment() else { return };
        if let Ok(deployment) = Deployment::parse(&desired) {
            let version = deployment.version;
            tracing::info!(
                "Deployment version {version} of the last time is in force until the hub is heard"
            );
            self.upstream.board.update(|state| {
                state.deployment = ConfigStatus { version, status: 200, description: String::new() };
                state.last_version = version;
            });
            self.take_up(deployment);
        }
    }

    /// Takes up the desired properties; a deployment that is refused leaves the last good one in force.
    fn apply(&self, desired: &Value) {
        let outcome = Deployment::parse(desired);
        let mut status = config_status(desired, outcome.as_ref().err());
        match outcome {
            Ok(deployment) => {
                if self.take_up(deployment) {
                    self.backup.keep_deployment(desired);
                }
            }
            Err(error) => status.description = error.description(),
        }
        self.upstream.board.update(|state| state.deployment = status);
    }

    /// True when the deployment is another than the one before.
    fn take_up(&self, deployment: Deployment) -> bool {
        let deployment = Arc::new(deployment);
        let is_new = self.deployments.send_if_modified(|current| {
            let is_new = current.as_ref() != Some(&deployment);
            if is_new {
                tracing::info!("Applying deployment version {}", deployment.version);
                if !deployment.ignored.is_empty() {
                    tracing::warn!("The simulated runtime does not use: {}", deployment.ignored.join(", "));
                }
                *current = Some(deployment.clone());
            }
            is_new
        });
        self.upstream.board.update(|state| state.current = Some(deployment));
        is_new
    }
}

impl<E: Engine> Session for AgentSession<E> {
    const MODULE_ID: &'static str = EDGE_AGENT;

    fn link_state(state: &mut RuntimeState) -> &mut LinkState {
        &mut state.agent
    }

    async fn run(&mut self, client: &ModuleClient, notices: Notices, renewal: Instant) -> SessionEnd {
        let calls = match client.method_calls().await {
            Ok(calls) => calls,
            Err(error) => return error.into(),
        };
        // The hub holds further calls for the next session, or refuses them; here nobody would answer them.
        let end_of_calls = async {
            sleep_until(renewal).await;
            client.end_method_calls().await
        };
        let apply = |desired: &Value| self.apply(desired);
        tokio::select! {
            error = self.upstream.follow_twin(client, notices, apply, reported::edge_agent) => error.into(),
            end = self.methods.serve(calls, end_of_calls) => end,
        }
    }
}

/// What is reported of desired properties, and logged when they are refused.
pub(super) fn config_status(desired: &Value, error: Option<&DeploymentError>) -> ConfigStatus {
    let version = desired.get("$version").and_then(Value::as_u64).unwrap_or_default();
    match error {
        None => ConfigStatus { version, status: 200, description: String::new() },
        Some(error) => {
            tracing::warn!(
                "The desired properties (version {version}) were refused: {} {error}",
                error.code()
            );
            ConfigStatus { version, status: error.code(), description: error.to_string() }
        }
    }
}

#[cfg(test)]
mod tests;
