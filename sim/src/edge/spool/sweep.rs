//! Dropping what is too old, also where nobody empties the queue, and telling what there is.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::change::endpoint_of;
use super::{Endpoint, Shared, Spool, State, now};
use crate::database::{DatabaseError, Receipt};
use crate::edge::board::{Board, StoreState};
use crate::retry::pause;

/// How often the board is told.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Expired messages that are looked at in one go.
const BATCH: usize = 1000;

/// A message that is too old.
struct Old {
    expires: i64,
    id: u64,
    endpoint: Endpoint,
    priority: u32,
    size: u64,
}

/// Looks after the store until the shutdown.
pub async fn look_after(spool: &Spool, board: &Board, shutdown: &CancellationToken) {
    let mut watch = Instant::now();
    while pause(TELL_INTERVAL, shutdown).await {
        let store =
            StoreState { usage: spool.usage(), trouble: spool.trouble().map(|trouble| trouble.to_string()) };
        // A change of the board is costlier than a look at it.
        if board.watch().borrow().store != store {
            board.update(|state| state.store = store);
        }
        if watch.elapsed() >= SWEEP_INTERVAL {
            watch = Instant::now();
            spool.refresh_limit();
            if let Some(Err(error)) = shutdown.run_until_cancelled(spool.sweep(now())).await {
                tracing::error!("The gateway's store cannot be searched: {error}");
            }
        }
    }
}

impl Spool {
    /// Drops the messages whose time to live is over at `now`, but for those that a consumer holds.
    pub async fn sweep(&self, now: i64) -> Result<(), DatabaseError> {
        let settled = {
            let mut state = self.0.state();
            let endpoints: Vec<Endpoint> = state.queues.keys().cloned().collect();
            for endpoint in endpoints {
                let mut expired = Vec::new();
                if let Some(queue) = state.queues.get_mut(&endpoint) {
                    queue.expire_ready(now, &mut expired);
                }
                self.0.expire(&mut state, &endpoint, &expired);
            }
            state.last_receipt
        };
        self.0.writer.committed(settled).await?;
        let mut after = (i64::MIN, 0);
        loop {
            let connection = self.0.reader.clone().lock_owned().await;
            let read = tokio::task::spawn_blocking(move || {
                let old = read_old(&connection, after, now);
                (old, connection)
            });
            let (old, _connection) = read.await.map_err(|_| DatabaseError::Closed)?;
            let old = old?;
            let Some(last) = old.last() else { return Ok(()) };
            after = (last.expires, last.id);
            let dropped = self.0.expire_stored(old);
            // Nobody may read before they are gone, or they would be taken for messages that are still there.
            self.0.writer.committed(dropped).await?;
        }
    }
}

impl Shared {
    /// Removes messages of a queue that are too old; the state does not know them any longer.
    pub(super) fn expire(&self, state: &mut State, endpoint: &Endpoint, expired: &[(u64, u64)]) {
        if expired.is_empty() {
            return;
        }
        tracing::warn!("{} messages for {endpoint} were dropped: their time to live is over", expired.len());
        state.usage.expired += expired.len() as u64;
        let bytes = expired.iter().map(|(_, size)| size).sum();
        self.remove(state, expired.iter().map(|(id, _)| *id).collect(), bytes);
    }

    /// Removes those that are only in the database.
    fn expire_stored(&self, old: Vec<Old>) -> Receipt {
        let mut state = self.state();
        let mut by_endpoint = BTreeMap::<Endpoint, Vec<(u64, u64)>>::new();
        for Old { id, endpoint, priority, size, .. } in old {
            let is_stored = state.queues.get(&endpoint).is_some_and(|queue| {
                queue.is_behind_cursor(priority, id) && self.writer.is_committed(queue.barrier)
            });
            if is_stored {
                by_endpoint.entry(endpoint).or_default().push((id, size));
            }
        }
        for (endpoint, expired) in &by_endpoint {
            self.expire(&mut state, endpoint, expired);
        }
        state.last_receipt
    }
}

fn read_old(connection: &Connection, after: (i64, u64), now: i64) -> rusqlite::Result<Vec<Old>> {
    let mut statement = connection.prepare_cached(
        "SELECT expires, id, endpoint, priority, size FROM message \
         WHERE expires <= ?1 AND (expires, id) > (?2, ?3) ORDER BY expires, id LIMIT ?4",
    )?;
    let rows = statement.query_map(params![now, after.0, after.1.cast_signed(), BATCH as i64], |row| {
        let (id, endpoint, size): (i64, String, i64) = (row.get(1)?, row.get(2)?, row.get(4)?);
        Ok(Old {
            expires: row.get(0)?,
            id: id.cast_unsigned(),
            endpoint: endpoint_of(&endpoint),
            priority: row.get(3)?,
            size: size.cast_unsigned(),
        })
    })?;
    rows.collect()
}
