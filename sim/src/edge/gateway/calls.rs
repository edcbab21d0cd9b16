//! Methods of clients that other modules of this device call through the gateway.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::mqtt::{QoS, packet};
use crate::topics::HubTopic;

/// Calls that wait for a client.
pub(super) const QUEUE: usize = 16;
/// How the ids of these calls begin. The hub's own have none of it.
const PREFIX: &str = "kedge-gateway-";

/// A call for a client.
#[derive(Debug)]
pub(super) struct LocalCall {
    pub(super) method: String,
    pub(super) payload: Bytes,
    pub(super) reply: oneshot::Sender<LocalAnswer>,
}

/// What a client answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LocalAnswer {
    pub(super) status: i32,
    pub(super) payload: Bytes,
}

/// The calls of one client.
#[derive(Debug)]
pub(super) struct Calls {
    queue: mpsc::Receiver<LocalCall>,
    unanswered: HashMap<String, oneshot::Sender<LocalAnswer>>,
    last_id: u64,
}

impl Calls {
    pub(super) fn new(queue: mpsc::Receiver<LocalCall>) -> Self {
        Self { queue, unanswered: HashMap::new(), last_id: 0 }
    }

    /// The publish of the next call. Safe to cancel.
    pub(super) async fn next(&mut self) -> packet::Publish {
        let Some(LocalCall { method, payload, reply }) = self.queue.recv().await else {
            return std::future::pending().await;
        };
        self.unanswered.retain(|_, reply| !reply.is_closed());
        self.last_id += 1;
        let request_id = format!("{PREFIX}{}", self.last_id);
        self.unanswered.insert(request_id.clone(), reply);
        let topic = HubTopic::MethodCall { name: method, request_id };
        packet::Publish::from_bytes(topic.to_string(), QoS::AtLeastOnce, payload)
    }

    /// Takes an answer; false when the call was the hub's.
    pub(super) fn answered(&mut self, request_id: &str, status: i32, payload: &Bytes) -> bool {
        if let Some(reply) = self.unanswered.remove(request_id) {
            // The caller may not wait any longer.
            let _ = reply.send(LocalAnswer { status, payload: payload.clone() });
        }
        request_id.starts_with(PREFIX)
    }
}
