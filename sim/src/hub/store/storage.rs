//! The folder in which the hub keeps its state, and reading it when the hub starts.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rusqlite::types::Type;
use rusqlite::{Connection, Row};
use serde::de::DeserializeOwned;

use super::journal::{Change, SCHEMA};
use super::telemetry::{Retention, TelemetryLog, TelemetryReader};
use super::{CloudQueues, Device, Document, Feedback, Journal, Kind, Module, Record, Store, Twin};
use crate::database::{self, Durability, Writer};

const DATABASE: &str = "hub.db";
const LOCK: &str = "hub.lock";

/// The database behind the state.
#[derive(Debug)]
pub(in crate::hub) struct Storage {
    pub(in crate::hub) writer: Arc<Writer<Change>>,
    pub(in crate::hub) telemetry: Arc<TelemetryReader>,
    /// Held as long as the folder is used.
    _lock: File,
}

impl Storage {
    /// Opens the folder, which is made when it is missing, and reads the state in it.
    pub(in crate::hub) fn open(folder: &Path, retention: Retention) -> anyhow::Result<(Store, Self)> {
        fs_err::create_dir_all(folder)?;
        let lock = private_file(&folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another hub uses the state folder {}: stop it, or choose another state_folder",
                folder.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the state folder"),
        }
        let path = folder.join(DATABASE);
        drop(private_file(&path)?);
        let read = || {
            let connection = database::open(&path, Durability::Process, SCHEMA)?;
            let mut store = load(&connection, retention)?;
            let telemetry = Arc::new(TelemetryReader::open(&path)?);
            let writer = Arc::new(Writer::start(connection)?);
            store.journal = Journal::new(writer.clone());
            anyhow::Ok((store, Self { writer, telemetry, _lock: lock }))
        };
        read().with_context(|| format!("cannot use the hub's state in {}", path.display()))
    }
}

/// Opens or makes a file that only its owner may read: the state has the keys of the devices.
fn private_file(path: &Path) -> anyhow::Result<File> {
    let mut options = fs_err::OpenOptions::new();
    options.create(true).truncate(false).write(true).read(true).mode(0o600);
    Ok(options.open(path)?.into_file())
}

fn load(connection: &Connection, retention: Retention) -> rusqlite::Result<Store> {
    let mut devices = BTreeMap::new();
    for_each(connection, "SELECT record FROM device", |row| {
        let device: Device = json(row, 0)?;
        devices.insert(device.id.clone(), device);
        Ok(())
    })?;
    for_each(connection, "SELECT record FROM module", |row| {
        let module: Module = json(row, 0)?;
        if let Some(device) = devices.get_mut(&module.device_id) {
            device.modules.insert(module.id.clone(), module);
        }
        Ok(())
    })?;
    for_each(connection, "SELECT twin, device, module FROM twin", |row| {
        let twin: Twin = json(row, 0)?;
        let (device, module) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        if let Some(record) = record_mut(&mut devices, device, module) {
            record.twin = twin;
        }
        Ok(())
    })?;
    let mut documents = BTreeMap::new();
    for_each(connection, "SELECT record, kind, name FROM document", |row| {
        let document: Document = json(row, 0)?;
        // A kind of a later version is left alone.
        if let Some(kind) = Kind::parse(row.get_ref(1)?.as_str()?) {
            documents.insert((kind, row.get(2)?), document);
        }
        Ok(())
    })?;
    for_each(connection, "SELECT session, device, module FROM session", |row| {
        let session = json(row, 0)?;
        let (device, module) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        if let Some(record) = record_mut(&mut devices, device, module) {
            record.session = Some(session);
        }
        Ok(())
    })?;
    let (mut cloud, mut feedback) = (CloudQueues::default(), Feedback::default());
    for_each(connection, "SELECT device, message, body FROM cloud_message ORDER BY sequence", |row| {
        cloud.load(row, json(row, 1)?)
    })?;
    for device in devices.values_mut() {
        device.record.cloud_message_count = cloud.len(&device.id);
    }
    for_each(connection, "SELECT sequence, record FROM feedback ORDER BY sequence", |row| {
        feedback.load(row.get(0)?, json(row, 1)?);
        Ok(())
    })?;
    let modules = |device: &Device| device.modules.values().map(|module| module.record.etag).max();
    let last_number = devices.values().map(|device| modules(device).max(Some(device.record.etag))).max();
    let last_document = documents.values().map(|document| document.etag).max();
    // A number that was given twice, because the clock was set back meanwhile, could not be written.
    let last_number = last_number.flatten().max(last_document).max(cloud.last_sequence());
    let last_number = last_number.max(feedback.last_sequence()).unwrap_or_default();
    let telemetry = TelemetryLog::load(connection, retention)?;
    Ok(Store { devices, telemetry, documents, cloud, feedback, last_number, journal: Journal::default() })
}

fn record_mut<'a>(
    devices: &'a mut BTreeMap<String, Device>,
    device: &str,
    module: &str,
) -> Option<&'a mut Record> {
    let device = devices.get_mut(device)?;
    match module {
        "" => Some(&mut device.record),
        module => Some(&mut device.modules.get_mut(module)?.record),
    }
}

fn for_each(
    connection: &Connection,
    sql: &str,
    mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(row)?;
    }
    Ok(())
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(unreadable(column))
}

/// A column has something that cannot be understood.
pub(super) fn unreadable<E>(column: usize) -> impl FnOnce(E) -> rusqlite::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::hub::store::{CloudDraft, DeviceSpec};

    #[test]
    fn numbers_rise_also_when_the_clock_was_set_back_between_two_starts() {
        let folder = tempfile::tempdir().unwrap();
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + Duration::from_secs(60));
        let open = || Storage::open(folder.path(), Retention::default()).unwrap();
        let (mut store, storage) = open();
        store.create_device("d", DeviceSpec::default(), early).unwrap();
        let first = store.enqueue_cloud_message("d", CloudDraft::default(), late).unwrap();
        drop((store, storage));
        let (mut store, _storage) = open();
        assert!(store.enqueue_cloud_message("d", CloudDraft::default(), early).unwrap() > first);
    }
}
