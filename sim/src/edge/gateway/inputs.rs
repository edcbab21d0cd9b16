//! The inputs of a module: what is stored for it goes to it, and leaves the store when it has it.

use crate::database::DatabaseError;
use crate::edge::spool::{Consumer, Delivered, Endpoint, Spool};
use crate::identity::Identity;
use crate::mqtt::{QoS, packet};

/// The inputs of one client.
#[derive(Debug)]
pub(super) struct Inputs {
    spool: Spool,
    /// `None` for what is no module of this device, and has no inputs.
    endpoint: Option<Endpoint>,
    /// How the topics begin.
    prefix: String,
    wanted: bool,
    consumer: Option<Consumer>,
}

impl Inputs {
    /// Nothing is delivered before it is wanted.
    pub(super) fn new(spool: Spool, identity: &Identity, device_id: &str) -> Self {
        let module = identity.module_id().filter(|_| identity.device_id() == device_id);
        let endpoint = module.map(|module| Endpoint::Module(module.to_owned()));
        Self { spool, endpoint, prefix: identity.topic_prefix(), wanted: false, consumer: None }
    }

    /// The client wants its messages, or does not any longer; then those that it has not acknowledged stay.
    pub(super) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
        if !wanted {
            self.consumer = None;
        }
    }

    /// The next message, with its number in the store. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<(u64, packet::Publish), DatabaseError> {
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| self.wanted) else {
            return std::future::pending().await;
        };
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            // A former connection of the module may hold the queue for another moment.
            none => none.insert(self.spool.consumer(endpoint.clone()).await),
        };
        let Delivered { id, path, body } = consumer.next().await?;
        let topic = format!("{}/inputs/{path}", self.prefix);
        Ok((id, packet::Publish::from_bytes(topic, QoS::AtLeastOnce, body)))
    }

    /// The module has a message.
    pub(super) fn done(&self, id: u64) {
        if let Some(consumer) = &self.consumer {
            consumer.done([id]);
        }
    }
}
