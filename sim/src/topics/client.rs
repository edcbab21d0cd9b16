//! Topics that a client publishes on.

use std::fmt;

use super::{PropertyBag, TopicError, bounded, request_id, split_identity};
use crate::identity::Identity;

/// A topic that a device or module publishes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientTopic {
    /// `devices/{d}[/modules/{m}]/messages/events/{bag}`.
    Telemetry {
        /// Who the topic says the message is from.
        identity: Identity,
        /// System and application properties.
        properties: PropertyBag,
    },
    /// `$iothub/twin/GET/?$rid={rid}`.
    TwinGet {
        /// Repeated in the response.
        request_id: String,
    },
    /// `$iothub/twin/PATCH/properties/reported/?$rid={rid}`.
    ReportedPatch {
        /// Repeated in the response.
        request_id: String,
    },
    /// `$iothub/methods/res/{status}/?$rid={rid}`.
    MethodResponse {
        /// Status that the method returned.
        status: i32,
        /// That of the call.
        request_id: String,
    },
}

impl ClientTopic {
    /// Reads a topic, with or without the slash before its query.
    pub fn parse(topic: &str) -> Result<Self, TopicError> {
        let topic = bounded(topic)?;
        if let Some(rest) = topic.strip_prefix("$iothub/") {
            return Self::parse_iothub(rest);
        }
        let (identity, rest) = split_identity(topic).ok_or(TopicError::Unknown)?;
        let bag = match rest.strip_prefix("messages/events") {
            Some("") => "",
            Some(bag) => bag.strip_prefix('/').ok_or(TopicError::Unknown)?,
            None => return Err(TopicError::Unknown),
        };
        Ok(Self::Telemetry { identity, properties: PropertyBag::parse(bag)? })
    }

    fn parse_iothub(rest: &str) -> Result<Self, TopicError> {
        let (path, query) = rest.split_once('?').ok_or(TopicError::RequestId)?;
        match path.strip_suffix('/').unwrap_or(path) {
            "twin/GET" => Ok(Self::TwinGet { request_id: request_id(query)? }),
            "twin/PATCH/properties/reported" => Ok(Self::ReportedPatch { request_id: request_id(query)? }),
            path => {
                let status = path.strip_prefix("methods/res/").ok_or(TopicError::Unknown)?;
                let status = status.parse().map_err(|_| TopicError::Unknown)?;
                Ok(Self::MethodResponse { status, request_id: request_id(query)? })
            }
        }
    }
}

impl fmt::Display for ClientTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Telemetry { identity, properties } => {
                write!(f, "{}/messages/events/{properties}", identity.topic_prefix())
            }
            Self::TwinGet { request_id } => write!(f, "$iothub/twin/GET/?$rid={request_id}"),
            Self::ReportedPatch { request_id } => {
                write!(f, "$iothub/twin/PATCH/properties/reported/?$rid={request_id}")
            }
            Self::MethodResponse { status, request_id } => {
                write!(f, "$iothub/methods/res/{status}/?$rid={request_id}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::MAX_TOPIC_LEN;

    #[test]
    fn telemetry_names_its_identity_and_properties() {
        let text = "devices/d/modules/$edgeHub/messages/events/%24.on=o&a=1";
        let ClientTopic::Telemetry { identity, properties } = ClientTopic::parse(text).unwrap() else {
            panic!("not telemetry");
        };
        assert_eq!(identity, Identity::module("d", "$edgeHub").unwrap());
        assert_eq!(properties.get("$.on"), Some("o"));
        for text in ["devices/d/messages/events", "devices/d/messages/events/"] {
            let expected = ClientTopic::Telemetry {
                identity: Identity::device("d").unwrap(),
                properties: PropertyBag::new(),
            };
            assert_eq!(ClientTopic::parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn topics_that_are_written_are_read_back_the_same() {
        let request_id = "1f-2".to_owned();
        for topic in [
            ClientTopic::Telemetry {
                identity: Identity::module("d", "m").unwrap(),
                properties: [("$.ct", "a/b")].into_iter().collect(),
            },
            ClientTopic::TwinGet { request_id: request_id.clone() },
            ClientTopic::ReportedPatch { request_id: request_id.clone() },
            ClientTopic::MethodResponse { status: 404, request_id },
        ] {
            assert_eq!(ClientTopic::parse(&topic.to_string()), Ok(topic));
        }
        assert!(ClientTopic::parse("$iothub/twin/GET?x=1&$rid=7").is_ok());
    }

    #[test]
    fn other_topics_are_refused_without_a_panic() {
        for text in [
            "",
            "/",
            "devices",
            "devices/",
            "devices//messages/events/",
            "devices/d",
            "devices/d/messages/eventsX/",
            "devices/d/messages/devicebound/",
            "devices/d/modules/m",
            "devices/d/modules//messages/events/",
            "devices/d d/messages/events/",
            "devices/d/modules/m/inputs/i/",
            "$iothub/",
            "$iothub/?$rid=1",
            "$iothub/twin/PUT/?$rid=1",
            "$iothub/methods/res/x/?$rid=1",
            "$iothub/methods/res/99999999999/?$rid=1",
            "a/b/c",
            "$SYS/x",
            "\0",
            "🦀/?",
        ] {
            assert!(ClientTopic::parse(text).is_err(), "{text:?}");
        }
        for text in [
            "$iothub/twin/GET/",
            "$iothub/twin/GET/?",
            "$iothub/twin/GET/?$rid",
            "$iothub/twin/GET/?$rid=",
            "$iothub/twin/GET/?rid=1",
        ] {
            assert_eq!(ClientTopic::parse(text), Err(TopicError::RequestId), "{text:?}");
        }
        let long = format!("devices/d/messages/events/a={}", "x".repeat(MAX_TOPIC_LEN));
        assert_eq!(ClientTopic::parse(&long), Err(TopicError::TooLong));
    }
}
