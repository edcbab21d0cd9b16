//! An embedded SQLite database with one writing thread.
//!
//! Changes are submitted in order, from any thread and without waiting, and are written in groups: a [`Receipt`] is
//! good once the group of its change is committed, and only then may the change be acknowledged to anybody. Groups
//! make a commit, which is the costly part, serve all that came while the one before was written.
//!
//! A group that cannot be written, because the disk is full for instance, stays in memory and is tried again, so
//! that nothing is lost and nothing is acknowledged meanwhile; [`Writer::trouble`] says why.

mod checkpoints;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction};
use tokio::sync::watch;

use self::checkpoints::Checkpoints;

/// A group has at most this many changes, so that the first of them do not wait for long.
const MAX_GROUP: usize = 512;
/// How soon a group that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// What a large group has added to the log is cut off to this size afterwards, in bytes.
const JOURNAL_LIMIT: u32 = 16 * 1024 * 1024;
/// How long a statement waits for a lock that another connection holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a committed change survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process, `kill -9` included.
    Process,
    /// A loss of power as well; each group waits for the disk.
    Power,
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The file was written by a later version of this program.
    #[error("its schema has version {found}, and this program knows versions up to {known}")]
    Newer {
        /// Version of the file.
        found: u32,
        /// Newest version that is known here.
        known: u32,
    },
    /// SQLite knows paths in UTF-8 only.
    #[error("its path is not UTF-8")]
    Path,
    /// The writing thread is gone.
    #[error("the database was closed")]
    Closed,
    /// The system gave no thread.
    #[error("cannot start the writing thread")]
    Thread(#[from] std::io::Error),
}

/// Opens or makes a database. `schema` has one script for each version; those that the file lacks are run.
pub fn open(path: &Path, durability: Durability, schema: &[&str]) -> Result<Connection, DatabaseError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_LIMIT)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let known = u32::try_from(schema.len()).unwrap_or(u32::MAX);
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = schema.get(found as usize..).ok_or(DatabaseError::Newer { found, known })?;
    if !missing.is_empty() {
        let transaction = connection.transaction()?;
        for script in missing {
            transaction.execute_batch(script)?;
        }
        transaction.pragma_update(None, "user_version", known)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Opens a database for reading, beside its writer: it sees what is committed.
pub fn open_reader(path: &Path) -> Result<Connection, DatabaseError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Something to be written. It may be tried more than once, each time in a new transaction.
pub trait Change: Send + Sized + 'static {
    /// Writes it.
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()>;

    /// Writes a group in its order. Whoever has many changes of one kind can prepare for them once.
    fn write_group(group: &[Self], transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        group.iter().try_for_each(|change| change.write(transaction))
    }
}

/// Stands for a submitted change; later changes have greater receipts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt(u64);

impl Receipt {
    /// The receipt of nothing, which is always committed.
    pub const NONE: Self = Self(0);
}

#[derive(Debug, Clone, Default)]
struct Progress {
    committed: u64,
    trouble: Option<Arc<str>>,
}

/// The handle on the writing thread. When it is dropped, what was submitted is written, and the thread is waited for.
#[derive(Debug)]
pub struct Writer<C> {
    queue: Mutex<Queue<C>>,
    progress: watch::Receiver<Progress>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Queue<C> {
    changes: Option<Sender<C>>,
    submitted: u64,
}

impl<C: Change> Writer<C> {
    /// Gives the connection to a thread of its own.
    pub fn start(mut connection: Connection) -> Result<Self, DatabaseError> {
        let path = connection.path().map(PathBuf::from).ok_or(DatabaseError::Path)?;
        let checkpoints = Checkpoints::attach(&mut connection, &path)?;
        let (sender, changes) = channel();
        let (progress, watched) = watch::channel(Progress::default());
        let thread = std::thread::Builder::new().name("database".to_owned()).spawn(move || {
            write_groups(connection, &changes, &progress);
            // Its thread ends with the connection.
            drop(checkpoints);
        })?;
        let queue = Mutex::new(Queue { changes: Some(sender), submitted: 0 });
        Ok(Self { queue, progress: watched, thread: Some(thread) })
    }

    /// Queues a change behind all others.
    pub fn submit(&self, change: C) -> Receipt {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.submitted += 1;
        if let Some(changes) = &queue.changes {
            // Without a thread the receipt is never confirmed, and whoever waits is told.
            let _ = changes.send(change);
        }
        Receipt(queue.submitted)
    }

    /// Whether the change is committed now.
    #[must_use]
    pub fn is_committed(&self, receipt: Receipt) -> bool {
        receipt.0 <= self.progress.borrow().committed
    }

    /// Waits until the change is committed. Safe to cancel.
    pub async fn committed(&self, receipt: Receipt) -> Result<(), DatabaseError> {
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| receipt.0 <= progress.committed).await;
        reached.map(drop).map_err(|_| DatabaseError::Closed)
    }

