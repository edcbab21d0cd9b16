//! The client of a device or module identity: telemetry, twin, methods and inputs over MQTT, as in IoT Hub's SDKs.
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
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::identity::Identity;
use crate::mqtt::{Client, ClientError, Incoming, MAX_PACKET, Options};
use crate::secret::Secret;
use crate::tls::{self, Endpoint};
use crate::topics::{ClientTopic, HubTopic, PropertyBag, Subscription};
use crate::websocket;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const TWIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Desired-property notifications carry no information beyond "look again", so few are kept.
const NOTICE_QUEUE: usize = 8;
/// Method calls that wait for their handler. For one too many the caller gets no answer in time.
const CALL_QUEUE: usize = 16;
/// Messages of inputs that wait for their handler. One too many ends the connection.
const INPUT_QUEUE: usize = 64;

/// How MQTT gets there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// Over TLS.
    #[default]
    Tls,
    /// Over a WebSocket, on the port of HTTPS.
    WebSocket,
}

/// Where identities connect, and as clients of which hub.
#[derive(Debug, Clone)]
pub struct Link {
    /// The hub or the gateway.
    pub endpoint: Endpoint,
    /// How it is spoken to.
    pub transport: Transport,
    /// Whom to trust there.
    pub tls: Arc<ClientConfig>,
    /// Host name of the IoT Hub, also when the endpoint is a gateway.
    pub hub_name: String,
}

impl Link {
    /// Opens an MQTT session for `identity` with a token of its own.
    pub async fn open(&self, identity: &Identity, token: Secret) -> Result<(Client, Incoming), ClientError> {
        self.open_session(identity, identity.username(&self.hub_name), token, false).await
    }

    /// As [`Link::open`], for a caller that acknowledges what arrives when somebody else has it. It begins a session
    /// of its own, since those for whom it speaks say anew to what they subscribe. The token is that of `gateway`, when
    /// one is named, which connects in the place of the identity.
    pub async fn open_relay(
        &self,
        identity: &Identity,
        token: Secret,
        gateway: Option<&Identity>,
    ) -> Result<(Client, Incoming), ClientError> {
        let username = match gateway {
            Some(gateway) => identity.username_through(&self.hub_name, gateway),
            None => identity.username(&self.hub_name),
        };
        self.open_session(identity, username, token, true).await
    }

