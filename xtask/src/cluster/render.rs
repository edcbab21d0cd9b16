//! YAML as Kubernetes reads it.

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::manifests::Object;

/// Words that YAML 1.1, which Kubernetes speaks, takes for booleans, and that our writer leaves without quotes.
const BARE_BOOLEANS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];

/// Renders objects as documents of one YAML stream.
///
/// # Errors
/// When an object holds a text that Kubernetes would take for a boolean.
pub fn documents<T: Serialize>(objects: &[T]) -> Result<String> {
    let mut text = String::new();
    for object in objects {
        let value = serde_json::to_value(object)?;
        refuse_bare_booleans(&value, "")?;
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&value)?);
    }
    Ok(text)
}

/// The same for people to read: each Secret without its values, and as a comment. Applied, it would take the place of the
/// real one.
///
/// # Errors
/// As [`documents`].
pub fn for_people(objects: &[Object]) -> Result<String> {
    let mut text = String::new();
    for object in objects {
        let document = documents(&[object.redacted()])?;
        if object.is_secret() {
            document.lines().skip(1).for_each(|line| text += &format!("# {line}\n"));
        } else {
            text += &document;
        }
    }
    Ok(text)
}

fn refuse_bare_booleans(value: &Value, path: &str) -> Result<()> {
    match value {
        Value::String(text) if BARE_BOOLEANS.contains(&text.to_lowercase().as_str()) => {
            bail!("{path} is the text {text:?}, which Kubernetes would read as a boolean; use another word")
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| refuse_bare_booleans(item, &format!("{path}[{index}]"))),
        Value::Object(fields) => {
            fields.iter().try_for_each(|(name, field)| refuse_bare_booleans(field, &format!("{path}.{name}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_become_documents() {
        let text = documents(&[json!({"a": 1}), json!({"b": "two"})]).unwrap();
        assert_eq!(text, "---\na: 1\n---\nb: two\n");
    }

    #[test]
    fn a_text_that_kubernetes_would_take_for_a_boolean_is_refused() {
        for word in ["on", "Off", "yes", "NO", "y"] {
            let error = documents(&[json!({"data": [{"mode": word}]})]).unwrap_err();
            assert!(error.to_string().starts_with(".data[0].mode is the text"), "{error}");
        }
    }
}
