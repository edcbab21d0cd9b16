//! From text to objects: what Kubernetes would drop without a word is a mistake, told with its place.

use anyhow::{Result, bail};
use kedge_sim::secret::without_quoted_text;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Object;

/// Something that a manifest must not have.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Which document of the file, from 0.
    pub document: usize,
    /// How to get to the place; empty for the document as a whole.
    pub path: Vec<Step>,
    /// What is wrong.
    pub text: String,
}

/// One level further into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// By the name of a field.
    Field(String),
    /// By the index of an item.
    Item(usize),
}

pub(super) fn parse(source: &str) -> Result<Vec<Object>> {
    let (objects, mistakes) = read(source);
    match mistakes.first() {
        None => Ok(objects),
        Some(mistake) => bail!("document {}: {}", mistake.document + 1, mistake.text),
    }
}

/// The objects that are as they should be, and what is wrong with the others.
pub(super) fn read(source: &str) -> (Vec<Object>, Vec<Mistake>) {
    let (mut objects, mut mistakes) = (Vec::new(), Vec::new());
    for (index, document) in serde_yaml::Deserializer::from_str(source).enumerate() {
        let mut found = Vec::new();
        let value = serde_json::Value::deserialize(document);
        // After an error the reader does not get on: it would give the same one for ever.
        let is_readable = value.is_ok();
        match value {
            Ok(serde_json::Value::Null) => {}
            Ok(value) => objects.extend(object(&value, &mut found)),
            Err(error) => found.push((Vec::new(), format!("not YAML: {error}"))),
        }
        mistakes.extend(found.into_iter().map(|(path, text)| Mistake { document: index, path, text }));
        if !is_readable {
            break;
        }
    }
    (objects, mistakes)
}

/// Where something is wrong, and what.
type Found = (Vec<Step>, String);

fn object(value: &serde_json::Value, found: &mut Vec<Found>) -> Option<Object> {
    match value["kind"].as_str().unwrap_or_default() {
        "Namespace" => typed(value, found).map(Object::Namespace),
        "Secret" => typed(value, found).map(Object::Secret),
        "ConfigMap" => typed(value, found).map(Object::ConfigMap),
        "ServiceAccount" => typed(value, found).map(Object::ServiceAccount),
        "PersistentVolumeClaim" => typed(value, found).map(|it| Object::PersistentVolumeClaim(Box::new(it))),
        "Service" => typed(value, found).map(|it| Object::Service(Box::new(it))),
        "Deployment" => typed(value, found).map(|it| Object::Deployment(Box::new(it))),
        "DaemonSet" => typed(value, found).map(|it| Object::DaemonSet(Box::new(it))),
        other => {
            let text = format!("the kind is {other:?}, which KEdge does not apply");
            found.push((vec![Step::Field("kind".into())], text));
            None
        }
    }
}

/// Reads an object and refuses what the type does not know: the API server would drop it without a word.
fn typed<T: DeserializeOwned + Serialize>(value: &serde_json::Value, found: &mut Vec<Found>) -> Option<T> {
    let kind = value["kind"].as_str().unwrap_or_default();
    let object: T = match serde_path_to_error::deserialize(value) {
        Ok(object) => object,
        Err(error) => {
            let path = error.path().iter().filter_map(step).collect();
            // What stands in the wrong place may be a credential.
            let reason = without_quoted_text(&error.inner().to_string());
            found.push((path, format!("not a valid {kind}: `{}`: {reason}", error.path())));
            return None;
        }
    };
    // Types of Kubernetes can always be written.
    let kept = serde_json::to_value(&object).unwrap_or_default();
    let mut lost = Vec::new();
    self::lost(value, &kept, &mut Vec::new(), &mut lost);
    let is_whole = lost.is_empty();
    found.extend(lost.into_iter().map(|path| {
        let text = format!("not a valid {kind}: unknown field `{}`", path_text(&path));
        (path, text)
    }));
    is_whole.then_some(object)
}

fn step(segment: &serde_path_to_error::Segment) -> Option<Step> {
    match segment {
        serde_path_to_error::Segment::Seq { index } => Some(Step::Item(*index)),
        serde_path_to_error::Segment::Map { key } => Some(Step::Field(key.clone())),
        _ => None,
    }
}

fn path_text(path: &[Step]) -> String {
    let text: String = path
        .iter()
        .map(|step| match step {
            Step::Field(name) => format!(".{name}"),
            Step::Item(index) => format!("[{index}]"),
        })
        .collect();
    text.trim_start_matches('.').to_owned()
}

/// Collects the fields of `written` that are not in `kept`.
fn lost(
    written: &serde_json::Value,
    kept: &serde_json::Value,
    path: &mut Vec<Step>,
    lost_fields: &mut Vec<Vec<Step>>,
) {
    use serde_json::Value;
    match (written, kept) {
        (Value::Object(fields), Value::Object(others)) => {
            for (name, field) in fields {
                path.push(Step::Field(name.clone()));
                match others.get(name) {
                    Some(other) => lost(field, other, path, lost_fields),
                    None if field.is_null() => {}
                    None => lost_fields.push(path.clone()),
                }
                path.pop();
            }
        }
        (Value::Array(items), Value::Array(others)) => {
            for (index, (item, other)) in items.iter().zip(others).enumerate() {
                path.push(Step::Item(index));
                lost(item, other, path, lost_fields);
                path.pop();
            }
        }
        _ => {}
    }
}
