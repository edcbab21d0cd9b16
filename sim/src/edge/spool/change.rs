//! What is written into the database, and what is found there at the start.

use std::collections::HashMap;

use rusqlite::{Connection, Transaction, params};
use tokio::sync::OwnedSemaphorePermit;

use super::queue::QueueState;
use super::{Endpoint, Parcel, Usage};
use crate::database;

/// The index has everything that the start needs, so that it does not read the messages.
pub(super) const SCHEMA: &[&str] = &["
    CREATE TABLE message (
        id INTEGER PRIMARY KEY,
        endpoint TEXT NOT NULL,
        priority INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        size INTEGER NOT NULL,
        path TEXT NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX message_order ON message (endpoint, priority, id, size);
    CREATE INDEX message_expiry ON message (expires, id);
    CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"];

/// A message with its place in the order.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) parcel: Parcel,
}

/// Something to be written.
#[derive(Debug)]
pub(super) enum Change {
    /// New messages. The permit goes back when they are committed.
    Put { rows: Vec<Row>, _permit: Option<OwnedSemaphorePermit> },
    /// Messages that are done with.
    Remove(Vec<u64>),
    /// A text under a name, or that there is none.
    Keep(String, Option<String>),
}

impl database::Change for Change {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        match self {
            Self::Put { rows, .. } => {
                let mut insert =
                    transaction.prepare_cached("INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
                for Row { id, parcel } in rows {
                    let Parcel { endpoint, priority, expires, path, body } = parcel;
                    let (endpoint, size) = (endpoint.to_string(), parcel.size().cast_signed());
                    let id = id.cast_signed();
                    insert.execute(params![id, endpoint, priority, expires, size, path, &body[..]])?;
                }
            }
            Self::Remove(ids) => {
                let mut delete = transaction.prepare_cached("DELETE FROM message WHERE id = ?1")?;
                for id in ids {
                    delete.execute([id.cast_signed()])?;
                }
            }
            Self::Keep(name, Some(value)) => {
                let mut keep = transaction.prepare_cached("INSERT OR REPLACE INTO kept VALUES (?1, ?2)")?;
                keep.execute([name, value])?;
            }
            Self::Keep(name, None) => {
                transaction.prepare_cached("DELETE FROM kept WHERE name = ?1")?.execute([name])?;
            }
        }
        Ok(())
    }
}

/// The queues as they were left, with what they hold, and the last id that was given.
pub(super) fn stored(
    connection: &Connection,
) -> rusqlite::Result<(HashMap<Endpoint, QueueState>, Usage, u64)> {
    let mut queues: HashMap<Endpoint, QueueState> = HashMap::new();
    let (mut usage, mut last_id) = (Usage::default(), 0);
    let mut statement = connection.prepare(
        "SELECT endpoint, priority, max(id), count(*), sum(size) FROM message GROUP BY endpoint, priority",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (endpoint, newest): (String, i64) = (row.get(0)?, row.get(2)?);
        let (messages, bytes): (i64, i64) = (row.get(3)?, row.get(4)?);
        let newest = newest.cast_unsigned();
        usage.messages += messages.cast_unsigned();
        usage.bytes += bytes.cast_unsigned();
        last_id = last_id.max(newest);
        queues.entry(endpoint_of(&endpoint)).or_default().found(row.get(1)?, newest);
    }
    Ok((queues, usage, last_id))
}

/// Reads what [`Endpoint`] writes.
pub(super) fn endpoint_of(text: &str) -> Endpoint {
    text.strip_prefix("modules/").map_or(Endpoint::Upstream, |module| Endpoint::Module(module.to_owned()))
}
