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
    /// Adds replies to be sent when `receipt` is committed. `size` bytes are held until then; without a reply, too.
    pub(super) fn push(&mut self, receipt: Receipt, size: usize, replies: impl IntoIterator<Item = Packet>) {
        let entry = |packet| Entry { receipt, size: 0, packet };
        let before = self.entries.len();
        self.entries.extend(replies.into_iter().map(|packet| entry(Some(packet))));
        if size > 0 && before == self.entries.len() {
            self.entries.push_back(entry(None));
        }
        if let Some(last) = self.entries.back_mut().filter(|_| size > 0) {
            last.size = size;
            self.bytes += size;
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
