//! The one who empties a queue.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::OwnedMutexGuard;

use super::queue::{Load, Next, PAGE_BYTES, PAGE_ROWS, Ready};
use super::{Endpoint, ROW_BYTES, Shared, now};
use crate::database::DatabaseError;

/// A message that a consumer holds until it is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Later messages have greater ids.
    pub id: u64,
    /// The topic behind the endpoint's own prefix.
    pub path: String,
    /// The body.
    pub body: Bytes,
}

/// Empties a queue. What it holds when it is dropped goes to the next one.
#[derive(Debug)]
pub struct Consumer {
    spool: Arc<Shared>,
    endpoint: Endpoint,
    _lease: OwnedMutexGuard<()>,
}

impl Consumer {
    pub(super) fn new(spool: Arc<Shared>, endpoint: Endpoint, lease: OwnedMutexGuard<()>) -> Self {
        Self { spool, endpoint, _lease: lease }
    }

    /// The next message. Safe to cancel.
    pub async fn next(&mut self) -> Result<Delivered, DatabaseError> {
        loop {
            let (next, arrived) = self.look();
            match next {
                Next::Message(Ready { id, path, body, .. }) => return Ok(Delivered { id, path, body }),
                Next::Load(load) => self.load(load).await?,
                Next::Nothing => arrived.notified().await,
            }
        }
    }

    /// The messages have reached the endpoint.
    pub fn done(&self, ids: impl IntoIterator<Item = u64>) {
        self.finish(ids, false);
    }

    /// The endpoint will never take the messages.
    pub fn reject(&self, ids: impl IntoIterator<Item = u64>) {
        self.finish(ids, true);
    }

    fn finish(&self, ids: impl IntoIterator<Item = u64>, rejected: bool) {
        let mut state = self.spool.state();
        let Some(queue) = state.queues.get_mut(&self.endpoint) else { return };
        let mut bytes = 0;
        let held = ids.into_iter().filter(|&id| queue.done(id).map(|size| bytes += size).is_some());
        let held: Vec<u64> = held.collect();
        if rejected {
            state.usage.rejected += held.len() as u64;
        }
        self.spool.remove(&mut state, held, bytes);
    }

    fn look(&self) -> (Next, Arc<tokio::sync::Notify>) {
        let mut state = self.spool.state();
        let mut expired = Vec::new();
        let queue = state.queues.entry(self.endpoint.clone()).or_default();
        let (next, arrived) = (queue.next(now(), &mut expired), queue.arrived.clone());
        self.spool.expire(&mut state, &self.endpoint, &expired);
        (next, arrived)
    }

    async fn load(&self, load: Load) -> Result<(), DatabaseError> {
        self.spool.writer.committed(load.barrier).await?;
        let mut complete = self.spool.writer.is_committed(load.receipt);
        loop {
            let connection = self.spool.reader.clone().lock_owned().await;
            let endpoint = self.endpoint.to_string();
            let read = tokio::task::spawn_blocking(move || {
                let page = read_page(&connection, &endpoint, load);
                (page, connection)
            });
            // The connection is held until the page is entered; see the sweep.
            let (page, _connection) = read.await.map_err(|_| DatabaseError::Closed)?;
            let page = page?;
            if !page.is_empty() || complete {
                if let Some(queue) = self.spool.state().queues.get_mut(&self.endpoint) {
                    queue.loaded(load, page);
                }
                return Ok(());
            }
            drop(_connection);
            self.spool.writer.committed(load.receipt).await?;
            complete = true;
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let mut state = self.spool.state();
        let last_receipt = state.last_receipt;
        if let Some(queue) = state.queues.get_mut(&self.endpoint) {
            queue.rewind(last_receipt);
        }
    }
}

fn read_page(connection: &Connection, endpoint: &str, load: Load) -> rusqlite::Result<Vec<Ready>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, expires, path, body FROM message \
         WHERE endpoint = ?1 AND priority = ?2 AND id > ?3 ORDER BY id LIMIT ?4",
    )?;
    let mut rows =
        statement.query(params![endpoint, load.priority, load.after.cast_signed(), PAGE_ROWS as i64])?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let (id, path): (i64, String) = (row.get(0)?, row.get(2)?);
        let body = Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?);
        let length = path.len() + body.len();
        bytes += length;
        let size = length as u64 + ROW_BYTES;
        page.push(Ready { id: id.cast_unsigned(), expires: row.get(1)?, path, body, size });
    }
    Ok(page)
}
