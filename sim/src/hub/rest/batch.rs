//! Several messages in one request, as IoT Hub's SDKs send them over HTTPS: all of them are taken, or none.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;

use super::error::ApiError;
use super::messages::{MAX_PROPERTIES, bag_name};
use crate::json::JsonObject;
use crate::topics::{MAX_MESSAGE, PropertyBag};

const BATCH_TYPE: &str = "application/vnd.microsoft.iothub.json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    body: String,
    #[serde(default = "is_usual")]
    base64_encoded: bool,
    /// By the names of the headers of a single message.
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

fn is_usual() -> bool {
    true
}

/// True when the body of a request is a batch.
pub(super) fn is_batch(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(BATCH_TYPE))
}

/// The messages of a batch.
pub(super) fn read(body: &[u8]) -> Result<Vec<(PropertyBag, Bytes)>, ApiError> {
    if body.len() > MAX_MESSAGE {
        return Err(ApiError::too_large(format!("a batch is at most {MAX_MESSAGE} bytes")));
    }
    let entries: Vec<JsonObject<Entry>> = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the batch is invalid: {error}")))?;
    entries.into_iter().map(|JsonObject(entry)| entry.into_message()).collect()
}

impl Entry {
    fn into_message(self) -> Result<(PropertyBag, Bytes), ApiError> {
        if self.properties.len() > MAX_PROPERTIES {
            return Err(ApiError::bad_request(format!("a message has at most {MAX_PROPERTIES} properties")));
        }
        let mut properties = PropertyBag::new();
        for (header, value) in self.properties {
            if let Some(name) = bag_name(&header) {
                properties.set(name, value);
            }
        }
        let body = match self.base64_encoded {
            true => STANDARD
                .decode(self.body)
                .map_err(|_| ApiError::bad_request("the body of a message in the batch is not base64"))?,
            false => self.body.into_bytes(),
        };
        Ok((properties, body.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_told_by_its_content_type() {
        let of = |text: &'static str| [(CONTENT_TYPE, text.parse().unwrap())].into_iter().collect();
        assert!(is_batch(&of("application/vnd.microsoft.iothub.json")));
        assert!(is_batch(&of("Application/vnd.microsoft.IoTHub.json; charset=utf-8")));
        assert!(!is_batch(&of("application/json")) && !is_batch(&HeaderMap::new()));
    }

    #[test]
    fn messages_are_read_as_the_sdks_write_them() {
        let text = r#"[{"body":"aGVsbG8=","properties":{"iothub-app-a":"1","iothub-messageid":"m","host":"x"}},
            {"body":"plain","base64Encoded":false},{"body":"","base64Encoded":true}]"#;
        let messages = read(text.as_bytes()).unwrap();
        let bodies: Vec<_> = messages.iter().map(|(_, body)| &body[..]).collect();
        assert_eq!(bodies, [&b"hello"[..], b"plain", b""]);
        assert_eq!(messages[0].0.iter().collect::<Vec<_>>(), [("a", "1"), ("$.mid", "m")]);
        assert_eq!(read(b"[]").unwrap(), []);
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let many: BTreeMap<_, _> = (0..=MAX_PROPERTIES).map(|n| (format!("iothub-app-{n}"), "")).collect();
        let many = serde_json::json!([{"body": "", "properties": many}]).to_string();
        let large = " ".repeat(MAX_MESSAGE + 1);
        for text in ["", "{}", "[1]", r#"[["dHdv"]]"#, r#"[{}]"#, r#"[{"body":"?"}]"#, &many, &large] {
            assert!(read(text.as_bytes()).is_err(), "{text:.40}");
        }
    }
}
