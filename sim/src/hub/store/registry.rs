//! Devices and modules: create, read, update, delete.

use jiff::Timestamp;

use super::journal::Change;
use super::{
    Authentication, Device, DeviceSpec, MAX_DEVICES, MAX_MODULES, Module, ModuleSpec, Record, Store,
    StoreError,
};
use crate::identity::{EDGE_AGENT, EDGE_HUB, Identity};

/// Who manages the modules of a deployment, as IoT Hub writes it.
pub(super) const MANAGED_BY_IOT_EDGE: &str = "iotEdge";

/// The condition of an `If-Match` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hub) enum Precondition {
    /// `*`: whatever is there.
    Any,
    /// One etag, as text.
    Etag(String),
}

impl Precondition {
    /// Reads a header value: `*`, or an etag with or without quotes.
    pub(in crate::hub) fn parse(text: &str) -> Self {
        match text.trim() {
            "*" => Self::Any,
            etag => Self::Etag(etag.trim_start_matches("W/").trim_matches('"').to_owned()),
        }
    }

    pub(super) fn check(&self, current: u64) -> Result<(), StoreError> {
        match self {
            Self::Any => Ok(()),
            Self::Etag(etag) if *etag == current.to_string() => Ok(()),
            Self::Etag(_) => Err(StoreError::PreconditionFailed),
        }
    }
}

impl Store {
    pub(in crate::hub) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    pub(in crate::hub) fn device(&self, id: &str) -> Result<&Device, StoreError> {
        self.devices.get(id).ok_or_else(|| StoreError::DeviceNotFound(id.to_owned()))
    }

    fn device_mut(&mut self, id: &str) -> Result<&mut Device, StoreError> {
        self.devices.get_mut(id).ok_or_else(|| StoreError::DeviceNotFound(id.to_owned()))
    }

    /// Registers a device. An edge device gets its two system modules with it.
    pub(in crate::hub) fn create_device(
        &mut self,
        id: &str,
        spec: DeviceSpec,
        now: Timestamp,
    ) -> Result<&Device, StoreError> {
        let identity = Identity::device(id)?;
        if self.devices.contains_key(id) {
            return Err(StoreError::DeviceAlreadyExists(id.to_owned()));
        }
        if self.devices.len() >= MAX_DEVICES {
            return Err(StoreError::TooManyDevices);
        }
        self.check_parent(id, &spec.parent)?;
        let record = self.new_record(spec.authentication, now)?;
        let mut device = Device {
            id: id.to_owned(),
            record,
            status: spec.status.unwrap_or_default(),
            status_reason: spec.status_reason,
            status_updated: None,
            iot_edge: spec.iot_edge.unwrap_or_default(),
            parent_scope: None,
            modules: Default::default(),
        };
        device.set_parent(spec.parent);
        let iot_edge = device.iot_edge;
        self.journal.put(Change::device(&device));
        self.journal.put(Change::twin(&identity, &device.record.twin));
        self.devices.insert(id.to_owned(), device);
        if iot_edge {
            self.ensure_system_modules(id, now)?;
        }
        self.device(id)
    }

    /// Updates a device that exists. A device may become an edge device, never stop being one.
    pub(in crate::hub) fn update_device(
        &mut self,
        id: &str,
        precondition: &Precondition,
        spec: DeviceSpec,
        now: Timestamp,
    ) -> Result<&Device, StoreError> {
        let number = self.next_number(now);
        precondition.check(self.device(id)?.record.etag)?;
        self.check_parent(id, &spec.parent)?;
        let device = self.device_mut(id)?;
        device.record.etag = number;
        if let Some(authentication) = spec.authentication {
            device.record.authentication = authentication;
        }
        if let Some(status) = spec.status.filter(|status| *status != device.status) {
            device.status = status;
            device.status_updated = Some(now);
        }
        device.status_reason = spec.status_reason.or(device.status_reason.take());
        device.set_parent(spec.parent);
        device.iot_edge |= spec.iot_edge == Some(true);
        let change = Change::device(device);
        self.journal.put(change);
        if spec.iot_edge == Some(true) {
            self.ensure_system_modules(id, now)?;
        }
        self.device(id)
    }

    /// Deletes a device and its modules.
    pub(in crate::hub) fn delete_device(
        &mut self,
        id: &str,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        precondition.check(self.device(id)?.record.etag)?;
        self.journal.put(Change::DeviceGone { id: id.to_owned() });
        self.cloud.remove(id);
        self.devices.remove(id);
        Ok(())
    }

