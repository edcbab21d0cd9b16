//! Applying a deployment manifest to an edge device: modules come, change and go with it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::registry::{MANAGED_BY_IOT_EDGE, is_system_module};
use super::{DesiredChange, ModuleSpec, Object, Precondition, Store, StoreError};
use crate::identity::{EDGE_AGENT, EDGE_HUB, Identity, validate_id};

const DESIRED: &str = "properties.desired";

/// A deployment manifest that was read: the desired properties of each module that it names.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::hub) struct ConfigurationContent {
    desired: Vec<(String, Object)>,
    /// All modules of the deployment: those with properties, and those that the agent is to run.
    modules: BTreeSet<String>,
}

/// What applying a manifest did.
#[derive(Debug, Default)]
pub(in crate::hub) struct Applied {
    pub(in crate::hub) changes: Vec<DesiredChange>,
    pub(in crate::hub) removed: Vec<Identity>,
}

impl ConfigurationContent {
    /// Reads `{"modulesContent":{"$edgeAgent":{"properties.desired":{…}},…}}`.
    pub(in crate::hub) fn parse(content: &Value) -> Result<Self, StoreError> {
        let modules_content = content.get("modulesContent").and_then(Value::as_object);
        let modules_content = modules_content.ok_or_else(|| invalid("modulesContent is missing"))?;
        let mut desired = Vec::new();
        for (module, content) in modules_content {
            validate_id(module)?;
            let content =
                content.as_object().ok_or_else(|| invalid(&format!("{module} is not an object")))?;
            if let Some(other) = content.keys().find(|key| *key != DESIRED) {
                return Err(invalid(&format!("{module}: {other} is not {DESIRED}")));
            }
            let properties = content.get(DESIRED).and_then(Value::as_object);
            let properties = properties.ok_or_else(|| invalid(&format!("{module}: {DESIRED} is missing")))?;
            desired.push((module.clone(), properties.clone()));
        }
        let mut modules: BTreeSet<_> = desired.iter().map(|(module, _)| module.clone()).collect();
        for system_module in [EDGE_AGENT, EDGE_HUB] {
            if !modules.contains(system_module) {
                return Err(invalid(&format!("{system_module} is missing")));
            }
        }
        let agent = desired.iter().find(|(module, _)| module == EDGE_AGENT);
        let to_run = agent.and_then(|(_, properties)| properties.get("modules")).and_then(Value::as_object);
        for module in to_run.into_iter().flat_map(Object::keys) {
            validate_id(module)?;
            modules.insert(module.clone());
        }
        Ok(Self { desired, modules })
    }
}

fn invalid(reason: &str) -> StoreError {
    StoreError::Configuration(format!("the configuration content is invalid: {reason}"))
}

impl Store {
    /// Creates the modules of the manifest, removes the others, and replaces the desired properties. Nothing
    /// changes when any part is refused.
    pub(in crate::hub) fn apply_configuration(
        &mut self,
        device_id: &str,
        content: &ConfigurationContent,
        now: Timestamp,
    ) -> Result<Applied, StoreError> {
        let before = self.device(device_id)?.clone();
        if !before.iot_edge {
            return Err(invalid(&format!("{device_id} is not an edge device")));
        }
        let journal = std::mem::take(&mut self.journal);
        let applied = self.try_apply(device_id, content, now);
        let changes = std::mem::replace(&mut self.journal, journal);
        match applied {
            Ok(_) => self.journal.append(changes),
            Err(_) => drop(self.devices.insert(device_id.to_owned(), before)),
        }
        applied
    }

