//! From a client's message to what the store keeps of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::database::DatabaseError;
use crate::edge::routes::Routes;
use crate::edge::spool::{Endpoint, Parcel, Spool, now};
use crate::identity::Identity;
use crate::topics::{ClientTopic, MAX_MESSAGE, PropertyBag, system};

/// How long a client waits for room in the store before it loses the connection and may try again.
const MAX_WAIT_FOR_ROOM: Duration = Duration::from_secs(20);

/// Why a message is not taken over. The client loses the connection: MQTT 3.1.1 has no other way to say no.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    #[error("the message is larger than {MAX_MESSAGE} bytes with what the gateway adds to it")]
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
        sender: Identity,
        mut properties: PropertyBag,
        body: Bytes,
    ) -> Result<impl Future<Output = Result<(), NotTaken>> + Send + use<>, NotTaken> {
        let routes = self.routes().await?;
        // Overwritten, not only added: a client cannot speak for another.
        properties.set(system::CONNECTION_DEVICE_ID, sender.device_id());
        if let Some(module) = sender.module_id() {
            properties.set(system::CONNECTION_MODULE_ID, module);
        }
        let parcels = self.parcels(&routes, &sender, properties, body)?;
        let receipt = if parcels.is_empty() {
            tracing::debug!("No route takes the message of {sender}; it is dropped");
            crate::database::Receipt::NONE
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

    fn parcels(
        &self,
        routes: &Routes,
        sender: &Identity,
        properties: PropertyBag,
        body: Bytes,
    ) -> Result<Vec<Parcel>, NotTaken> {
        let module = sender.module_id().unwrap_or_default();
        if !routes.lead_upstream(module, properties.get(system::OUTPUT_NAME)) {
            return Ok(Vec::new());
        }
        let path = properties.to_string();
        let topic = ClientTopic::Telemetry { identity: self.edge_hub.clone(), properties }.to_string();
        if topic.len() + body.len() > MAX_MESSAGE {
            return Err(NotTaken::TooLarge);
        }
        // What the gateway adds may exceed another limit. The hub would close the connection on each attempt, and
        // the message would stand in the way of those of all modules.
        ClientTopic::parse(&topic).map_err(|error| NotTaken::Unencodable(error.to_string()))?;
        let expires = now() + i64::from(routes.store.time_to_live_secs);
        Ok(vec![Parcel { endpoint: Endpoint::Upstream, priority: 0, expires, path, body }])
    }
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
        intake.take_over(sender, PropertyBag::from_iter(pairs), Bytes::new()).await?.await
    }

    #[tokio::test]
    async fn a_message_that_the_hub_would_not_read_is_never_stored() {
        assert!(take_over(254, 1).await.is_ok());
        assert!(matches!(take_over(255, 1).await, Err(NotTaken::Unencodable(_))));
        assert!(take_over(1, 16_000).await.is_ok());
        assert!(matches!(take_over(1, 16_384).await, Err(NotTaken::Unencodable(_))));
        assert!(matches!(take_over(1, MAX_MESSAGE).await, Err(NotTaken::TooLarge)));
    }
}
