//! One client of the gateway, from its CONNECT to its end.

use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{StreamExt, poll};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Gateway;
use super::admission::{Admitted, Refusal, admit};
use super::intake::{Message, NotTaken};
use super::relay::Relay;
use crate::edge::routes::MessageKind;
use crate::identity::Identity;
use crate::mqtt::packet::{self, ConnAck, ConnectReturnCode, SubAck, SubscribeReasonCode};
use crate::mqtt::{Connection, Error, MAX_PACKET, Packet, QoS, Writer};
use crate::sas::unix_seconds;
use crate::topics::{ClientTopic, Subscription, TopicError};

/// A stranger may hold a connection this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not take its packets loses the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest keep-alive that is granted, and the one of clients that ask for none.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(600);
/// Messages of one client that may wait for the disk; then its packets are left in the transport.
const WINDOW: usize = 64;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("it said goodbye")]
    Goodbye,
    #[error("it closed the connection")]
    Closed,
    #[error("it was silent for too long")]
    Silent,
    #[error("a newer connection took its place")]
    Replaced,
    #[error("its token expired")]
    TokenExpired,
    #[error("the runtime stops")]
    Shutdown,
    #[error(transparent)]
    Transport(#[from] Error),
    #[error("it sent a {0} packet")]
    Unexpected(&'static str),
    #[error("it published on a topic that is not its own: {0:?}")]
    ForeignTopic(String),
    #[error("it published on {topic:?}: {source}")]
    BadTopic { topic: String, source: TopicError },
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
}

/// A message that waits for room in the store.
type Waiting = BoxFuture<'static, Result<Pending, End>>;
/// An acknowledgement that waits for the disk: the packet to acknowledge, when the client asked for it.
type Pending = BoxFuture<'static, Result<Option<u16>, End>>;

impl Gateway {
    /// Talks to a client until it leaves.
    pub(super) async fn converse<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut connection = Connection::new(stream, MAX_PACKET);
        let connect = match timeout(CONNECT_TIMEOUT, connection.read()).await {
            Ok(Ok(Some(Packet::Connect(connect)))) => connect,
            Ok(Err(error)) => return tracing::debug!("{peer} sent no CONNECT: {error}"),
            Ok(Ok(_)) | Err(_) => return tracing::debug!("{peer} sent no CONNECT"),
        };
        let is_deployed = |module: &str| {
            let deployment = self.deployments.borrow();
            deployment.as_ref().map(|deployment| deployment.modules.contains_key(module))
        };
        let (identities, hub_name) = (&self.upstream.identities, &self.upstream.link.hub_name);
        let admitted = admit(&connect, identities, hub_name, is_deployed, unix_seconds(Timestamp::now()));
        let code = admitted.as_ref().map_or_else(Refusal::code, |_| ConnectReturnCode::Success);
        let answer = connection.write(&Packet::ConnAck(ConnAck::new(code, false))).await;
        match (admitted, answer) {
            (Err(refusal), _) => tracing::warn!("The gateway refused {peer}: {refusal}"),
            (Ok(_), Err(error)) => tracing::debug!("{peer} has gone: {error}"),
            (Ok(admitted), Ok(())) => self.serve_module(connection, &connect, admitted).await,
        }
    }

    async fn serve_module<S>(
        &self,
        connection: Connection<S>,
        connect: &packet::Connect,
        Admitted { identity, token_life }: Admitted,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(name) = identity.identity.module_id() else { return };
        let registration = self.register(name);
        let keep_alive = match connect.keep_alive {
            0 => MAX_KEEP_ALIVE,
            seconds => Duration::from_secs(seconds.into()).min(MAX_KEEP_ALIVE),
        };
        let relay = Relay::new(self.upstream.clone(), identity.clone());
        let session = Session { gateway: self, identity: &identity.identity, relay, waiting: None };
        let end = tokio::select! {
            end = session.run(connection, keep_alive + keep_alive / 2) => end,
            () = registration.replaced.cancelled() => End::Replaced,
            () = sleep(token_life) => End::TokenExpired,
            () = self.upstream.shutdown.cancelled() => End::Shutdown,
        };
        match end {
            End::Goodbye | End::Closed | End::Replaced | End::TokenExpired | End::Shutdown => {
                tracing::debug!("Client {name}: {end}");
            }
            _ => tracing::warn!("The gateway closes the connection of {name}: {end}"),
        }
    }
}

/// An acknowledgement that is due at once.
fn taken(id: Option<u16>) -> Pending {
    Box::pin(std::future::ready(Ok(id)))
}

struct Session<'a> {
    gateway: &'a Gateway,
    identity: &'a Identity,
    relay: Relay,
    /// While there is one, nothing more is read from the client.
    waiting: Option<Waiting>,
}

