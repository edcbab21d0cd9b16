//! JSON as clients send it.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};

/// What was written as an object. A struct by itself is read from an array, too, whose items are taken for its fields
/// in the order of the source.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct JsonObject<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Reads a text that is one object.
pub(crate) fn read_object<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text).map(|JsonObject(value)| value)
}

/// Reads a text that is one object, or nothing, which says as much as `{}`.
pub(crate) fn read_object_if_any<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    read_object(if text.is_empty() { b"{}" } else { text })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        inner: Option<JsonObject<Inner>>,
        raw: Option<Box<RawValue>>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        number: u8,
    }

    #[test]
    fn only_an_object_is_read_as_one() {
        for text in
            ["[]", "[null, null]", "null", "1", "\"a\"", "", "{\"inner\": [1]}", "{\"inner\": 1}", "{} {}"]
        {
            assert!(read_object::<Outer>(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read_object::<Value>(b"[]").is_err());
        let error = read_object::<Outer>(b"[null]").unwrap_err().to_string();
        assert_eq!(error, "invalid type: sequence, expected an object at line 1 column 0");
        let read: Outer = read_object(b"{\"inner\": {\"number\": 7}, \"raw\": {\"x\":  1.0}}").unwrap();
        assert_eq!(read.inner.map(|JsonObject(inner)| inner.number), Some(7));
        assert_eq!(read.raw.unwrap().get(), "{\"x\":  1.0}");
        assert!(read_object::<Outer>(b"{\"inner\": null}").unwrap().inner.is_none());
    }
}
