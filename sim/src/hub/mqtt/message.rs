//! A telemetry message on its way into the store, and why it may be refused.

use bytes::Bytes;
use jiff::Timestamp;

use crate::hub::store::{Store, StoreError};
use crate::identity::{Identity, IdentityError};
use crate::mqtt::QoS;
use crate::mqtt::packet::{LastWill, Publish};
use crate::topics::{ClientTopic, MAX_MESSAGE, PropertyBag, TopicError, system};

/// Why a connection is closed: MQTT 3.1.1 has no other way to say no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("QoS 2 is not supported")]
    ExactlyOnce,
    #[error("a message is larger than {MAX_MESSAGE} bytes")]
    TooLarge,
    #[error("the topic belongs to another identity")]
    ForeignTopic,
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("a last will must be telemetry")]
    WillTopic,
    #[error("only the gateway of an edge device may speak for others, and only for those in its scope")]
    Impersonation,
    #[error("the client sent a packet that only a server sends, or a second CONNECT")]
    UnexpectedPacket,
    #[error("more than {0} messages wait for their acknowledgement")]
    TooManyInFlight(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A message with the identity that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    origin: Identity,
    properties: PropertyBag,
    body: Bytes,
}

impl Message {
    /// Takes a message that `sender` published on the telemetry topic of `owner`.
    pub(super) fn new(
        sender: &Identity,
        owner: &Identity,
        mut properties: PropertyBag,
        publish: &Publish,
        store: &Store,
    ) -> Result<Self, Refusal> {
        if owner != sender {
            return Err(Refusal::ForeignTopic);
        }
        let origin = origin(sender, &mut properties, store)?;
        if publish.retain {
            properties.set("mqtt-retain", "true");
        }
        Ok(Self { origin, properties, body: publish.payload.clone() })
    }

    /// Takes the will of a CONNECT, which is delivered as telemetry.
    pub(super) fn from_will(sender: &Identity, will: &LastWill, store: &Store) -> Result<Self, Refusal> {
        let mut publish = Publish::from_bytes(&will.topic, will.qos, will.message.clone());
        publish.retain = will.retain;
        check_limits(sender, &publish)?;
        let ClientTopic::Telemetry { identity, mut properties } = ClientTopic::parse(&will.topic)? else {
            return Err(Refusal::WillTopic);
        };
        properties.set("iothub-MessageType", "Will");
        Self::new(sender, &identity, properties, &publish, store)
    }

    /// Stores the message; gives its offset.
    pub(super) fn store(self, store: &mut Store, now: Timestamp) -> Result<u64, Refusal> {
        Ok(store.append_telemetry(&self.origin, self.properties, self.body, now)?)
    }
}

/// What holds for every publish.
///
/// The gateway of an edge device writes the topic anew and adds to it whose the message is, so of its messages the body
/// alone counts: a message that the hub would take from a device itself is not refused because it came that way.
pub(super) fn check_limits(sender: &Identity, publish: &Publish) -> Result<(), Refusal> {
    let topic = if sender.is_edge_hub() { 0 } else { publish.topic.len() };
    if publish.qos == QoS::ExactlyOnce {
        Err(Refusal::ExactlyOnce)
    } else if topic + publish.payload.len() > MAX_MESSAGE {
        Err(Refusal::TooLarge)
    } else {
        Ok(())
    }
}

/// Who the message is really from. The gateway of an edge device forwards the messages of its modules and of the
/// devices below it, and says so by two properties; nobody else may use them.
fn origin(sender: &Identity, properties: &mut PropertyBag, store: &Store) -> Result<Identity, Refusal> {
    let device = properties.remove(system::CONNECTION_DEVICE_ID);
    let module = properties.remove(system::CONNECTION_MODULE_ID);
    let origin = match (device, module) {
        (None, None) => return Ok(sender.clone()),
        (Some(device), Some(module)) => Identity::module(&device, &module)?,
        // For the edge device itself its gateway says nothing.
        (Some(device), None) if device != sender.device_id() => Identity::device(&device)?,
        _ => return Err(Refusal::Impersonation),
    };
    if !sender.is_edge_hub() || !store.is_in_scope(sender.device_id(), origin.device_id()) {
        return Err(Refusal::Impersonation);
    }
    store.record(&origin)?;
    Ok(origin)
}
