//! Parents and children: which devices an edge device may speak for.
//!
//! An edge device opens a scope, `ms-azure-iot-edge://{device}-{generation}`, and a child names it. The children of
//! children belong to the scope as well, so that edge devices can stand above one another.

use super::record::{Device, Parent};
use super::{MAX_PARENTS, Module, Store, StoreError};

const PREFIX: &str = "ms-azure-iot-edge://";

/// A part of the devices and modules directly in a scope.
#[derive(Debug)]
pub(in crate::hub) struct ScopePage<'a> {
    pub(in crate::hub) devices: Vec<&'a Device>,
    pub(in crate::hub) modules: Vec<&'a Module>,
    /// Where the next page begins; `None` after the last one.
    pub(in crate::hub) next: Option<usize>,
}

impl Device {
    /// The caller has checked that the parent exists.
    pub(super) fn set_parent(&mut self, parent: Parent) {
        match parent {
            Parent::Keep => {}
            Parent::Nobody => self.parent_scope = None,
            Parent::Scope(scope) => self.parent_scope = Some(scope),
        }
    }
}

impl Store {
    /// The edge device that opens a scope. The generation has no hyphen, the id may have some.
    fn scope_owner(&self, scope: &str) -> Option<&Device> {
        let (id, generation) = scope.strip_prefix(PREFIX)?.rsplit_once('-')?;
        let owner = self.devices.get(id)?;
        (owner.iot_edge && owner.record.generation_id == generation).then_some(owner)
    }

    /// The parent of a device, when it has one that still exists.
    pub(in crate::hub) fn parent(&self, device: &Device) -> Option<&Device> {
        self.scope_owner(device.parent_scope.as_deref()?)
    }

    /// Refuses a parent that does not exist, or that has the device above itself.
    pub(super) fn check_parent(&self, id: &str, parent: &Parent) -> Result<(), StoreError> {
        let Parent::Scope(scope) = parent else { return Ok(()) };
        let mut above = self.scope_owner(scope);
        if above.is_none() {
            return Err(StoreError::UnknownScope(scope.clone()));
        }
        for _ in 0..=MAX_PARENTS {
            match above {
                None => return Ok(()),
                Some(device) if device.id == id => break,
                Some(device) => above = self.parent(device),
            }
        }
        Err(StoreError::ParentCycle(id.to_owned()))
    }

    /// True when the edge device `edge` may speak for `device`: for itself, and for all that is below it.
    pub(in crate::hub) fn is_in_scope(&self, edge: &str, device: &str) -> bool {
        let mut current = self.devices.get(device);
        for _ in 0..=MAX_PARENTS {
            match current {
                None => return false,
                Some(device) if device.id == edge => return device.iot_edge,
                Some(device) => current = self.parent(device),
            }
        }
        false
    }

    /// The edge device itself with its modules, and its direct children with theirs; `limit` devices from a place.
    pub(in crate::hub) fn scope_page(
        &self,
        edge: &str,
        begin: usize,
        limit: usize,
    ) -> Result<ScopePage<'_>, StoreError> {
        let edge = self.device(edge)?;
        let scope = edge.own_scope();
        let is_child = |device: &&Device| scope.is_some() && device.parent_scope == scope;
        let in_scope = [edge].into_iter().chain(self.devices.values().filter(is_child));
        let mut devices: Vec<_> = in_scope.skip(begin).take(limit.saturating_add(1)).collect();
        let next = (devices.len() > limit).then_some(begin + limit);
        devices.truncate(limit);
        let modules = devices.iter().flat_map(|device| device.modules.values()).collect();
        Ok(ScopePage { devices, modules, next })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::hub::store::{DeviceSpec, ModuleSpec, Precondition};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn edge_spec(parent: Parent) -> DeviceSpec {
        DeviceSpec { iot_edge: Some(true), parent, ..DeviceSpec::default() }
    }

    fn under(store: &Store, parent: &str) -> Parent {
        Parent::Scope(store.device(parent).unwrap().own_scope().unwrap())
    }

    /// `top-edge` above `low-edge` above `leaf`, which has a module; `other-edge` and `stray` beside them.
    fn store() -> Store {
        let mut store = Store::default();
        store.create_device("top-edge", edge_spec(Parent::Keep), NOW).unwrap();
        let spec = edge_spec(under(&store, "top-edge"));
        store.create_device("low-edge", spec, NOW).unwrap();
        let spec = DeviceSpec { parent: under(&store, "low-edge"), ..DeviceSpec::default() };
        store.create_device("leaf", spec, NOW).unwrap();
        store.create_module("leaf", "m", ModuleSpec::default(), NOW).unwrap();
        store.create_device("other-edge", edge_spec(Parent::Keep), NOW).unwrap();
        store.create_device("stray", DeviceSpec::default(), NOW).unwrap();
        store
    }

