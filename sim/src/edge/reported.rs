//! The reported properties of `$edgeAgent` and `$edgeHub`, as views of the runtime's state.

mod edge_agent;

use serde_json::{Map, Value, json};

use super::board::{ConfigStatus, RuntimeState};

pub use edge_agent::edge_agent;

/// Version of the schema of what `$edgeHub` reports.
const SCHEMA_VERSION: &str = "1.1";
/// Characters of a description. Properties have at most 4096 bytes.
const MAX_TEXT: usize = 1000;
/// Names the simulated runtime in every report, so that nobody takes it for the real one.
const PRODUCT: &str = concat!("kedge-simulated ", env!("CARGO_PKG_VERSION"));

/// What `$edgeHub` reports.
#[must_use]
pub fn edge_hub(state: &RuntimeState) -> Value {
    let mut reported = common(&state.routes);
    let clients: Map<String, Value> = state
        .clients
        .iter()
        .map(|(name, client)| {
            let (status, time) = match client.connected {
                true => ("Connected", "lastConnectedTimeUtc"),
                false => ("Disconnected", "lastDisconnectedTimeUtc"),
            };
            (name.to_string(), json!({"status": status, time: client.since.to_string()}))
        })
        .collect();
    reported["clients"] = Value::Object(clients);
    reported
}

fn common(status: &ConfigStatus) -> Value {
    json!({
        "schemaVersion": SCHEMA_VERSION,
        "version": {"version": PRODUCT, "build": "", "commit": ""},
        "lastDesiredVersion": status.version,
        "lastDesiredStatus": {
            "code": if status.status == 0 { 406 } else { status.status },
            "description": shortened(&status.description),
        },
    })
}

/// A text that the hub takes for a property; it would refuse the whole report for a longer one.
fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// The patch that makes `new` of `old`; `None` when there is nothing to do. `$` keys are the hub's.
#[must_use]
pub fn patch(old: &Value, new: &Value) -> Option<Value> {
    let (Some(old_map), Some(new_map)) = (old.as_object(), new.as_object()) else {
        return (old != new).then(|| new.clone());
    };
    let mut changed = Map::new();
    for (key, value) in new_map {
        match old_map.get(key) {
            None if value.is_null() => {}
            None => {
                changed.insert(key.clone(), without_nulls(value));
            }
            Some(old) => changed.extend(patch(old, value).map(|patch| (key.clone(), patch))),
        }
    }
    for key in old_map.keys().filter(|key| !key.starts_with('$') && !new_map.contains_key(*key)) {
        changed.insert(key.clone(), Value::Null);
    }
    (!changed.is_empty()).then_some(Value::Object(changed))
}

/// In a new section `null` has no meaning.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::board::ClientState;
    use crate::identity::Identity;

    #[test]
    fn the_gateways_clients_are_reported_by_device_and_module() {
        let mut state = RuntimeState::default();
        let since = jiff::Timestamp::UNIX_EPOCH;
        state.clients.insert(Identity::module("d", "a").unwrap(), ClientState { connected: true, since });
        state.clients.insert(Identity::device("leaf").unwrap(), ClientState { connected: false, since });
        let clients = &edge_hub(&state)["clients"];
        assert_eq!(
            clients["d/a"],
            json!({"status": "Connected", "lastConnectedTimeUtc": "1970-01-01T00:00:00Z"})
        );
        assert_eq!(clients["leaf"]["status"], "Disconnected");
    }

    #[test]
    fn a_patch_holds_the_difference_only() {
        let old = json!({"a": 1, "b": {"x": 1, "y": 2}, "gone": true, "$version": 4});
        let new = json!({"a": 1, "b": {"x": 3, "y": 2}, "new": {"z": 1, "n": null}, "none": null});
        let expected = json!({"b": {"x": 3}, "gone": null, "new": {"z": 1}});
        assert_eq!(patch(&old, &new), Some(expected));
        assert_eq!(patch(&new, &new), None);
        assert_eq!(patch(&json!({"a": 1, "$version": 1}), &json!({"a": 1})), None);
        assert_eq!(patch(&json!({"a": 1}), &json!({"a": null})), Some(json!({"a": null})));
        assert_eq!(patch(&json!({"a": {}}), &json!({"a": [1]})), Some(json!({"a": [1]})));
    }
}
