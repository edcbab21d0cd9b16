//! A module's own view of its twin, through a connection to the hub as that module.
//!
//! The relay connects when the module first asks for its twin. Requests and answers pass unchanged;
//! while the hub is away, or when it goes before it has answered, a request is answered with status
//! 503, which SDKs try again. What changed meanwhile is told to the module when the hub is back.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::edge::identity::ModuleIdentity;
use crate::edge::link::Upstream;
use crate::module_client::Twin;
use crate::mqtt::{Client, ClientError, Incoming, QoS, packet};
use crate::retry::Backoff;
use crate::topics::{ClientTopic, HubTopic, Subscription};

/// Requests that wait for the hub, and answers that wait for the module.
const QUEUE: usize = 16;
/// Requests that may be without the hub's answer at once; clients have one or two.
const MAX_UNANSWERED: usize = 64;
const FIRST_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);
const UNAVAILABLE: u16 = 503;
/// Id of the relay's own request for the twin. Modules use numbers and UUIDs.
const OWN_REQUEST: &str = "kedge-gateway";

/// The relay of one client of the gateway.
pub(super) struct Relay {
    upstream: Arc<Upstream>,
    identity: Arc<ModuleIdentity>,
    open: Option<Open>,
    /// Answers of the relay itself.
    own_answers: VecDeque<packet::Publish>,
}

struct Open {
    requests: mpsc::Sender<Request>,
    answers: mpsc::Receiver<packet::Publish>,
    _ends_with_the_client: DropGuard,
}

#[derive(Debug)]
struct Request {
    id: String,
    topic: String,
    body: Bytes,
}

impl Relay {
    pub(super) fn new(upstream: Arc<Upstream>, identity: Arc<ModuleIdentity>) -> Self {
        Self { upstream, identity, open: None, own_answers: VecDeque::new() }
    }

    /// Connects to the hub, unless that was done before.
    pub(super) fn open(&mut self) {
        let Self { upstream, identity, open, .. } = self;
        open.get_or_insert_with(|| {
            let (requests, request_queue) = mpsc::channel(QUEUE);
            let (answer, answers) = mpsc::channel(QUEUE);
            let stop = upstream.shutdown.child_token();
            let task = Task {
                upstream: upstream.clone(),
                identity: identity.clone(),
                answers: answer,
                unanswered: BTreeSet::new(),
                was_connected: false,
            };
            tokio::spawn(task.run(request_queue, stop.clone()));
            Open { requests, answers, _ends_with_the_client: stop.drop_guard() }
        });
    }

    /// Passes a request of the module on. One too many is answered at once.
    pub(super) fn request(&mut self, id: String, topic: String, body: Bytes) {
        self.open();
        let Some(open) = &self.open else { return };
        if let Err(TrySendError::Full(request) | TrySendError::Closed(request)) =
            open.requests.try_send(Request { id, topic, body })
        {
            self.own_answers.push_back(unavailable(&request.id));
        }
    }

    /// The next publish for the module. Safe to cancel.
    pub(super) async fn next(&mut self) -> packet::Publish {
        if let Some(answer) = self.own_answers.pop_front() {
            return answer;
        }
        match &mut self.open {
            Some(open) => match open.answers.recv().await {
                Some(publish) => publish,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

/// The side of the relay that talks to the hub.
struct Task {
    upstream: Arc<Upstream>,
    identity: Arc<ModuleIdentity>,
    answers: mpsc::Sender<packet::Publish>,
    /// Requests that the module has no answer to yet.
    unanswered: BTreeSet<String>,
    was_connected: bool,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            let attempt = async {
                let (client, incoming) = self.connect().await?;
                backoff.reset();
                if std::mem::replace(&mut self.was_connected, true) {
                    let own = ClientTopic::TwinGet { request_id: OWN_REQUEST.to_owned() };
                    client.publish(own.to_string(), Bytes::new()).await?;
                }
                self.pass(&client, incoming, &mut requests).await
            };
            match stop.run_until_cancelled(attempt).await {
                Some(Ok(())) | None => return,
                Some(Err(error)) => {
                    tracing::debug!("The twin of {} is not reachable: {error}", self.identity.identity);
                }
            }
            tokio::select! {
                () = self.refuse(&mut requests) => return,
                waited = backoff.pause(&stop) => if !waited { return },
            }
        }
    }

    async fn connect(&self) -> Result<(Client, Incoming), ClientError> {
        let link = &self.upstream.link;
        let token = self.identity.token(&link.hub_name);
        let (client, incoming) = link.open(&self.identity.identity, token).await?;
        let filters = [Subscription::TwinResponses, Subscription::DesiredPatches];
        client.subscribe(filters.iter().map(ToString::to_string).collect()).await?;
        Ok((client, incoming))
    }

    /// Passes everything on in both directions until one side ends.
    async fn pass(
        &mut self,
        client: &Client,
        mut incoming: Incoming,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<(), ClientError> {
        loop {
            let has_room = self.unanswered.len() < MAX_UNANSWERED;
            tokio::select! {
                request = requests.recv(), if has_room => {
                    let Some(Request { id, topic, body }) = request else { return Ok(()) };
                    self.unanswered.insert(id);
                    client.publish(topic, body).await?;
                }
                publish = incoming.next() => {
                    let publish = publish?;
                    let copy = match HubTopic::parse(&publish.topic) {
                        Ok(HubTopic::TwinResponse { request_id, .. }) if request_id == OWN_REQUEST => {
                            let Some(news) = desired_of(&publish.payload) else { continue };
                            news
                        }
                        topic => {
                            if let Ok(HubTopic::TwinResponse { request_id, .. }) = topic {
                                self.unanswered.remove(&request_id);
                            }
                            packet::Publish::from_bytes(publish.topic, QoS::AtMostOnce, publish.payload)
                        }
                    };
                    if self.answers.send(copy).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Answers requests while there is no connection; returns when the module has gone. Safe to cancel.
    async fn refuse(&mut self, requests: &mut mpsc::Receiver<Request>) {
        loop {
            while let Some(id) = self.unanswered.first() {
                if self.answers.send(unavailable(id)).await.is_err() {
                    return;
                }
                self.unanswered.pop_first();
            }
            match requests.recv().await {
                Some(request) => self.unanswered.insert(request.id),
                None => return,
            };
        }
    }
}

/// All desired properties of a twin as a change, for a module that may have missed one.
fn desired_of(twin: &[u8]) -> Option<packet::Publish> {
    let Twin { desired, .. } = serde_json::from_slice(twin).ok()?;
    let topic = HubTopic::DesiredPatch { version: desired.get("$version")?.as_u64()? };
    Some(packet::Publish::from_bytes(topic.to_string(), QoS::AtMostOnce, desired.to_string().into()))
}

/// The answer to a twin request that cannot be passed on.
fn unavailable(request_id: &str) -> packet::Publish {
    let request_id = request_id.to_owned();
    let topic = HubTopic::TwinResponse { status: UNAVAILABLE, request_id, version: None };
    packet::Publish::from_bytes(topic.to_string(), QoS::AtMostOnce, Bytes::new())
}