    async fn open_session(
        &self,
        identity: &Identity,
        username: String,
        token: Secret,
        is_relay: bool,
    ) -> Result<(Client, Incoming), ClientError> {
        let options = Options {
            client_id: identity.client_id(),
            username,
            password: token,
            keep_alive: KEEP_ALIVE,
            clean_session: is_relay,
            max_packet: MAX_PACKET,
            manual_acknowledgements: is_relay,
        };
        let opened = timeout(CONNECT_TIMEOUT, async {
            let (endpoint, tls) = (&self.endpoint, self.tls.clone());
            match self.transport {
                Transport::Tls => {
                    let stream = tls::connect(endpoint, tls).await.map_err(ClientError::Unreachable)?;
                    Client::connect(stream, &options).await
                }
                Transport::WebSocket => {
                    let stream = websocket::connect(endpoint, tls).await.map_err(ClientError::Unreachable)?;
                    Client::connect(stream, &options).await
                }
            }
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
    requests: mpsc::Sender<Request>,
    last_request: AtomicU64,
}

/// A direct method that somebody calls on this identity.
#[derive(Debug)]
pub struct MethodCall {
    /// Name of the method.
    pub name: String,
    /// The payload, as JSON text.
    pub body: Bytes,
    request_id: String,
    client: Client,
}

impl MethodCall {
    /// Answers the call. The caller gets the status, and the body as the payload when it is JSON.
    pub async fn answer(self, status: i32, body: Bytes) -> Result<(), ClientError> {
        let topic = ClientTopic::MethodResponse { status, request_id: self.request_id };
        self.client.publish(topic.to_string(), body).await
    }
}

/// A message for an input of this module.
#[derive(Debug)]
pub struct InputMessage {
    /// Name of the input.
    pub input: String,
    /// System and application properties.
    pub properties: PropertyBag,
    /// The message.
    pub body: Bytes,
}

/// What arrives for a connected identity.
#[derive(Debug)]
pub struct Notices {
    desired: mpsc::Receiver<()>,
    outcome: oneshot::Receiver<ClientError>,
}

/// What the task that reads the connection has to know.
#[derive(Debug)]
enum Request {
    Twin { id: String, reply: oneshot::Sender<TwinResponse> },
    Calls(mpsc::Sender<MethodCall>, Client),
    EndCalls,
    Inputs(mpsc::Sender<InputMessage>),
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
        Self::begin(client, incoming, identity).await
    }

    async fn begin(
        client: Client,
        incoming: Incoming,
        identity: &Identity,
    ) -> Result<(Self, Notices), ClientError> {
        let (requests, request_queue) = mpsc::channel(NOTICE_QUEUE);
        let (notify, desired) = mpsc::channel(NOTICE_QUEUE);
        let (end, outcome) = oneshot::channel();
        let dispatcher = Dispatcher { waiting: HashMap::new(), desired: notify, calls: None, inputs: None };
        tokio::spawn(async move {
            // The owner may have lost interest in why the connection ended.
            let _ = end.send(dispatcher.run(incoming, request_queue).await);
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

    /// Subscribes to direct methods; the calls from now on, until the connection ends.
    pub async fn method_calls(&self) -> Result<mpsc::Receiver<MethodCall>, ClientError> {
        let (calls, queue) = mpsc::channel(CALL_QUEUE);
        self.ask(Request::Calls(calls, self.client.clone())).await?;
        self.client.subscribe(vec![Subscription::MethodCalls.to_string()]).await?;
        Ok(queue)
    }

    /// Ends the subscription to direct methods, so that whoever sends them holds back or refuses further ones. The
    /// queue ends after the calls that came before.
    pub async fn end_method_calls(&self) -> Result<(), ClientError> {
        self.client.unsubscribe(vec![Subscription::MethodCalls.to_string()]).await?;
        self.ask(Request::EndCalls).await
    }

    /// Subscribes to the inputs of this module; the messages from now on, until the connection ends.
    pub async fn inputs(&self) -> Result<mpsc::Receiver<InputMessage>, ClientError> {
        let (inputs, queue) = mpsc::channel(INPUT_QUEUE);
        self.ask(Request::Inputs(inputs)).await?;
        let filter = Subscription::ModuleInputs(self.identity.clone());
        self.client.subscribe(vec![filter.to_string()]).await?;
        Ok(queue)
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
        self.ask(Request::Twin { id: id.clone(), reply }).await?;
        self.client.publish(topic(id).to_string(), body).await?;
        let answer = timeout(TWIN_TIMEOUT, answer).await.map_err(|_| TwinError::Timeout)?;
        let TwinResponse { status, body } = answer.map_err(|_| ClientError::Closed)?;
        if (200..300).contains(&status) { Ok(body) } else { Err(TwinError::Status(status)) }
    }

    async fn ask(&self, request: Request) -> Result<(), ClientError> {
        self.requests.send(request).await.map_err(|_| ClientError::Closed)
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

/// Gives what arrives to whoever waits for it.
struct Dispatcher {
    waiting: HashMap<String, oneshot::Sender<TwinResponse>>,
    desired: mpsc::Sender<()>,
    calls: Option<(mpsc::Sender<MethodCall>, Client)>,
    inputs: Option<mpsc::Sender<InputMessage>>,
}

impl Dispatcher {
    async fn run(mut self, mut incoming: Incoming, mut requests: mpsc::Receiver<Request>) -> ClientError {
        loop {
            let publish = tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => {
                        if let Err(error) = self.requested(request, &mut incoming) {
                            return error;
                        }
                        continue;
                    }
                    // The owner has gone; the handle for answers to calls must not keep the connection open.
                    None => return ClientError::Closed,
                },
                publish = incoming.next() => publish,
            };
            if let Err(error) = publish.and_then(|publish| self.received(&publish.topic, publish.payload)) {
                return error;
            }
        }
    }

    fn requested(&mut self, request: Request, incoming: &mut Incoming) -> Result<(), ClientError> {
        match request {
            Request::Twin { id, reply } => {
                self.waiting.retain(|_, reply| !reply.is_closed());
                self.waiting.insert(id, reply);
            }
            Request::Calls(calls, client) => self.calls = Some((calls, client)),
            Request::Inputs(inputs) => self.inputs = Some(inputs),
            Request::EndCalls => {
                // Calls that came before the subscription ended may still be among these.
                while let Some(publish) = incoming.next_ready() {
                    self.received(&publish.topic, publish.payload)?;
                }
                self.calls = None;
            }
        }
        Ok(())
    }

    fn received(&mut self, topic: &str, body: Bytes) -> Result<(), ClientError> {
        match HubTopic::parse(topic) {
            Ok(HubTopic::TwinResponse { status, request_id, .. }) => {
                if let Some(reply) = self.waiting.remove(&request_id) {
                    let _ = reply.send(TwinResponse { status, body });
                }
            }
            // A full queue already says that there is something new.
            Ok(HubTopic::DesiredPatch { .. }) => drop(self.desired.try_send(())),
            Ok(HubTopic::MethodCall { name, request_id }) => self.called(name, request_id, body),
            Ok(HubTopic::ModuleInput { input, properties, .. }) => {
                let message = InputMessage { input, properties, body };
                // The message is acknowledged already, so it may not be dropped in silence.
                if let Some(Err(TrySendError::Full(_))) =
                    self.inputs.as_ref().map(|inputs| inputs.try_send(message))
                {
                    return Err(ClientError::Overflow);
                }
            }
            Ok(other) => tracing::debug!(topic = %other, "ignored a publish of the hub"),
            Err(error) => tracing::debug!(topic, %error, "ignored a publish of the hub"),
        }
        Ok(())
    }

    fn called(&self, name: String, request_id: String, body: Bytes) {
        let Some((calls, client)) = &self.calls else {
            tracing::warn!("The call of method {name} is dropped: no calls are taken");
            return;
        };
        let call = MethodCall { name, body, request_id, client: client.clone() };
        let (call, reason) = match calls.try_send(call) {
            Ok(()) => return,
            Err(TrySendError::Full(call)) => (call, "too many wait"),
            Err(TrySendError::Closed(call)) => (call, "its handler has gone"),
        };
        tracing::warn!("The call of method {} is dropped: {reason}", call.name);
    }
}

#[cfg(test)]
pub(crate) mod tests;
