//! The property bag: the last level of a telemetry topic, `name=value` pairs joined by `&`.

use std::fmt;

use super::TopicError;
use crate::percent;

/// Names of the system properties that KEdge uses.
pub mod system {
    /// Content type of the body.
    pub const CONTENT_TYPE: &str = "$.ct";
    /// Content encoding of the body.
    pub const CONTENT_ENCODING: &str = "$.ce";
    /// What kind of message it is, for messages that the gateway makes itself.
    pub const MESSAGE_SCHEMA: &str = "$.schema";
    /// Output of the module that the message left by.
    pub const OUTPUT_NAME: &str = "$.on";
    /// Message id that the sender gave.
    pub const MESSAGE_ID: &str = "$.mid";
    /// Creation time that the sender gave.
    pub const CREATION_TIME: &str = "$.ctime";
    /// Device that the message came from; the gateway adds it.
    pub const CONNECTION_DEVICE_ID: &str = "$.cdid";
    /// Module that the message came from; the gateway adds it.
    pub const CONNECTION_MODULE_ID: &str = "$.cmid";
}

/// How many properties a message may have.
const MAX_PROPERTIES: usize = 256;

/// Properties in the order of the sender. Names that begin with `$.` are system properties.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PropertyBag(Vec<(String, String)>);

impl PropertyBag {
    /// An empty bag.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the encoded text, with or without the trailing `/` that some clients leave.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let text = text.strip_prefix('?').unwrap_or(text);
        let mut bag = Self::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if name.is_empty() {
                return Err(TopicError::Properties("a name is empty"));
            }
            if bag.get(&name).is_some() {
                return Err(TopicError::Properties("a name stands twice"));
            }
            if bag.0.len() == MAX_PROPERTIES {
                return Err(TopicError::Properties("there are too many properties"));
            }
            bag.0.push((name, value));
        }
        Ok(bag)
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets a property, in place when it is there.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((name.to_owned(), value.into())),
        }
    }

    /// Removes a property and gives its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(index).1)
    }

    /// All properties in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for PropertyBag {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut bag = Self::new();
        for (name, value) in pairs {
            bag.set(&name.into(), value);
        }
        bag
    }
}

/// The encoded text.
impl fmt::Display for PropertyBag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "&" };
            let (name, value) = (percent::encode(name), percent::encode(value));
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

fn decode(text: &str) -> Result<String, TopicError> {
    percent::decode(text).ok_or(TopicError::Properties("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bag_is_read_as_the_sdks_write_it() {
        let bag = PropertyBag::parse("%24.on=temperatureOutput&%24.ct=application%2Fjson&sequenceNumber=1")
            .unwrap();
        assert_eq!(bag.get(system::OUTPUT_NAME), Some("temperatureOutput"));
        assert_eq!(bag.get(system::CONTENT_TYPE), Some("application/json"));
        assert_eq!(bag.get("sequenceNumber"), Some("1"));
        assert_eq!(bag.get("missing"), None);
        assert_eq!(
            PropertyBag::parse("$.mid=1&flag/").unwrap().iter().collect::<Vec<_>>(),
            [("$.mid", "1"), ("flag", "")]
        );
        for empty in ["", "/", "?", "&&", "?/"] {
            assert!(PropertyBag::parse(empty).unwrap().is_empty(), "{empty:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let pairs = [("$.ct", "a/b; c=d&e"), ("grün", "ü €%2F+ "), ("empty", ""), ("#/+", "x")];
        let bag: PropertyBag = pairs.into_iter().collect();
        let text = bag.to_string();
        assert!(!text.contains(['/', '+', '#', ' ']), "{text}");
        assert_eq!(PropertyBag::parse(&text).unwrap(), bag);
    }

    #[test]
    fn properties_are_set_in_place_and_removed() {
        let mut bag: PropertyBag = [("a", "1"), ("b", "2")].into_iter().collect();
        bag.set("a", "3");
        assert_eq!(
            (bag.to_string().as_str(), bag.remove("a"), bag.remove("a")),
            ("a=3&b=2", Some("3".into()), None)
        );
    }

    #[test]
    fn malformed_bags_are_refused() {
        for text in ["=1", "a=1&=2", "a=1&a=2", "a=1&%61=2", "a=%ff", "%fe=1"] {
            assert!(matches!(PropertyBag::parse(text), Err(TopicError::Properties(_))), "{text:?}");
        }
        let many: Vec<_> = (0..=MAX_PROPERTIES).map(|number| format!("p{number}=1")).collect();
        assert!(PropertyBag::parse(&many.join("&")).is_err());
        assert!(PropertyBag::parse(&many[1..].join("&")).is_ok());
    }
}