    /// Waits until changes can be written. Safe to cancel.
    pub async fn writable(&self) -> Result<(), DatabaseError> {
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| progress.trouble.is_none()).await;
        reached.map(drop).map_err(|_| DatabaseError::Closed)
    }

    /// Why changes cannot be written at the moment.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.progress.borrow().trouble.clone()
    }
}

impl<C> Drop for Writer<C> {
    fn drop(&mut self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).changes = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn write_groups<C: Change>(
    mut connection: Connection,
    changes: &Receiver<C>,
    progress: &watch::Sender<Progress>,
) {
    let mut group = Vec::new();
    while let Ok(first) = changes.recv() {
        group.push(first);
        group.extend(changes.try_iter().take(MAX_GROUP - 1));
        while let Err(error) = write_group(&mut connection, &group) {
            let trouble: Arc<str> = error.to_string().into();
            if progress.borrow().trouble.as_ref() != Some(&trouble) {
                tracing::error!("Cannot write to the database, trying again: {trouble}");
            }
            progress.send_modify(|progress| progress.trouble = Some(trouble));
            if !pause(changes, &mut group) {
                return tracing::error!("{} changes were not written", group.len());
            }
        }
        progress.send_modify(|progress| {
            progress.committed += group.len() as u64;
            if progress.trouble.take().is_some() {
                tracing::info!("The database can be written again");
            }
        });
        group.clear();
    }
}

fn write_group<C: Change>(connection: &mut Connection, group: &[C]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    C::write_group(group, &transaction)?;
    transaction.commit()
}

/// Lets some time pass, in which further changes may join the group; false when nobody submits any longer.
fn pause<C>(changes: &Receiver<C>, group: &mut Vec<C>) -> bool {
    let deadline = std::time::Instant::now() + RETRY;
    loop {
        match changes.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
            Ok(change) => group.push(change),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;

    const SCHEMA: &[&str] = &["CREATE TABLE word (text TEXT NOT NULL UNIQUE CHECK (length(text) < 10))"];

    struct Word(&'static str);

    impl Change for Word {
        fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
            transaction.prepare_cached("INSERT INTO word VALUES (?)")?.execute(params![self.0]).map(drop)
        }
    }

    fn words(path: &Path) -> Vec<String> {
        let reader = open_reader(path).unwrap();
        let mut statement = reader.prepare("SELECT text FROM word ORDER BY rowid").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn what_was_confirmed_is_there_for_a_reader_and_after_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.db");
        for (durability, text) in [(Durability::Process, "one"), (Durability::Power, "two")] {
            let writer = Writer::start(open(&path, durability, SCHEMA).unwrap()).unwrap();
            let receipt = writer.submit(Word(text));
            writer.committed(receipt).await.unwrap();
            assert!(writer.is_committed(receipt) && writer.is_committed(Receipt::NONE));
            assert_eq!(words(&path).last().map(String::as_str), Some(text));
            writer.submit(Word(if text == "one" { "1" } else { "2" }));
        }
        assert_eq!(words(&path), ["one", "1", "two", "2"]);
    }

    #[tokio::test]
    async fn a_group_that_cannot_be_written_waits_and_is_not_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.db");
        let writer = Writer::start(open(&path, Durability::Process, SCHEMA).unwrap()).unwrap();
        writer.committed(writer.submit(Word("twice"))).await.unwrap();
        let receipt = writer.submit(Word("twice"));
        let mut progress = writer.progress.clone();
        progress.wait_for(|progress| progress.trouble.is_some()).await.unwrap();
        assert!(!writer.is_committed(receipt) && writer.trouble().unwrap().contains("UNIQUE"));
        let other = open(&path, Durability::Process, SCHEMA).unwrap();
        other.execute("DELETE FROM word", []).unwrap();
        writer.committed(receipt).await.unwrap();
        assert_eq!((words(&path), writer.trouble()), (vec!["twice".to_owned()], None));
    }

    #[test]
    fn a_schema_is_brought_up_to_date_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.db");
        open(&path, Durability::Process, SCHEMA).unwrap();
        let newer: &[&str] = &[SCHEMA[0], "CREATE TABLE more (x)"];
        open(&path, Durability::Process, newer).unwrap().execute("INSERT INTO more VALUES (1)", []).unwrap();
        let refused = open(&path, Durability::Process, SCHEMA).unwrap_err();
        assert!(matches!(refused, DatabaseError::Newer { found: 2, known: 1 }), "{refused}");
        fs_err::write(&path, "no database at all, but long enough to be looked at as if it were one")
            .unwrap();
        assert!(matches!(open(&path, Durability::Process, newer), Err(DatabaseError::Sqlite(_))));
    }
}
