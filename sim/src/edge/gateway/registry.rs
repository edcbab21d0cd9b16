//! Who is connected now.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::calls::{self, LocalCall};
use crate::edge::board::{Board, ClientState};
use crate::identity::Identity;

/// The connected clients, each with one connection.
#[derive(Debug)]
pub(super) struct Registry {
    board: Arc<Board>,
    connected: Mutex<HashMap<Identity, Client>>,
    /// Told when a client begins to take calls.
    listening: watch::Sender<()>,
}

#[derive(Debug, Clone)]
struct Client {
    replaced: CancellationToken,
    calls: mpsc::Sender<LocalCall>,
    takes_calls: Arc<AtomicBool>,
}

/// A connected client; ends with the value.
#[derive(Debug)]
pub(super) struct Registration<'a> {
    registry: &'a Registry,
    identity: Identity,
    client: Client,
}

impl Registry {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board, connected: Mutex::default(), listening: watch::Sender::default() }
    }

    /// Registers a connection of a client, with the calls that come for it. A former one of the same client ends.
    pub(super) fn register(&self, identity: &Identity) -> (Registration<'_>, mpsc::Receiver<LocalCall>) {
        let (calls, queue) = mpsc::channel(calls::QUEUE);
        let client = Client { replaced: CancellationToken::new(), calls, takes_calls: Arc::default() };
        // Under one lock, as the end of a connection: a former one that ends now must not take this one for its own.
        let mut connected = self.connected();
        if let Some(former) = connected.insert(identity.clone(), client.clone()) {
            former.replaced.cancel();
        }
        self.show(identity, true);
        drop(connected);
        tracing::info!("Client {identity} is connected to the gateway");
        (Registration { registry: self, identity: identity.clone(), client }, queue)
    }

    /// How many clients are connected, and whether this one is.
    pub(super) fn occupancy(&self, identity: &Identity) -> (usize, bool) {
        let connected = self.connected();
        (connected.len(), connected.contains_key(identity))
    }

    /// The way to a client that takes calls.
    pub(super) fn callee(&self, identity: &Identity) -> Option<mpsc::Sender<LocalCall>> {
        let connected = self.connected();
        let client = connected.get(identity).filter(|client| client.takes_calls.load(Ordering::Relaxed))?;
        Some(client.calls.clone())
    }

    /// Changes when a client begins to take calls.
    pub(super) fn listening(&self) -> watch::Receiver<()> {
        self.listening.subscribe()
    }

    fn show(&self, identity: &Identity, connected: bool) {
        let client = ClientState { connected, since: jiff::Timestamp::now() };
        self.board.update(|state| {
            state.clients.insert(identity.clone(), client);
        });
    }

    fn connected(&self) -> MutexGuard<'_, HashMap<Identity, Client>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration<'_> {
    /// Completes when a newer connection of the client has come.
    pub(super) async fn replaced(&self) {
        self.client.replaced.cancelled().await;
    }

    /// Whether calls reach the client.
    pub(super) fn takes_calls(&self, takes: bool) {
        self.client.takes_calls.store(takes, Ordering::Relaxed);
        self.registry.listening.send_replace(());
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut connected = self.registry.connected();
        // A newer connection of the same client has its own entry, and is what the state shows.
        if !self.client.replaced.is_cancelled() {
            connected.remove(&self.identity);
            self.registry.show(&self.identity, false);
            tracing::info!("Client {} has left the gateway", self.identity);
        }
    }
}
