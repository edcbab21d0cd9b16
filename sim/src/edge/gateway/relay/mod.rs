//! A client's own view of the hub: its twin, calls of its methods and, for a device, its messages, through a
//! connection to the hub as that client.
//!
//! The relay connects when the client first needs it. Requests and answers pass unchanged; while the hub is away, or
//! when it goes before it has answered, a request is answered with status 503, which SDKs try again. What changed
//! meanwhile is told to the client when the hub is back. A message of the hub is acknowledged there when the client
//! has acknowledged it.

mod task;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use self::task::Task;
use super::credentials::Credentials;
use crate::edge::link::Upstream;
use crate::mqtt::packet;
use crate::topics::Subscription;

/// Requests that wait for the hub, and what waits for the client.
const QUEUE: usize = 64;
/// How long a client waits for a subscription that the hub has to grant.
const MAX_WAIT_FOR_GRANT: Duration = Duration::from_secs(5);

/// The relay of one client of the gateway.
pub(super) struct Relay {
    upstream: Arc<Upstream>,
    credentials: Arc<Credentials>,
    /// What the hub is asked to send.
    wanted: watch::Sender<BTreeSet<Subscription>>,
    open: Option<Open>,
    /// Answers of the relay itself.
    own_answers: VecDeque<packet::Publish>,
}

struct Open {
    status: watch::Receiver<Status>,
    requests: mpsc::Sender<Request>,
    publishes: mpsc::Receiver<FromHub>,
    _ends_with_the_client: DropGuard,
}

/// How far the connection to the hub is.
#[derive(Debug, Default)]
struct Status {
    /// The last attempt failed, or its connection has ended.
    is_away: bool,
    subscribed: BTreeSet<Subscription>,
}

/// What goes to the hub.
#[derive(Debug)]
enum Request {
    /// A request about the twin, which has an answer.
    Twin { id: String, topic: String, body: Bytes },
    /// The answer to a call.
    MethodResponse { topic: String, body: Bytes },
    /// The client has the message.
    Complete(Token),
}

/// Stands for a message of the hub that it has no acknowledgement for yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// Ids of packets belong to a connection.
    connection: u64,
    packet_id: u16,
}

/// A publish for the client.
#[derive(Debug)]
pub(super) struct FromHub {
    pub(super) publish: packet::Publish,
    pub(super) token: Option<Token>,
}

impl Relay {
    pub(super) fn new(upstream: Arc<Upstream>, credentials: Arc<Credentials>) -> Self {
        Self {
            upstream,
            credentials,
            wanted: watch::Sender::default(),
            open: None,
            own_answers: VecDeque::new(),
        }
    }

    /// Asks the hub for more; completes when the hub has granted it, or is away.
    pub(super) fn want(&mut self, subscription: Subscription) -> impl Future<Output = ()> + Send + use<> {
        self.wanted.send_if_modified(|wanted| wanted.insert(subscription.clone()));
        let mut status = self.open().status.clone();
        async move {
            let granted =
                status.wait_for(|status| status.is_away || status.subscribed.contains(&subscription));
            // Without the task the gateway stops; and the client is not kept waiting for a slow hub.
            let _ = timeout(MAX_WAIT_FOR_GRANT, granted).await;
        }
    }

    /// The client does not want it any longer.
    pub(super) fn forget(&mut self, subscription: &Subscription) {
        self.wanted.send_if_modified(|wanted| wanted.remove(subscription));
    }

    /// Passes a request about the twin on. One too many is answered at once.
    pub(super) fn twin(&mut self, id: String, topic: String, body: Bytes) {
        if let Err(Request::Twin { id, .. }) = self.send(Request::Twin { id, topic, body }) {
            self.own_answers.push_back(task::unavailable(&id));
        }
    }

    /// Passes the answer to a call on. Without the hub nobody waits for it.
    pub(super) fn method_response(&mut self, topic: String, body: Bytes) {
        drop(self.send(Request::MethodResponse { topic, body }));
    }

    /// The client has acknowledged a message of the hub. One that the hub does not hear of comes again.
    pub(super) fn complete(&mut self, token: Token) {
        drop(self.send(Request::Complete(token)));
    }

    /// The next publish for the client. Safe to cancel.
    pub(super) async fn next(&mut self) -> FromHub {
        if let Some(publish) = self.own_answers.pop_front() {
            return FromHub { publish, token: None };
        }
        let publish = match &mut self.open {
            Some(open) => open.publishes.recv().await,
            None => None,
        };
        match publish {
            Some(publish) => publish,
            None => std::future::pending().await,
        }
    }

    fn send(&mut self, request: Request) -> Result<(), Request> {
        let sent = self.open().requests.try_send(request);
        sent.map_err(|error| match error {
            TrySendError::Full(request) | TrySendError::Closed(request) => request,
        })
    }

    /// Connects to the hub, unless that was done before.
    fn open(&mut self) -> &Open {
        let Self { upstream, credentials, wanted, open, .. } = self;
        open.get_or_insert_with(|| {
            let (requests, request_queue) = mpsc::channel(QUEUE);
            let (publish_queue, publishes) = mpsc::channel(QUEUE);
            let stop = upstream.shutdown.child_token();
            let task = Task::new(upstream.clone(), credentials.clone(), wanted.subscribe(), publish_queue);
            let status = task.status();
            tokio::spawn(task.run(request_queue, stop.clone()));
            Open { status, requests, publishes, _ends_with_the_client: stop.drop_guard() }
        })
    }
}
