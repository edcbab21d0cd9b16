//! The MQTT interface: the life of one connection, with its timers.
//!
//! Decisions are made by [`connect`] and [`session`], which know no socket; here packets are carried between them
//! and the client. A connection ends when the client leaves, is silent for one and a half times its keep-alive,
//! or breaks a rule, when its token expires, and when a newer connection takes over or the identity is removed.

mod connect;
mod message;
mod outbox;
mod session;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use self::connect::{Accepted, ConnectError};
use self::message::{Message, Refusal};
use self::outbox::{Outbox, body_size};
use self::session::Session;
use super::connections::Ticket;
use super::{Hub, State, dps};
use crate::database::{DatabaseError, Receipt};
use crate::identity::Identity;
use crate::mqtt::packet::{ConnAck, Connect, ConnectReturnCode};
use crate::mqtt::{Connection, Error, MAX_PACKET, Packet};
use crate::tls::Peer;
use crate::x509::ClientCertificate;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client closed it")]
    Closed,
    #[error("no CONNECT in time")]
    NoConnect,
    #[error("the client was silent for longer than its keep-alive time")]
    Silent,
    #[error("the client does not read")]
    NotReading,
    #[error("the token expired")]
    TokenExpired,
    #[error("a newer connection took over, or the identity was removed or disabled")]
    Evicted,
    #[error("refused: {0}")]
    ConnectRefused(#[from] ConnectError),
    #[error("provisioning: {0}")]
    Provisioning(#[from] dps::End),
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Connection(#[from] Error),
    #[error("the hub stops: {0}")]
    Database(#[from] DatabaseError),
}

/// Serves one connection until it ends.
pub(super) async fn serve<S>(hub: Arc<Hub>, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut connection = Connection::new(stream, MAX_PACKET);
    let Peer { address: peer, certificate } = peer;
    if hub.faults.is_offline() {
        return;
    }
    let opened = match open(&hub, &mut connection, certificate.as_ref()).await {
        Ok(opened) => opened,
        Err(end) => {
            tracing::info!(%peer, reason = %end, "no MQTT session");
            return close(connection).await;
        }
    };
    let identity = opened.accepted.identity.clone();
    tracing::info!(client = %identity, %peer, "connected");
    let mut client = Client::new(&hub, connection, opened);
    let end = client.run().await;
    tracing::info!(client = %identity, reason = %end, "disconnected");

    let Client { connection, ticket, will, said_goodbye, .. } = client;
    let will = will.filter(|_| !said_goodbye);
    leave(&hub, &identity, &ticket, will);
    // Closed last: whoever sees the end of the connection sees its effects, too.
    close(connection).await;
}

/// Takes a client whose connection has ended off the books.
fn leave(hub: &Hub, identity: &Identity, ticket: &Ticket, will: Option<Message>) {
    let (mut state, now) = (hub.state(), Timestamp::now());
    match will.map(|will| will.store(&mut state.store, now)) {
        Some(Ok(_)) => hub.announce_message(state.store.receipt()),
        Some(Err(error)) => tracing::warn!(client = %identity, %error, "lost a last will"),
        None => {}
    }
    state.disconnect(identity, ticket.connection_id, now);
}

/// Says goodbye in the way of TLS, if the client still listens.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(connection: Connection<S>) {
    let (_, mut writer) = connection.split();
    let _ = timeout(CLOSE_TIMEOUT, writer.shutdown()).await;
}

/// A client that was let in.
struct Opened {
    accepted: Accepted,
    ticket: Ticket,
    session: Session,
    /// When this is committed, the client may hear of its session.
    receipt: Receipt,
}

/// Reads the CONNECT and decides. A refusal is answered here.
async fn open<S>(
    hub: &Hub,
    connection: &mut Connection<S>,
    certificate: Option<&ClientCertificate>,
) -> Result<Opened, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = timeout(CONNECT_TIMEOUT, connection.read()).await.map_err(|_| End::NoConnect)??;
    let connect = match first {
        Some(Packet::Connect(connect)) => connect,
        Some(_) => return Err(Refusal::UnexpectedPacket.into()),
        None => return Err(End::Closed),
    };
    let refuse = async |connection: &mut Connection<S>, error: ConnectError| {
        let answered = write(connection, &Packet::ConnAck(ConnAck::new(error.code(), false))).await;
        answered.err().unwrap_or_else(|| error.into())
    };
    // What a session changes could not be written down.
    if hub.storage.writer.trouble().is_some() {
        return Err(refuse(connection, ConnectError::Storage).await);
    }
    if dps::is_registration(&connect) {
        return Err(dps::serve(hub, connection, &connect, certificate).await.into());
    }
    match admit(hub, &connect, certificate) {
        Ok(opened) => Ok(opened),
        Err(error) => Err(refuse(connection, error).await),
    }
}

/// Takes a client on the books, if it may come in.
fn admit(
    hub: &Hub,
    connect: &Connect,
    certificate: Option<&ClientCertificate>,
) -> Result<Opened, ConnectError> {
    let (mut state, now) = (hub.state(), Timestamp::now());
    let accepted = connect::accept(connect, certificate, &hub.authority, &state.store, hub.now())?;
    let ticket = state.connect(&accepted.identity, now);
    state.connections.set_gateway(&accepted.identity, ticket.connection_id, accepted.gateway.clone());
    let (identity, clean) = (accepted.identity.clone(), connect.clean_session);
    let session = Session::open(identity, ticket.connection_id, clean, &mut state);
    // What waits for a session that goes on is looked for first of all.
    ticket.news.notify_one();
    Ok(Opened { accepted, ticket, session, receipt: state.store.receipt() })
}

async fn write<S>(connection: &mut Connection<S>, packet: &Packet) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(WRITE_TIMEOUT, connection.write(packet)).await.map_err(|_| End::NotReading)??;
    Ok(())
}

