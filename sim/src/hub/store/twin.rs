//! Twins: desired and reported properties with versions, merged and compared as IoT Hub does it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Object;
use crate::twin_limits::{MAX_DEPTH, MAX_SECTION_BYTES, MAX_STRING_BYTES, MAX_TAGS_BYTES, is_key};

/// Why a change of a twin was refused. The limits are those of IoT Hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::hub) enum TwinError {
    #[error("the section would be larger than {MAX_SECTION_BYTES} bytes")]
    TooLarge,
    #[error("the properties are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error(
        "the property name {0:?} is empty, too long, or has a dot, a space, a dollar or a control character"
    )]
    Key(String),
    #[error("the value of {0:?} is longer than {MAX_STRING_BYTES} bytes")]
    StringTooLong(String),
}

/// The twin of a device or module.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::hub) struct Twin {
    #[serde(default)]
    pub(in crate::hub) desired: Properties,
    #[serde(default)]
    pub(in crate::hub) reported: Properties,
    /// What services note about the device; it is not told.
    #[serde(default)]
    pub(in crate::hub) tags: Object,
    /// How often the tags have changed.
    #[serde(default)]
    tags_version: u64,
}

impl Twin {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { desired: Properties::new(now), reported: Properties::new(now), ..Self::default() }
    }

    /// Changes with each change that a service makes.
    pub(in crate::hub) fn etag(&self) -> u64 {
        self.desired.version + self.tags_version
    }

    /// Rises with each change of any part.
    pub(in crate::hub) fn version(&self) -> u64 {
        self.etag() + self.reported.version
    }

    /// Merges a patch into the tags, or replaces them.
    pub(super) fn write_tags(&mut self, patch: &Object, replace: bool) -> Result<(), TwinError> {
        validate(patch, 1)?;
        let mut tags = if replace { Object::new() } else { self.tags.clone() };
        merge(&mut tags, patch);
        if serde_json::to_vec(&tags).map_or(usize::MAX, |text| text.len()) > MAX_TAGS_BYTES {
            return Err(TwinError::TooLarge);
        }
        self.tags = tags;
        self.tags_version += 1;
        Ok(())
    }
}

/// One section of a twin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::hub) struct Properties {
    values: Object,
    version: u64,
    updated: Timestamp,
    /// When each property last changed, in the form of the values.
    #[serde(default)]
    metadata: Object,
}

impl Default for Properties {
    fn default() -> Self {
        Self::new(Timestamp::UNIX_EPOCH)
    }
}

impl Properties {
    fn new(now: Timestamp) -> Self {
        Self { values: Object::new(), version: 1, updated: now, metadata: Object::new() }
    }

    /// Rises by one with each accepted change.
    pub(in crate::hub) fn version(&self) -> u64 {
        self.version
    }

    /// When the section and each property in it last changed, as services see it.
    pub(in crate::hub) fn metadata(&self) -> Object {
        let mut metadata = self.metadata.clone();
        metadata.insert(LAST_UPDATED.to_owned(), self.updated.to_string().into());
        metadata
    }

    /// The properties with `$version`, as clients see them.
    pub(in crate::hub) fn to_object(&self) -> Object {
        with_version(self.values.clone(), self.version)
    }

    /// Merges a patch, in which `null` deletes; gives back what is to be told to a client.
    pub(super) fn patch(&mut self, mut patch: Object, now: Timestamp) -> Result<Object, TwinError> {
        strip_metadata(&mut patch);
        validate(&patch, 1)?;
        let mut merged = self.values.clone();
        merge(&mut merged, &patch);
        self.accept(merged, &patch, now)?;
        Ok(patch)
    }

    /// Replaces everything; gives back the difference as a patch.
    pub(super) fn replace(&mut self, mut values: Object, now: Timestamp) -> Result<Object, TwinError> {
        strip_metadata(&mut values);
        validate(&values, 1)?;
        let mut replaced = Object::new();
        merge(&mut replaced, &values);
        let patch = difference(&self.values, &replaced);
        self.accept(replaced, &patch, now)?;
        Ok(patch)
    }

