//! Packets in and out of a byte stream.
//!
//! Reading keeps partial input in the connection, so a `read` that is cancelled (by a timer or a
//! shutdown) loses nothing. Writing queues the encoded packet first, so a cancelled `write` leaves
//! whole packets behind, never half of one. A packet's announced length is checked before any
//! memory is set aside for it, and a connection on which nothing happens holds no buffer.
//!
//! Who has many packets to carry takes them in batches: after a `read`, `read_ready` gives what has arrived with it,
//! and packets that were given to `queue` go out together with `flush`.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;

use bytes::BytesMut;
use rumqttc::mqttbytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

use super::packet::{ConnAck, ConnectReturnCode};
use super::{Packet, strict};

/// How much is read at once: a record of TLS.
const READ_CHUNK: usize = 16 * 1024;

/// Type byte plus at most four bytes of remaining length.
const MAX_FIXED_HEADER: usize = 5;

/// MQTT strings carry a 16-bit length.
const MAX_STRING: usize = u16::MAX as usize;

/// Why a packet could not be read or written. Every variant means that the connection is over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The transport failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer closed the stream inside a packet.
    #[error("the peer closed the connection in the middle of a packet")]
    Truncated,
    /// The peer announced, or the caller gave, a packet above the limit.
    #[error("a packet of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Length announced in the fixed header, or the length of the packet to be sent.
        size: usize,
        /// The limit that the connection was made with.
        limit: usize,
    },
    /// The peer connects with another version than MQTT 3.1.1.
    #[error("the peer speaks MQTT of the protocol level {0}")]
    ProtocolLevel(u8),
    /// What arrived is not MQTT 3.1.1.
    #[error("the peer sent a malformed packet: {0}")]
    Malformed(String),
    /// The caller's packet has no MQTT 3.1.1 form.
    #[error("the packet cannot be encoded: {0}")]
    Unencodable(String),
}

/// An MQTT connection over a byte stream.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    inbound: Inbound,
    outbound: Outbound,
}

/// The receiving half of a [`Connection`].
#[derive(Debug)]
pub struct Reader<R> {
    stream: R,
    inbound: Inbound,
}

/// The sending half of a [`Connection`].
#[derive(Debug)]
pub struct Writer<W> {
    stream: W,
    outbound: Outbound,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Speaks MQTT on `stream`; a packet whose remaining length exceeds `max_packet` is an error.
    pub fn new(stream: S, max_packet: usize) -> Self {
        Self { stream, inbound: Inbound::new(max_packet), outbound: Outbound::new(max_packet) }
    }

    /// The next packet, or `None` when the peer closed the stream between two packets. A client of another version of
    /// MQTT is told so here, since there is no CONNECT of it to be answered.
    ///
    /// Safe to cancel.
    pub async fn read(&mut self) -> Result<Option<Packet>, Error> {
        let packet = self.inbound.read(&mut self.stream).await;
        if let Err(Error::ProtocolLevel(_)) = packet {
            let refusal = ConnAck::new(ConnectReturnCode::RefusedProtocolVersion, false);
            self.write(&Packet::ConnAck(refusal)).await?;
        }
        packet
    }

    /// The next packet when it has arrived already.
    pub fn read_ready(&mut self) -> Result<Option<Packet>, Error> {
        self.inbound.next()
    }

    /// Sends a packet and flushes it.
    ///
    /// When cancelled, the rest of the packet is sent before the next one.
    pub async fn write(&mut self, packet: &Packet) -> Result<(), Error> {
        self.outbound.encode(packet)?;
        self.outbound.flush(&mut self.stream).await
    }

    /// Puts a packet behind those that wait for a [`Connection::flush`].
    pub fn queue(&mut self, packet: &Packet) -> Result<(), Error> {
        self.outbound.encode(packet)
    }

    /// Sends all packets that were queued. When cancelled, the rest is sent the next time.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.outbound.flush(&mut self.stream).await
    }

    /// Two halves that may be used by different tasks.
    pub fn split(self) -> (Reader<ReadHalf<S>>, Writer<WriteHalf<S>>) {
        let (read, write) = tokio::io::split(self.stream);
        (Reader { stream: read, inbound: self.inbound }, Writer { stream: write, outbound: self.outbound })
    }
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// As [`Connection::read`].
    pub async fn read(&mut self) -> Result<Option<Packet>, Error> {
        self.inbound.read(&mut self.stream).await
    }

    /// As [`Connection::read_ready`].
    pub fn read_ready(&mut self) -> Result<Option<Packet>, Error> {
        self.inbound.next()
    }
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// As [`Connection::write`].
    pub async fn write(&mut self, packet: &Packet) -> Result<(), Error> {
        self.outbound.encode(packet)?;
        self.outbound.flush(&mut self.stream).await
    }

    /// As [`Connection::queue`].
    pub fn queue(&mut self, packet: &Packet) -> Result<(), Error> {
        self.outbound.encode(packet)
    }

    /// As [`Connection::flush`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.outbound.flush(&mut self.stream).await
    }

    /// Ends the stream in an orderly way; over TLS the peer sees a `close_notify`.
    pub async fn shutdown(&mut self) -> Result<(), Error> {
        Ok(self.stream.shutdown().await?)
    }
}

