//! From a client's message to what the store keeps of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::database::{DatabaseError, Receipt};
use crate::edge::routes::{Destination, MessageKind, Routes, Sink};
use crate::edge::spool::{Parcel, Spool, now};
use crate::identity::Identity;
use crate::topics::{ClientTopic, HubTopic, MAX_MESSAGE, PropertyBag, system};

/// How long a client waits for room in the store before it loses the connection and may try again.
const MAX_WAIT_FOR_ROOM: Duration = Duration::from_secs(20);

/// Why a message is not taken over. The client loses the connection: MQTT 3.1.1 has no other way to say no.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    #[error("the message is larger than {MAX_MESSAGE} bytes")]
    TooLarge,
    #[error("the message cannot be forwarded: {0}")]
    Unencodable(String),
    #[error(
        "the gateway's store has no room for its message; it may try again. Look why messages wait, or raise \
         storeAndForwardConfiguration.storeLimits.maxSizeBytes"
    )]
    Full,
    #[error("the gateway's store cannot be written: {0}")]
    Store(#[from] DatabaseError),
    #[error("the runtime stops")]
    Shutdown,
}

/// A message of a client.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: MessageKind,
    pub(super) sender: Identity,
    pub(super) properties: PropertyBag,
    pub(super) body: Bytes,
}

/// Takes messages over; shared by all clients.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    pub(super) edge_hub: Identity,
    pub(super) spool: Spool,
    pub(super) routes: watch::Receiver<Option<Arc<Routes>>>,
}

impl Intake {
    /// Stores a message for every endpoint that the routes lead to. Afterwards it may be acknowledged when the
    /// second future completes. Messages of a client are to be taken over one after the other.
    pub(super) async fn take_over(
        self,
        message: Message,
    ) -> Result<impl Future<Output = Result<(), NotTaken>> + Send + use<>, NotTaken> {
        let routes = self.routes().await?;
        let sender = message.sender.clone();
        let parcels = self.parcels(&routes, message)?;
        let receipt = if parcels.is_empty() {
            tracing::debug!("No route takes the message of {sender}; it is dropped");
            Receipt::NONE
        } else {
            let bytes = parcels.iter().map(Parcel::size).sum();
            let room = timeout(MAX_WAIT_FOR_ROOM, self.spool.room(bytes)).await;
            self.spool.put(room.map_err(|_| NotTaken::Full)??, parcels)
        };
        Ok(async move { Ok(self.spool.committed(receipt).await?) })
    }

    /// Waits for the routes, which come with the first twin of `$edgeHub`.
    async fn routes(&self) -> Result<Arc<Routes>, NotTaken> {
        let mut routes = self.routes.clone();
        let routes = routes.wait_for(Option::is_some).await.map_err(|_| NotTaken::Shutdown)?;
        routes.clone().ok_or(NotTaken::Shutdown)
    }

    fn parcels(&self, routes: &Routes, message: Message) -> Result<Vec<Parcel>, NotTaken> {
        let Message { kind, sender, mut properties, body } = message;
        // The router sees a notice of a changed twin as a message of the gateway, and its reader whose twin it is.
        let origin = if kind == MessageKind::TwinChange { &self.edge_hub } else { &sender };
        set_origin(&mut properties, origin);
        let destinations = routes.destinations(kind, &properties, &body);
        set_origin(&mut properties, &sender);
        let now = now();
        let parcel = |Destination { sink, priority, time_to_live_secs }: Destination| {
            let (endpoint, expires) = (sink.endpoint(), now + i64::from(time_to_live_secs));
            let path = path(&self.edge_hub, sink, &properties)?;
            Ok(Parcel { endpoint, priority, expires, path, body: body.clone() })
        };
        destinations.into_iter().map(parcel).collect()
    }
}

/// Overwritten, not only added: a client cannot speak for another.
fn set_origin(properties: &mut PropertyBag, origin: &Identity) {
    properties.set(system::CONNECTION_DEVICE_ID, origin.device_id());
    match origin.module_id() {
        Some(module) => properties.set(system::CONNECTION_MODULE_ID, module),
        None => drop(properties.remove(system::CONNECTION_MODULE_ID)),
    }
}

/// The topic behind the endpoint's prefix.
///
/// What the gateway adds may exceed a limit of topics. The hub would close the connection on each attempt, and the
/// message would stand in the way of those of all clients, so it is not stored at all.
fn path(edge_hub: &Identity, sink: Sink, properties: &PropertyBag) -> Result<String, NotTaken> {
    let encoded = properties.to_string();
    let (topic, path) = match sink {
        Sink::Upstream => (format!("{}/messages/events/{encoded}", edge_hub.topic_prefix()), encoded),
        Sink::Input { module, input } => {
            let mut properties = properties.clone();
            properties.remove(system::OUTPUT_NAME);
            let path = format!("{input}/{properties}");
            (format!("devices/{}/modules/{module}/inputs/{path}", edge_hub.device_id()), path)
        }
    };
    let understood = ClientTopic::parse(&topic).map(drop).or_else(|_| HubTopic::parse(&topic).map(drop));
    understood.map_err(|error| NotTaken::Unencodable(error.to_string()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::EDGE_HUB;

    /// What becomes of a message with so many properties, each of so many bytes.
    async fn take_over(properties: usize, bytes: usize) -> Result<(), NotTaken> {
        let folder = tempfile::tempdir().unwrap();
        let routes = Routes::parse(&serde_json::json!({
            "schemaVersion": "1.1", "routes": {"r": "FROM /* INTO $upstream"},
        }));
        let (_sender, routes) = watch::channel(Some(Arc::new(routes.unwrap())));
        let edge_hub = Identity::module("d", EDGE_HUB).unwrap();
        let spool = Spool::open(&folder.path().join("messages.db")).unwrap();
        let pairs = (0..properties).map(|number| (format!("p{number}"), "x".repeat(bytes)));
        let intake = Intake { edge_hub, spool, routes };
        let sender = Identity::module("d", "m").unwrap();
        let (kind, body) = (MessageKind::Telemetry, Bytes::new());
        let message = Message { kind, sender, properties: PropertyBag::from_iter(pairs), body };
        intake.take_over(message).await?.await
    }

    #[tokio::test]
    async fn a_message_that_the_hub_would_not_read_is_never_stored() {
        assert!(take_over(254, 1).await.is_ok());
        assert!(matches!(take_over(255, 1).await, Err(NotTaken::Unencodable(_))));
        assert!(take_over(1, 16_000).await.is_ok());
        assert!(matches!(take_over(1, 16_384).await, Err(NotTaken::Unencodable(_))));
    }
}