    fn accept(&mut self, values: Object, patch: &Object, now: Timestamp) -> Result<(), TwinError> {
        if serde_json::to_vec(&values).map_or(usize::MAX, |text| text.len()) > MAX_SECTION_BYTES {
            return Err(TwinError::TooLarge);
        }
        self.values = values;
        self.version = self.version.saturating_add(1);
        self.updated = now;
        stamp(&mut self.metadata, patch, &now.to_string().into());
        Ok(())
    }
}

const LAST_UPDATED: &str = "$lastUpdated";

/// Notes when the properties in a patch changed. Those with others in them change with these.
fn stamp(metadata: &mut Object, patch: &Object, now: &Value) {
    for (key, value) in patch {
        if value.is_null() {
            metadata.remove(key);
            continue;
        }
        let entry = metadata.entry(key.clone()).or_insert_with(|| Value::Object(Object::new()));
        let Value::Object(entry) = entry else { continue };
        match value {
            Value::Object(inner) => stamp(entry, inner, now),
            // What was inside of a property is gone when it has become a plain value.
            _ => entry.clear(),
        }
        entry.insert(LAST_UPDATED.to_owned(), now.clone());
    }
}

/// Adds the `$version` that clients look for.
pub(in crate::hub) fn with_version(mut values: Object, version: u64) -> Object {
    values.insert("$version".to_owned(), version.into());
    values
}

/// Clients send back what they once received.
fn strip_metadata(values: &mut Object) {
    values.remove("$version");
    values.remove("$metadata");
}

fn validate(values: &Object, depth: usize) -> Result<(), TwinError> {
    if depth > MAX_DEPTH {
        return Err(TwinError::TooDeep);
    }
    for (key, value) in values {
        if !is_key(key) {
            return Err(TwinError::Key(key.chars().take(64).collect()));
        }
        validate_value(key, value, depth)?;
    }
    Ok(())
}

fn validate_value(key: &str, value: &Value, depth: usize) -> Result<(), TwinError> {
    match value {
        Value::String(text) if text.len() > MAX_STRING_BYTES => Err(TwinError::StringTooLong(key.to_owned())),
        Value::Object(values) => validate(values, depth + 1),
        Value::Array(_) if depth >= MAX_DEPTH => Err(TwinError::TooDeep),
        Value::Array(items) => items.iter().try_for_each(|item| validate_value(key, item, depth + 1)),
        _ => Ok(()),
    }
}

/// RFC 7396, except that an array is replaced as a whole, which the RFC says too. The depth was validated.
fn merge(target: &mut Object, patch: &Object) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(patch) => {
                let entry = target.entry(key.clone()).or_insert_with(|| Value::Object(Object::new()));
                if !entry.is_object() {
                    *entry = Value::Object(Object::new());
                }
                if let Value::Object(entry) = entry {
                    merge(entry, patch);
                }
            }
            value => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The patch that makes `new` of `old`.
