//! Who a client of IoT Hub is: a device, or a module of a device.
//!
//! An [`Identity`] holds ids that were checked against the rules of IoT Hub, so it can be put into paths, topics
//! and resource names as it is: it has no `/`, no control character, and a bounded length.

use std::fmt;

use crate::percent;

/// The longest device or module id.
pub const MAX_ID_LEN: usize = 128;
/// The module of every edge device that manages the others.
pub const EDGE_AGENT: &str = "$edgeAgent";
/// The module of every edge device that is the gateway of the others.
pub const EDGE_HUB: &str = "$edgeHub";

/// The id, client id or user name is not one that IoT Hub allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// IoT Hub's rules: 1 to 128 ASCII letters, digits and some punctuation.
    #[error("an id has 1 to {MAX_ID_LEN} ASCII letters, digits or characters of -:.+%_#*?!(),=@$'")]
    InvalidId,
    /// A client id is `{device}` or `{device}/{module}`.
    #[error("the client id is not {{device}} or {{device}}/{{module}}")]
    InvalidClientId,
    /// A user name is `{hub}/{device}[/{module}]/?api-version=…`.
    #[error("the user name is not {{hub}}/{{device}}[/{{module}}]/?api-version=…")]
    InvalidUsername,
}

/// Checks a device or module id.
pub fn validate_id(id: &str) -> Result<(), IdentityError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@$'".contains(&byte);
    let valid = !id.is_empty() && id.len() <= MAX_ID_LEN && id.bytes().all(allowed);
    if valid { Ok(()) } else { Err(IdentityError::InvalidId) }
}

/// A device, or a module of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    device: String,
    module: Option<String>,
}

impl Identity {
    /// A device.
    pub fn device(device: &str) -> Result<Self, IdentityError> {
        validate_id(device)?;
        Ok(Self { device: device.to_owned(), module: None })
    }

    /// A module of a device.
    pub fn module(device: &str, module: &str) -> Result<Self, IdentityError> {
        validate_id(device)?;
        validate_id(module)?;
        Ok(Self { device: device.to_owned(), module: Some(module.to_owned()) })
    }

    /// Reads an MQTT client id, `{device}` or `{device}/{module}`.
    pub fn from_client_id(client_id: &str) -> Result<Self, IdentityError> {
        let identity = match client_id.split_once('/') {
            Some((device, module)) => Self::module(device, module),
            None => Self::device(client_id),
        };
        identity.map_err(|_| IdentityError::InvalidClientId)
    }

    /// The device's id.
    pub fn device_id(&self) -> &str {
        &self.device
    }

    /// The module's id, when it is a module.
    pub fn module_id(&self) -> Option<&str> {
        self.module.as_deref()
    }

    /// True for the gateway module of an edge device.
    pub fn is_edge_hub(&self) -> bool {
        self.module_id() == Some(EDGE_HUB)
    }

    /// The MQTT client id.
    pub fn client_id(&self) -> String {
        self.to_string()
    }

    /// The MQTT user name for the hub.
    pub fn username(&self, hub_name: &str) -> String {
        format!("{hub_name}/{self}/?api-version=2021-04-12")
    }

    /// The MQTT user name with which the gateway of an edge device connects in the place of this identity.
    pub fn username_through(&self, hub_name: &str, gateway: &Identity) -> String {
        let module = self.module.iter().map(|_| format!("{self};"));
        let chain = format!("{}{};{}", module.collect::<String>(), self.device, gateway.device);
        format!("{}&auth-chain={}", self.username(hub_name), percent::encode(&chain))
    }

    /// The resource that a token of this identity is for.
    pub fn resource(&self, hub_name: &str) -> String {
        format!("{hub_name}/{}", self.topic_prefix())
    }

    /// `devices/{d}[/modules/{m}]`: how this identity's topics and REST paths begin.
    pub fn topic_prefix(&self) -> String {
        match &self.module {
            Some(module) => format!("devices/{}/modules/{module}", self.device),
            None => format!("devices/{}", self.device),
        }
    }
}

/// `{device}` or `{device}/{module}`, which is also the client id.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            Some(module) => write!(f, "{}/{module}", self.device),
            None => f.write_str(&self.device),
        }
    }
}

/// What an MQTT user name says. It is checked against the client id by whoever accepts the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Username {
    /// The host name of the IoT Hub, never that of a gateway.
    pub hub_name: String,
    /// The identity that connects.
    pub identity: Identity,
    /// What stands behind the question mark.
    pub query: String,
}