    fn try_apply(
        &mut self,
        device_id: &str,
        content: &ConfigurationContent,
        now: Timestamp,
    ) -> Result<Applied, StoreError> {
        let mut applied = Applied::default();
        let existing: BTreeSet<_> = self.device(device_id)?.modules.keys().cloned().collect();
        for module in existing.difference(&content.modules).filter(|module| !is_system_module(module)) {
            self.delete_module(device_id, module, &Precondition::Any)?;
            applied.removed.push(Identity::module(device_id, module)?);
        }
        for module in content.modules.difference(&existing) {
            let managed_by = Some(MANAGED_BY_IOT_EDGE.to_owned());
            self.create_module(device_id, module, ModuleSpec { managed_by, ..ModuleSpec::default() }, now)?;
        }
        for (module, properties) in &content.desired {
            let identity = Identity::module(device_id, module)?;
            let desired = &mut self.record_mut(&identity)?.twin.desired;
            let patch = desired.replace(properties.clone(), now)?;
            let version = desired.version();
            self.write_twin(&identity)?;
            applied.changes.push(DesiredChange { version, identity, patch });
        }
        Ok(applied)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hub::store::DeviceSpec;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn store() -> Store {
        let mut store = Store::default();
        let spec = DeviceSpec { iot_edge: Some(true), ..DeviceSpec::default() };
        store.create_device("d", spec, NOW).unwrap();
        store.create_device("plain", DeviceSpec::default(), NOW).unwrap();
        store
    }

    fn manifest(modules: &Value) -> Value {
        json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.0", "modules": modules}},
            "$edgeHub": {"properties.desired": {"routes": {"route": "FROM /* INTO $upstream"}}},
        }})
    }

    fn apply(store: &mut Store, manifest: &Value) -> Result<Applied, StoreError> {
        store.apply_configuration("d", &ConfigurationContent::parse(manifest)?, NOW)
    }

    fn modules(store: &Store) -> Vec<&str> {
        store.device("d").unwrap().modules.keys().map(String::as_str).collect()
    }

    #[test]
    fn modules_come_and_go_with_the_manifest() {
        let mut store = store();
        let applied = apply(&mut store, &manifest(&json!({"sensor": {}, "filter": {}}))).unwrap();
        assert_eq!(modules(&store), ["$edgeAgent", "$edgeHub", "filter", "sensor"]);
        assert_eq!(applied.changes.iter().map(|change| change.version).collect::<Vec<_>>(), [2, 2]);
        let sensor = store.module("d", "sensor").unwrap().record.generation_id.clone();

        let applied = apply(&mut store, &manifest(&json!({"sensor": {"version": "2"}}))).unwrap();
        assert_eq!(modules(&store), ["$edgeAgent", "$edgeHub", "sensor"]);
        assert_eq!(applied.removed, [Identity::module("d", "filter").unwrap()]);
        assert_eq!(store.module("d", "sensor").unwrap().record.generation_id, sensor);
        let agent = &applied.changes[0];
        assert_eq!(
            Value::Object(agent.patch.clone()),
            json!({"modules": {"filter": null, "sensor": {"version": "2"}}})
        );
        assert_eq!(agent.version, 3);
    }

    #[test]
    fn a_module_with_properties_of_its_own_gets_them() {
        let mut store = store();
        let mut manifest = manifest(&json!({"sensor": {}}));
        manifest["modulesContent"]["sensor"] = json!({"properties.desired": {"SendInterval": 5}});
        apply(&mut store, &manifest).unwrap();
        let twin = store.twin(&Identity::module("d", "sensor").unwrap()).unwrap();
        assert_eq!(Value::Object(twin.desired.to_object()), json!({"SendInterval": 5, "$version": 2}));
    }

    #[test]
    fn invalid_content_is_refused() {
        let cases = [
            json!({}),
            json!([]),
            json!({"modulesContent": 1}),
            json!({"modulesContent": {}}),
            json!({"modulesContent": {"$edgeAgent": {"properties.desired": {}}}}),
            json!({"modulesContent": {"$edgeAgent": 1, "$edgeHub": 1}}),
            json!({"modulesContent": {"$edgeAgent": {}, "$edgeHub": {}}}),
            json!({"modulesContent": {"$edgeAgent": {"properties.desired": 1}, "$edgeHub": {}}}),
            json!({"modulesContent": {"$edgeAgent": {"properties.desired.modules.x": {}}}}),
            json!({"modulesContent": {"a/b": {"properties.desired": {}}}}),
            manifest(&json!({"a/b": {}})),
        ];
        for content in cases {
            assert!(ConfigurationContent::parse(&content).is_err(), "{content}");
        }
    }

    #[test]
    fn a_refused_manifest_changes_nothing() {
        let mut store = store();
        apply(&mut store, &manifest(&json!({"sensor": {}}))).unwrap();
        let mut broken = manifest(&json!({"other": {}}));
        broken["modulesContent"]["$edgeHub"] = json!({"properties.desired": {"a.b": 1}});
        assert!(matches!(apply(&mut store, &broken), Err(StoreError::Twin(_))));
        assert_eq!(modules(&store), ["$edgeAgent", "$edgeHub", "sensor"]);
        let content = ConfigurationContent::parse(&manifest(&json!({}))).unwrap();
        assert!(store.apply_configuration("plain", &content, NOW).is_err());
        assert_eq!(
            store.apply_configuration("x", &content, NOW).unwrap_err(),
            StoreError::DeviceNotFound("x".into())
        );
    }
}
