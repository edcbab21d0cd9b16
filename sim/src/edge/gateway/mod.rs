//! The gateway: MQTT over TLS for the modules of this device.
//!
//! A module proves its identity with a token, sends telemetry on its own topics, and sees its own
//! twin. Messages are acknowledged when they are stored; see [`super::spool`].

mod admission;
mod intake;
mod relay;
mod session;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::intake::Intake;
use super::board::ClientState;
use super::deployment::Deployment;
use super::link::Upstream;
use super::routes::Routes;
use super::spool::Spool;
use crate::identity::Identity;
use crate::tls;

/// Connections at once; the real gateway's default.
const MAX_CLIENTS: usize = 100;

/// What the sessions of the gateway share.
pub struct Gateway {
    upstream: Arc<Upstream>,
    intake: Intake,
    deployments: watch::Receiver<Option<Arc<Deployment>>>,
    connected: Mutex<HashMap<String, CancellationToken>>,
}

impl Gateway {
    /// A gateway that keeps in `spool` what `routes` lead somewhere.
    #[must_use]
    pub fn new(
        upstream: Arc<Upstream>,
        edge_hub: Identity,
        spool: Spool,
        routes: watch::Receiver<Option<Arc<Routes>>>,
        deployments: watch::Receiver<Option<Arc<Deployment>>>,
    ) -> Self {
        let intake = Intake { edge_hub, spool, routes };
        Self { upstream, intake, deployments, connected: Mutex::default() }
    }

    /// Serves clients until the shutdown.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<ServerConfig>) {
        let shutdown = self.upstream.shutdown.clone();
        let handler = move |stream, peer: SocketAddr| {
            let gateway = self.clone();
            async move { gateway.converse(stream, peer).await }
        };
        tls::serve(listener, tls, MAX_CLIENTS, shutdown, handler).await;
    }

    /// Registers a connection of a module. A former one of the same module ends.
    fn register(&self, module: &str) -> Registration<'_> {
        let replaced = CancellationToken::new();
        // Under one lock, as the end of a connection: a former one that ends now must not take this one for its own.
        let mut connected = self.connected();
        if let Some(former) = connected.insert(module.to_owned(), replaced.clone()) {
            former.cancel();
        }
        self.show(module, true);
        drop(connected);
        tracing::info!("Client {module} is connected to the gateway");
        Registration { gateway: self, module: module.to_owned(), replaced }
    }

    fn show(&self, module: &str, connected: bool) {
        let client = ClientState { connected, since: jiff::Timestamp::now() };
        self.upstream.board.update(|state| {
            state.clients.insert(module.to_owned(), client);
        });
    }

    fn connected(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connected module; ends with the value.
struct Registration<'a> {
    gateway: &'a Gateway,
    module: String,
    replaced: CancellationToken,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut connected = self.gateway.connected();
        // A newer connection of the same module has its own entry, and is what the state shows.
        if !self.replaced.is_cancelled() {
            connected.remove(&self.module);
            self.gateway.show(&self.module, false);
            tracing::info!("Client {} has left the gateway", self.module);
        }
    }
}
