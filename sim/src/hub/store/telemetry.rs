//! Messages from devices, in the order of their arrival, for whoever reads them.
//!
//! The state gives a message its place and hands it to the database; there is no copy in memory. Readers have a
//! connection of their own and see what is committed.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::journal::{Change, Telemetry};
use super::{Journal, unreadable};
use crate::database::{self, DatabaseError};
use crate::identity::Identity;
use crate::topics::PropertyBag;

/// Room is made after so many messages …
const FLOOR_MESSAGES: u64 = 500;
/// … or so many bytes.
const FLOOR_BYTES: u64 = 1024 * 1024;
/// A page has at most this many messages …
const MAX_PAGE_MESSAGES: usize = 500;
/// … ends after the message that brings it to this size …
const MAX_PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// … and after looking at so many.
const MAX_PAGE_SEARCH: usize = 20_000;
/// What a message is counted with beside its text.
const OVERHEAD: u64 = 128;

/// How much of the telemetry is kept, about; the oldest messages go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Messages.
    pub messages: u64,
    /// Bytes of bodies and properties.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { messages: 1_000_000, bytes: 512 * 1024 * 1024 }
    }
}

/// Which messages a reader wants.
#[derive(Debug, Clone, Default)]
pub(in crate::hub) struct TelemetryQuery {
    pub(in crate::hub) after: u64,
    pub(in crate::hub) device_id: Option<String>,
    pub(in crate::hub) module_id: Option<String>,
}

impl TelemetryQuery {
    fn matches(&self, device: &str, module: &str) -> bool {
        self.device_id.as_deref().is_none_or(|id| id == device)
            && self.module_id.as_deref().is_none_or(|id| id == module)
    }
}

/// Some messages, and where to go on.
#[derive(Debug)]
pub(in crate::hub) struct Page {
    pub(in crate::hub) messages: Vec<Telemetry>,
    /// The offset of the last message that was looked at, whether it matched or not.
    pub(in crate::hub) next: u64,
    /// Nothing later was there.
    pub(in crate::hub) is_last: bool,
}

/// The end of the log, where messages are appended.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct TelemetryLog {
    last_offset: u64,
    total: u64,
    /// The offset and the total when room was last made; at the start it never was, since more may have been kept.
    cleared: (u64, u64),
    retention: Retention,
}

impl TelemetryLog {
    pub(super) fn load(connection: &Connection, retention: Retention) -> rusqlite::Result<Self> {
        // The last row alone: to read a column of each would be to read all bodies.
        let sql = "SELECT offset, total FROM telemetry ORDER BY offset DESC LIMIT 1";
        let last = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (last_offset, total) = last.unwrap_or_default();
        Ok(Self { last_offset, total, cleared: (0, 0), retention })
    }

    pub(super) fn append(
        &mut self,
        origin: Identity,
        generation_id: String,
        properties: PropertyBag,
        body: Bytes,
        enqueued: Timestamp,
        journal: &mut Journal,
    ) -> u64 {
        let text: usize = properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.last_offset += 1;
        self.total += OVERHEAD + (text + body.len()) as u64;
        let (offset, total) = (self.last_offset, self.total);
        let message = Telemetry { offset, enqueued, origin, generation_id, properties, body, total };
        journal.put(Change::Telemetry(Box::new(message)));
        if offset >= self.cleared.0 + FLOOR_MESSAGES || total >= self.cleared.1 + FLOOR_BYTES {
            self.cleared = (offset, total);
            journal.put(self.retention.floor(offset, total));
        }
        offset
    }
}

impl Retention {
    /// What makes room when the log ends at this offset and total. The last message always stays, and with it the
    /// offset to go on from.
    fn floor(self, offset: u64, total: u64) -> Change {
        Change::TelemetryFloor {
            offset: offset.saturating_sub(self.messages),
            total: total.saturating_sub(self.bytes),
        }
    }
}

/// Reads what is committed.
#[derive(Debug)]
pub(in crate::hub) struct TelemetryReader(Mutex<Connection>);

