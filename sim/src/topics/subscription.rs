//! Topic filters that a client may subscribe to.

use std::fmt;

use super::{TopicError, bounded, split_identity};
use crate::identity::Identity;

/// A filter of IoT Hub. Its clients cannot subscribe to anything else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subscription {
    /// `$iothub/twin/res/#`.
    TwinResponses,
    /// `$iothub/twin/PATCH/properties/desired/#`.
    DesiredPatches,
    /// `$iothub/methods/POST/#`.
    MethodCalls,
    /// `devices/{d}/messages/devicebound/#`.
    CloudToDevice(Identity),
    /// `devices/{d}/modules/{m}/inputs/#`.
    ModuleInputs(Identity),
}

impl Subscription {
    /// Reads a topic filter.
    pub fn parse(filter: &str) -> Result<Self, TopicError> {
        match bounded(filter)? {
            "$iothub/twin/res/#" => return Ok(Self::TwinResponses),
            "$iothub/twin/PATCH/properties/desired/#" => return Ok(Self::DesiredPatches),
            "$iothub/methods/POST/#" => return Ok(Self::MethodCalls),
            _ => {}
        }
        match split_identity(filter).ok_or(TopicError::Unknown)? {
            (identity, "messages/devicebound/#") => Ok(Self::CloudToDevice(identity)),
            (identity, "inputs/#") if identity.module_id().is_some() => Ok(Self::ModuleInputs(identity)),
            _ => Err(TopicError::Unknown),
        }
    }

    /// True when `identity` may have this subscription: it is not another's.
    pub fn is_open_to(&self, identity: &Identity) -> bool {
        match self {
            Self::CloudToDevice(owner) | Self::ModuleInputs(owner) => owner == identity,
            Self::TwinResponses | Self::DesiredPatches | Self::MethodCalls => true,
        }
    }
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwinResponses => f.write_str("$iothub/twin/res/#"),
            Self::DesiredPatches => f.write_str("$iothub/twin/PATCH/properties/desired/#"),
            Self::MethodCalls => f.write_str("$iothub/methods/POST/#"),
            Self::CloudToDevice(identity) => write!(f, "{}/messages/devicebound/#", identity.topic_prefix()),
            Self::ModuleInputs(identity) => write!(f, "{}/inputs/#", identity.topic_prefix()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_are_written_are_read_back_the_same() {
        let (device, module) = (Identity::device("d").unwrap(), Identity::module("d", "m").unwrap());
        for subscription in [
            Subscription::TwinResponses,
            Subscription::DesiredPatches,
            Subscription::MethodCalls,
            Subscription::CloudToDevice(device),
            Subscription::ModuleInputs(module),
        ] {
            assert_eq!(Subscription::parse(&subscription.to_string()), Ok(subscription));
        }
    }

    #[test]
    fn a_filter_of_another_identity_is_not_open() {
        let (one, two) = (Identity::module("d", "m").unwrap(), Identity::module("d", "m2").unwrap());
        let subscription = Subscription::ModuleInputs(one.clone());
        assert!(subscription.is_open_to(&one));
        assert!(!subscription.is_open_to(&two));
        assert!(Subscription::TwinResponses.is_open_to(&two));
    }

    #[test]
    fn other_filters_are_refused_without_a_panic() {
        for text in [
            "",
            "#",
            "+",
            "$iothub/#",
            "$iothub/twin/#",
            "devices/#",
            "devices/d/messages/events/#",
            "devices/d/inputs/#",
            "devices/d/modules/m/inputs/i/#",
            "🦀",
        ] {
            assert_eq!(Subscription::parse(text), Err(TopicError::Unknown), "{text:?}");
        }
        let wildcard = Subscription::parse("devices/+/messages/devicebound/#").unwrap();
        assert!(
            !wildcard.is_open_to(&Identity::device("d").unwrap()),
            "`+` is a valid id, and another device"
        );
    }
}
