//! The queue of one endpoint, as far as it is in memory.
//!
//! Each priority has a cursor: what lies before it was read from the database or came in while nothing was behind
//! it, and is ready, with the consumer, or done; what lies behind it is only in the database.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::Parcel;
use super::change::Row;
use crate::database::Receipt;

/// How much of a queue is read at once, and kept in memory at most, beside one message.
pub(super) const PAGE_BYTES: usize = 1024 * 1024;
/// Messages of a page.
pub(super) const PAGE_ROWS: usize = 256;

/// A message that is ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) id: u64,
    pub(super) expires: i64,
    pub(super) path: String,
    pub(super) body: Bytes,
    pub(super) size: u64,
}

impl From<Row> for Ready {
    fn from(Row { id, parcel }: Row) -> Self {
        let size = parcel.size();
        let Parcel { expires, path, body, .. } = parcel;
        Self { id, expires, path, body, size }
    }
}

#[derive(Debug, Default)]
struct Level {
    ready: VecDeque<Ready>,
    ready_bytes: u64,
    /// The last message before the cursor.
    cursor: u64,
    /// The last message of all, and the receipt of it.
    newest: u64,
    receipt: Receipt,
}

/// What to do for the next message.
#[derive(Debug)]
pub(super) enum Next {
    /// Here it is.
    Message(Ready),
    /// Read a page of the database.
    Load(Load),
    /// There is none.
    Nothing,
}

/// The page to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) priority: u32,
    pub(super) after: u64,
    /// What must be committed first.
    pub(super) barrier: Receipt,
    /// The last message that was there when this was asked for, and what commits it.
    pub(super) newest: u64,
    pub(super) receipt: Receipt,
}

/// The queue of an endpoint.
#[derive(Debug, Default)]
pub(super) struct QueueState {
    levels: BTreeMap<u32, Level>,
    /// Messages that the consumer holds, with their sizes.
    in_flight: HashMap<u64, u64>,
    /// Removals before this one may still be in the database.
    pub(super) barrier: Receipt,
    pub(super) lease: Arc<AsyncMutex<()>>,
    pub(super) arrived: Arc<Notify>,
}

impl QueueState {
    /// Enters what the database had at the start.
    pub(super) fn found(&mut self, priority: u32, newest: u64) {
        self.levels.entry(priority).or_default().newest = newest;
    }

    /// Enters a message that is being written.
    pub(super) fn put(&mut self, row: Row, receipt: Receipt) {
        let level = self.levels.entry(row.parcel.priority).or_default();
        let follows = level.cursor == level.newest;
        (level.newest, level.receipt) = (row.id, receipt);
        if follows && level.ready_bytes < PAGE_BYTES as u64 && level.ready.len() < PAGE_ROWS {
            level.cursor = row.id;
            level.push(row.into());
        }
        self.arrived.notify_one();
    }

    /// The next message goes to the consumer. Ids and sizes of what is too old are added to `expired`.
    pub(super) fn next(&mut self, now: i64, expired: &mut Vec<(u64, u64)>) -> Next {
        for (&priority, level) in &mut self.levels {
            while let Some(ready) = level.pop() {
                if ready.expires > now {
                    self.in_flight.insert(ready.id, ready.size);
                    return Next::Message(ready);
                }
                expired.push((ready.id, ready.size));
            }
            if level.cursor < level.newest {
                let Level { cursor: after, newest, receipt, .. } = *level;
                return Next::Load(Load { priority, after, barrier: self.barrier, newest, receipt });
            }
        }
        Next::Nothing
    }

    /// Enters a page, or that there was nothing up to `load.newest`.
    pub(super) fn loaded(&mut self, load: Load, page: Vec<Ready>) {
        let Some(level) = self.levels.get_mut(&load.priority) else { return };
        if level.cursor != load.after {
            return;
        }
        level.cursor = page.last().map_or(load.newest, |last| last.id);
        for ready in page {
            level.push(ready);
        }
    }

    /// The consumer has finished with a message; its size, when it was held.
    pub(super) fn done(&mut self, id: u64) -> Option<u64> {
        self.in_flight.remove(&id)
    }

    /// The consumer has gone: all that it held, and what was ready, is to be read again.
    pub(super) fn rewind(&mut self, last_receipt: Receipt) {
        self.in_flight.clear();
        self.barrier = last_receipt;
        for level in self.levels.values_mut() {
            level.ready.clear();
            level.ready_bytes = 0;
            level.cursor = 0;
        }
    }

    /// Takes out what is ready and too old.
    pub(super) fn expire_ready(&mut self, now: i64, expired: &mut Vec<(u64, u64)>) {
        for level in self.levels.values_mut() {
            let (keep, old): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(&mut level.ready).into_iter().partition(|ready| ready.expires > now);
            level.ready = keep;
            level.ready_bytes -= old.iter().map(|ready| ready.size).sum::<u64>();
            expired.extend(old.iter().map(|ready| (ready.id, ready.size)));
        }
    }

    /// True when the message is only in the database.
    pub(super) fn is_behind_cursor(&self, priority: u32, id: u64) -> bool {
        self.levels.get(&priority).is_some_and(|level| id > level.cursor)
    }
}

impl Level {
    fn push(&mut self, ready: Ready) {
        self.ready_bytes += ready.size;
        self.ready.push_back(ready);
    }

    fn pop(&mut self) -> Option<Ready> {
        let ready = self.ready.pop_front()?;
        self.ready_bytes -= ready.size;
        Some(ready)
    }
}
