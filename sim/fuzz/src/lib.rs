//! What must hold for any bytes that a client sends: nothing panics, and what is understood is written and read back
//! the same.
//!
//! Each function is the body of a fuzz target in `targets/`, which libFuzzer drives; `cargo test` runs it over the
//! seeds. A failed assertion is what a fuzz target reports with, so it panics.

#![allow(clippy::panic, reason = "a fuzz target reports by a panic")]

use futures_util::FutureExt;
use kedge_sim::identity::{Identity, Username};
use kedge_sim::mqtt::{Connection, Packet};
use kedge_sim::sas::Token;
use kedge_sim::topics::{ClientTopic, HubTopic, PropertyBag, Subscription};

/// Small enough to be reached, so that the refusal of larger packets is tried as well.
const MAX_PACKET: usize = 4096;

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
    let mut connection = Connection::new(tokio::io::join(data, tokio::io::sink()), MAX_PACKET);
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
        for (name, target) in [("packet", super::packet as fn(&[u8])), ("topic", super::topic)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
            let seeds: Vec<_> = fs_err::read_dir(folder).unwrap().collect();
            assert!(!seeds.is_empty(), "{name} has no seeds");
            for seed in seeds {
                target(&fs_err::read(seed.unwrap().path()).unwrap());
            }
        }
    }
}
