//! The side of the relay that talks to the hub.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{FromHub, Request, Status, Token};
use crate::edge::gateway::credentials::Credentials;
use crate::edge::link::Upstream;
use crate::identity::EDGE_HUB;
use crate::module_client::Twin;
use crate::mqtt::{Client, ClientError, Incoming, QoS, packet};
use crate::retry::Backoff;
use crate::topics::{ClientTopic, HubTopic, Subscription};

/// Requests that may be without the hub's answer at once; clients have one or two.
const MAX_UNANSWERED: usize = 64;
const FIRST_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);
const UNAVAILABLE: u16 = 503;
/// Id of the relay's own request for the twin. A client may use it, too.
const OWN_REQUEST: &str = "kedge-gateway";

pub(super) struct Task {
    upstream: Arc<Upstream>,
    credentials: Arc<Credentials>,
    wanted: watch::Receiver<BTreeSet<Subscription>>,
    publishes: mpsc::Sender<FromHub>,
    status: watch::Sender<Status>,
    /// Requests that the client has no answer to yet.
    unanswered: BTreeSet<String>,
    /// Whether the first answer to [`OWN_REQUEST`] is the relay's: it asks before it passes anything on.
    has_asked: bool,
    /// Connections so far.
    connections: u64,
}

impl Task {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        credentials: Arc<Credentials>,
        wanted: watch::Receiver<BTreeSet<Subscription>>,
        publishes: mpsc::Sender<FromHub>,
    ) -> Self {
        let (status, unanswered) = (watch::Sender::default(), BTreeSet::new());
        let (has_asked, connections) = (false, 0);
        Self { upstream, credentials, wanted, publishes, status, unanswered, has_asked, connections }
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            let attempt = async {
                let (client, incoming, subscribed) = self.connect().await?;
                backoff.reset();
                self.connections += 1;
                self.has_asked = self.connections > 1 && subscribed.contains(&Subscription::DesiredPatches);
                if self.has_asked {
                    let own = ClientTopic::TwinGet { request_id: OWN_REQUEST.to_owned() };
                    client.publish(own.to_string(), Bytes::new()).await?;
                }
                self.pass(&client, incoming, &mut requests, subscribed).await
            };
            match stop.run_until_cancelled(attempt).await {
                Some(Ok(())) | None => return,
                Some(Err(error)) => {
                    tracing::debug!("The hub is not reachable as {}: {error}", self.credentials.identity);
                }
            }
            self.status.send_replace(Status { is_away: true, subscribed: BTreeSet::new() });
            tokio::select! {
                () = self.refuse(&mut requests) => return,
                waited = backoff.pause(&stop) => if !waited { return },
            }
        }
    }

    async fn connect(&mut self) -> Result<(Client, Incoming, BTreeSet<Subscription>), ClientError> {
        let link = &self.upstream.link;
        let identity = &self.credentials.identity;
        let (client, incoming) = match self.credentials.token(&link.hub_name) {
            Some(token) => link.open_relay(identity, token, None).await?,
            None => {
                // Without $edgeHub there is no connection to the hub at all, and this one would fail like it.
                let edge_hub = self.upstream.identities.get(EDGE_HUB).ok_or(ClientError::Closed)?;
                link.open_relay(identity, edge_hub.token(&link.hub_name), Some(&edge_hub.identity)).await?
            }
        };
        let mut subscriptions = self.wanted.borrow_and_update().clone();
        subscriptions.insert(Subscription::TwinResponses);
        client.subscribe(subscriptions.iter().map(ToString::to_string).collect()).await?;
        self.status.send_replace(Status { is_away: false, subscribed: subscriptions.clone() });
        Ok((client, incoming, subscriptions))
    }

    /// Passes everything on in both directions until one side ends.
    async fn pass(
        &mut self,
        client: &Client,
        mut incoming: Incoming,
        requests: &mut mpsc::Receiver<Request>,
        mut subscribed: BTreeSet<Subscription>,
    ) -> Result<(), ClientError> {
        loop {
            let has_room = self.unanswered.len() < MAX_UNANSWERED;
            tokio::select! {
                request = requests.recv(), if has_room => match request {
                    Some(request) => self.request(client, request).await?,
                    None => return Ok(()),
                },
                publish = incoming.next() => {
                    let Some(publish) = self.received(client, publish?).await? else { continue };
                    if self.publishes.send(publish).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(()) = self.wanted.changed() => self.resubscribe(client, &mut subscribed).await?,
            }
        }
    }

    async fn request(&mut self, client: &Client, request: Request) -> Result<(), ClientError> {
        let (topic, body) = match request {
            Request::Twin { id, topic, body } => {
                self.unanswered.insert(id);
                (topic, body)
            }
            Request::MethodResponse { topic, body } => (topic, body),
            Request::Complete(token) if token.connection == self.connections => {
                return client.acknowledge(token.packet_id).await;
            }
            // The hub sends it again on the present connection.
            Request::Complete(_) => return Ok(()),
        };
        // Nothing waits for the acknowledgement: what is lost with the connection is refused afterwards.
        client.start_publish(topic, body).await.map(drop)
    }

    /// What the client is to get of a publish of the hub.
    async fn received(
        &mut self,
        client: &Client,
        publish: packet::Publish,
    ) -> Result<Option<FromHub>, ClientError> {
        let packet_id = (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid);
        let topic = HubTopic::parse(&publish.topic);
        if matches!(topic, Ok(HubTopic::CloudToDevice { .. })) {
            let token = packet_id.map(|packet_id| Token { connection: self.connections, packet_id });
            return Ok(Some(FromHub { publish, token }));
        }
        if let Some(packet_id) = packet_id {
            client.acknowledge(packet_id).await?;
        }
        let publish = match topic {
            Ok(HubTopic::TwinResponse { request_id, .. }) if request_id == OWN_REQUEST && self.has_asked => {
                self.has_asked = false;
                desired_of(&publish.payload)
            }
            Ok(HubTopic::TwinResponse { request_id, .. }) => {
                self.unanswered.remove(&request_id);
                Some(publish)
            }
            _ => Some(publish),
        };
        Ok(publish.map(|publish| FromHub { publish, token: None }))
    }

    async fn resubscribe(
        &mut self,
        client: &Client,
        subscribed: &mut BTreeSet<Subscription>,
    ) -> Result<(), ClientError> {
        let mut wanted = self.wanted.borrow_and_update().clone();
        wanted.insert(Subscription::TwinResponses);
        let texts = |some: Vec<&Subscription>| some.into_iter().map(ToString::to_string).collect::<Vec<_>>();
        let (new, old) =
            (texts(wanted.difference(subscribed).collect()), texts(subscribed.difference(&wanted).collect()));
        if !new.is_empty() {
            client.subscribe(new).await?;
        }
        if !old.is_empty() {
            client.unsubscribe(old).await?;
        }
        self.status.send_replace(Status { is_away: false, subscribed: wanted.clone() });
        *subscribed = wanted;
        Ok(())
    }

    /// Answers requests while there is no connection; returns when the client has gone. Safe to cancel.
    async fn refuse(&mut self, requests: &mut mpsc::Receiver<Request>) {
        loop {
            while let Some(id) = self.unanswered.first() {
                let answer = FromHub { publish: unavailable(id), token: None };
                if self.publishes.send(answer).await.is_err() {
                    return;
                }
                self.unanswered.pop_first();
            }
            match requests.recv().await {
                Some(Request::Twin { id, .. }) => drop(self.unanswered.insert(id)),
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// All desired properties of a twin as a change, for a client that may have missed one.
fn desired_of(twin: &[u8]) -> Option<packet::Publish> {
    let Twin { desired, .. } = serde_json::from_slice(twin).ok()?;
    let topic = HubTopic::DesiredPatch { version: desired.get("$version")?.as_u64()? };
    Some(packet::Publish::from_bytes(topic.to_string(), QoS::AtLeastOnce, desired.to_string().into()))
}

/// The answer to a twin request that cannot be passed on.
pub(super) fn unavailable(request_id: &str) -> packet::Publish {
    let request_id = request_id.to_owned();
    let topic = HubTopic::TwinResponse { status: UNAVAILABLE, request_id, version: None };
    packet::Publish::from_bytes(topic.to_string(), QoS::AtLeastOnce, Bytes::new())
}
