//! edgeHub's connection: messages of modules go up, in order, and are acknowledged when the hub has them.
//!
//! A message that the hub has not acknowledged is sent again on the next connection. One whose
//! sender has gone is not: its sender never got an acknowledgement and will send it again itself.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{mpsc, oneshot, watch};

use super::agent::config_status;
use super::board::{ConfigStatus, LinkState, RuntimeState};
use super::link::{Session, Upstream};
use super::reported;
use super::routes::Routes;
use crate::identity::{EDGE_HUB, Identity};
use crate::module_client::{ModuleClient, Notices, TwinError};
use crate::mqtt::{Client, ClientError, Error};
use crate::topics::{ClientTopic, MAX_MESSAGE, PropertyBag};

/// Messages that wait for the forwarder; further senders wait for room.
const QUEUE: usize = 64;
/// Messages that may be without the hub's acknowledgement at once.
const WINDOW: usize = 32;

/// Why a message does not reach the hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undeliverable {
    /// The hub would close the connection.
    #[error("the message is larger than {MAX_MESSAGE} bytes with what the gateway adds to it")]
    TooLarge,
    /// It has no form that could be sent.
    #[error("the message cannot be forwarded: {0}")]
    Unencodable(String),
    /// Nobody forwards any longer.
    #[error("the runtime stops")]
    Shutdown,
}

/// Completes when the hub has acknowledged the message.
pub type Delivery = oneshot::Receiver<Result<(), Undeliverable>>;

#[derive(Debug)]
struct Message {
    topic: String,
    body: Bytes,
    done: oneshot::Sender<Result<(), Undeliverable>>,
}

/// Takes messages for the hub.
#[derive(Debug, Clone)]
pub struct Outbox(mpsc::Sender<Message>);

impl Outbox {
    /// Queues a message; messages leave in the order in which this method returned.
    pub async fn put(
        &self,
        properties: PropertyBag,
        body: Bytes,
        edge_hub: &Identity,
    ) -> Result<Delivery, Undeliverable> {
        let topic = ClientTopic::Telemetry { identity: edge_hub.clone(), properties }.to_string();
        if topic.len() + body.len() > MAX_MESSAGE {
            return Err(Undeliverable::TooLarge);
        }
        // What the gateway adds may exceed another limit. The hub would close the connection on each attempt, and
        // the message would stand in the way of those of all modules.
        ClientTopic::parse(&topic).map_err(|error| Undeliverable::Unencodable(error.to_string()))?;
        let (done, delivery) = oneshot::channel();
        self.0.send(Message { topic, body, done }).await.map_err(|_| Undeliverable::Shutdown)?;
        Ok(delivery)
    }
}

/// The session of `$edgeHub`.
pub struct EdgeHubSession {
    upstream: Arc<Upstream>,
    routes: watch::Sender<Option<Arc<Routes>>>,
    queue: Queue,
}

impl EdgeHubSession {
    /// A session that hands the routes to `routes`, and the outbox that it empties.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, routes: watch::Sender<Option<Arc<Routes>>>) -> (Self, Outbox) {
        let (sender, incoming) = mpsc::channel(QUEUE);
        let queue = Queue { incoming, unacknowledged: VecDeque::new() };
        (Self { upstream, routes, queue }, Outbox(sender))
    }
}

impl Session for EdgeHubSession {
    const MODULE_ID: &'static str = EDGE_HUB;

    fn link_state(state: &mut RuntimeState) -> &mut LinkState {
        &mut state.edge_hub
    }

    async fn run(&mut self, client: &ModuleClient, notices: Notices) -> TwinError {
        let Self { upstream, routes, queue } = self;
        let apply = |desired: &serde_json::Value| {
            let outcome = Routes::parse(desired);
            let mut status = config_status(desired, outcome.as_ref().err());
            if desired.get("storeAndForwardConfiguration").is_some() {
                tracing::info!(
                    "storeAndForwardConfiguration is not used: modules keep messages until the hub has them"
                );
            }
            if let Ok(parsed) = outcome {
                report_problems(&parsed, &mut status);
                routes.send_replace(Some(Arc::new(parsed)));
            }
            upstream.board.update(|state| state.routes = status);
        };
        let device_id = upstream.identities.device_id();
        let report = |state: &RuntimeState| reported::edge_hub(state, device_id);
        tokio::select! {
            error = queue.empty_into(client.mqtt()) => error.into(),
            error = upstream.follow_twin(client, notices, apply, report) => error,
        }
    }
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

struct Queue {
    incoming: mpsc::Receiver<Message>,
    unacknowledged: VecDeque<Message>,
}

impl Queue {
    /// Sends until the connection ends. Safe to cancel: what was taken from the queue and not acknowledged stays.
    async fn empty_into(&mut self, client: &Client) -> ClientError {
        match self.exchange(client).await {
            Ok(()) => ClientError::Closed,
            Err(error) => error,
        }
    }

    async fn exchange(&mut self, client: &Client) -> Result<(), ClientError> {
        self.unacknowledged.retain(|message| !message.done.is_closed());
        let mut acknowledgements = FuturesOrdered::new();
        for message in &self.unacknowledged {
            acknowledgements
                .push_back(client.start_publish(message.topic.clone(), message.body.clone()).await?);
        }
        loop {
            let has_room = self.unacknowledged.len() < WINDOW;
            tokio::select! {
                Some(acknowledged) = acknowledgements.next() => self.settle(acknowledged)?,
                message = self.incoming.recv(), if has_room => {
                    let Some(message) = message else { return Ok(()) };
                    let (topic, body) = (message.topic.clone(), message.body.clone());
                    self.unacknowledged.push_back(message);
                    acknowledgements.push_back(client.start_publish(topic, body).await?);
                }
            }
        }
    }

    /// Acknowledgements are taken in the order of the messages, so each belongs to the oldest one.
    fn settle(&mut self, acknowledged: Result<(), ClientError>) -> Result<(), ClientError> {
        let outcome = match acknowledged {
            Ok(()) => Ok(()),
            Err(ClientError::Connection(error @ (Error::TooLarge { .. } | Error::Unencodable(_)))) => {
                Err(Undeliverable::Unencodable(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        if let Some(message) = self.unacknowledged.pop_front() {
            // The sender may have gone; the message has arrived all the same.
            let _ = message.done.send(outcome);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::system;

    /// What becomes of a message with so many properties, each of so many bytes.
    async fn put(properties: usize, bytes: usize) -> Result<Delivery, Undeliverable> {
        let (sender, _incoming) = mpsc::channel(1);
        let pairs = (0..properties).map(|number| (format!("p{number}"), "x".repeat(bytes)));
        let mut properties = PropertyBag::from_iter(pairs);
        properties.set(system::CONNECTION_DEVICE_ID, "d");
        properties.set(system::CONNECTION_MODULE_ID, "m");
        let edge_hub = Identity::module("d", EDGE_HUB).unwrap();
        Outbox(sender).put(properties, Bytes::new(), &edge_hub).await
    }

    #[tokio::test]
    async fn a_message_that_the_hub_would_not_read_is_never_queued() {
        assert!(put(254, 1).await.is_ok());
        assert!(matches!(put(255, 1).await, Err(Undeliverable::Unencodable(_))));
        assert!(put(1, 16_000).await.is_ok());
        assert!(matches!(put(1, 16_384).await, Err(Undeliverable::Unencodable(_))));
        assert!(matches!(put(1, MAX_MESSAGE).await, Err(Undeliverable::TooLarge)));
    }
}
