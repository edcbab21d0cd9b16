//! The state of the hub: identities, twins and telemetry.
//!
//! Everything here is synchronous, takes the time from its caller, and knows nothing of HTTP or MQTT, so that it
//! can be tested as plain values. What a change means for connected clients is returned, as [`DesiredChange`] for
//! instance, and carried out by the hub. Every change is written to the [`Journal`] as well; it may be told to
//! anybody when [`Store::receipt`] is committed.

mod cloud;
mod configuration;
mod documents;
mod feedback;
mod journal;
mod record;
mod registry;
mod scope;
mod session;
mod storage;
mod telemetry;
mod twin;

pub(super) use cloud::{Ack, CloudDraft, CloudMessage, Settlement};
pub(super) use configuration::ConfigurationContent;
pub(super) use documents::{Document, Kind};
pub(super) use journal::{Change, Telemetry};
pub(super) use record::{Authentication, Device, DeviceSpec, Module, ModuleSpec, Parent, Record, Status};
pub(super) use registry::Precondition;
pub(super) use scope::ScopePage;
pub(super) use storage::Storage;
pub use telemetry::Retention;
pub(super) use telemetry::{Page, TelemetryQuery};
pub(super) use twin::{Properties, Twin, TwinError, with_version};

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value};

use self::cloud::{CloudQueues, MAX_QUEUE, MAX_QUEUED_BYTES};
use self::documents::Documents;
use self::feedback::Feedback;
use self::journal::Journal;
use self::storage::unreadable;
use self::telemetry::TelemetryLog;
use crate::database::Receipt;
use crate::identity::{Identity, IdentityError};
use crate::sas::SasError;
use crate::topics::PropertyBag;

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// Devices that the registry holds at most.
const MAX_DEVICES: usize = 20_000;
/// Modules that a device has at most, as in IoT Hub.
const MAX_MODULES: usize = 50;

/// How many edge devices may stand above one another, as in IoT Hub.
const MAX_PARENTS: usize = 5;

/// Why the store refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoreError {
    #[error("there is no device {0}")]
    DeviceNotFound(String),
    #[error("there is no module {1} on device {0}")]
    ModuleNotFound(String, String),
    #[error("device {0} exists already")]
    DeviceAlreadyExists(String),
    #[error("module {1} exists already on device {0}")]
    ModuleAlreadyExists(String, String),
    #[error("the identity was changed meanwhile: If-Match names another etag")]
    PreconditionFailed,
    #[error("the registry is full: {MAX_DEVICES} devices")]
    TooManyDevices,
    #[error("device {0} has {MAX_MODULES} modules already")]
    TooManyModules(String),
    #[error("{0} belongs to the device and cannot be deleted")]
    SystemModule(String),
    #[error("there is no edge device with the scope {0}")]
    UnknownScope(String),
    #[error("device {0} would be among its own parents, or have more than {MAX_PARENTS}")]
    ParentCycle(String),
    #[error("there is nothing with the name {0}")]
    DocumentNotFound(String),
    #[error("the content is invalid: {0}")]
    Document(String),
    #[error("there are too many of these already")]
    TooManyDocuments,
    #[error("the queue of device {0} is full: {MAX_QUEUE} messages")]
    QueueFull(String),
    #[error("the queues of all devices are full: {MAX_QUEUED_BYTES} bytes")]
    QueuesFull,
    #[error("the lock token is not known, or its time is over")]
    LockLost,
    #[error("{0}")]
    Configuration(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Key(#[from] SasError),
    #[error(transparent)]
    Twin(#[from] TwinError),
}

/// What a service changes of a twin: by a patch, or by replacing what it names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TwinParts {
    pub(super) tags: Option<Object>,
    pub(super) desired: Option<Object>,
    pub(super) replace: bool,
}

/// Desired properties that changed, for the client when it is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DesiredChange {
    pub(super) identity: Identity,
    pub(super) version: u64,
    /// The changed part alone; `null` stands for a property that is gone.
    pub(super) patch: Object,
}

