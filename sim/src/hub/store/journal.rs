//! What the state writes down: every change becomes a [`Change`], which the database commits in order.
//!
//! All of it is submitted under the lock of the state, so that the order in the database is that in memory. Records
//! are JSON text; what is looked for is a column.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Statement, Transaction, params};
use serde::Serialize;

use super::{Device, Module, Twin};
use crate::database::{self, Receipt, Writer};
use crate::identity::Identity;
use crate::topics::PropertyBag;

/// One script for each version of the schema.
pub(super) const SCHEMA: &[&str] = &[
    "
    CREATE TABLE device (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE module (
        device TEXT NOT NULL, id TEXT NOT NULL, record TEXT NOT NULL,
        PRIMARY KEY (device, id)
    ) WITHOUT ROWID;
    CREATE TABLE twin (
        device TEXT NOT NULL, module TEXT NOT NULL, twin TEXT NOT NULL,
        PRIMARY KEY (device, module)
    );
    CREATE TABLE telemetry (
        offset INTEGER PRIMARY KEY, enqueued INTEGER NOT NULL, device TEXT NOT NULL, module TEXT NOT NULL,
        generation TEXT NOT NULL, properties TEXT NOT NULL, body BLOB NOT NULL, total INTEGER NOT NULL
    );
",
    "
    CREATE TABLE document (
        kind TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL,
        PRIMARY KEY (kind, name)
    ) WITHOUT ROWID;
",
    "
    CREATE TABLE session (
        device TEXT NOT NULL, module TEXT NOT NULL, session TEXT NOT NULL,
        PRIMARY KEY (device, module)
    ) WITHOUT ROWID;
    CREATE TABLE cloud_message (
        sequence INTEGER PRIMARY KEY, device TEXT NOT NULL, message TEXT NOT NULL, body BLOB NOT NULL
    );
    CREATE TABLE feedback (sequence INTEGER PRIMARY KEY, record TEXT NOT NULL);
",
];

/// A change of the state.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::hub) enum Change {
    Device {
        id: String,
        record: String,
    },
    /// The device is gone, with its modules and all that is theirs.
    DeviceGone {
        id: String,
    },
    Module {
        device: String,
        id: String,
        record: String,
    },
    ModuleGone {
        device: String,
        id: String,
    },
    Twin {
        device: String,
        module: String,
        twin: String,
    },
    Session {
        device: String,
        module: String,
        session: String,
    },
    SessionGone {
        device: String,
        module: String,
    },
    CloudMessage {
        sequence: u64,
        device: String,
        message: String,
        body: Bytes,
    },
    CloudMessageState {
        sequence: u64,
        message: String,
    },
    CloudMessageGone {
        sequence: u64,
    },
    Feedback {
        sequence: u64,
        record: String,
    },
    FeedbackGone {
        sequence: u64,
    },
    Telemetry(Box<Telemetry>),
    /// Messages up to this offset, and those by which the log is larger than this total, make room for later ones.
    TelemetryFloor {
        offset: u64,
        total: u64,
    },
    Document {
        kind: &'static str,
        name: String,
        record: String,
    },
    DocumentGone {
        kind: &'static str,
        name: String,
    },
}

/// A message with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::hub) struct Telemetry {
    pub(in crate::hub) offset: u64,
    pub(in crate::hub) enqueued: Timestamp,
    pub(in crate::hub) origin: Identity,
    pub(in crate::hub) generation_id: String,
    pub(in crate::hub) properties: PropertyBag,
    pub(in crate::hub) body: Bytes,
    /// The size of all messages since the log began, this one included.
    pub(in crate::hub) total: u64,
}

impl Change {
    /// The device itself, without its modules.
    pub(super) fn device(device: &Device) -> Self {
        Self::Device { id: device.id.clone(), record: json(device) }
    }

    pub(super) fn module(module: &Module) -> Self {
        let (device, id) = (module.device_id.clone(), module.id.clone());
        Self::Module { device, id, record: json(module) }
    }

    pub(super) fn twin(identity: &Identity, twin: &Twin) -> Self {
        let module = identity.module_id().unwrap_or_default().to_owned();
        Self::Twin { device: identity.device_id().to_owned(), module, twin: json(twin) }
    }
}

