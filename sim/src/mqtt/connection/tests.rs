use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::mqtt::{QoS, packet};

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

#[tokio::test]
async fn what_has_arrived_together_is_taken_together_and_sent_together() {
    let (left, right) = duplex(64 * 1024);
    let (mut sender, mut receiver) = (Connection::new(left, LIMIT), Connection::new(right, LIMIT));
    for number in 1..=3 {
        sender.queue(&Packet::PubAck(packet::PubAck::new(number))).expect("queued");
    }
    assert_eq!(receiver.read_ready().expect("nothing yet"), None);
    sender.flush().await.expect("flushed");
    let mut packets = vec![receiver.read().await.expect("read").expect("a packet")];
    while let Some(packet) = receiver.read_ready().expect("read") {
        packets.push(packet);
    }
    assert_eq!(packets, [1, 2, 3].map(|number| Packet::PubAck(packet::PubAck::new(number))));
    assert_eq!((receiver.inbound.buffer.capacity(), sender.outbound.buffer.capacity()), (0, 0));
}

#[tokio::test]
async fn a_packet_that_cannot_be_encoded_leaves_those_before_it_as_they_are() {
    let (left, right) = duplex(64 * 1024);
    let (mut sender, mut receiver) = (Connection::new(left, LIMIT), Connection::new(right, LIMIT));
    sender.queue(&Packet::PingResp).expect("queued");
    let without_id = packet::Publish::new("t", QoS::AtLeastOnce, "x");
    assert!(matches!(sender.queue(&Packet::Publish(without_id)), Err(Error::Unencodable(_))));
    sender.flush().await.expect("flushed");
    assert_eq!(receiver.read().await.expect("read"), Some(Packet::PingResp));
    assert_eq!(receiver.read_ready().expect("nothing more"), None);
}
