//! Topics that the hub, or the gateway in its place, publishes on.

use std::fmt;

use super::{PropertyBag, TopicError, bounded, query_value, request_id, split_identity};
use crate::identity::Identity;

/// A topic that a device or module receives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubTopic {
    /// `$iothub/twin/res/{status}/?$rid={rid}[&$version={n}]`.
    TwinResponse {
        /// 200 for a GET, 204 for a patch, else an error.
        status: u16,
        /// That of the request.
        request_id: String,
        /// Version of the reported properties after a patch.
        version: Option<u64>,
    },
    /// `$iothub/twin/PATCH/properties/desired/?$version={n}`.
    DesiredPatch {
        /// Version of the desired properties after the change.
        version: u64,
    },
    /// `$iothub/methods/POST/{name}/?$rid={rid}`.
    MethodCall {
        /// Name of the method.
        name: String,
        /// To be repeated in the response.
        request_id: String,
    },
    /// `devices/{d}/messages/devicebound/{bag}`.
    CloudToDevice {
        /// The device that the message is for.
        identity: Identity,
        /// System and application properties.
        properties: PropertyBag,
    },
    /// `devices/{d}/modules/{m}/inputs/{input}/{bag}`.
    ModuleInput {
        /// The module that the message is for.
        identity: Identity,
        /// Name of the input.
        input: String,
        /// System and application properties.
        properties: PropertyBag,
    },
}

impl HubTopic {
    /// Reads a topic.
    pub fn parse(topic: &str) -> Result<Self, TopicError> {
        let topic = bounded(topic)?;
        if let Some(rest) = topic.strip_prefix("$iothub/") {
            return Self::parse_iothub(rest);
        }
        let (identity, rest) = split_identity(topic).ok_or(TopicError::Unknown)?;
        if let Some(bag) = rest.strip_prefix("messages/devicebound/") {
            return Ok(Self::CloudToDevice { identity, properties: PropertyBag::parse(bag)? });
        }
        let rest = rest.strip_prefix("inputs/").ok_or(TopicError::Unknown)?;
        let (input, bag) = rest.split_once('/').unwrap_or((rest, ""));
        if input.is_empty() || identity.module_id().is_none() {
            return Err(TopicError::Unknown);
        }
        Ok(Self::ModuleInput { identity, input: input.to_owned(), properties: PropertyBag::parse(bag)? })
    }

    fn parse_iothub(rest: &str) -> Result<Self, TopicError> {
        let (path, query) = rest.split_once('?').ok_or(TopicError::Unknown)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let version = || query_value(query, "$version").and_then(|text| text.parse().ok());
        if path == "twin/PATCH/properties/desired" {
            return Ok(Self::DesiredPatch { version: version().ok_or(TopicError::Unknown)? });
        }
        if let Some(status) = path.strip_prefix("twin/res/") {
            let status = status.parse().map_err(|_| TopicError::Unknown)?;
            return Ok(Self::TwinResponse { status, request_id: request_id(query)?, version: version() });
        }
        match path.strip_prefix("methods/POST/") {
            Some(name) if !name.is_empty() && !name.contains('/') => {
                Ok(Self::MethodCall { name: name.to_owned(), request_id: request_id(query)? })
            }
            _ => Err(TopicError::Unknown),
        }
    }
}

impl fmt::Display for HubTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwinResponse { status, request_id, version } => {
                write!(f, "$iothub/twin/res/{status}/?$rid={request_id}")?;
                version.map_or(Ok(()), |version| write!(f, "&$version={version}"))
            }
            Self::DesiredPatch { version } => {
                write!(f, "$iothub/twin/PATCH/properties/desired/?$version={version}")
            }
            Self::MethodCall { name, request_id } => {
                write!(f, "$iothub/methods/POST/{name}/?$rid={request_id}")
            }
            Self::CloudToDevice { identity, properties } => {
                write!(f, "{}/messages/devicebound/{properties}", identity.topic_prefix())
            }
            Self::ModuleInput { identity, input, properties } => {
                write!(f, "{}/inputs/{input}/{properties}", identity.topic_prefix())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_are_written_are_read_back_the_same() {
        let properties: PropertyBag = [("$.cdid", "d"), ("a", "b/c")].into_iter().collect();
        for topic in [
            HubTopic::TwinResponse { status: 200, request_id: "1".into(), version: None },
            HubTopic::TwinResponse { status: 204, request_id: "1".into(), version: Some(7) },
            HubTopic::DesiredPatch { version: 3 },
            HubTopic::MethodCall { name: "ping".into(), request_id: "9".into() },
            HubTopic::CloudToDevice {
                identity: Identity::device("d").unwrap(),
                properties: properties.clone(),
            },
            HubTopic::ModuleInput {
                identity: Identity::module("d", "m").unwrap(),
                input: "i".into(),
                properties,
            },
        ] {
            assert_eq!(HubTopic::parse(&topic.to_string()), Ok(topic));
        }
    }

    #[test]
    fn other_topics_are_refused_without_a_panic() {
        for text in [
            "",
            "$iothub/",
            "$iothub/twin/res/",
            "$iothub/twin/res/x/?$rid=1",
            "$iothub/twin/res/200/?",
            "$iothub/twin/res/70000/?$rid=1",
            "$iothub/twin/PATCH/properties/desired/?$version=x",
            "$iothub/twin/PATCH/properties/desired/",
            "$iothub/methods/POST/?$rid=1",
            "$iothub/methods/POST/a/b/?$rid=1",
            "devices/d/inputs/i/",
            "devices/d/modules/m/inputs/",
            "devices/d/modules/m/inputs//",
            "devices/d/messages/devicebound",
            "devices/d/messages/events/",
        ] {
            assert!(HubTopic::parse(text).is_err(), "{text:?}");
        }
    }
}
