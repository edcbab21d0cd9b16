//! The client side of an MQTT connection.
//!
//! A driver task owns the connection; [`Client`] handles ask it to publish and subscribe, and
//! [`Incoming`] yields what the server publishes. The connection ends when the last handle is
//! dropped, when the peer closes it, or when the peer stays silent; there is no hidden reconnect,
//! because only the caller knows what must be sent again.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use rumqttc::mqttbytes::v4::ConnectReturnCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::driver::{Command, Driver};
use super::{Connection, Error, Packet, QoS, packet};
use crate::secret::Secret;

/// Requests that wait for the driver; further callers wait for room.
const COMMAND_QUEUE: usize = 16;
/// Publishes of the server that wait for the caller. A caller that lets it overflow loses the connection.
const INCOMING_QUEUE: usize = 64;

/// What a client says when it connects.
#[derive(Debug, Clone)]
pub struct Options {
    /// Client id.
    pub client_id: String,
    /// User name.
    pub username: String,
    /// Password; for IoT Hub a token.
    pub password: Secret,
    /// How long the connection may be silent.
    pub keep_alive: Duration,
    /// Whether an earlier session of this client is forgotten; else it goes on, with its subscriptions.
    pub clean_session: bool,
    /// Largest packet in either direction.
    pub max_packet: usize,
    /// Whether the caller acknowledges what the server publishes, by [`Client::acknowledge`]; else it is acknowledged
    /// when it arrives.
    pub manual_acknowledgements: bool,
}

/// Why a connection could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No transport to the server.
    #[error("cannot reach the server: {0}")]
    Unreachable(#[source] io::Error),
    /// The server refused the identity, the credentials or the request.
    #[error("the server refused the connection: {}", refusal(*.0))]
    Refused(ConnectReturnCode),
    /// The server refused a subscription.
    #[error("the server refused the subscription")]
    SubscriptionRefused,
    /// The server sent something that does not fit the state of the connection.
    #[error("the server broke the protocol: {0}")]
    Unexpected(&'static str),
    /// The transport or the encoding failed.
    #[error(transparent)]
    Connection(#[from] Error),
    /// The server said nothing for longer than the keep-alive time.
    #[error("the server does not answer")]
    Silent,
    /// The caller did not take the server's publishes in time.
    #[error("too many publishes of the server wait to be taken")]
    Overflow,
    /// The connection is over.
    #[error("the connection was closed")]
    Closed,
}

impl ClientError {
    /// True when the same credentials will not be accepted later either.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(code) if *code != ConnectReturnCode::ServiceUnavailable)
    }
}

fn refusal(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::Success => "accepted",
        ConnectReturnCode::RefusedProtocolVersion => "unacceptable protocol version",
        ConnectReturnCode::BadClientId => "identifier rejected",
        ConnectReturnCode::ServiceUnavailable => "server unavailable",
        ConnectReturnCode::BadUserNamePassword => "bad user name or password",
        ConnectReturnCode::NotAuthorized => "not authorized",
    }
}

/// A handle on a connection.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    /// Nothing is ever sent; the driver sees when the last one is dropped.
    _handle: mpsc::Sender<Infallible>,
}

/// What the server publishes, in order.
#[derive(Debug)]
pub struct Incoming {
    publishes: mpsc::Receiver<packet::Publish>,
    outcome: oneshot::Receiver<ClientError>,
}

impl Client {
    /// Opens an MQTT session on `stream`.
    pub async fn connect<S>(stream: S, options: &Options) -> Result<(Self, Incoming), ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut connection = Connection::new(stream, options.max_packet);
        timeout(options.keep_alive, handshake(&mut connection, options))
            .await
            .map_err(|_| ClientError::Silent)??;
        let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
        let (handle, handles) = mpsc::channel(1);
        let (publish_queue, publishes) = mpsc::channel(INCOMING_QUEUE);
        let (end, outcome) = oneshot::channel();
        let driver = Driver::new(connection, command_queue, handles, publish_queue, options);
        tokio::spawn(async move {
            // Nobody may be left who wants to know why the connection ended.
            let _ = end.send(driver.run().await);
        });
        Ok((Self { commands, _handle: handle }, Incoming { publishes, outcome }))
    }

    /// Publishes with QoS 1 and waits for the acknowledgement.
    pub async fn publish(&self, topic: String, payload: bytes::Bytes) -> Result<(), ClientError> {
        self.start_publish(topic, payload).await?.await
    }

    /// Queues a QoS 1 publish; the returned future completes with its acknowledgement.
    ///
    /// Publishes go out in the order in which this method returned. Those that still wait for room in the window when
    /// the last handle goes are not sent.
    pub async fn start_publish(
        &self,
        topic: String,
        payload: bytes::Bytes,
    ) -> Result<impl Future<Output = Result<(), ClientError>> + Send + use<>, ClientError> {
        let (done, acknowledged) = oneshot::channel();
        let publish = packet::Publish::from_bytes(topic, QoS::AtLeastOnce, payload);
        self.send(Command::Publish(publish, done)).await?;
        Ok(async move { acknowledged.await.map_err(|_| ClientError::Closed)? })
    }

    /// Subscribes to the filters with QoS 1; an error when the server refuses one of them.
    pub async fn subscribe(&self, filters: Vec<String>) -> Result<(), ClientError> {
        let (done, granted) = oneshot::channel();
        self.send(Command::Subscribe(filters, done)).await?;
        granted.await.map_err(|_| ClientError::Closed)?
    }

    /// Ends subscriptions.
    pub async fn unsubscribe(&self, filters: Vec<String>) -> Result<(), ClientError> {
        let (done, ended) = oneshot::channel();
        self.send(Command::Unsubscribe(filters, done)).await?;
        ended.await.map_err(|_| ClientError::Closed)?
    }

    /// Acknowledges a QoS 1 publish of the server, for callers that do this themselves.
    pub async fn acknowledge(&self, packet_id: u16) -> Result<(), ClientError> {
        self.send(Command::Acknowledge(packet_id)).await
    }

    /// Completes when the connection is over.
    pub async fn closed(&self) {
        self.commands.closed().await;
    }

    async fn send(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| ClientError::Closed)
    }
}

impl Incoming {
    /// The next publish of the server, or why the connection ended. Safe to cancel.
    pub async fn next(&mut self) -> Result<packet::Publish, ClientError> {
        match self.publishes.recv().await {
            Some(publish) => Ok(publish),
            None => Err((&mut self.outcome).await.unwrap_or(ClientError::Closed)),
        }
    }

    /// The next publish, when it has come already.
    pub fn next_ready(&mut self) -> Option<packet::Publish> {
        self.publishes.try_recv().ok()
    }
}

async fn handshake<S>(connection: &mut Connection<S>, options: &Options) -> Result<(), ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connect = packet::Connect::new(&options.client_id);
    connect.keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
    connect.clean_session = options.clean_session;
    connect.set_login(&options.username, options.password.expose());
    connection.write(&Packet::Connect(connect)).await?;
    match connection.read().await? {
        Some(Packet::ConnAck(answer)) if answer.code == ConnectReturnCode::Success => Ok(()),
        Some(Packet::ConnAck(answer)) => Err(ClientError::Refused(answer.code)),
        Some(_) => Err(ClientError::Unexpected("the first packet is no CONNACK")),
        None => Err(ClientError::Closed),
    }
}

#[cfg(test)]
mod tests;
