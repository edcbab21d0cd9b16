//! edgeHub's connection: what the gateway has stored for the hub goes up, in order, and is removed when the hub
//! has acknowledged it.
//!
//! A message that the hub has not acknowledged is sent again on the next connection, so each arrives at least once.

use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::FusedFuture;
use futures_util::stream::FuturesOrdered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::agent::config_status;
use super::board::{ConfigStatus, LinkState, RuntimeState};
use super::link::{Session, SessionEnd, Upstream};
use super::reported;
use super::routes::Routes;
use super::scope::Scope;
use super::spool::{Delivered, Endpoint, Spool};
use crate::identity::{EDGE_HUB, Identity};
use crate::module_client::{ModuleClient, Notices};
use crate::mqtt::{Client, ClientError, Error};
use crate::topics::{ClientTopic, PropertyBag, system};

/// Messages that may be without the hub's acknowledgement at once, and their bytes.
const WINDOW: usize = 256;
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// After so many sessions in a row that came to nothing the hub is asked whether it knows the sender.
const MAX_FRUITLESS: u32 = 2;
/// Name of the last routes in the store.
const KEPT_ROUTES: &str = "routes";

/// The session of `$edgeHub`.
pub struct EdgeHubSession {
    upstream: Arc<Upstream>,
    routes: watch::Sender<Option<Arc<Routes>>>,
    spool: Spool,
    scope: Arc<Scope>,
    /// How the topic of every message begins.
    prefix: String,
    /// Sessions, one after the other, in which the hub took none of the messages that were sent.
    fruitless: u32,
}

impl EdgeHubSession {
    /// A session that hands the routes to `routes`, and empties the hub's queue of the store.
    #[must_use]
    pub fn new(
        upstream: Arc<Upstream>,
        edge_hub: Identity,
        routes: watch::Sender<Option<Arc<Routes>>>,
        spool: Spool,
        scope: Arc<Scope>,
    ) -> Self {
        let empty = ClientTopic::Telemetry { identity: edge_hub, properties: PropertyBag::new() };
        Self { upstream, routes, spool, scope, prefix: empty.to_string(), fruitless: 0 }
    }
}

impl Session for EdgeHubSession {
    const MODULE_ID: &'static str = EDGE_HUB;

    fn link_state(state: &mut RuntimeState) -> &mut LinkState {
        &mut state.edge_hub
    }

    async fn run(&mut self, client: &ModuleClient, notices: Notices, renewal: Instant) -> SessionEnd {
        let Self { upstream, routes, spool, scope, prefix, fruitless } = self;
        let apply = |desired: &serde_json::Value| {
            let outcome = Routes::parse(desired);
            let mut status = config_status(desired, outcome.as_ref().err());
            if let Ok(parsed) = outcome {
                report_problems(&parsed, &mut status);
                use_routes(parsed, routes, spool);
                spool.keep(KEPT_ROUTES, Some(desired.to_string()));
            }
            upstream.board.update(|state| state.routes = status);
        };
        let mut sender = Sender {
            prefix,
            scope,
            sent: false,
            acknowledged: false,
            suspicious: *fruitless >= MAX_FRUITLESS,
        };
        let end = tokio::select! {
            end = sender.empty(spool, client.mqtt(), sleep_until(renewal)) => end,
            error = upstream.follow_twin(client, notices, apply, reported::edge_hub) => error.into(),
        };
        *fruitless = if sender.sent && !sender.acknowledged { *fruitless + 1 } else { 0 };
        end
    }
}

/// Uses the last routes until the hub tells the present ones, which may take long.
pub async fn restore_routes(routes: &watch::Sender<Option<Arc<Routes>>>, spool: &Spool) {
    let kept = spool.kept(KEPT_ROUTES).await.unwrap_or_else(|error| {
        tracing::error!("The routes cannot be read from the gateway's store: {error}");
        None
    });
    let desired = kept.and_then(|kept| serde_json::from_str(&kept).ok());
    if let Some(parsed) = desired.and_then(|desired| Routes::parse(&desired).ok()) {
        use_routes(parsed, routes, spool);
    }
}

fn use_routes(parsed: Routes, routes: &watch::Sender<Option<Arc<Routes>>>, spool: &Spool) {
    spool.set_limit(parsed.store.max_bytes);
    routes.send_replace(Some(Arc::new(parsed)));
}