/// Everything that the hub remembers.
#[derive(Debug, Default)]
pub(super) struct Store {
    devices: BTreeMap<String, Device>,
    telemetry: TelemetryLog,
    documents: Documents,
    cloud: CloudQueues,
    feedback: Feedback,
    /// The last number given to a generation id or an etag.
    last_number: u64,
    journal: Journal,
}

impl Store {
    /// What is seen now may be told when this is committed.
    pub(super) fn receipt(&self) -> Receipt {
        self.journal.last()
    }

    /// The twin of a device or module.
    pub(super) fn twin(&self, identity: &Identity) -> Result<&Twin, StoreError> {
        Ok(&self.record(identity)?.twin)
    }

    /// Changes the tags and the desired properties of a twin together, or neither; what is `None` stays.
    pub(super) fn write_twin_parts(
        &mut self,
        identity: &Identity,
        parts: TwinParts,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Option<DesiredChange>, StoreError> {
        let current = &self.record(identity)?.twin;
        precondition.check(current.etag())?;
        let mut twin = current.clone();
        if let Some(tags) = &parts.tags {
            twin.write_tags(tags, parts.replace)?;
        }
        let patch = match (parts.desired, parts.replace) {
            (Some(desired), false) => Some(twin.desired.patch(desired, now)?),
            (Some(desired), true) => Some(twin.desired.replace(desired, now)?),
            (None, _) => None,
        };
        let version = twin.desired.version();
        self.record_mut(identity)?.twin = twin;
        self.write_twin(identity)?;
        Ok(patch.map(|patch| DesiredChange { identity: identity.clone(), version, patch }))
    }

    /// Merges a patch into the desired properties.
    #[cfg(test)]
    pub(super) fn patch_desired(
        &mut self,
        identity: &Identity,
        patch: Object,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<DesiredChange, StoreError> {
        let parts = TwinParts { desired: Some(patch), ..TwinParts::default() };
        Ok(self.write_twin_parts(identity, parts, precondition, now)?.expect("a change"))
    }

    /// Merges a patch that the client sent into its reported properties; gives their new version.
    pub(super) fn patch_reported(
        &mut self,
        identity: &Identity,
        patch: Object,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let twin = &mut self.record_mut(identity)?.twin;
        twin.reported.patch(patch, now)?;
        let version = twin.reported.version();
        self.write_twin(identity)?;
        Ok(version)
    }

    /// What was written, when there is no database.
    #[cfg(test)]
    pub(super) fn changes(&self) -> &[Change] {
        self.journal.changes()
    }

    fn write_twin(&mut self, identity: &Identity) -> Result<(), StoreError> {
        let change = Change::twin(identity, &self.record(identity)?.twin);
        self.journal.put(change);
        Ok(())
    }

    /// Keeps a message from `origin`, which must be registered; gives its offset.
    pub(super) fn append_telemetry(
        &mut self,
        origin: &Identity,
        properties: PropertyBag,
        body: Bytes,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let generation_id = self.record(origin)?.generation_id.clone();
        let journal = &mut self.journal;
        Ok(self.telemetry.append(origin.clone(), generation_id, properties, body, now, journal))
    }

    /// Notes that a client connected or went away. An identity that is gone is not an error.
    pub(super) fn set_connected(&mut self, identity: &Identity, connected: bool, now: Timestamp) {
        if let Ok(record) = self.record_mut(identity) {
            record.connected = connected;
            record.connection_state_updated = Some(now);
            record.last_activity = Some(now);
        }
    }

    /// A number that was never given before, and whose order is that of time even after a restart.
    fn next_number(&mut self, now: Timestamp) -> u64 {
        let micros = u64::try_from(now.as_microsecond()).unwrap_or_default();
        self.last_number = micros.max(self.last_number.saturating_add(1));
        self.last_number
    }
}
