//! The gateway: MQTT over TLS for the modules of this device, and for the leaf devices that are its children.
//!
//! A client proves its identity by a token or a certificate, and uses the topics of IoT Hub. Its messages are acknowledged when they
//! are stored, see [`super::spool`]; its twin, its methods and its own messages come through a connection to the hub
//! as that client.

mod admission;
mod calls;
pub(super) mod credentials;
mod delivery;
mod end;
mod http;
mod inputs;
mod intake;
mod registry;
mod relay;
mod session;
mod subscriptions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesOrdered;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::admission::{Admitted, Refusal};
use self::calls::Calls;
use self::delivery::InFlight;
use self::end::End;
use self::inputs::Inputs;
use self::intake::{Intake, Message};
use self::registry::Registry;
use self::relay::Relay;
use self::session::Session;
use self::subscriptions::Subscriptions;
use super::deployment::Deployment;
use super::link::Upstream;
use super::routes::{MessageKind, Routes};
use super::scope::Scope;
use super::spool::Spool;
use crate::identity::Identity;
use crate::mqtt::packet::{self, ConnAck, ConnectReturnCode};
use crate::mqtt::{Connection, MAX_PACKET, Packet};
use crate::tls::{self, Peer, ServerStream};
use crate::topics::ClientTopic;
use crate::x509::{Authorities, ClientCertificate};

/// Clients at once, unless the deployment says something else; the real gateway's default.
const DEFAULT_MAX_CLIENTS: usize = 100;
/// Connections at once, those of strangers and of clients that are being replaced included.
const MAX_CONNECTIONS: usize = 4096;
/// A stranger may hold a connection this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest keep-alive that is granted, and the one of clients that ask for none.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(600);

/// What the sessions of the gateway share.
pub struct Gateway {
    upstream: Arc<Upstream>,
    intake: Intake,
    deployments: watch::Receiver<Option<Arc<Deployment>>>,
    scope: Arc<Scope>,
    /// Those that may issue the certificates of leaf devices.
    authorities: Authorities,
    registry: Registry,
}

impl Gateway {
    /// A gateway that keeps in `spool` what `routes` lead somewhere, for the modules of `deployments` and those in
    /// `scope`. Certificates of leaf devices may be issued by `authorities`.
    #[must_use]
    pub fn new(
        upstream: Arc<Upstream>,
        edge_hub: Identity,
        spool: Spool,
        routes: watch::Receiver<Option<Arc<Routes>>>,
        deployments: watch::Receiver<Option<Arc<Deployment>>>,
        scope: Arc<Scope>,
        authorities: Authorities,
    ) -> Self {
        let registry = Registry::new(upstream.board.clone());
        Self {
            upstream,
            intake: Intake { edge_hub, spool, routes },
            deployments,
            scope,
            authorities,
            registry,
        }
    }