#[derive(Debug)]
struct Inbound {
    buffer: BytesMut,
    max_packet: usize,
}

impl Inbound {
    fn new(max_packet: usize) -> Self {
        Self { buffer: BytesMut::new(), max_packet }
    }

    async fn read<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> Result<Option<Packet>, Error> {
        loop {
            if let Some(packet) = self.next()? {
                return Ok(Some(packet));
            }
            let received = match self.receive(stream).await {
                // Packets carry their length, so an end of TLS without a goodbye cannot cut one off unseen.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                received => received?,
            };
            if received == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Error::Truncated) };
            }
        }
    }

    /// Reads through the stack, so that there need be no buffer while nothing arrives.
    async fn receive<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> io::Result<usize> {
        poll_fn(|context| {
            let mut space = [MaybeUninit::<u8>::uninit(); READ_CHUNK];
            let mut chunk = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut chunk))?;
            self.buffer.extend_from_slice(chunk.filled());
            Ok(chunk.filled().len()).into()
        })
        .await
    }

    fn next(&mut self) -> Result<Option<Packet>, Error> {
        let packet = self.decode()?;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(packet)
    }

    fn decode(&mut self) -> Result<Option<Packet>, Error> {
        strict::check_bytes(&self.buffer, self.max_packet)?;
        match Packet::read(&mut self.buffer, self.max_packet) {
            Ok(packet) => strict::check_packet(&packet).map(|()| Some(packet)),
            Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
            Err(mqttbytes::Error::PayloadSizeLimitExceeded(size)) => {
                Err(Error::TooLarge { size, limit: self.max_packet })
            }
            Err(error) => Err(Error::Malformed(error.to_string())),
        }
    }
}

#[derive(Debug)]
struct Outbound {
    buffer: BytesMut,
    max_packet: usize,
}

impl Outbound {
    fn new(max_packet: usize) -> Self {
        Self { buffer: BytesMut::new(), max_packet }
    }

    async fn flush<W: AsyncWrite + Unpin>(&mut self, stream: &mut W) -> Result<(), Error> {
        stream.write_all_buf(&mut self.buffer).await?;
        self.buffer = BytesMut::new();
        Ok(stream.flush().await?)
    }

    /// Appends the packet to the buffer, or leaves the buffer as it was.
    fn encode(&mut self, packet: &Packet) -> Result<(), Error> {
        let size = packet.size();
        if size > self.max_packet.saturating_add(MAX_FIXED_HEADER) {
            return Err(Error::TooLarge { size, limit: self.max_packet });
        }
        if let Some(what) = overlong_string(packet) {
            return Err(Error::Unencodable(format!("{what} is longer than {MAX_STRING} bytes")));
        }
        let before = self.buffer.len();
        self.buffer.reserve(size);
        packet.write(&mut self.buffer, usize::MAX).map(drop).map_err(|error| {
            self.buffer.truncate(before);
            Error::Unencodable(error.to_string())
        })
    }
}

/// The codec would truncate the length of such a string and send a corrupt packet.
fn overlong_string(packet: &Packet) -> Option<&'static str> {
    let overlong = |text: &str| text.len() > MAX_STRING;
    match packet {
        Packet::Publish(publish) if overlong(&publish.topic) => Some("the topic"),
        Packet::Connect(connect) if overlong(&connect.client_id) => Some("the client id"),
        Packet::Connect(connect)
            if connect.login.as_ref().is_some_and(|l| overlong(&l.username) || overlong(&l.password)) =>
        {
            Some("the user name or password")
        }
        Packet::Connect(connect)
            if connect
                .last_will
                .as_ref()
                .is_some_and(|w| overlong(&w.topic) || w.message.len() > MAX_STRING) =>
        {
            Some("the will")
        }
        Packet::Subscribe(subscribe) if subscribe.filters.iter().any(|f| overlong(&f.path)) => {
            Some("a topic filter")
        }
        Packet::Unsubscribe(unsubscribe) if unsubscribe.topics.iter().any(|t| overlong(t)) => {
            Some("a topic filter")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
