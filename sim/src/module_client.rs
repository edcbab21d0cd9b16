//! The client of a device or module identity: telemetry and twin over MQTT, as in IoT Hub's SDKs.
//!
//! It speaks to the hub and to the gateway alike; only the endpoint differs. It does not reconnect:
//! its owner does, with a new token, and decides what is sent again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::identity::Identity;
use crate::mqtt::{Client, ClientError, Incoming, MAX_PACKET, Options};
use crate::secret::Secret;
use crate::tls::{self, Endpoint};
use crate::topics::{ClientTopic, HubTopic, PropertyBag, Subscription};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const TWIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Desired-property notifications carry no information beyond "look again", so few are kept.
const NOTICE_QUEUE: usize = 8;

/// Where identities connect, and as clients of which hub.
#[derive(Debug, Clone)]
pub struct Link {
    /// The hub or the gateway.
    pub endpoint: Endpoint,
    /// Whom to trust there.
    pub tls: Arc<ClientConfig>,
    /// Host name of the IoT Hub, also when the endpoint is a gateway.
    pub hub_name: String,
}

impl Link {
    /// Opens an MQTT session for `identity` with a token of its own.
    pub async fn open(&self, identity: &Identity, token: Secret) -> Result<(Client, Incoming), ClientError> {
        let options = Options {
            client_id: identity.client_id(),
            username: identity.username(&self.hub_name),
            password: token,
            keep_alive: KEEP_ALIVE,
            max_packet: MAX_PACKET,
        };
        let opened = timeout(CONNECT_TIMEOUT, async {
            let stream =
                tls::connect(&self.endpoint, self.tls.clone()).await.map_err(ClientError::Unreachable)?;
            Client::connect(stream, &options).await
        });
        opened.await.map_err(|_| ClientError::Silent)?
    }
}

/// Why a twin request failed.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// The connection is over.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The other side answered with an error status.
    #[error("the twin request was refused with status {0}")]
    Status(u16),
    /// The other side did not answer in time.
    #[error("no answer to the twin request")]
    Timeout,
    /// The answer is not a twin.
    #[error("the twin cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// A twin as an identity sees its own.
#[derive(Debug, Clone, Deserialize)]
pub struct Twin {
    /// Desired properties with `$version`.
    pub desired: Value,
    /// Reported properties with `$version`.
    #[serde(default)]
    pub reported: Value,
}

/// A connected identity.
#[derive(Debug)]
pub struct ModuleClient {
    client: Client,
    identity: Identity,
    requests: mpsc::Sender<TwinRequest>,
    last_request: AtomicU64,
}

/// What arrives for a connected identity.
#[derive(Debug)]
pub struct Notices {
    desired: mpsc::Receiver<()>,
    outcome: oneshot::Receiver<ClientError>,
}

#[derive(Debug)]
struct TwinRequest {
    id: String,
    reply: oneshot::Sender<TwinResponse>,
}

#[derive(Debug)]
struct TwinResponse {
    status: u16,
    body: Bytes,
}

impl ModuleClient {
    /// Connects, and subscribes to everything that concerns the twin.
    pub async fn connect(
        link: &Link,
        identity: &Identity,
        token: Secret,
    ) -> Result<(Self, Notices), ClientError> {
        let (client, incoming) = link.open(identity, token).await?;
        let (requests, request_queue) = mpsc::channel(NOTICE_QUEUE);
        let (notify, desired) = mpsc::channel(NOTICE_QUEUE);
        let (end, outcome) = oneshot::channel();
        tokio::spawn(async move {
            // The owner may have lost interest in why the connection ended.
            let _ = end.send(dispatch(incoming, request_queue, notify).await);
        });
        let filters = [Subscription::TwinResponses, Subscription::DesiredPatches];
        client.subscribe(filters.iter().map(ToString::to_string).collect()).await?;
        let client = Self { client, identity: identity.clone(), requests, last_request: AtomicU64::new(0) };
        Ok((client, Notices { desired, outcome }))
    }

    /// Sends telemetry of this identity and waits until the other side has taken it over.
    pub async fn send_event(&self, properties: PropertyBag, body: Bytes) -> Result<(), ClientError> {
        let topic = ClientTopic::Telemetry { identity: self.identity.clone(), properties };
        self.client.publish(topic.to_string(), body).await
    }

    /// The plain MQTT client, for what this type does not wrap.
    #[must_use]
    pub fn mqtt(&self) -> &Client {
        &self.client
    }

    /// Reads the whole twin.
    pub async fn twin(&self) -> Result<Twin, TwinError> {
        let body = self.twin_request(|request_id| ClientTopic::TwinGet { request_id }, Bytes::new()).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Merges a patch into the reported properties; `null` deletes.
    pub async fn report(&self, patch: &Value) -> Result<(), TwinError> {
        let body = Bytes::from(serde_json::to_vec(patch)?);
        self.twin_request(|request_id| ClientTopic::ReportedPatch { request_id }, body).await?;
        Ok(())
    }

    async fn twin_request(
        &self,
        topic: impl FnOnce(String) -> ClientTopic,
        body: Bytes,
    ) -> Result<Bytes, TwinError> {
        let id = self.last_request.fetch_add(1, Ordering::Relaxed).to_string();
        let (reply, answer) = oneshot::channel();
        self.requests.send(TwinRequest { id: id.clone(), reply }).await.map_err(|_| ClientError::Closed)?;
        self.client.publish(topic(id).to_string(), body).await?;
        let answer = timeout(TWIN_TIMEOUT, answer).await.map_err(|_| TwinError::Timeout)?;
        let TwinResponse { status, body } = answer.map_err(|_| ClientError::Closed)?;
        if (200..300).contains(&status) { Ok(body) } else { Err(TwinError::Status(status)) }
    }
}

impl Notices {
    /// Completes when the desired properties changed; an error says why the connection ended.
    pub async fn desired_changed(&mut self) -> Result<(), ClientError> {
        match self.desired.recv().await {
            Some(()) => {
                // Several changes are one reason to look.
                while self.desired.try_recv().is_ok() {}
                Ok(())
            }
            None => Err((&mut self.outcome).await.unwrap_or(ClientError::Closed)),
        }
    }
}

/// Gives answers to whoever asked, and notices to the owner, until the connection ends.
async fn dispatch(
    mut incoming: Incoming,
    mut requests: mpsc::Receiver<TwinRequest>,
    desired: mpsc::Sender<()>,
) -> ClientError {
    let mut waiting: HashMap<String, oneshot::Sender<TwinResponse>> = HashMap::new();
    loop {
        let publish = tokio::select! {
            biased;
            Some(request) = requests.recv() => {
                waiting.retain(|_, reply| !reply.is_closed());
                waiting.insert(request.id, request.reply);
                continue;
            }
            publish = incoming.next() => match publish {
                Ok(publish) => publish,
                Err(error) => return error,
            },
        };
        match HubTopic::parse(&publish.topic) {
            Ok(HubTopic::TwinResponse { status, request_id, .. }) => {
                if let Some(reply) = waiting.remove(&request_id) {
                    let _ = reply.send(TwinResponse { status, body: publish.payload });
                }
            }
            // A full queue already says that there is something new.
            Ok(HubTopic::DesiredPatch { .. }) => drop(desired.try_send(())),
            Ok(other) => tracing::debug!(topic = %other, "ignored a publish of the hub"),
            Err(error) => tracing::debug!(topic = publish.topic, %error, "ignored a publish of the hub"),
        }
    }
}
