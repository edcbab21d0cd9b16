//! The clients that are connected now. IoT Hub allows one connection for each identity.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::store::DesiredChange;
use crate::identity::Identity;

/// Changes that wait for a client. One that does not keep up is disconnected and reads its twin anew later.
const QUEUE: usize = 64;

/// What a connection holds. It is over when `changes` ends.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) connection_id: u64,
    pub(super) changes: mpsc::Receiver<DesiredChange>,
}

/// The client's queue is full, or its connection has just ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotTaken;

/// The connections by identity.
#[derive(Debug, Default)]
pub(super) struct Connections {
    live: HashMap<Identity, Live>,
    last_id: u64,
}

#[derive(Debug)]
struct Live {
    connection_id: u64,
    changes: mpsc::Sender<DesiredChange>,
}

impl Connections {
    /// Enters a connection; dropping the sender of an older one ends that.
    pub(super) fn open(&mut self, identity: &Identity) -> Ticket {
        self.last_id += 1;
        let connection_id = self.last_id;
        let (sender, changes) = mpsc::channel(QUEUE);
        self.live.insert(identity.clone(), Live { connection_id, changes: sender });
        Ticket { connection_id, changes }
    }

    /// Removes a connection that ended by itself; false when a newer one has its place.
    pub(super) fn close(&mut self, identity: &Identity, connection_id: u64) -> bool {
        let current = self.live.get(identity).is_some_and(|live| live.connection_id == connection_id);
        current && self.evict(identity)
    }

    /// Ends the connection of an identity; false when there was none.
    pub(super) fn evict(&mut self, identity: &Identity) -> bool {
        self.live.remove(identity).is_some()
    }

    /// Queues a change for a client. Without a connection there is nobody to tell.
    pub(super) fn notify(&self, identity: &Identity, change: DesiredChange) -> Result<(), NotTaken> {
        match self.live.get(identity) {
            Some(live) => live.changes.try_send(change).map_err(|_| NotTaken),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::module("d", "m").unwrap()
    }

    fn change(version: u64) -> DesiredChange {
        DesiredChange { identity: identity(), version, patch: Default::default() }
    }

    #[test]
    fn a_newer_connection_ends_the_older_one_and_survives_its_end() {
        let mut connections = Connections::default();
        let mut older = connections.open(&identity());
        let newer = connections.open(&identity());
        assert!(older.changes.blocking_recv().is_none());
        assert!(!connections.close(&identity(), older.connection_id));
        assert!(connections.close(&identity(), newer.connection_id));
        assert!(!connections.close(&identity(), newer.connection_id));
    }

    #[test]
    fn changes_reach_the_connected_client_alone_and_in_order() {
        let mut connections = Connections::default();
        assert_eq!(connections.notify(&identity(), change(1)), Ok(()));
        let mut ticket = connections.open(&identity());
        for version in 2..4 {
            connections.notify(&identity(), change(version)).unwrap();
        }
        assert!(connections.evict(&identity()));
        let mut versions = Vec::new();
        while let Some(change) = ticket.changes.blocking_recv() {
            versions.push(change.version);
        }
        assert_eq!(versions, [2, 3]);
    }

    #[test]
    fn a_client_that_does_not_keep_up_is_told_apart() {
        let mut connections = Connections::default();
        let _ticket = connections.open(&identity());
        for version in 0..QUEUE as u64 {
            connections.notify(&identity(), change(version)).unwrap();
        }
        assert_eq!(connections.notify(&identity(), change(99)), Err(NotTaken));
    }
}
