//! Store and forward: the messages that the gateway has taken over and that an endpoint does not have yet.
//!
//! A message is a row for each endpoint in an SQLite file, and may be acknowledged to its sender when that is
//! committed. Each endpoint has a queue, which one [`Consumer`] at a time empties: the lower priority number first,
//! within a priority in the order of arrival, each message until it is done. Memory holds one page of each queue,
//! what the consumers hold, and what is not committed yet, however much is stored.
//!
//! What was taken over leaves when its endpoint has it, or when its time to live is over; never to make room.
//! When the store is full, or the disk is, there is no [`Room`] for further messages until there is again.

mod change;
mod consumer;
mod queue;
mod sweep;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, Semaphore};

use self::change::{Change, Row, SCHEMA};
use self::queue::QueueState;
use crate::database::{self, DatabaseError, Durability, Receipt, Writer};

pub use self::consumer::{Consumer, Delivered};
pub use self::sweep::look_after;

/// What a message costs beside its own bytes: the row, and its place in two indices.
const ROW_BYTES: u64 = 128;
/// How much may wait to be committed; further messages wait for room. The largest message needs a part of it.
const MAX_UNCOMMITTED: u32 = 16 * 1024 * 1024;
/// How much is stored when nothing else is said.
pub const DEFAULT_LIMIT: u64 = 1024 * 1024 * 1024;

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// The IoT Hub.
    Upstream,
    /// The inputs of a module of this device.
    Module(String),
}

/// The text that stands in the database.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream => f.write_str("$upstream"),
            Self::Module(module) => write!(f, "modules/{module}"),
        }
    }
}

/// A message on its way into a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Whom it is for.
    pub endpoint: Endpoint,
    /// The lower one is sent first.
    pub priority: u32,
    /// Unix seconds after which it is dropped.
    pub expires: i64,
    /// The topic behind the endpoint's own prefix.
    pub path: String,
    /// The body.
    pub body: Bytes,
}

impl Parcel {
    /// What it counts against the limit of the store.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.path.len() + self.body.len()) as u64 + ROW_BYTES
    }
}

/// What is stored, and what has become of the rest since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Messages that wait for their endpoint.
    pub messages: u64,
    /// What they count against the limit.
    pub bytes: u64,
    /// Messages whose time to live was over.
    pub expired: u64,
    /// Messages that their endpoint will never take.
    pub rejected: u64,
}

/// The store. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    writer: Writer<Change>,
    /// Held from a look into the database until what was found is entered into the state.
    reader: Arc<AsyncMutex<Connection>>,
    state: Mutex<State>,
    /// Told when something was removed.
    removed: Notify,
    uncommitted: Arc<Semaphore>,
    /// The file, whose disk says how much may be stored when nobody else does.
    path: PathBuf,
    limit: AtomicU64,
    is_default_limit: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    queues: HashMap<Endpoint, QueueState>,
    usage: Usage,
    /// Of the last change that was submitted.
    last_receipt: Receipt,
    /// Of the last text that was kept.
    last_kept: Receipt,
}

/// Room for messages, which is given back when they are not put there.
#[derive(Debug)]
pub struct Room {
    spool: Arc<Shared>,
    bytes: u64,
    permit: Option<OwnedSemaphorePermit>,
}