impl TelemetryReader {
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        Ok(Self(Mutex::new(database::open_reader(path)?)))
    }

    /// The messages after an offset, as many as a page takes. It waits for the disk.
    pub(in crate::hub) fn page(&self, query: &TelemetryQuery) -> rusqlite::Result<Page> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare_cached(
            "SELECT offset, device, module, enqueued, generation, properties, body FROM telemetry
             WHERE offset > ? ORDER BY offset LIMIT ?",
        )?;
        // Beyond the largest number of the database there is nothing.
        let after = i64::try_from(query.after).unwrap_or(i64::MAX);
        let mut rows = statement.query((after, MAX_PAGE_SEARCH))?;
        let mut page = Page { messages: Vec::new(), next: query.after, is_last: false };
        let (mut seen, mut bytes) = (0, 0);
        while let Some(row) = rows.next()? {
            (page.next, seen) = (row.get(0)?, seen + 1);
            if query.matches(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?) {
                let message = read(row)?;
                let properties = row.get_ref(5)?.as_bytes()?.len();
                bytes += OVERHEAD + (properties + message.body.len()) as u64;
                page.messages.push(message);
            }
            if page.messages.len() == MAX_PAGE_MESSAGES || bytes >= MAX_PAGE_BYTES {
                return Ok(page);
            }
        }
        page.is_last = seen < MAX_PAGE_SEARCH;
        Ok(page)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Telemetry> {
    let (device, module) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
    let origin = if module.is_empty() { Identity::device(device) } else { Identity::module(device, module) };
    Ok(Telemetry {
        offset: row.get(0)?,
        enqueued: Timestamp::from_microsecond(row.get(3)?).map_err(unreadable(3))?,
        origin: origin.map_err(unreadable(1))?,
        generation_id: row.get(4)?,
        properties: PropertyBag::parse(row.get_ref(5)?.as_str()?).map_err(unreadable(5))?,
        body: row.get::<_, Vec<u8>>(6)?.into(),
        total: 0,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::database::{Change as _, Durability};
    use crate::hub::store::journal::SCHEMA;

    /// A log in a database that is written at once.
    struct Log {
        _folder: tempfile::TempDir,
        path: PathBuf,
        connection: Connection,
        log: TelemetryLog,
    }

    impl Log {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("hub.db");
            let connection = database::open(&path, Durability::Process, SCHEMA).unwrap();
            let log = TelemetryLog::load(&connection, Retention::default()).unwrap();
            Self { _folder: folder, path, connection, log }
        }

        fn append(&mut self, origin: &str, body: &'static [u8]) {
            let (origin, body) = (Identity::from_client_id(origin).unwrap(), Bytes::from_static(body));
            let mut journal = Journal::default();
            let properties = [("a/b", "1&2")].into_iter().collect();
            self.log.append(origin, "1".into(), properties, body, Timestamp::UNIX_EPOCH, &mut journal);
            self.write(journal.changes());
        }

        fn write(&mut self, changes: &[Change]) {
            let transaction = self.connection.transaction().unwrap();
            changes.iter().for_each(|change| change.write(&transaction).unwrap());
            transaction.commit().unwrap();
        }

        fn offsets(&self, query: &TelemetryQuery) -> (Vec<u64>, u64, bool) {
            let page = TelemetryReader::open(&self.path).unwrap().page(query).unwrap();
            (page.messages.iter().map(|message| message.offset).collect(), page.next, page.is_last)
        }
    }

    #[test]
    fn pages_follow_an_offset_and_skip_what_is_not_asked_for() {
        let mut log = Log::new();
        let all = TelemetryQuery::default();
        assert_eq!(log.offsets(&all), (vec![], 0, true));
        for origin in ["d/m", "d/n", "e", "d/m", "e/m"] {
            log.append(origin, b"x");
        }
        assert_eq!(log.offsets(&all), (vec![1, 2, 3, 4, 5], 5, true));
        assert_eq!(log.offsets(&TelemetryQuery { after: 3, ..all.clone() }), (vec![4, 5], 5, true));
        assert_eq!(log.offsets(&TelemetryQuery { after: 99, ..all.clone() }), (vec![], 99, true));
        let device = TelemetryQuery { device_id: Some("d".into()), ..all.clone() };
        assert_eq!(log.offsets(&device), (vec![1, 2, 4], 5, true));
        let module = TelemetryQuery { module_id: Some("m".into()), ..device };
        assert_eq!(log.offsets(&module), (vec![1, 4], 5, true));
    }

    #[test]
    fn a_message_is_read_as_it_was_appended_and_the_log_goes_on_after_it() {
        let mut log = Log::new();
        log.append("d/m", b"\xff\0");
        let page = TelemetryReader::open(&log.path).unwrap().page(&TelemetryQuery::default()).unwrap();
        let message = &page.messages[0];
        assert_eq!((message.origin.to_string().as_str(), &message.body[..]), ("d/m", &b"\xff\0"[..]));
        assert_eq!(message.properties.get("a/b"), Some("1&2"));
        assert_eq!(message.enqueued, Timestamp::UNIX_EPOCH);
        log.log = TelemetryLog::load(&log.connection, Retention::default()).unwrap();
        log.append("e", b"x");
        assert_eq!(log.offsets(&TelemetryQuery { after: 1, ..TelemetryQuery::default() }).0, [2]);
    }

    #[test]
    fn pages_are_bounded() {
        let mut log = Log::new();
        for _ in 0..MAX_PAGE_MESSAGES + 1 {
            log.append("d", b"x");
        }
        let (offsets, next, is_last) = log.offsets(&TelemetryQuery::default());
        assert_eq!((offsets.len(), next, is_last), (MAX_PAGE_MESSAGES, MAX_PAGE_MESSAGES as u64, false));
        let mut log = Log::new();
        for _ in 0..30 {
            log.append("d", &[0; 256 * 1024]);
        }
        assert_eq!(log.offsets(&TelemetryQuery::default()).0.len(), 16);
    }

    #[test]
    fn the_oldest_messages_make_room_and_the_last_one_stays() {
        let mut log = Log::new();
        for _ in 0..6 {
            log.append("d", b"x");
        }
        let remaining = |log: &Log| log.offsets(&TelemetryQuery::default()).0;
        log.write(&[Change::TelemetryFloor { offset: 2, total: 0 }]);
        assert_eq!(remaining(&log), [3, 4, 5, 6]);
        let each = log.log.total / 6;
        log.write(&[Change::TelemetryFloor { offset: 0, total: 4 * each }]);
        assert_eq!(remaining(&log), [5, 6]);
        let retention = Retention { messages: 100, bytes: 1000 };
        assert_eq!(retention.floor(110, 1007), Change::TelemetryFloor { offset: 10, total: 7 });
        assert_eq!(retention.floor(10, 7), Change::TelemetryFloor { offset: 0, total: 0 });
    }

    #[test]
    fn a_log_that_was_kept_with_larger_limits_is_cut_by_its_next_message() {
        let mut log = Log::new();
        for _ in 0..FLOOR_MESSAGES {
            log.append("d", b"x");
        }
        log.log = TelemetryLog::load(&log.connection, Retention { messages: 2, bytes: u64::MAX }).unwrap();
        log.append("d", b"y");
        assert_eq!(log.offsets(&TelemetryQuery::default()).0, [FLOOR_MESSAGES, FLOOR_MESSAGES + 1]);
    }

    #[test]
    fn room_is_made_now_and_then() {
        let (mut log, mut journal) = (TelemetryLog::default(), Journal::default());
        let origin = Identity::device("d").unwrap();
        for _ in 0..2 * FLOOR_MESSAGES {
            let (bag, body) = (PropertyBag::new(), Bytes::new());
            log.append(origin.clone(), "1".into(), bag, body, Timestamp::UNIX_EPOCH, &mut journal);
        }
        let floors = journal.changes().iter().filter(|c| matches!(c, Change::TelemetryFloor { .. }));
        assert_eq!(floors.count(), 2);
    }
}