impl Username {
    /// Reads `{hub}/{device}[/{module}][/][?query]`. An id may have a question mark, so the query begins at the
    /// last segment that starts with one.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let (path, query) = text.rsplit_once("/?").unwrap_or((text, ""));
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.split('/');
        let (hub_name, device, module) = (segments.next(), segments.next(), segments.next());
        let identity = match (hub_name, device, module, segments.next()) {
            (Some(hub), Some(device), None, None) if !hub.is_empty() => Identity::device(device),
            (Some(hub), Some(device), Some(module), None) if !hub.is_empty() => {
                Identity::module(device, module)
            }
            _ => Err(IdentityError::InvalidUsername),
        };
        let identity = identity.map_err(|_| IdentityError::InvalidUsername)?;
        Ok(Self { hub_name: hub_name.unwrap_or_default().to_owned(), identity, query: query.to_owned() })
    }

    /// The edge device whose gateway connects in the place of the identity: the last one in `auth-chain`.
    pub fn acting_device(&self) -> Option<String> {
        let chain = self.query.split('&').find_map(|part| part.strip_prefix("auth-chain="))?;
        let chain = percent::decode(chain)?;
        let last = chain.split(';').rfind(|part| !part.is_empty())?;
        Some(last.split('/').next().unwrap_or(last).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_rules_of_iot_hub() {
        for id in ["d", "$edgeAgent", "a-b:c.d+e%f_g#h*i?j!k(l),m=n@o$p'", &"x".repeat(MAX_ID_LEN)] {
            assert_eq!(validate_id(id), Ok(()), "{id:?}");
        }
        for id in
            ["", "a/b", "a b", "a\n", "a\0", "ä", "a\"b", "a\\b", "{}", "🦀", &"x".repeat(MAX_ID_LEN + 1)]
        {
            assert_eq!(validate_id(id), Err(IdentityError::InvalidId), "{id:?}");
        }
    }

    #[test]
    fn client_ids_name_a_device_or_a_module() {
        let module = Identity::from_client_id("d/$edgeHub").unwrap();
        assert_eq!((module.device_id(), module.module_id()), ("d", Some("$edgeHub")));
        assert!(module.is_edge_hub());
        assert_eq!(module.resource("hub"), "hub/devices/d/modules/$edgeHub");
        let device = Identity::from_client_id("d").unwrap();
        assert_eq!((device.resource("hub"), device.client_id()), ("hub/devices/d".into(), "d".into()));
        for text in ["", "/", "d/", "/m", "d/m/x", "d m", "d/\u{0}"] {
            assert_eq!(Identity::from_client_id(text), Err(IdentityError::InvalidClientId), "{text:?}");
        }
    }

    #[test]
    fn user_names_are_read_in_the_forms_that_clients_send() {
        let module = Identity::module("d", "m").unwrap();
        for text in [
            "hub.test/d/m/?api-version=2021-04-12&DeviceClientType=a%2Fb",
            "hub.test/d/m/?api-version=2019-10-01&DeviceClientType=py/2.14",
            "hub.test/d/m/",
            "hub.test/d/m",
            &module.username("hub.test"),
        ] {
            let username = Username::parse(text).unwrap();
            assert_eq!((username.hub_name.as_str(), &username.identity), ("hub.test", &module), "{text:?}");
        }
        assert_eq!(Username::parse("hub/d/?api-version=1").unwrap().identity, Identity::device("d").unwrap());
        let acting = |query: &str| Username::parse(&format!("hub/d/?{query}")).unwrap().acting_device();
        assert_eq!(acting("api-version=1&auth-chain=d%3Bedge"), Some("edge".to_owned()));
        assert_eq!(acting("auth-chain=d;low;top/$edgeHub;"), Some("top".to_owned()));
        let edge_hub = Identity::module("edge", EDGE_HUB).unwrap();
        for (client, chain) in [("leaf", "leaf%3Bedge"), ("leaf/m", "leaf%2Fm%3Bleaf%3Bedge")] {
            let client = Identity::from_client_id(client).unwrap();
            let username = client.username_through("hub", &edge_hub);
            assert!(username.ends_with(&format!("&auth-chain={chain}")), "{username}");
            let read = Username::parse(&username).unwrap();
            assert_eq!((&read.identity, read.acting_device()), (&client, Some("edge".to_owned())));
        }
        for query in ["", "api-version=1", "auth-chain=", "auth-chain=;", "auth-chain=%ff"] {
            assert_eq!(acting(query), None, "{query:?}");
        }
        for text in
            ["", "/", "hub", "hub/", "/d/", "hub//m", "hub/d/m/x", "hub/d/m/x/?api-version=1", "?a=b", "/?"]
        {
            assert_eq!(Username::parse(text), Err(IdentityError::InvalidUsername), "{text:?}");
        }
    }
}
