//! Staying connected to the hub as one of the system modules, and following its twin.
//!
//! `$edgeAgent` and `$edgeHub` share this loop: provision the identity, connect, run a session until
//! it ends, say why, try again. An unreachable hub is an expected state, not an error of the daemon.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::board::{Board, LinkState, RuntimeState};
use super::identity::{IdentityService, IdentityServiceError, SESSION_TOKEN_SECS};
use super::reported;
use crate::module_client::{Link, ModuleClient, Notices, TwinError};
use crate::mqtt::ClientError;
use crate::retry::Backoff;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const MAX_RETRY: Duration = Duration::from_secs(10);
/// A session is renewed so long before the hub would end it with its token.
const RENEWAL_MARGIN: Duration = Duration::from_secs(120);
/// A session that is to be renewed may bring to an end in this time what it has begun.
const MAX_DRAIN: Duration = Duration::from_secs(30);

/// Everything that connections to the hub need.
pub struct Upstream {
    /// The hub's MQTT endpoint.
    pub link: Link,
    /// The identities of this device.
    pub identities: IdentityService,
    /// The state of the runtime.
    pub board: Arc<Board>,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

/// What a system module does while it is connected.
pub trait Session: Send {
    /// The module's id.
    const MODULE_ID: &'static str;

    /// Where its link stands on the board.
    fn link_state(state: &mut RuntimeState) -> &mut LinkState;

    /// Works until the connection ends, and says why. At `renewal` it begins nothing new, and ends when nothing of what
    /// it has begun is open.
    fn run(
        &mut self,
        client: &ModuleClient,
        notices: Notices,
        renewal: Instant,
    ) -> impl Future<Output = SessionEnd> + Send;
}

/// Why a session ended.
#[derive(Debug)]
pub enum SessionEnd {
    /// It is to go on with a new token.
    Renewal,
    /// The connection is over.
    Lost(TwinError),
}

impl From<TwinError> for SessionEnd {
    fn from(error: TwinError) -> Self {
        Self::Lost(error)
    }
}

impl From<ClientError> for SessionEnd {
    fn from(error: ClientError) -> Self {
        Self::Lost(error.into())
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("Failed to update {module} identity: {source}")]
    Identity { module: &'static str, source: IdentityServiceError },
    #[error("{module}: {source}")]
    Connect { module: &'static str, source: ClientError },
}

impl Upstream {
    /// That of a device `d`, whose hub is at the endpoint.
    #[cfg(test)]
    pub(super) fn for_tests(endpoint: crate::tls::Endpoint, tls: Arc<rustls::ClientConfig>) -> Self {
        use super::backup::Backup;
        use super::identity::DeviceCredential;
        use crate::http::HttpClient;
        use crate::module_client::Transport;
        use crate::sas::SharedAccessKey;

        let [key, master] = [1, 2].map(|byte| SharedAccessKey::from_bytes(vec![byte; 32]).unwrap());
        let hub_name = "hub.test".to_owned();
        let identities = IdentityService::new(
            HttpClient::new(endpoint.clone(), tls.clone()),
            hub_name.clone(),
            "d".to_owned(),
            DeviceCredential::Sas(key),
            master,
            Backup::new("/nonexistent".as_ref(), &hub_name, "d"),
        );
        let link = Link { endpoint, transport: Transport::Tls, tls, hub_name };
        Self { link, identities, board: Arc::default(), shutdown: CancellationToken::new() }
    }

    /// One that is nowhere.
    #[cfg(test)]
    pub(super) fn of_nowhere() -> Self {
        let authority = crate::pki::CertificateAuthority::generate("nobody").unwrap();
        let trust = crate::tls::Trust::Only(authority.certificate_pem());
        Self::for_tests(crate::tls::Endpoint::new("hub.test", 1), crate::tls::client_config(trust).unwrap())
    }

    /// Runs sessions of a system module until the shutdown.
    pub async fn keep_connected<S: Session>(&self, session: S) {
        self.repeat(session, || self.connect(S::MODULE_ID)).await;
    }

    /// As [`Upstream::keep_connected`], with connections that `connect` makes.
    async fn repeat<S, F>(&self, mut session: S, connect: impl Fn() -> F)
    where
        S: Session,
        F: Future<Output = Result<(ModuleClient, Notices), ConnectError>>,
    {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            let module = S::MODULE_ID;
            let attempt = async {
                let (client, notices) = connect().await?;
                self.board.update(|state| *S::link_state(state) = LinkState::Connected);
                tracing::info!("{module} is connected to {}", self.link.hub_name);
                let began = Instant::now();
                let renewal = began + Duration::from_secs(SESSION_TOKEN_SECS) - RENEWAL_MARGIN;
                let end = timeout_at(renewal + MAX_DRAIN, session.run(&client, notices, renewal)).await;
                // A session that the hub ends at once is no success: it would end the next one as well.
                if began.elapsed() > MAX_RETRY {
                    backoff.reset();
                }
                Ok::<_, ConnectError>(end.unwrap_or(SessionEnd::Renewal))
            };
            let reason = match self.shutdown.run_until_cancelled(attempt).await {
                _ if self.shutdown.is_cancelled() => return,
                None => return,
                Some(Ok(SessionEnd::Renewal)) => {
                    tracing::info!("{module}: the connection to the hub is renewed before its token expires");
                    continue;
                }
                Some(Ok(SessionEnd::Lost(end))) => {
                    format!("{module}: the connection to the hub ended: {end}")
                }
                Some(Err(error)) => error.to_string(),
            };
            tracing::warn!("{reason}");
            self.board.update(|state| *S::link_state(state) = LinkState::Disconnected(reason));
            if !backoff.pause(&self.shutdown).await {
                return;
            }
        }
    }

    async fn connect(&self, module: &'static str) -> Result<(ModuleClient, Notices), ConnectError> {
        let identity = self
            .identities
            .provision(module)
            .await
            .map_err(|source| ConnectError::Identity { module, source })?;
        let token = identity.token(&self.link.hub_name);
        let connected = ModuleClient::connect(&self.link, &identity.identity, token).await;
        connected.map_err(|source| {
            if source.is_refusal() {
                // The device may have been made anew in the hub; then every module has another generation and no keys.
                self.identities.forget_all();
            }
            ConnectError::Connect { module, source }
        })
    }

    /// Gives the desired properties to `apply`, whenever they change, and reports what `report` sees in the
    /// state, whenever that changes. Ends with the connection.
    pub async fn follow_twin(
        &self,
        client: &ModuleClient,
        mut notices: Notices,
        mut apply: impl FnMut(&Value) + Send,
        report: impl Fn(&RuntimeState) -> Value + Send,
    ) -> TwinError {
        let mut state = self.board.watch();
        let mut sent = None;
        loop {
            let twin = match client.twin().await {
                Ok(twin) => twin,
                Err(error) => return error,
            };
            apply(&twin.desired);
            let sent = sent.get_or_insert(twin.reported);
            loop {
                let current = report(&state.borrow_and_update());
                if let Some(patch) = reported::patch(sent, &current) {
                    match client.report(&patch).await {
                        Ok(()) => *sent = current,
                        // The next change is reported with this one; a new connection would help nobody.
                        Err(TwinError::Status(status)) => {
                            tracing::warn!("The hub refused the reported properties with status {status}");
                        }
                        Err(error) => return error,
                    }
                }
                tokio::select! {
                    changed = notices.desired_changed() => match changed {
                        Ok(()) => break,
                        Err(error) => return error.into(),
                    },
                    Ok(()) = state.changed() => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
