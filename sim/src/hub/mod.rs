//! A local IoT Hub: real clients connect to it, and it verifies them.
//!
//! [`run`] takes sockets that the caller has bound, so that tests use free ports. Underneath are a synchronous
//! store, the HTTPS interface (`rest`) and the MQTT interface (`mqtt`); all state is behind one lock, so that what
//! is stored and what connected clients are told always have the same order.

mod authority;
mod config;
mod connections;
mod dps;
mod faults;
mod mqtt;
mod rest;
mod store;

pub use config::{Config, ConfigFile, DEFAULT_ID_SCOPE};
pub use faults::FaultSettings;
pub use store::Retention;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::authority::Authority;
use self::connections::{Connections, Event, NotTaken, Ticket};
use self::dps::Provisioning;
use self::faults::Faults;
use self::store::{DesiredChange, Storage, Store};
use crate::database::Receipt;
use crate::identity::Identity;
use crate::tls::Peer;
use crate::{http, tls};

/// Connections that each listener holds at once; further clients wait.
const MAX_CONNECTIONS: usize = 10_000;

/// How often messages are looked at whose time may be over.
const SWEEP: Duration = Duration::from_secs(5);

/// The sockets of the hub.
#[derive(Debug)]
pub struct Listeners {
    /// The identity and the service interface.
    pub https: TcpListener,
    /// MQTT over TLS.
    pub mqtt: TcpListener,
}

/// Runs the hub until `shutdown`; open connections are dropped then. An error means that its state cannot be read.
pub async fn run(listeners: Listeners, config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let authority = Authority::new(&config.host_name, config.owner_key.clone(), config.device_ca);
    let provisioning = Provisioning::new(&config.id_scope);
    let (store, storage) = Storage::open(&config.state_folder, config.retention)?;
    let hub = Arc::new(Hub::new(authority, provisioning, store, storage));
    let https = http::serve(
        listeners.https,
        config.tls.clone(),
        MAX_CONNECTIONS,
        shutdown.clone(),
        rest::router(hub.clone()),
    );
    let client_hub = hub.clone();
    let mqtt = tls::serve(listeners.mqtt, config.tls, MAX_CONNECTIONS, shutdown, move |stream, peer| {
        let peer = Peer::of(&stream, peer);
        mqtt::serve(client_hub.clone(), stream, peer)
    });
    tokio::select! {
        _ = async { tokio::join!(https, mqtt) } => {}
        () = sweep(&hub) => {}
    }
    Ok(())
}

/// Lets messages for devices expire, and offers again what was not settled.
async fn sweep(hub: &Hub) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        let mut state = hub.state();
        for device in state.store.sweep_cloud_messages(Timestamp::now()) {
            if let Ok(device) = Identity::device(&device) {
                state.offer_cloud_messages(&device);
            }
        }
    }
}

/// What both interfaces share.
struct Hub {
    authority: Authority,
    provisioning: Provisioning,
    faults: Faults,
    state: Mutex<State>,
    storage: Storage,
    /// The receipt of the latest message, for readers that wait.
    latest_message: watch::Sender<Receipt>,
}

#[derive(Default)]
struct State {
    store: Store,
    /// Requests of clients for their twins are answered with 429.
    throttled: bool,
    connections: Connections,
}

impl Hub {
    fn new(authority: Authority, provisioning: Provisioning, store: Store, storage: Storage) -> Self {
        authority.set_added_authorities(&rest::certificates::texts(&store));
        let state = Mutex::new(State { store, ..State::default() });
        let (faults, latest_message) = (Faults::default(), watch::Sender::new(Receipt::NONE));
        Self { authority, provisioning, faults, state, storage, latest_message }
    }

    /// The time at which tokens and certificates are looked at.
    fn now(&self) -> Timestamp {
        self.faults.now()
    }

    /// Wakes the readers that wait for telemetry.
    fn announce_message(&self, receipt: Receipt) {
        self.latest_message.send_replace(receipt);
    }

    /// The lock is held for moments and never across an await. A panic while it is held would leave plain data
    /// behind, so the data is used on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a client's connection into the books; an older one of the same identity is closed.
    fn connect(&mut self, identity: &Identity, now: Timestamp) -> Ticket {
        let ticket = self.connections.open(identity);
        self.release(identity, now);
        self.store.set_connected(identity, true, now);
        ticket
    }

    /// The reverse, unless a newer connection has taken over.
    fn disconnect(&mut self, identity: &Identity, connection_id: u64, now: Timestamp) {
        if self.connections.close(identity, connection_id) {
            self.release(identity, now);
            self.store.set_connected(identity, false, now);
        }
    }

    /// Closes a client's connection because it may not be connected any longer.
    fn evict(&mut self, identity: &Identity, now: Timestamp) {
        if self.connections.evict(identity) {
            self.release(identity, now);
            self.store.set_connected(identity, false, now);
        }
    }

    /// What a client has not confirmed waits for its next connection.
    fn release(&mut self, identity: &Identity, now: Timestamp) {
        if identity.module_id().is_none() {
            self.store.release_cloud_messages(identity.device_id(), now);
        }
    }

    /// Tells a device that there may be a message for it. When its mailbox is full, it will look anyway.
    fn offer_cloud_messages(&mut self, device: &Identity) {
        let _ = self.connections.notify(device, Event::CloudMessage);
    }

    /// Closes the connections of all clients.
    fn evict_all(&mut self, now: Timestamp) {
        self.evict_those(now, |_, _, _| true);
    }

    /// Closes the connections of a device, of its modules, and those that its gateway has for others.
    fn evict_device(&mut self, device: &str, now: Timestamp) {
        self.evict_those(now, |_, identity, gateway| {
            identity.device_id() == device || gateway == Some(device)
        });
    }

    /// Closes the connections of gateways for those who are not in their scope any longer.
    fn evict_out_of_scope(&mut self, now: Timestamp) {
        self.evict_those(now, |store, identity, gateway| {
            gateway.is_some_and(|gateway| !store.is_in_scope(gateway, identity.device_id()))
        });
    }

    fn evict_those(&mut self, now: Timestamp, which: impl Fn(&Store, &Identity, Option<&str>) -> bool) {
        let store = &self.store;
        for identity in self.connections.identities(|identity, gateway| which(store, identity, gateway)) {
            self.evict(&identity, now);
        }
    }

    /// Tells a client, when it is connected, what has changed for it.
    fn announce(&mut self, change: DesiredChange, now: Timestamp) {
        let identity = change.identity.clone();
        if self.connections.notify(&identity, Event::Desired(change)) == Err(NotTaken::Full) {
            tracing::warn!(client = %identity, "closed a connection that does not take its messages");
            self.evict(&identity, now);
        }
    }
}
