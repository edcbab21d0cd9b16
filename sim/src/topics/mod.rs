//! The MQTT topics of IoT Hub, in both directions, shared by the hub and the gateway.
//!
//! Clients publish [`ClientTopic`]s and subscribe to [`Subscription`]s; the hub publishes [`HubTopic`]s. All
//! three are read with `parse` and written with `Display`; `parse` accepts any text and never panics.

mod client;
mod hub;
mod properties;
mod subscription;

pub use client::ClientTopic;
pub use hub::HubTopic;
pub use properties::{PropertyBag, system};
pub use subscription::Subscription;

use crate::identity::Identity;

/// The largest message that IoT Hub takes from a device or module: topic and body together.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// The longest topic that is read; MQTT itself allows 65535 bytes.
pub const MAX_TOPIC_LEN: usize = 16 * 1024;
/// The longest request id that is read. Clients choose a number or a UUID.
const MAX_REQUEST_ID_LEN: usize = 256;

/// Why a topic was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No topic of IoT Hub has this form.
    #[error("the topic is not one of IoT Hub")]
    Unknown,
    /// The topic or one of its parts is too long.
    #[error("the topic is too long")]
    TooLong,
    /// The property bag is not `name=value` pairs in percent-encoded UTF-8.
    #[error("the property bag is malformed: {0}")]
    Properties(&'static str),
    /// The `?$rid=…` part is malformed.
    #[error("the request id is missing or malformed")]
    RequestId,
}

fn bounded(topic: &str) -> Result<&str, TopicError> {
    if topic.len() <= MAX_TOPIC_LEN { Ok(topic) } else { Err(TopicError::TooLong) }
}

/// Splits `devices/{d}[/modules/{m}]/{rest}`.
fn split_identity(topic: &str) -> Option<(Identity, &str)> {
    let (device, rest) = topic.strip_prefix("devices/")?.split_once('/')?;
    match rest.strip_prefix("modules/") {
        Some(rest) => {
            let (module, rest) = rest.split_once('/')?;
            Some((Identity::module(device, module).ok()?, rest))
        }
        None => Some((Identity::device(device).ok()?, rest)),
    }
}

/// Reads the `name=value` parts after the `?` of a `$iothub` topic.
fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|part| part.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn request_id(query: &str) -> Result<String, TopicError> {
    match query_value(query, "$rid") {
        Some(rid) if !rid.is_empty() && rid.len() <= MAX_REQUEST_ID_LEN => Ok(rid.to_owned()),
        _ => Err(TopicError::RequestId),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each prefix of the text, and the text with each character replaced by others.
    fn mutations(text: &str) -> Vec<String> {
        let characters: Vec<char> = text.chars().collect();
        let mut mutations = Vec::new();
        for position in 0..characters.len() {
            mutations.push(characters[..position].iter().collect());
            for replacement in ['/', '?', '&', '=', '%', '$', '#', '+', '\0', 'ü', '🦀'] {
                let mut changed = characters.clone();
                changed[position] = replacement;
                mutations.push(changed.into_iter().collect());
            }
        }
        mutations
    }

    #[test]
    fn whatever_is_read_is_written_and_read_the_same_and_nothing_panics() {
        for valid in [
            "devices/d/modules/$edgeHub/messages/events/%24.on=out&a%20b=1",
            "$iothub/twin/PATCH/properties/reported/?$rid=1f",
            "$iothub/methods/res/200/?$rid=1",
            "$iothub/twin/res/204/?$rid=1&$version=2",
            "$iothub/methods/POST/ping/?$rid=1",
            "devices/d/modules/m/inputs/in/%24.cdid=d",
            "devices/d/messages/devicebound/#",
            "$iothub/twin/PATCH/properties/desired/#",
        ] {
            for text in mutations(valid) {
                if let Ok(topic) = ClientTopic::parse(&text) {
                    assert_eq!(ClientTopic::parse(&topic.to_string()), Ok(topic), "{text:?}");
                }
                if let Ok(topic) = HubTopic::parse(&text) {
                    assert_eq!(HubTopic::parse(&topic.to_string()), Ok(topic), "{text:?}");
                }
                if let Ok(subscription) = Subscription::parse(&text) {
                    assert_eq!(Subscription::parse(&subscription.to_string()), Ok(subscription), "{text:?}");
                }
            }
        }
    }
}
