//! Packets in and out of a byte stream.
//!
//! Reading keeps partial input in the connection, so a `read` that is cancelled (by a timer or a
//! shutdown) loses nothing. Writing queues the encoded packet first, so a cancelled `write` leaves
//! whole packets behind, never half of one. A packet's announced length is checked before any
//! memory is set aside for it.

use std::io;

use bytes::BytesMut;
use rumqttc::mqttbytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::Packet;

/// Room that is made for input when the buffer is full; telemetry packets are a few hundred bytes.
const READ_CHUNK: usize = 2 * 1024;

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

    /// The next packet, or `None` when the peer closed the stream between two packets.
    ///
    /// Safe to cancel.
    pub async fn read(&mut self) -> Result<Option<Packet>, Error> {
        self.inbound.read(&mut self.stream).await
    }

    /// Sends a packet and flushes it.
    ///
    /// When cancelled, the rest of the packet is sent before the next one.
    pub async fn write(&mut self, packet: &Packet) -> Result<(), Error> {
        self.outbound.write(&mut self.stream, packet).await
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
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// As [`Connection::write`].
    pub async fn write(&mut self, packet: &Packet) -> Result<(), Error> {
        self.outbound.write(&mut self.stream, packet).await
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
            if let Some(packet) = self.decode()? {
                return Ok(Some(packet));
            }
            self.buffer.reserve(READ_CHUNK);
            let received = match stream.read_buf(&mut self.buffer).await {
                // Packets carry their length, so an end of TLS without a goodbye cannot cut one off unseen.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                received => received?,
            };
            if received == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Error::Truncated) };
            }
        }
    }

    fn decode(&mut self) -> Result<Option<Packet>, Error> {
        match Packet::read(&mut self.buffer, self.max_packet) {
            Ok(packet) => accept(packet).map(Some),
            Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
            Err(mqttbytes::Error::PayloadSizeLimitExceeded(size)) => {
                Err(Error::TooLarge { size, limit: self.max_packet })
            }
            Err(error) => Err(Error::Malformed(error.to_string())),
        }
    }
}

