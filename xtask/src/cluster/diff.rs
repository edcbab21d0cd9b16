//! In which fields two objects differ: what the API server holds, and what it would hold.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The longest value that is shown of a field.
const LONGEST_VALUE: usize = 80;
/// What the items of a list are told apart by, where they have it.
const NAMES: [&str; 2] = ["name", "mountPath"];

/// A field in which two objects differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// How to get there, for example `.spec.replicas`.
    pub path: String,
    /// What is there, shortened.
    pub live: String,
    /// What is wanted, shortened.
    pub wanted: String,
}

/// All fields in which two objects differ, but for those that the API server keeps for itself.
#[must_use]
pub fn differences(live: &Value, wanted: &Value) -> Vec<Difference> {
    differences_at("", live, wanted)
}

/// The same for a part of both, which is at `path`.
#[must_use]
pub fn differences_at(path: &str, live: &Value, wanted: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    collect(live, wanted, path, &mut found);
    found
}

fn collect(live: &Value, wanted: &Value, path: &str, found: &mut Vec<Difference>) {
    if live == wanted || is_bookkeeping(path) {
        return;
    }
    match (live, wanted) {
        (Value::Object(here), Value::Object(there)) => {
            let names: BTreeSet<_> = here.keys().chain(there.keys()).collect();
            let of = |fields: &Map<String, Value>, name: &str| fields.get(name).cloned().unwrap_or_default();
            for name in names {
                collect(&of(here, name), &of(there, name), &format!("{path}{}", key(name)), found);
            }
        }
        (Value::Array(here), Value::Array(there)) if have_the_same_items(here, there) => {
            for (index, (here, there)) in here.iter().zip(there).enumerate() {
                let item = name_of(there).map_or_else(|| index.to_string(), str::to_owned);
                collect(here, there, &format!("{path}[{item}]"), found);
            }
        }
        _ => found.push(Difference { path: path.to_owned(), live: short(live), wanted: short(wanted) }),
    }
}

/// A key as one step further: one with dots in it would be taken for several.
fn key(name: &str) -> String {
    if name.contains('.') { format!("[{name}]") } else { format!(".{name}") }
}

fn have_the_same_items(here: &[Value], there: &[Value]) -> bool {
    here.len() == there.len() && here.iter().zip(there).all(|(here, there)| name_of(here) == name_of(there))
}

fn name_of(item: &Value) -> Option<&str> {
    NAMES.iter().find_map(|name| item.get(name)?.as_str())
}

/// Fields that the API server keeps for itself.
fn is_bookkeeping(path: &str) -> bool {
    [".metadata.managedFields", ".metadata.resourceVersion", ".metadata.generation", ".status"]
        .contains(&path)
}

fn short(value: &Value) -> String {
    let text = if value.is_null() { "absent".to_owned() } else { value.to_string() };
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(live: &Value, wanted: &Value) -> Vec<String> {
        let all = differences(live, wanted).into_iter();
        all.map(|it| format!("{}: {} -> {}", it.path, it.live, it.wanted)).collect()
    }

    #[test]
    fn every_field_that_differs_is_named_with_both_values() {
        let live = json!({ "metadata": { "resourceVersion": "1" }, "spec": { "replicas": 0, "list": [{ "a": 1 }] } });
        let mut wanted = live.clone();
        wanted["metadata"]["resourceVersion"] = json!("2");
        wanted["status"] = json!({ "replicas": 1 });
        assert_eq!(shown(&live, &wanted), [""; 0]);
        wanted["spec"]["list"][0]["a"] = json!("x");
        wanted["spec"]["replicas"] = json!(1);
        assert_eq!(shown(&live, &wanted), [".spec.list[0].a: 1 -> \"x\"", ".spec.replicas: 0 -> 1"]);
        wanted["spec"]["list"] = json!([]);
        assert_eq!(shown(&live, &wanted)[0], ".spec.list: [{\"a\":1}] -> []");
    }

    #[test]
    fn items_are_called_by_their_names() {
        let live = json!({ "containers": [{ "name": "edge", "image": "a" }], "labels": { "a.io/b": "c" } });
        let mut wanted = live.clone();
        wanted["containers"][0]["image"] = json!("b");
        wanted["labels"]["a.io/b"] = json!("d");
        assert_eq!(
            shown(&live, &wanted),
            [".containers[edge].image: \"a\" -> \"b\"", ".labels[a.io/b]: \"c\" -> \"d\""]
        );
        wanted["containers"][0]["name"] = json!("other");
        assert!(
            shown(&live, &wanted)[0].starts_with(".containers: ["),
            "another item is no change of this one"
        );
    }

    #[test]
    fn what_is_absent_and_what_is_long_stays_readable() {
        let found = differences(&json!({}), &json!({ "a": "ä".repeat(200) }));
        assert_eq!(found[0].live, "absent");
        assert!(found[0].wanted.ends_with('…') && found[0].wanted.chars().count() == LONGEST_VALUE + 1);
    }
}
