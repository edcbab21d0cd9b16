//! Carries what is committed from SQLite's log into the database file, in a thread of its own: the writing thread does
//! not wait for the disk meanwhile.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{BUSY_TIMEOUT, DatabaseError};

/// Pages that the log grows by until the thread carries them over, as many as SQLite itself waits for.
const PAGES: i32 = 1_000;
/// Only a writer can begin the log anew, and only when nothing is left in it: at this many pages it carries over the rest
/// itself.
const MAX_PAGES: i32 = 4_000;

/// The thread. It ends with the connection that [`attach`](Checkpoints::attach) was called for, and is waited for when
/// this is dropped, which must be after that.
#[derive(Debug)]
pub(super) struct Checkpoints(Option<JoinHandle<()>>);

impl Checkpoints {
    /// Takes the place of SQLite's own checkpoints for the connection that writes.
    pub(super) fn attach(writer: &mut Connection, path: &Path) -> Result<Self, DatabaseError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let (wake, woken) = sync_channel(1);
        writer.wal_hook(Some(on_commit(wake)))?;
        let run = move || carry_over(&connection, &woken);
        Ok(Self(Some(std::thread::Builder::new().name("checkpoints".to_owned()).spawn(run)?)))
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// What is done after each commit, with the number of pages in the log.
fn on_commit(wake: SyncSender<()>) -> impl FnMut(&mut Wal, i32) -> rusqlite::Result<()> {
    let (mut woken_at, mut trouble) = (0, Trouble::default());
    move |log, pages| {
        if pages < woken_at {
            woken_at = 0;
        }
        if pages >= MAX_PAGES {
            // The commit stands whether this succeeds or not, and the next one tries again.
            trouble.note(log.checkpoint());
        } else if pages >= woken_at + PAGES {
            woken_at = pages;
            // When it is full, the thread is at work and will look again.
            let _ = wake.try_send(());
        }
        Ok(())
    }
}

fn carry_over(connection: &Connection, woken: &Receiver<()>) {
    let mut trouble = Trouble::default();
    while woken.recv().is_ok() {
        trouble.note(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
    }
}

/// Whether the last attempt has failed: the log is told of the first one.
#[derive(Default)]
struct Trouble(bool);

impl Trouble {
    fn note(&mut self, done: rusqlite::Result<()>) {
        match done {
            Ok(()) => self.0 = false,
            // The other thread is at it.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.0, true) {
                    tracing::warn!("Cannot empty the database's log, which grows meanwhile: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{Durability, open};

    const SCHEMA: &[&str] = &["CREATE TABLE page (body BLOB NOT NULL)"];
    const PAGE: u64 = 4096;

    /// Writes so many pages, each in a commit of its own; the sizes of the database file and of the log afterwards.
    fn sizes_after(pages: i32) -> (u64, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages.db");
        let mut writer = open(&path, Durability::Process, SCHEMA).unwrap();
        let checkpoints = Checkpoints::attach(&mut writer, &path).unwrap();
        // The last connection to be closed would carry over everything.
        let _other = open(&path, Durability::Process, SCHEMA).unwrap();
        for _ in 0..pages {
            writer.execute("INSERT INTO page VALUES (zeroblob(4000))", []).unwrap();
        }
        drop(writer);
        drop(checkpoints);
        let size = |name: &str| fs_err::metadata(folder.path().join(name)).unwrap().len();
        (size("pages.db"), size("pages.db-wal"))
    }

    #[test]
    fn the_thread_carries_over_what_was_committed() {
        let (few, _) = sizes_after(10);
        assert!(few < 10 * PAGE, "not worth the effort yet: {few}");
        let (many, _) = sizes_after(PAGES);
        assert!(many > PAGE * PAGES as u64 / 4, "{many}");
    }

    #[test]
    fn the_log_has_an_end() {
        let (_, log) = sizes_after(3 * MAX_PAGES);
        assert!(log < PAGE * MAX_PAGES as u64 * 3 / 2, "{log}");
    }
}