fn report_problems(routes: &Routes, status: &mut ConfigStatus) {
    for problem in &routes.problems {
        tracing::warn!("{problem}");
    }
    if !routes.problems.is_empty() {
        status.status = 400;
        status.description = routes.problems.join("; ");
    }
}

/// Empties the hub's queue in one session.
struct Sender<'a> {
    prefix: &'a str,
    scope: &'a Scope,
    sent: bool,
    acknowledged: bool,
    /// The hub may refuse the first message, by closing the connection.
    suspicious: bool,
}

impl Sender<'_> {
    /// Sends until the connection ends, or until all that was sent before the `renewal` is acknowledged, so that the
    /// next session need not send it again. Safe to cancel, as by a session that has waited long enough for that: what
    /// the hub has not acknowledged stays, and is sent again.
    async fn empty(
        &mut self,
        spool: &Spool,
        client: &Client,
        renewal: impl Future<Output = ()>,
    ) -> SessionEnd {
        let mut queue = spool.consumer(Endpoint::Upstream).await;
        let mut sent = FuturesOrdered::new();
        let mut bytes = 0;
        let mut renewal = pin!(renewal.fuse());
        while !(renewal.is_terminated() && sent.is_empty()) {
            let probing = self.suspicious && !self.acknowledged;
            let window = if probing { 1 } else { WINDOW };
            let has_room = !renewal.is_terminated() && sent.len() < window && bytes < WINDOW_BYTES;
            tokio::select! {
                () = &mut renewal => {}
                Some(first) = sent.next() => {
                    let mut settled = Settled::default();
                    let mut outcome = settled.add(first);
                    // One removal for all acknowledgements that are there.
                    while outcome.is_ok() && let Some(Some(next)) = sent.next().now_or_never() {
                        outcome = settled.add(next);
                    }
                    bytes -= settled.bytes;
                    self.acknowledged |= !settled.done.is_empty();
                    queue.done(settled.done);
                    queue.reject(settled.rejected);
                    if let Err(error) = outcome {
                        return error.into();
                    }
                }
                message = queue.next(), if has_room => {
                    let Delivered { id, path, body } = match message {
                        Ok(message) => message,
                        Err(error) => {
                            tracing::error!("The gateway's store cannot be read: {error}");
                            return ClientError::Closed.into();
                        }
                    };
                    if probing && self.is_refused(&path).await {
                        queue.reject([id]);
                        continue;
                    }
                    let topic = format!("{}{path}", self.prefix);
                    let size = topic.len() + body.len();
                    self.sent = true;
                    match client.start_publish(topic, body).await {
                        Ok(acknowledged) => {
                            bytes += size;
                            sent.push_back(acknowledged.map(move |outcome| (id, size, outcome)));
                        }
                        Err(error) => return error.into(),
                    }
                }
            }
        }
        SessionEnd::Renewal
    }

    /// True when the hub says that the sender of a message is no longer there, or no child of this device; then it
    /// closes the connection for each attempt, and the message would stand in the way of all others.
    async fn is_refused(&self, path: &str) -> bool {
        let Ok(properties) = PropertyBag::parse(path) else { return false };
        let device = properties.get(system::CONNECTION_DEVICE_ID).unwrap_or_default();
        let sender = match properties.get(system::CONNECTION_MODULE_ID) {
            Some(module) => Identity::module(device, module),
            None => Identity::device(device),
        };
        let Ok(sender) = sender else { return false };
        let is_refused = matches!(self.scope.member(&sender, true).await, Ok(None));
        if is_refused {
            tracing::error!("A message of {sender} is dropped: the hub does not know its sender any longer");
        }
        is_refused
    }
}

/// Messages that need not be sent again.
#[derive(Default)]
struct Settled {
    done: Vec<u64>,
    rejected: Vec<u64>,
    bytes: usize,
}

impl Settled {
    /// An error when the connection is over.
    fn add(&mut self, (id, size, outcome): (u64, usize, Result<(), ClientError>)) -> Result<(), ClientError> {
        match outcome {
            Ok(()) => self.done.push(id),
            Err(ClientError::Connection(error @ (Error::TooLarge { .. } | Error::Unencodable(_)))) => {
                tracing::error!("A stored message cannot be sent to the hub, and is dropped: {error}");
                self.rejected.push(id);
            }
            Err(error) => return Err(error),
        }
        self.bytes += size;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