impl Spool {
    /// Opens or makes the store in a file that only its owner can read.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || -> anyhow::Result<Self> {
            make_private(path)?;
            let connection = database::open(path, Durability::Power, SCHEMA)?;
            let (queues, usage, last_id) = change::stored(&connection)?;
            let state = State { last_id, queues, usage, ..State::default() };
            let shared = Shared {
                writer: Writer::start(connection)?,
                reader: Arc::new(AsyncMutex::new(database::open_reader(path)?)),
                state: Mutex::new(state),
                removed: Notify::new(),
                uncommitted: Arc::new(Semaphore::new(MAX_UNCOMMITTED as usize)),
                limit: AtomicU64::new(default_limit(path)),
                is_default_limit: AtomicBool::new(true),
                path: path.to_owned(),
            };
            Ok(Self(Arc::new(shared)))
        };
        open().with_context(|| {
            format!(
                "the gateway's store {} cannot be used. If it is damaged, move it and the files beside it of the \
                 same name away; the messages that it holds are then not sent",
                path.display()
            )
        })
    }

    /// Sets how much may be stored; `None` for the default.
    pub fn set_limit(&self, bytes: Option<u64>) {
        self.0.is_default_limit.store(bytes.is_none(), Ordering::Relaxed);
        self.0.limit.store(bytes.unwrap_or_else(|| default_limit(&self.0.path)), Ordering::Relaxed);
        self.0.removed.notify_waiters();
    }

    /// Looks again how much room the disk has, when that is the limit.
    fn refresh_limit(&self) {
        if self.0.is_default_limit.load(Ordering::Relaxed) {
            self.set_limit(None);
        }
    }

    /// Room for messages that together count so many bytes, when there is some now.
    #[must_use]
    pub fn try_room(&self, bytes: u64) -> Option<Room> {
        let permit = self.0.uncommitted.clone().try_acquire_many_owned(permits(bytes)).ok()?;
        self.0.reserve(bytes).then(|| Room { spool: self.0.clone(), bytes, permit: Some(permit) })
    }

    /// Waits for room. Safe to cancel.
    pub async fn room(&self, bytes: u64) -> Result<Room, DatabaseError> {
        let acquired = self.0.uncommitted.clone().acquire_many_owned(permits(bytes)).await;
        let permit = Some(acquired.map_err(|_| DatabaseError::Closed)?);
        loop {
            let removed = self.0.removed.notified();
            if self.0.reserve(bytes) {
                return Ok(Room { spool: self.0.clone(), bytes, permit });
            }
            removed.await;
        }
    }

    /// Puts messages into their queues. They are there for good when the receipt is committed.
    pub fn put(&self, mut room: Room, parcels: Vec<Parcel>) -> Receipt {
        let mut state = self.0.state();
        let bytes: u64 = parcels.iter().map(Parcel::size).sum();
        let mut rows = Vec::with_capacity(parcels.len());
        for parcel in parcels {
            state.last_id += 1;
            rows.push(Row { id: state.last_id, parcel });
        }
        let receipt = self.0.writer.submit(Change::Put { rows: rows.clone(), _permit: room.permit.take() });
        state.last_receipt = receipt;
        for row in rows {
            state.usage.messages += 1;
            state.queues.entry(row.parcel.endpoint.clone()).or_default().put(row, receipt);
        }
        state.usage.bytes = state.usage.bytes.saturating_sub(std::mem::take(&mut room.bytes)) + bytes;
        receipt
    }

    /// Waits until a change is committed. Safe to cancel.
    pub async fn committed(&self, receipt: Receipt) -> Result<(), DatabaseError> {
        self.0.writer.committed(receipt).await
    }

    /// The consumer of a queue; waits until a former one has gone. Safe to cancel.
    pub async fn consumer(&self, endpoint: Endpoint) -> Consumer {
        let lease = self.0.state().queues.entry(endpoint.clone()).or_default().lease.clone();
        Consumer::new(self.0.clone(), endpoint, lease.lock_owned().await)
    }

    /// Keeps a text beside the messages, for the next start; `None` removes it.
    pub fn keep(&self, name: &str, value: Option<String>) -> Receipt {
        let mut state = self.0.state();
        let receipt = self.0.writer.submit(Change::Keep(name.to_owned(), value));
        (state.last_receipt, state.last_kept) = (receipt, receipt);
        receipt
    }

    /// Reads a text that was kept.
    pub async fn kept(&self, name: &str) -> Result<Option<String>, DatabaseError> {
        let last_kept = self.0.state().last_kept;
        self.committed(last_kept).await?;
        let connection = self.0.reader.lock().await;
        let mut statement = connection.prepare_cached("SELECT value FROM kept WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    /// What is stored.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.0.state().usage
    }

    /// Why nothing can be written at the moment.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.0.writer.trouble()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes as used, when there is room. The only message may always come in.
    fn reserve(&self, bytes: u64) -> bool {
        let used = &mut self.state().usage.bytes;
        let has_room = *used == 0 || used.saturating_add(bytes) <= self.limit.load(Ordering::Relaxed);
        if has_room {
            *used += bytes;
        }
        has_room
    }

    /// Removes messages that the state does not know any longer.
    fn remove(&self, state: &mut State, ids: Vec<u64>, bytes: u64) {
        if ids.is_empty() {
            return;
        }
        state.usage.messages = state.usage.messages.saturating_sub(ids.len() as u64);
        state.usage.bytes = state.usage.bytes.saturating_sub(bytes);
        state.last_receipt = self.writer.submit(Change::Remove(ids));
        self.removed.notify_waiters();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let used = &mut self.spool.state().usage.bytes;
            *used = used.saturating_sub(self.bytes);
            self.spool.removed.notify_waiters();
        }
    }
}

fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).min(MAX_UNCOMMITTED)
}

/// The share of its disk that the store may take.
fn default_limit(path: &Path) -> u64 {
    let stored = fs_err::metadata(path).map_or(0, |file| file.len());
    match rustix::fs::statvfs(path.parent().unwrap_or(path)) {
        Ok(disk) => share(disk.f_bavail.saturating_mul(disk.f_frsize), stored),
        Err(error) => {
            tracing::warn!("The size of the disk of {} is not known: {error}", path.display());
            DEFAULT_LIMIT
        }
    }
}

/// Half of what is free or taken by the store itself, but not more than [`DEFAULT_LIMIT`]: what is stored must not make
/// the limit smaller.
fn share(free: u64, stored: u64) -> u64 {
    (free.saturating_add(stored) / 2).min(DEFAULT_LIMIT)
}

fn make_private(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder)?;
    }
    let mut options = fs_err::OpenOptions::new();
    fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.append(true).create(true).open(path).map(drop)
}

/// The time in which lifetimes are measured.
#[must_use]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests;