    /// Serves clients until the shutdown.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<ServerConfig>) {
        let shutdown = self.upstream.shutdown.clone();
        let handler = move |stream: ServerStream, address: SocketAddr| {
            let gateway = self.clone();
            async move {
                let peer = Peer::of(&stream, address);
                gateway.converse(stream, &peer).await;
            }
        };
        tls::serve(listener, tls, MAX_CONNECTIONS, shutdown, handler).await;
    }

    /// Serves HTTPS until the shutdown.
    pub async fn serve_https(self: Arc<Self>, listener: TcpListener, tls: Arc<ServerConfig>) {
        let shutdown = self.upstream.shutdown.clone();
        crate::http::serve(listener, tls, MAX_CONNECTIONS, shutdown, http::router(self)).await;
    }

    /// Talks to a client until it leaves.
    async fn converse<S>(&self, stream: S, peer: &Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Peer { address: peer, certificate } = peer;
        let mut connection = Connection::new(stream, MAX_PACKET);
        let connect = match timeout(CONNECT_TIMEOUT, connection.read()).await {
            Ok(Ok(Some(Packet::Connect(connect)))) => connect,
            Ok(Err(error)) => return tracing::debug!("{peer} sent no CONNECT: {error}"),
            Ok(Ok(_)) | Err(_) => return tracing::debug!("{peer} sent no CONNECT"),
        };
        let (subscriptions, admitted) = match self.admit(&connect, certificate.as_ref()).await {
            Ok(admitted) => {
                let identity = &admitted.credentials.identity;
                let spool = &self.intake.spool;
                let (subscriptions, present) =
                    Subscriptions::open(spool, identity, connect.clean_session).await;
                let answer = Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, present));
                if let Err(error) = connection.write(&answer).await {
                    return tracing::debug!("{peer} has gone: {error}");
                }
                (subscriptions, admitted)
            }
            Err(refusal) => {
                tracing::warn!("The gateway refused {peer}: {refusal}");
                // Whoever has gone does not want to know.
                let _ = connection.write(&Packet::ConnAck(ConnAck::new(refusal.code(), false))).await;
                return;
            }
        };
        self.serve_client(connection, &connect, admitted, subscriptions).await;
    }

    async fn admit(
        &self,
        connect: &packet::Connect,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Admitted, Refusal> {
        let admitted = self.authenticate(connect, certificate).await?;
        let deployment = self.deployments.borrow().clone();
        let limit = deployment.as_ref().and_then(|deployment| {
            deployment.system_variable("edgeHub", "MaxConnectedClients")?.parse().ok()
        });
        let limit = limit.unwrap_or(DEFAULT_MAX_CLIENTS);
        let (count, is_connected) = self.registry.occupancy(&admitted.credentials.identity);
        if count >= limit && !is_connected {
            return Err(Refusal::TooMany(limit));
        }
        Ok(admitted)
    }

    async fn serve_client<S>(
        &self,
        connection: Connection<S>,
        connect: &packet::Connect,
        Admitted { credentials, proof_life }: Admitted,
        subscriptions: Subscriptions,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let identity = credentials.identity.clone();
        let (registration, calls) = self.registry.register(&identity);
        let keep_alive = match connect.keep_alive {
            0 => MAX_KEEP_ALIVE,
            seconds => Duration::from_secs(seconds.into()).min(MAX_KEEP_ALIVE),
        };
        let device_id = self.upstream.identities.device_id();
        let mut session = Session {
            identity: &identity,
            intake: self.intake.clone(),
            registration: &registration,
            subscriptions,
            relay: Relay::new(self.upstream.clone(), credentials),
            inputs: Inputs::new(self.intake.spool.clone(), &identity, device_id),
            calls: Calls::new(calls),
            in_flight: InFlight::default(),
            waiting: None,
            pending: FuturesOrdered::new(),
        };
        let end = tokio::select! {
            end = session.run(connection, keep_alive + keep_alive / 2) => end,
            () = registration.replaced() => End::Replaced,
            () = sleep(proof_life) => End::ProofExpired,
            () = self.scope.dismissed(&identity) => End::Dismissed,
            () = self.upstream.shutdown.cancelled() => End::Shutdown,
        };
        drop(session);
        match end {
            End::Goodbye | End::Closed | End::Replaced | End::ProofExpired | End::Shutdown => {
                tracing::debug!("Client {identity}: {end}");
            }
            _ => tracing::warn!("The gateway closes the connection of {identity}: {end}"),
        }
        if !matches!(end, End::Goodbye) {
            self.take_will(&identity, connect).await;
        }
    }

    /// The last will of a client that did not say goodbye is telemetry.
    async fn take_will(&self, identity: &Identity, connect: &packet::Connect) {
        let Some(will) = &connect.last_will else { return };
        let Ok(ClientTopic::Telemetry { identity: owner, mut properties }) = ClientTopic::parse(&will.topic)
        else {
            return tracing::debug!("The will of {identity} has no topic of telemetry");
        };
        if owner != *identity {
            return tracing::debug!("The will of {identity} is on the topic of {owner}");
        }
        properties.set("iothub-MessageType", "Will");
        let (kind, body) = (MessageKind::Telemetry, will.message.clone());
        let message = Message { kind, sender: owner, properties, body };
        if let Err(error) = self.intake.clone().take_over(message).await {
            tracing::warn!("The will of {identity} was not taken over: {error}");
        }
    }
}