/// Rules of MQTT 3.1.1 (3.3.2.1) that the codec leaves to its caller.
fn accept(packet: Packet) -> Result<Packet, Error> {
    match &packet {
        Packet::Publish(publish) if publish.topic.is_empty() => {
            Err(Error::Malformed("a PUBLISH without a topic".to_owned()))
        }
        Packet::Publish(publish) if publish.topic.contains(['+', '#', '\0']) => {
            Err(Error::Malformed("a PUBLISH to a topic with a wildcard or a NUL".to_owned()))
        }
        _ => Ok(packet),
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

    async fn write<W: AsyncWrite + Unpin>(&mut self, stream: &mut W, packet: &Packet) -> Result<(), Error> {
        self.encode(packet)?;
        stream.write_all_buf(&mut self.buffer).await?;
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
        let mut encoded = BytesMut::with_capacity(size);
        packet.write(&mut encoded, usize::MAX).map_err(|error| Error::Unencodable(error.to_string()))?;
        self.buffer.unsplit(encoded);
        Ok(())
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
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::super::{QoS, packet};
    use super::*;

    const LIMIT: usize = 1024;

    fn pair() -> (DuplexStream, Connection<DuplexStream>) {
        let (peer, ours) = duplex(64 * 1024);
        (peer, Connection::new(ours, LIMIT))
    }

    fn publish(topic: &str, payload: &[u8]) -> Packet {
        let mut publish = packet::Publish::new(topic, QoS::AtLeastOnce, payload);
        publish.pkid = 7;
        Packet::Publish(publish)
    }

    fn encoded(packet: &Packet) -> BytesMut {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).expect("encodes");
        bytes
    }

    async fn error_for(input: &[u8]) -> Error {
        let (mut peer, mut connection) = pair();
        peer.write_all(input).await.expect("written");
        drop(peer);
        connection.read().await.expect_err("refused")
    }

    #[tokio::test]
    async fn packets_survive_the_round_trip() {
        let (left, right) = duplex(64 * 1024);
        let (mut sender, mut receiver) = (Connection::new(left, LIMIT), Connection::new(right, LIMIT));
        for packet in [publish("devices/d/messages/events/", b"{}"), Packet::PingReq, Packet::Disconnect] {
            sender.write(&packet).await.expect("written");
            assert_eq!(receiver.read().await.expect("read"), Some(packet));
        }
        drop(sender);
        assert_eq!(receiver.read().await.expect("a clean end"), None);
    }

    #[tokio::test]
    async fn a_packet_may_arrive_byte_by_byte_and_a_cancelled_read_loses_nothing() {
        let (mut peer, mut connection) = pair();
        let expected = publish("t", b"payload");
        for byte in encoded(&expected) {
            tokio::select! {
                biased;
                packet = connection.read() => panic!("complete too early: {packet:?}"),
                () = std::future::ready(()) => {}
            }
            peer.write_all(&[byte]).await.expect("written");
        }
        assert_eq!(connection.read().await.expect("read"), Some(expected));
    }

    #[tokio::test]
    async fn several_packets_in_one_segment_come_out_one_by_one() {
        let (mut peer, mut connection) = pair();
        let mut bytes = encoded(&publish("a", b"1"));
        bytes.unsplit(encoded(&Packet::PingReq));
        peer.write_all(&bytes).await.expect("written");
        assert_eq!(connection.read().await.expect("read"), Some(publish("a", b"1")));
        assert_eq!(connection.read().await.expect("read"), Some(Packet::PingReq));
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_packet_is_an_error() {
        let whole = encoded(&publish("topic", b"payload"));
        assert!(matches!(error_for(&whole[..whole.len() - 1]).await, Error::Truncated));
    }

    #[tokio::test]
    async fn an_oversized_packet_is_refused_by_its_header_alone() {
        // 256 MB announced, not one byte of it sent: the connection must not wait for it.
        let (mut peer, mut connection) = pair();
        peer.write_all(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await.expect("written");
        let error = connection.read().await.expect_err("refused");
        assert!(matches!(error, Error::TooLarge { size: 268_435_455, limit: LIMIT }), "{error}");
    }

    #[tokio::test]
    async fn junk_is_malformed_and_never_a_panic() {
        for junk in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0x00, 0x00],
            &[0xf0, 0x01, 0x00],
            &[0x30, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x00],
            &[0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01],
            &[0x32, 0x05, 0x00, 0x01, b'a', 0x00, 0x00],
            &[0x30, 0x04, 0x00, 0x09, b'a', b'b'],
            &[0x82, 0x02, 0x00, 0x01],
            &[0xa2, 0x01, 0x00],
            &[0x40, 0x01, 0x00],
            &[0x30, 0x03, 0x00, 0x01, b'#'],
            &[0x30, 0x02, 0x00, 0x00],
            &[0x30, 0x03, 0x00, 0x01, 0xff],
        ] {
            let error = error_for(junk).await;
            assert!(matches!(error, Error::Malformed(_) | Error::Truncated), "{junk:x?}: {error}");
        }
    }

    #[tokio::test]
    async fn every_mutation_of_a_connect_is_read_or_refused() {
        let mut connect = packet::Connect::new("device/module");
        connect.set_login("user", "password");
        let valid = encoded(&Packet::Connect(connect));
        for position in 0..valid.len() {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bytes = valid.clone();
                bytes[position] = value;
                let (mut peer, mut connection) = pair();
                peer.write_all(&bytes).await.expect("written");
                drop(peer);
                while let Ok(Some(_)) = connection.read().await {}
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_encoded_is_refused_and_leaves_the_stream_intact() {
        let (left, right) = duplex(64 * 1024);
        let (mut sender, mut receiver) = (Connection::new(left, 128 * 1024), Connection::new(right, LIMIT));
        let without_id = Packet::Publish(packet::Publish::new("t", QoS::AtLeastOnce, *b"x"));
        assert!(matches!(sender.write(&without_id).await, Err(Error::Unencodable(_))));
        let long_topic = publish(&"t".repeat(MAX_STRING + 1), b"x");
        assert!(matches!(sender.write(&long_topic).await, Err(Error::Unencodable(_))));
        let too_large = publish("t", &vec![0; 128 * 1024]);
        assert!(matches!(sender.write(&too_large).await, Err(Error::TooLarge { .. })));
        sender.write(&Packet::PingResp).await.expect("written");
        assert_eq!(receiver.read().await.expect("read"), Some(Packet::PingResp));
    }

    #[tokio::test]
    async fn a_cancelled_write_is_completed_by_the_next_one() {
        let (left, right) = duplex(16);
        let mut sender = Connection::new(left, LIMIT);
        let first = publish("t", &[7; 100]);
        tokio::select! {
            biased;
            written = sender.write(&first) => panic!("16 bytes cannot hold it: {written:?}"),
            () = std::future::ready(()) => {}
        }
        let mut receiver = Connection::new(right, LIMIT);
        let (written, packets) = tokio::join!(sender.write(&Packet::PingReq), async {
            [receiver.read().await.expect("read"), receiver.read().await.expect("read")]
        });
        written.expect("written");
        assert_eq!(packets, [Some(first), Some(Packet::PingReq)]);
    }

    #[tokio::test]
    async fn the_halves_work_apart() {
        let (peer, connection) = pair();
        let (mut reader, mut writer) = connection.split();
        let mut peer = Connection::new(peer, LIMIT);
        writer.write(&Packet::PingReq).await.expect("written");
        assert_eq!(peer.read().await.expect("read"), Some(Packet::PingReq));
        peer.write(&Packet::PingResp).await.expect("written");
        assert_eq!(reader.read().await.expect("read"), Some(Packet::PingResp));
        writer.shutdown().await.expect("shut down");
        assert_eq!(peer.read().await.expect("a clean end"), None);
    }
}
