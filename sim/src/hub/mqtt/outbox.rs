//! What is to be sent to a client, in order, each packet as soon as what it confirms is committed.
//!
//! The outbox is also the window of a connection: while too much waits in it, nothing more is read.

use std::collections::VecDeque;

use crate::database::Receipt;
use crate::mqtt::Packet;

/// Packets of a client that may wait for the database at once …
const MAX_ENTRIES: usize = 256;
/// … and their bytes, which are in memory for as long.
const MAX_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
struct Entry {
    receipt: Receipt,
    size: usize,
    packet: Option<Packet>,
}

/// The packets that wait.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Outbox {
    /// Adds replies to be sent when `receipt` is committed. Beside them `size` bytes are held until then; without a
    /// reply, too.
    pub(super) fn push(&mut self, receipt: Receipt, size: usize, replies: impl IntoIterator<Item = Packet>) {
        let replies = replies.into_iter().map(|packet| (body_size(&packet), Some(packet)));
        let held = (size > 0).then_some((size, None));
        for (size, packet) in replies.chain(held) {
            self.bytes += size;
            self.entries.push_back(Entry { receipt, size, packet });
        }
    }

    /// Adds a reply that confirms nothing, behind those that are there.
    pub(super) fn push_after_others(&mut self, packet: Packet) {
        let receipt = self.entries.back().map_or(Receipt::NONE, |entry| entry.receipt);
        self.push(receipt, 0, [packet]);
    }

    /// What the first packet waits for.
    pub(super) fn awaited(&self) -> Option<Receipt> {
        self.entries.front().map(|entry| entry.receipt)
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_ENTRIES || self.bytes >= MAX_BYTES
    }

    /// Takes the packets that may be sent.
    pub(super) fn take_committed(&mut self, is_committed: impl Fn(Receipt) -> bool) -> Vec<Packet> {
        // Receipts rise, so the last one that is committed is found without asking for each.
        let count = self.entries.partition_point(|entry| is_committed(entry.receipt));
        let taken: Vec<_> = self.entries.drain(..count).collect();
        self.bytes -= taken.iter().map(|entry| entry.size).sum::<usize>();
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        taken.into_iter().filter_map(|entry| entry.packet).collect()
    }
}

/// What a packet keeps in memory until it is committed.
pub(super) fn body_size(packet: &Packet) -> usize {
    match packet {
        Packet::Publish(publish) => publish.topic.len() + publish.payload.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{self, Change, Durability, Writer};
    use crate::mqtt::QoS;
    use crate::mqtt::packet::{PubAck, Publish};

    struct Nothing;

    impl Change for Nothing {
        fn write(&self, _: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
            Ok(())
        }
    }

    /// Three receipts in their order.
    fn receipts() -> [Receipt; 3] {
        let folder = tempfile::tempdir().unwrap();
        let database = database::open(&folder.path().join("a.db"), Durability::Process, &[]).unwrap();
        let writer = Writer::start(database).unwrap();
        [(); 3].map(|()| writer.submit(Nothing))
    }

    fn ack(id: u16) -> Packet {
        Packet::PubAck(PubAck::new(id))
    }

    #[test]
    fn packets_wait_for_their_receipts_and_keep_their_order() {
        let (mut outbox, [one, two, three]) = (Outbox::default(), receipts());
        assert_eq!((outbox.awaited(), outbox.take_committed(|_| true)), (None, vec![]));
        outbox.push(one, 10, [ack(1), ack(2)]);
        outbox.push(two, 10, []);
        outbox.push(three, 10, [ack(3)]);
        outbox.push_after_others(Packet::PingResp);
        assert_eq!(outbox.awaited(), Some(one));
        assert_eq!(outbox.take_committed(|receipt| receipt < one), []);
        assert_eq!(outbox.take_committed(|receipt| receipt < three), [ack(1), ack(2)]);
        assert_eq!(outbox.awaited(), Some(three));
        assert_eq!(outbox.take_committed(|receipt| receipt <= three), [ack(3), Packet::PingResp]);
        assert_eq!((outbox.awaited(), outbox.bytes), (None, 0));
        outbox.push_after_others(Packet::PingResp);
        assert_eq!(outbox.awaited(), Some(Receipt::NONE), "alone it waits for nothing");
    }

    #[test]
    fn packets_and_bytes_fill_it_with_or_without_a_reply() {
        let (mut outbox, [one, ..]) = (Outbox::default(), receipts());
        for id in 1..=u16::try_from(MAX_ENTRIES).unwrap() {
            assert!(!outbox.is_full());
            outbox.push(one, 0, [ack(id)]);
        }
        assert!(outbox.is_full());
        outbox.take_committed(|_| true);
        assert!(!outbox.is_full());
        outbox.push(one, MAX_BYTES, []);
        assert!(outbox.is_full(), "a message of QoS 0 takes room, too");
        assert_eq!(outbox.take_committed(|_| true), []);
        assert!(!outbox.is_full());
        let large = Packet::Publish(Publish::new("t", QoS::AtMostOnce, vec![0; MAX_BYTES]));
        outbox.push(one, 0, [large]);
        assert!(outbox.is_full(), "so does a large reply");
        assert_eq!((outbox.take_committed(|_| true).len(), outbox.bytes), (1, 0));
    }
}
