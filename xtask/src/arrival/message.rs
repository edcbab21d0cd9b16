//! A message as an Event Hub hands it out, turned into the one that KEdge's own hub would give.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fe2o3_amqp::types::messaging::annotations::OwnedKey;
use fe2o3_amqp::types::messaging::{Body, Message};
use fe2o3_amqp::types::primitives::{SimpleValue, Value};
use jiff::Timestamp;
use kedge_sim::service::TelemetryMessage;

/// What an Event Hub says of a message.
const ENQUEUED: &str = "x-opt-enqueued-time";
const NUMBER: &str = "x-opt-sequence-number";
/// What IoT Hub says of it.
const DEVICE: &str = "iothub-connection-device-id";
const MODULE: &str = "iothub-connection-module-id";
const OF_THE_HUB: &str = "iothub-";

/// The message, when it is one that a device has sent; the hub's own events have no sender.
pub(super) fn telemetry(message: Message<Body<Value>>) -> Option<TelemetryMessage> {
    let annotations = message.message_annotations.map(|annotations| annotations.0).unwrap_or_default();
    let annotation = |name: &str| annotations.get(&OwnedKey::from(name));
    let word = |name: &str| annotation(name).and_then(text);
    let system_properties = annotations
        .iter()
        .filter_map(|(name, value)| match name {
            OwnedKey::Symbol(name) if name.0.starts_with(OF_THE_HUB) => Some((name.0.clone(), text(value)?)),
            _ => None,
        })
        .collect();
    let bytes = match message.body {
        Body::Data(parts) => parts.into_iter().flat_map(|part| part.0.into_vec()).collect(),
        Body::Value(value) => text(&value.0).unwrap_or_default().into_bytes(),
        Body::Sequence(_) | Body::Empty => Vec::new(),
    };
    let (body, body_base64) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    Some(TelemetryMessage {
        offset: annotation(NUMBER).and_then(number).unwrap_or_default(),
        enqueued_time_utc: annotation(ENQUEUED).and_then(time)?,
        device_id: word(DEVICE)?,
        module_id: word(MODULE),
        system_properties,
        properties: message.application_properties.map(|all| properties(&all.0)).unwrap_or_default(),
        body,
        body_base64,
    })
}

fn properties<'a>(all: impl IntoIterator<Item = (&'a String, &'a SimpleValue)>) -> BTreeMap<String, String> {
    let shown = |value: &SimpleValue| text(&Value::from(value.clone()));
    all.into_iter().filter_map(|(name, value)| Some((name.clone(), shown(value)?))).collect()
}

/// A value that is text, or has an obvious one.
pub(super) fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Symbol(symbol) => symbol.0.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Timestamp(_) => time(value)?.to_string(),
        _ => number(value)?.to_string(),
    })
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match *value {
        Value::Ubyte(number) => Some(number.into()),
        Value::Ushort(number) => Some(number.into()),
        Value::Uint(number) => Some(number.into()),
        Value::Ulong(number) => Some(number),
        Value::Byte(number) => number.try_into().ok(),
        Value::Short(number) => number.try_into().ok(),
        Value::Int(number) => number.try_into().ok(),
        Value::Long(number) => number.try_into().ok(),
        _ => None,
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Timestamp(time) => Timestamp::from_millisecond(time.milliseconds()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fe2o3_amqp::types::messaging::{ApplicationProperties, Batch, Data, MessageAnnotations};
    use fe2o3_amqp::types::primitives::Binary;

    fn message(annotations: &[(&str, Value)], body: Body<Value>) -> Message<Body<Value>> {
        let mut all = MessageAnnotations::default();
        for (name, value) in annotations {
            all.insert(OwnedKey::from(*name), value.clone());
        }
        let properties =
            ApplicationProperties::builder().insert("sequenceNumber", "7").insert("n", 5_i32).build();
        Message::builder().message_annotations(all).application_properties(properties).body(body).build()
    }

    fn data(bytes: &[u8]) -> Body<Value> {
        Body::Data(Batch::new(vec![Data(Binary::from(bytes.to_vec()))]))
    }

    fn of_a_module() -> Vec<(&'static str, Value)> {
        vec![
            (ENQUEUED, Value::Timestamp(1_700_000_000_123.into())),
            (NUMBER, Value::Long(42)),
            (DEVICE, Value::String("device".into())),
            (MODULE, Value::String("tempSensor".into())),
        ]
    }

    #[test]
    fn sender_time_properties_and_body_are_taken_over() {
        let message = telemetry(message(&of_a_module(), data(b"{}"))).unwrap();
        assert_eq!((message.offset, message.device_id.as_str()), (42, "device"));
        assert_eq!(message.module_id.as_deref(), Some("tempSensor"));
        assert_eq!(message.enqueued_time_utc.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(message.system_properties[DEVICE], "device");
        assert_eq!(
            (message.properties["sequenceNumber"].as_str(), message.properties["n"].as_str()),
            ("7", "5")
        );
        assert_eq!(message.body.as_deref(), Some("{}"));
    }

    #[test]
    fn a_body_that_is_no_text_is_kept_as_base64() {
        let message = telemetry(message(&of_a_module(), data(&[0xff, 0xfe]))).unwrap();
        assert_eq!((message.body, message.body_base64.as_deref()), (None, Some("//4=")));
    }

    #[test]
    fn what_no_device_has_sent_is_no_telemetry() {
        assert_eq!(telemetry(message(&of_a_module()[..2], data(b"{}"))), None);
        assert_eq!(telemetry(message(&of_a_module()[1..], data(b"{}"))), None, "it has no time");
    }
}