    #[test]
    fn an_edge_device_speaks_for_itself_and_for_what_is_below_it() {
        let store = store();
        let cases = [
            ("low-edge", "leaf", true),
            ("low-edge", "low-edge", true),
            ("top-edge", "low-edge", true),
            ("top-edge", "leaf", true),
            ("low-edge", "top-edge", false),
            ("other-edge", "leaf", false),
            ("low-edge", "stray", false),
            ("stray", "stray", false),
            ("leaf", "leaf", false),
            ("low-edge", "unknown", false),
            ("unknown", "leaf", false),
        ];
        for (edge, device, expected) in cases {
            assert_eq!(store.is_in_scope(edge, device), expected, "{edge} for {device}");
        }
    }

    #[test]
    fn a_parent_that_was_made_again_is_another_one() {
        let mut store = store();
        store.delete_device("low-edge", &Precondition::Any).unwrap();
        assert!(!store.is_in_scope("top-edge", "leaf"));
        store.create_device("low-edge", edge_spec(Parent::Keep), NOW).unwrap();
        assert!(!store.is_in_scope("low-edge", "leaf"));
        let spec = DeviceSpec { parent: under(&store, "low-edge"), ..DeviceSpec::default() };
        store.update_device("leaf", &Precondition::Any, spec, NOW).unwrap();
        assert!(store.is_in_scope("low-edge", "leaf"));
        store.update_device("leaf", &Precondition::Any, DeviceSpec::default(), NOW).unwrap();
        assert!(store.is_in_scope("low-edge", "leaf"), "an update that says nothing of it keeps the parent");
        let spec = DeviceSpec { parent: Parent::Nobody, ..DeviceSpec::default() };
        store.update_device("leaf", &Precondition::Any, spec, NOW).unwrap();
        assert!(!store.is_in_scope("low-edge", "leaf"));
    }

    #[test]
    fn a_parent_that_cannot_be_one_is_refused() {
        let mut store = store();
        let stray = format!("{PREFIX}stray-{}", store.device("stray").unwrap().record.generation_id);
        for scope in
            ["", "low-edge", "ms-azure-iot-edge://low-edge", "ms-azure-iot-edge://low-edge-1", &stray]
        {
            let spec = DeviceSpec { parent: Parent::Scope(scope.into()), ..DeviceSpec::default() };
            let refused = store.create_device("new", spec, NOW).unwrap_err();
            assert_eq!(refused, StoreError::UnknownScope(scope.into()));
        }
        assert!(store.device("new").is_err());
        for (device, parent) in [("top-edge", "low-edge"), ("top-edge", "top-edge")] {
            let spec = edge_spec(under(&store, parent));
            let refused = store.update_device(device, &Precondition::Any, spec, NOW).unwrap_err();
            assert_eq!(refused, StoreError::ParentCycle(device.into()));
        }
        let mut above = "top-edge".to_owned();
        for level in 1..=MAX_PARENTS {
            let name = format!("level{level}");
            let spec = edge_spec(under(&store, &above));
            store.create_device(&name, spec, NOW).unwrap();
            above = name;
        }
        let spec = edge_spec(under(&store, &above));
        assert!(matches!(store.create_device("deep", spec, NOW), Err(StoreError::ParentCycle(_))));
    }

    #[test]
    fn pages_have_each_device_and_its_modules_once() {
        let mut store = store();
        for number in 0..4 {
            let spec = DeviceSpec { parent: under(&store, "low-edge"), ..DeviceSpec::default() };
            store.create_device(&format!("leaf{number}"), spec, NOW).unwrap();
        }
        let (mut devices, mut modules, mut begin) = (Vec::new(), 0, Some(0));
        while let Some(place) = begin {
            let page = store.scope_page("low-edge", place, 2).unwrap();
            assert!(page.devices.len() <= 2);
            devices.extend(page.devices.iter().map(|device| device.id.clone()));
            modules += page.modules.len();
            begin = page.next;
        }
        assert_eq!(devices, ["low-edge", "leaf", "leaf0", "leaf1", "leaf2", "leaf3"]);
        assert_eq!(modules, 3);
        assert_eq!(store.scope_page("top-edge", 0, 10).unwrap().devices.len(), 2);
        assert!(store.scope_page("low-edge", 99, 2).unwrap().devices.is_empty());
    }
}