/// A client that is connected.
struct Client<'a, S> {
    hub: &'a Hub,
    connection: Connection<S>,
    session: Session,
    ticket: Ticket,
    outbox: Outbox,
    silence_limit: Duration,
    silence_end: Instant,
    token_end: Instant,
    will: Option<Message>,
    said_goodbye: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Client<'a, S> {
    fn new(hub: &'a Hub, connection: Connection<S>, opened: Opened) -> Self {
        let Opened { accepted, ticket, session, receipt } = opened;
        let silence_limit = Duration::from_secs(accepted.keep_alive_secs.into()) * 3 / 2;
        let mut outbox = Outbox::default();
        let answer = ConnAck::new(ConnectReturnCode::Success, session.is_resumed());
        outbox.push(receipt, 0, [Packet::ConnAck(answer)]);
        Self {
            hub,
            connection,
            session,
            ticket,
            outbox,
            silence_limit,
            silence_end: Instant::now() + silence_limit,
            token_end: Instant::now() + accepted.token_life,
            will: accepted.will,
            said_goodbye: false,
        }
    }

    async fn run(&mut self) -> End {
        loop {
            let writer = &self.hub.storage.writer;
            let awaited = self.outbox.awaited();
            let is_stuck = writer.trouble().is_some();
            let is_full = is_stuck || self.outbox.is_full();
            let step = tokio::select! {
                () = self.ticket.news.notified() => self.on_news(),
                () = tokio::time::sleep_until(self.token_end) => Err(End::TokenExpired),
                committed = writer.committed(awaited.unwrap_or(Receipt::NONE)), if awaited.is_some() => {
                    committed.map_err(End::from)
                }
                // What cannot be written down would only pile up.
                writable = writer.writable(), if is_stuck => writable.map_err(End::from),
                packet = timeout_at(self.silence_end, self.connection.read()), if !is_full => {
                    self.on_read(packet.map_err(|_| End::Silent))
                }
            };
            if is_full {
                // Time in which the client was not read does not count as its silence.
                self.silence_end = Instant::now() + self.silence_limit;
            }
            let step = match step {
                Ok(()) => self.send().await,
                failed => failed,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Takes a packet and those that have arrived with it, under one lock.
    fn on_read(&mut self, read: Result<Result<Option<Packet>, Error>, End>) -> Result<(), End> {
        let first = read??.ok_or(End::Closed)?;
        self.silence_end = Instant::now() + self.silence_limit;
        let mut state = self.hub.state();
        if !state.connections.is_current(self.session.identity(), self.ticket.connection_id) {
            return Err(End::Evicted);
        }
        let mut stored = false;
        let step = self.take_packets(first, &mut state, &mut stored);
        // Also when a later packet has ended the connection.
        if stored {
            self.hub.announce_message(state.store.receipt());
        }
        step
    }

    fn take_packets(&mut self, first: Packet, state: &mut State, stored: &mut bool) -> Result<(), End> {
        let (mut next, now) = (Some(first), Timestamp::now());
        while let Some(packet) = next {
            if packet == Packet::PingReq {
                self.outbox.push_after_others(Packet::PingResp);
            } else {
                let size = body_size(&packet);
                let reaction = self.session.on_packet(packet, state, now)?;
                *stored |= reaction.stored;
                self.outbox.push(state.store.receipt(), size, reaction.replies);
                if reaction.disconnected {
                    self.said_goodbye = true;
                    return Err(End::Closed);
                }
            }
            next = if self.outbox.is_full() { None } else { self.connection.read_ready()? };
        }
        Ok(())
    }

    fn on_news(&mut self) -> Result<(), End> {
        let mut state = self.hub.state();
        let identity = self.session.identity();
        let events = state.connections.take(identity, self.ticket.connection_id).ok_or(End::Evicted)?;
        for event in events {
            let packet = self.session.on_event(event)?;
            self.outbox.push(state.store.receipt(), 0, packet);
        }
        let packets = self.session.deliver(&mut state, Timestamp::now())?;
        self.outbox.push(state.store.receipt(), 0, packets);
        Ok(())
    }

    /// Sends what may be sent.
    async fn send(&mut self) -> Result<(), End> {
        let writer = &self.hub.storage.writer;
        let packets = self.outbox.take_committed(|receipt| writer.is_committed(receipt));
        if packets.is_empty() {
            return Ok(());
        }
        for packet in &packets {
            self.connection.queue(packet)?;
        }
        timeout(WRITE_TIMEOUT, self.connection.flush()).await.map_err(|_| End::NotReading)??;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