    pub(in crate::hub) fn module(&self, device: &str, id: &str) -> Result<&Module, StoreError> {
        let module = self.device(device)?.modules.get(id);
        module.ok_or_else(|| StoreError::ModuleNotFound(device.to_owned(), id.to_owned()))
    }

    /// Registers a module of a device.
    pub(in crate::hub) fn create_module(
        &mut self,
        device_id: &str,
        id: &str,
        spec: ModuleSpec,
        now: Timestamp,
    ) -> Result<&Module, StoreError> {
        let identity = Identity::module(device_id, id)?;
        let device = self.device(device_id)?;
        if device.modules.contains_key(id) {
            return Err(StoreError::ModuleAlreadyExists(device_id.to_owned(), id.to_owned()));
        }
        if device.modules.len() >= MAX_MODULES {
            return Err(StoreError::TooManyModules(device_id.to_owned()));
        }
        let record = self.new_record(spec.authentication, now)?;
        let module = Module {
            id: id.to_owned(),
            device_id: device_id.to_owned(),
            record,
            managed_by: spec.managed_by,
        };
        self.journal.put(Change::module(&module));
        self.journal.put(Change::twin(&identity, &module.record.twin));
        self.device_mut(device_id)?.modules.insert(id.to_owned(), module);
        self.module(device_id, id)
    }

    /// Updates a module that exists: this is how the edge device uploads the keys that it derived.
    pub(in crate::hub) fn update_module(
        &mut self,
        device_id: &str,
        id: &str,
        precondition: &Precondition,
        spec: ModuleSpec,
        now: Timestamp,
    ) -> Result<&Module, StoreError> {
        let number = self.next_number(now);
        let module = self.module_mut(device_id, id)?;
        precondition.check(module.record.etag)?;
        module.record.etag = number;
        if let Some(authentication) = spec.authentication {
            module.record.authentication = authentication;
        }
        module.managed_by = spec.managed_by.or(module.managed_by.take());
        let change = Change::module(module);
        self.journal.put(change);
        self.module(device_id, id)
    }

    /// Deletes a module that is not one of the two system modules.
    pub(in crate::hub) fn delete_module(
        &mut self,
        device_id: &str,
        id: &str,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        precondition.check(self.module(device_id, id)?.record.etag)?;
        if is_system_module(id) {
            return Err(StoreError::SystemModule(id.to_owned()));
        }
        self.device_mut(device_id)?.modules.remove(id);
        self.journal.put(Change::ModuleGone { device: device_id.to_owned(), id: id.to_owned() });
        Ok(())
    }

    pub(in crate::hub) fn record(&self, identity: &Identity) -> Result<&Record, StoreError> {
        match identity.module_id() {
            Some(module) => Ok(&self.module(identity.device_id(), module)?.record),
            None => Ok(&self.device(identity.device_id())?.record),
        }
    }

    pub(super) fn record_mut(&mut self, identity: &Identity) -> Result<&mut Record, StoreError> {
        match identity.module_id() {
            Some(module) => Ok(&mut self.module_mut(identity.device_id(), module)?.record),
            None => Ok(&mut self.device_mut(identity.device_id())?.record),
        }
    }

    fn module_mut(&mut self, device: &str, id: &str) -> Result<&mut Module, StoreError> {
        let module = self.device_mut(device)?.modules.get_mut(id);
        module.ok_or_else(|| StoreError::ModuleNotFound(device.to_owned(), id.to_owned()))
    }

    fn ensure_system_modules(&mut self, device: &str, now: Timestamp) -> Result<(), StoreError> {
        for id in [EDGE_AGENT, EDGE_HUB] {
            if !self.device(device)?.modules.contains_key(id) {
                let managed_by = Some(MANAGED_BY_IOT_EDGE.to_owned());
                self.create_module(device, id, ModuleSpec { managed_by, ..ModuleSpec::default() }, now)?;
            }
        }
        Ok(())
    }

    fn new_record(
        &mut self,
        authentication: Option<Authentication>,
        now: Timestamp,
    ) -> Result<Record, StoreError> {
        let authentication = authentication.map_or_else(|| Authentication::sas(None, None), Ok)?;
        Ok(Record::new(self.next_number(now), authentication, now))
    }
}

