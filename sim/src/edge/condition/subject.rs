//! A message, as conditions see it.

use std::cell::OnceCell;

use serde_json::Value as Json;

use super::eval::{Path, Step, Value};
use crate::topics::{PropertyBag, system};

/// Names in conditions and on the wire.
const SYSTEM_NAMES: [(&str, &str); 18] = [
    ("messageId", "$.mid"),
    ("correlationId", "$.cid"),
    ("cid", "$.cid"),
    ("userId", "$.uid"),
    ("to", "$.to"),
    ("ack", "ack"),
    ("outputName", "$.on"),
    ("contentType", "$.ct"),
    ("contentEncoding", "$.ce"),
    ("creationTime", "$.ctime"),
    ("messageSchema", "$.schema"),
    ("operation", "iothub-operation"),
    ("absolute-expiry-time", "$.exp"),
    ("iothub-interface-id", "$.ifid"),
    ("dt-subject", "$.sub"),
    ("connectionDeviceId", "$.cdid"),
    ("connectionModuleId", "$.cmid"),
    ("inputName", "$.input"),
];

/// What conditions are asked of.
#[derive(Debug)]
pub struct Subject<'a> {
    properties: &'a PropertyBag,
    body: &'a [u8],
    json: OnceCell<Option<Json>>,
}

impl<'a> Subject<'a> {
    /// A message whose properties say already whom it comes from.
    #[must_use]
    pub fn new(properties: &'a PropertyBag, body: &'a [u8]) -> Self {
        Self { properties, body, json: OnceCell::new() }
    }

    /// A property of the application; its name in any case.
    pub(super) fn application(&self, name: &str) -> Option<&str> {
        let mut properties = self.properties.iter().filter(|(key, _)| !key.starts_with("$."));
        properties.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// A system property; its name in any case.
    pub(super) fn system(&self, name: &str) -> Option<&str> {
        let (_, wire) = SYSTEM_NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        self.properties.get(wire)
    }

    /// A part of a JSON body. Objects and arrays are undefined, and what is not there is null.
    pub(super) fn body(&self, path: &Path) -> Value {
        let Some(json) = self.json() else { return Value::Undefined };
        match find(json, path) {
            None | Some(Json::Null) => Value::Null,
            Some(Json::Bool(value)) => Value::Bool(*value),
            Some(Json::Number(number)) => number.as_f64().map_or(Value::Undefined, Value::number),
            Some(Json::String(text)) => Value::String(text.clone()),
            Some(Json::Array(_) | Json::Object(_)) => Value::Undefined,
        }
    }

    /// Whether a JSON body has a part; `None` when it is not JSON.
    pub(super) fn body_has(&self, path: &Path) -> Option<bool> {
        self.json().map(|json| find(json, path).is_some())
    }

    /// The body as an object, when the sender says that it is JSON.
    fn json(&self) -> Option<&Json> {
        let parse = || {
            let is = |property, wanted: &str| {
                self.properties.get(property).is_some_and(|given| given.eq_ignore_ascii_case(wanted))
            };
            if !is(system::CONTENT_TYPE, "application/json") {
                return None;
            }
            let text = if is(system::CONTENT_ENCODING, "utf-8") {
                std::borrow::Cow::Borrowed(self.body)
            } else if is(system::CONTENT_ENCODING, "utf-16") {
                let units = self.body.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
                let text: String = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
                std::borrow::Cow::Owned(text.into_bytes())
            } else if is(system::CONTENT_ENCODING, "utf-32") {
                let units = self.body.chunks_exact(4);
                let units = units.map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
                let text: String = units.map(char::from_u32).collect::<Option<_>>()?;
                std::borrow::Cow::Owned(text.into_bytes())
            } else {
                return None;
            };
            serde_json::from_slice(&text).ok().filter(Json::is_object)
        };
        self.json.get_or_init(parse).as_ref()
    }
}

fn find<'a>(json: &'a Json, path: &Path) -> Option<&'a Json> {
    path.iter().try_fold(json, |json, step| match step {
        Step::Name(name) => json.get(name),
        Step::Index(index) => json.get(index),
    })
}