impl database::Change for Change {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            transaction.prepare_cached(sql)?.execute(values).map(drop)
        };
        match self {
            Self::Telemetry(message) => write_telemetry(message, &mut *transaction.prepare_cached(APPEND)?),
            Self::Document { kind, name, record } => {
                run("REPLACE INTO document VALUES (?, ?, ?)", params![kind, name, record])
            }
            Self::DocumentGone { kind, name } => {
                run("DELETE FROM document WHERE kind = ? AND name = ?", params![kind, name])
            }
            // Totals rise with the offsets, so the search ends at the first message that stays.
            Self::TelemetryFloor { offset, total } => run(
                "DELETE FROM telemetry WHERE offset < (SELECT offset FROM telemetry
                 WHERE offset > ? AND total > ? ORDER BY offset LIMIT 1)",
                params![offset, total],
            ),
            Self::Device { id, record } => run("REPLACE INTO device VALUES (?, ?)", params![id, record]),
            Self::DeviceGone { id } => {
                run("DELETE FROM device WHERE id = ?", params![id])?;
                for table in ["module", "twin", "session", "cloud_message"] {
                    run(&format!("DELETE FROM {table} WHERE device = ?"), params![id])?;
                }
                Ok(())
            }
            Self::Module { device, id, record } => {
                run("REPLACE INTO module VALUES (?, ?, ?)", params![device, id, record])
            }
            Self::ModuleGone { device, id } => {
                run("DELETE FROM module WHERE device = ? AND id = ?", params![device, id])?;
                run("DELETE FROM twin WHERE device = ? AND module = ?", params![device, id])?;
                run("DELETE FROM session WHERE device = ? AND module = ?", params![device, id])
            }
            Self::Twin { device, module, twin } => {
                run("REPLACE INTO twin VALUES (?, ?, ?)", params![device, module, twin])
            }
            Self::Session { device, module, session } => {
                run("REPLACE INTO session VALUES (?, ?, ?)", params![device, module, session])
            }
            Self::SessionGone { device, module } => {
                run("DELETE FROM session WHERE device = ? AND module = ?", params![device, module])
            }
            Self::CloudMessage { sequence, device, message, body } => run(
                "INSERT INTO cloud_message VALUES (?, ?, ?, ?)",
                params![sequence, device, message, body.as_ref()],
            ),
            Self::CloudMessageState { sequence, message } => {
                run("UPDATE cloud_message SET message = ? WHERE sequence = ?", params![message, sequence])
            }
            Self::CloudMessageGone { sequence } => {
                run("DELETE FROM cloud_message WHERE sequence = ?", params![sequence])
            }
            Self::Feedback { sequence, record } => {
                run("INSERT INTO feedback VALUES (?, ?)", params![sequence, record])
            }
            Self::FeedbackGone { sequence } => {
                run("DELETE FROM feedback WHERE sequence = ?", params![sequence])
            }
        }
    }

    /// Most changes are telemetry: to find the statement for each would take a tenth of the time.
    fn write_group(group: &[Self], transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut append = transaction.prepare_cached(APPEND)?;
        group.iter().try_for_each(|change| match change {
            Self::Telemetry(message) => write_telemetry(message, &mut append),
            other => other.write(transaction),
        })
    }
}

const APPEND: &str = "INSERT INTO telemetry VALUES (?, ?, ?, ?, ?, ?, ?, ?)";

fn write_telemetry(message: &Telemetry, append: &mut Statement<'_>) -> rusqlite::Result<()> {
    let values = params![
        message.offset,
        message.enqueued.as_microsecond(),
        message.origin.device_id(),
        message.origin.module_id().unwrap_or_default(),
        message.generation_id,
        message.properties.to_string(),
        message.body.as_ref(),
        message.total,
    ];
    append.execute(values).map(drop)
}

/// Where changes go.
#[derive(Debug, Default)]
pub(in crate::hub) struct Journal {
    sink: Sink,
    last: Receipt,
}

#[derive(Debug)]
enum Sink {
    Database(Arc<Writer<Change>>),
    /// Changes that may yet be taken back; also for tests of the state alone.
    Memory(Vec<Change>),
}

impl Default for Sink {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

impl Journal {
    pub(super) fn new(writer: Arc<Writer<Change>>) -> Self {
        Self { sink: Sink::Database(writer), last: Receipt::NONE }
    }

    /// The receipt of the latest change: when it is committed, all that can be seen now is.
    pub(super) fn last(&self) -> Receipt {
        self.last
    }

    pub(super) fn put(&mut self, change: Change) {
        match &mut self.sink {
            Sink::Database(writer) => self.last = writer.submit(change),
            Sink::Memory(changes) => changes.push(change),
        }
    }

    /// Takes over what another has kept in memory.
    pub(super) fn append(&mut self, other: Self) {
        if let Sink::Memory(changes) = other.sink {
            changes.into_iter().for_each(|change| self.put(change));
        }
    }
}

/// Nothing here has a key or a value that JSON cannot have, so this does not fail.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
impl Journal {
    /// What was written, when there is no database.
    pub(super) fn changes(&self) -> &[Change] {
        match &self.sink {
            Sink::Database(_) => &[],
            Sink::Memory(changes) => changes,
        }
    }
}