pub(super) fn is_system_module(id: &str) -> bool {
    id == EDGE_AGENT || id == EDGE_HUB
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::store::Status;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn edge_device() -> (Store, DeviceSpec) {
        let spec = DeviceSpec { iot_edge: Some(true), ..DeviceSpec::default() };
        let mut store = Store::default();
        store.create_device("d", spec.clone(), NOW).unwrap();
        (store, spec)
    }

    #[test]
    fn an_edge_device_comes_with_its_system_modules_and_stable_generation_ids() {
        let (mut store, spec) = edge_device();
        let modules = &store.device("d").unwrap().modules;
        assert_eq!(modules.keys().collect::<Vec<_>>(), [EDGE_AGENT, EDGE_HUB]);
        assert!(modules.values().all(|module| module.managed_by.as_deref() == Some("iotEdge")));
        let before = store.module("d", EDGE_AGENT).unwrap().record.generation_id.clone();
        store.update_device("d", &Precondition::Any, spec, NOW).unwrap();
        let agent = store.update_module("d", EDGE_AGENT, &Precondition::Any, ModuleSpec::default(), NOW);
        assert_eq!(agent.unwrap().record.generation_id, before);
    }

    #[test]
    fn a_plain_device_becomes_an_edge_device_on_update() {
        let mut store = Store::default();
        assert!(store.create_device("d", DeviceSpec::default(), NOW).unwrap().modules.is_empty());
        let spec = DeviceSpec { iot_edge: Some(true), ..DeviceSpec::default() };
        assert_eq!(store.update_device("d", &Precondition::Any, spec, NOW).unwrap().modules.len(), 2);
    }

    #[test]
    fn what_exists_is_not_created_again_and_what_is_missing_is_not_changed() {
        let (mut store, spec) = edge_device();
        let exists = store.create_device("d", spec.clone(), NOW).unwrap_err();
        assert_eq!(exists, StoreError::DeviceAlreadyExists("d".into()));
        let exists = store.create_module("d", EDGE_HUB, ModuleSpec::default(), NOW).unwrap_err();
        assert_eq!(exists, StoreError::ModuleAlreadyExists("d".into(), EDGE_HUB.into()));
        let missing = store.update_device("x", &Precondition::Any, spec, NOW).unwrap_err();
        assert_eq!(missing, StoreError::DeviceNotFound("x".into()));
        let missing =
            store.update_module("d", "m", &Precondition::Any, ModuleSpec::default(), NOW).unwrap_err();
        assert_eq!(missing, StoreError::ModuleNotFound("d".into(), "m".into()));
        assert!(store.delete_device("x", &Precondition::Any).is_err());
        assert!(store.delete_module("d", "m", &Precondition::Any).is_err());
        assert!(store.create_device("no/slash", DeviceSpec::default(), NOW).is_err());
    }

    #[test]
    fn another_etag_is_a_failed_precondition() {
        let (mut store, _) = edge_device();
        let etag = Precondition::parse(&format!("\"{}\"", store.device("d").unwrap().record.etag));
        let disabled = DeviceSpec { status: Some(Status::Disabled), ..DeviceSpec::default() };
        let device = store.update_device("d", &etag, disabled.clone(), NOW).unwrap();
        assert_eq!((device.status, device.iot_edge), (Status::Disabled, true));
        let stale = store.update_device("d", &etag, disabled, NOW).unwrap_err();
        assert_eq!(stale, StoreError::PreconditionFailed);
        assert_eq!(store.delete_device("d", &etag).unwrap_err(), StoreError::PreconditionFailed);
        assert_eq!(store.delete_module("d", EDGE_HUB, &etag).unwrap_err(), StoreError::PreconditionFailed);
        assert_eq!(Precondition::parse(" * "), Precondition::Any);
    }

    #[test]
    fn system_modules_stay_and_the_number_of_modules_is_bounded() {
        let (mut store, _) = edge_device();
        let refused = store.delete_module("d", EDGE_AGENT, &Precondition::Any).unwrap_err();
        assert_eq!(refused, StoreError::SystemModule(EDGE_AGENT.into()));
        for number in 2..MAX_MODULES {
            store.create_module("d", &format!("m{number}"), ModuleSpec::default(), NOW).unwrap();
        }
        let refused = store.create_module("d", "more", ModuleSpec::default(), NOW).unwrap_err();
        assert_eq!(refused, StoreError::TooManyModules("d".into()));
        store.delete_module("d", "m2", &Precondition::Any).unwrap();
        store.create_module("d", "more", ModuleSpec::default(), NOW).unwrap();
    }

    #[test]
    fn a_module_that_is_made_again_has_another_generation() {
        let (mut store, _) = edge_device();
        let mut generation = || {
            let module = store.create_module("d", "m", ModuleSpec::default(), NOW).unwrap();
            let id = module.record.generation_id.clone();
            store.delete_module("d", "m", &Precondition::Any).unwrap();
            id
        };
        assert_ne!(generation(), generation());
    }
}
