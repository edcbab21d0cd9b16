//! What must hold for any bytes that a client sends: nothing panics, and what is understood is written and read back
//! the same.
//!
//! Each function is the body of a fuzz target in `targets/`, which libFuzzer drives; `cargo test` runs it over the
//! seeds. A failed assertion is what a fuzz target reports with, so it panics.

#![allow(clippy::panic, reason = "a fuzz target reports by a panic")]

use futures_util::FutureExt;
use kedge_sim::edge::condition::{Condition, Subject};
use kedge_sim::edge::routes::{MessageKind, Routes};
use kedge_sim::identity::{Identity, Username};
use kedge_sim::mqtt::{Connection, Packet};
use kedge_sim::sas::Token;
use kedge_sim::topics::{ClientTopic, HubTopic, PropertyBag, Subscription};
use kedge_sim::websocket::ByteStream;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

/// Small enough to be reached, so that the refusal of larger packets is tried as well.
const MAX_PACKET: usize = 4096;
/// The longest payload whose length stands in one byte of a frame.
const MAX_SHORT_FRAME: u8 = 125;

/// The stream of packets of a connection.
pub fn packet(data: &[u8]) {
    let packets = read_all(data);
    for packet in &packets {
        let Some(bytes) = written(packet) else { continue };
        let again = read_all(&bytes);
        assert!(again.len() == 1 && again[0] == *packet, "{packet:?} is read back as {again:?}");
    }
}

/// The packets up to the end of the data or the first error.
fn read_all(data: &[u8]) -> Vec<Packet> {
    read_stream(tokio::io::join(data, tokio::io::sink()))
}

fn read_stream(stream: impl AsyncRead + AsyncWrite + Unpin) -> Vec<Packet> {
    let mut connection = Connection::new(stream, MAX_PACKET);
    let mut packets = Vec::new();
    // All is there already, so nothing is ever waited for.
    while let Some(Ok(Some(packet))) = connection.read().now_or_never() {
        packets.push(packet);
    }
    packets
}

/// The packet's bytes; `None` when it has no form within the limit.
fn written(packet: &Packet) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut connection = Connection::new(tokio::io::join(tokio::io::empty(), &mut bytes), MAX_PACKET);
    let result = connection.write(packet).now_or_never();
    drop(connection);
    matches!(result, Some(Ok(()))).then_some(bytes)
}

/// Packets over WebSockets: any bytes as frames, and after the first byte, which is the length of a frame, a stream of
/// packets. However a client cuts it into frames, the packets are the same.
pub fn websocket(data: &[u8]) {
    read_frames(data);
    let Some((&length, stream)) = data.split_first() else { return };
    let frames: Vec<u8> =
        stream.chunks(usize::from(length.clamp(1, MAX_SHORT_FRAME))).flat_map(frame).collect();
    assert_eq!(read_frames(&frames), read_all(stream));
}

fn read_frames(data: &[u8]) -> Vec<Packet> {
    let accepted = ByteStream::accepted(tokio::io::join(data, tokio::io::sink())).now_or_never();
    accepted.map(read_stream).unwrap_or_default()
}

/// A binary frame of a client. Its mask is zero, so the payload stands there as it is.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(MAX_SHORT_FRAME);
    [&[0x82, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// A route's condition on the first line, the properties of a message on the second, and then its body.
pub fn condition(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (condition, properties, body) = (part(), part(), part());
    let (Ok(text), Ok(properties)) = (std::str::from_utf8(condition), std::str::from_utf8(properties)) else {
        return;
    };
    let Ok(properties) = PropertyBag::parse(properties) else { return };
    let subject = Subject::new(&properties, body);
    for twin_changes in [false, true] {
        match Condition::parse(text, twin_changes) {
            Ok(condition) => {
                let holds = condition.holds(&subject);
                let opposite = Condition::parse(&format!("NOT ({text})"), twin_changes);
                let is_denied = opposite.is_ok_and(|opposite| opposite.holds(&subject));
                assert!(!(holds && is_denied), "{text:?} holds, and so does its opposite");
            }
            Err(error) => {
                let end = text.chars().count() + 1;
                assert!((1..=end).contains(&error.position), "{text:?}: {error}");
            }
        }
    }
    // A route is trimmed before its condition is read.
    if text == text.trim() {
        let holds = Condition::parse(text, false).is_ok_and(|condition| condition.holds(&subject));
        assert_eq!(is_routed(text, &properties, body), holds, "{text:?}");
    }
}

fn is_routed(condition: &str, properties: &PropertyBag, body: &[u8]) -> bool {
    let route = format!("FROM /messages/* WHERE {condition} INTO $upstream");
    let routes = Routes::parse(&json!({ "schemaVersion": "1.1", "routes": { "fuzzed": route } }));
    routes.is_ok_and(|routes| !routes.destinations(MessageKind::Telemetry, properties, body).is_empty())
}

/// Topics, filters, property bags, and the names and passwords of a CONNECT.
pub fn topic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(topic) = ClientTopic::parse(text) {
        assert_eq!(ClientTopic::parse(&topic.to_string()), Ok(topic));
    }
    if let Ok(topic) = HubTopic::parse(text) {
        assert_eq!(HubTopic::parse(&topic.to_string()), Ok(topic));
    }
    if let Ok(subscription) = Subscription::parse(text) {
        assert_eq!(Subscription::parse(&subscription.to_string()), Ok(subscription));
    }
    if let Ok(bag) = PropertyBag::parse(text) {
        assert_eq!(PropertyBag::parse(&bag.to_string()), Ok(bag));
    }
    if let Ok(identity) = Identity::from_client_id(text) {
        assert_eq!(identity.client_id(), text);
    }
    if let Ok(username) = Username::parse(text) {
        let written = username.identity.username(&username.hub_name);
        let again = Username::parse(&written).map(|again| (again.hub_name, again.identity));
        assert_eq!(again, Ok((username.hub_name, username.identity)));
    }
    if let Ok(token) = Token::parse(text) {
        assert!(token.verify(&[], "hub/devices/d", 0).is_err(), "a token is accepted without a key");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_seeds_pass() {
        let targets = [
            ("packet", super::packet as fn(&[u8])),
            ("websocket", super::websocket),
            ("condition", super::condition),
            ("topic", super::topic),
        ];
        for (name, target) in targets {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
            let seeds: Vec<_> = fs_err::read_dir(folder).unwrap().collect();
            assert!(!seeds.is_empty(), "{name} has no seeds");
            for seed in seeds {
                target(&fs_err::read(seed.unwrap().path()).unwrap());
            }
        }
    }
}