impl Session<'_> {
    async fn run<S>(mut self, connection: Connection<S>, silence: Duration) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut reader, mut writer) = connection.split();
        let mut pending: FuturesOrdered<Pending> = FuturesOrdered::new();
        let mut deadline = Instant::now() + silence;
        loop {
            let has_room = pending.len() < WINDOW && self.waiting.is_none();
            let waiting = async {
                match &mut self.waiting {
                    Some(waiting) => waiting.await,
                    None => std::future::pending().await,
                }
            };
            let step = tokio::select! {
                Some(done) = pending.next() => match done {
                    Ok(Some(id)) => self.send(&mut writer, &Packet::PubAck(packet::PubAck::new(id))).await,
                    Ok(None) => Ok(()),
                    Err(end) => Err(end),
                },
                taken = waiting => {
                    self.waiting = None;
                    taken.map(|taken| pending.push_back(taken))
                }
                publish = self.relay.next() => self.send(&mut writer, &Packet::Publish(publish)).await,
                read = timeout_at(deadline, reader.read()), if has_room => match read {
                    Err(_) => Err(End::Silent),
                    Ok(Err(error)) => Err(error.into()),
                    Ok(Ok(None)) => Err(End::Closed),
                    Ok(Ok(Some(packet))) => {
                        deadline = Instant::now() + silence;
                        self.received(packet, &mut writer, &mut pending).await
                    }
                },
            };
            // Time in which the client was not read does not count as its silence.
            if !has_room {
                deadline = Instant::now() + silence;
            }
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn received<W: AsyncWrite + Unpin>(
        &mut self,
        packet: Packet,
        writer: &mut Writer<W>,
        pending: &mut FuturesOrdered<Pending>,
    ) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => {
                let mut waiting = self.published(publish)?;
                match poll!(&mut waiting) {
                    Poll::Ready(taken) => pending.push_back(taken?),
                    Poll::Pending => self.waiting = Some(waiting),
                }
                Ok(())
            }
            Packet::Subscribe(subscribe) => {
                let codes = subscribe.filters.iter().map(|filter| self.subscribed(&filter.path)).collect();
                self.send(writer, &Packet::SubAck(SubAck::new(subscribe.pkid, codes))).await
            }
            Packet::Unsubscribe(unsubscribe) => {
                let answer = packet::UnsubAck { pkid: unsubscribe.pkid };
                self.send(writer, &Packet::UnsubAck(answer)).await
            }
            Packet::PingReq => self.send(writer, &Packet::PingResp).await,
            // What the relay delivers is not kept, so its acknowledgement means nothing.
            Packet::PubAck(_) => Ok(()),
            Packet::Disconnect => Err(End::Goodbye),
            Packet::Connect(_) => Err(End::Unexpected("second CONNECT")),
            _ => Err(End::Unexpected("packet that only servers send, or a QoS 2")),
        }
    }

    /// Takes a message over; the inner result completes when it may be acknowledged.
    fn published(&mut self, publish: packet::Publish) -> Result<Waiting, End> {
        let id = match publish.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(publish.pkid),
            QoS::ExactlyOnce => return Err(End::Unexpected("QoS 2")),
        };
        let topic = ClientTopic::parse(&publish.topic);
        match topic.map_err(|source| End::BadTopic { topic: publish.topic.clone(), source })? {
            ClientTopic::Telemetry { identity, .. } if identity != *self.identity => {
                return Err(End::ForeignTopic(publish.topic));
            }
            ClientTopic::Telemetry { identity, properties } => {
                let body = publish.payload;
                let message = Message { kind: MessageKind::Telemetry, sender: identity, properties, body };
                let taken = self.gateway.intake.clone().take_over(message);
                return Ok(Box::pin(async move {
                    let stored = taken.await?;
                    let pending: Pending = Box::pin(async move {
                        stored.await?;
                        Ok(id)
                    });
                    Ok(pending)
                }));
            }
            ClientTopic::TwinGet { request_id } | ClientTopic::ReportedPatch { request_id } => {
                self.relay.request(request_id, publish.topic, publish.payload);
            }
            ClientTopic::MethodResponse { .. } => {}
        }
        Ok(Box::pin(std::future::ready(Ok(taken(id)))))
    }

    fn subscribed(&mut self, filter: &str) -> SubscribeReasonCode {
        match Subscription::parse(filter) {
            Ok(subscription) if subscription.is_open_to(self.identity) => {
                match subscription {
                    Subscription::TwinResponses | Subscription::DesiredPatches => self.relay.open(),
                    other => tracing::debug!("{other} is granted, but nothing is delivered there"),
                }
                SubscribeReasonCode::Success(QoS::AtLeastOnce)
            }
            _ => SubscribeReasonCode::Failure,
        }
    }

    async fn send<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut Writer<W>,
        packet: &Packet,
    ) -> Result<(), End> {
        timeout(WRITE_TIMEOUT, writer.write(packet)).await.map_err(|_| End::Silent)?.map_err(End::from)
    }
}