fn difference(old: &Object, new: &Object) -> Object {
    let mut patch = Object::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match (old.get(key), value) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                patch.insert(key.clone(), Value::Object(difference(old, new)));
            }
            (_, new) => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn object(value: &Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_patch_merges_deletes_by_null_and_raises_the_version_by_one() {
        let mut properties = Properties::new(NOW);
        properties
            .patch(object(&json!({"a": {"b": 1, "c": [1, 2]}, "d": "x", "$version": 99})), NOW)
            .unwrap();
        let told =
            properties.patch(object(&json!({"a": {"b": null, "c": [3]}, "d": {"e": null}})), NOW).unwrap();
        assert_eq!(properties.to_object(), object(&json!({"a": {"c": [3]}, "d": {}, "$version": 3})));
        assert_eq!(told, object(&json!({"a": {"b": null, "c": [3]}, "d": {"e": null}})));
    }

    #[test]
    fn the_difference_of_a_replacement_makes_the_new_from_the_old() {
        let (old, new) = (
            object(&json!({"same": 1, "gone": {"x": 1}, "inner": {"keep": 1, "drop": 2}, "kind": {"a": 1}})),
            object(&json!({"same": 1, "inner": {"keep": 1, "add": 3}, "kind": 7, "fresh": {"y": [1]}})),
        );
        let mut properties = Properties::new(NOW);
        properties.replace(old.clone(), NOW).unwrap();
        let patch = properties.replace(new.clone(), NOW).unwrap();
        let expected =
            json!({"gone": null, "inner": {"drop": null, "add": 3}, "kind": 7, "fresh": {"y": [1]}});
        assert_eq!(Value::Object(patch.clone()), expected);
        let mut client = old;
        merge(&mut client, &patch);
        assert_eq!(client, new);
        assert!(properties.replace(new, NOW).unwrap().is_empty());
        assert_eq!(properties.version(), 4);
    }

    #[test]
    fn each_property_tells_when_it_changed() {
        let later = Timestamp::from_second(60).unwrap();
        let (first, second) = (NOW.to_string(), later.to_string());
        let mut properties = Properties::new(NOW);
        properties.patch(object(&json!({"a": {"b": 1, "c": 1}, "d": {"e": 1}, "f": 1})), NOW).unwrap();
        properties.patch(object(&json!({"a": {"b": 2}, "d": 3, "f": null})), later).unwrap();
        let at = |time: &str| json!({ "$lastUpdated": time });
        let a = json!({"$lastUpdated": second, "b": at(&second), "c": at(&first)});
        let expected = json!({"$lastUpdated": second, "a": a, "d": at(&second)});
        assert_eq!(Value::Object(properties.metadata()), expected);
    }

    #[test]
    fn tags_are_merged_or_replaced_and_bounded() {
        let mut twin = Twin::new(NOW);
        let (etag, version) = (twin.etag(), twin.version());
        twin.write_tags(&object(&json!({"site": {"floor": 1, "room": 2}})), false).unwrap();
        twin.write_tags(&object(&json!({"site": {"floor": null}, "x": 1})), false).unwrap();
        assert_eq!(twin.tags, object(&json!({"site": {"room": 2}, "x": 1})));
        assert_eq!((twin.etag(), twin.version()), (etag + 2, version + 2));
        twin.write_tags(&object(&json!({"y": 1})), true).unwrap();
        assert_eq!(twin.tags, object(&json!({"y": 1})));
        let large: Object = (0..3).map(|n| (format!("k{n}"), json!("x".repeat(MAX_STRING_BYTES)))).collect();
        assert_eq!(twin.write_tags(&large, false), Err(TwinError::TooLarge));
        assert_eq!(twin.write_tags(&object(&json!({"a.b": 1})), false), Err(TwinError::Key("a.b".into())));
        assert_eq!(twin.tags, object(&json!({"y": 1})));
    }

    #[test]
    fn a_replacement_keeps_no_null() {
        let mut properties = Properties::new(NOW);
        properties.replace(object(&json!({"a": null, "b": {"c": null}})), NOW).unwrap();
        assert_eq!(properties.to_object(), object(&json!({"b": {}, "$version": 2})));
    }

    #[test]
    fn what_breaks_a_limit_is_refused_and_changes_nothing() {
        let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }));
        let arrays = (0..20).fold(json!(1), |inner, _| json!([inner]));
        let large: Object = (0..9).map(|n| (format!("k{n}"), json!("x".repeat(MAX_STRING_BYTES)))).collect();
        let cases = [
            (nested(MAX_DEPTH + 1), TwinError::TooDeep),
            (json!({ "a": arrays }), TwinError::TooDeep),
            (json!({"a": {"b.c": 1}}), TwinError::Key("b.c".into())),
            (json!({"$op": 1}), TwinError::Key("$op".into())),
            (json!({"a b": 1}), TwinError::Key("a b".into())),
            (json!({"": 1}), TwinError::Key(String::new())),
            (json!({"a": ["x".repeat(MAX_STRING_BYTES + 1)]}), TwinError::StringTooLong("a".into())),
            (Value::Object(large), TwinError::TooLarge),
        ];
        for (patch, error) in cases {
            let mut properties = Properties::new(NOW);
            assert_eq!(properties.patch(object(&patch), NOW), Err(error.clone()));
            assert_eq!(properties.replace(object(&patch), NOW), Err(error));
            assert_eq!(properties.version(), 1);
        }
        assert!(Properties::new(NOW).patch(object(&nested(MAX_DEPTH)), NOW).is_ok());
    }
}
