//! The table of everything that can be set: name, default, what is allowed, and where it goes in [`Settings`].

use std::fmt;
use std::net::Ipv4Addr;

use clap::ValueEnum;
use serde::Serialize;

use super::{HubPorts, Settings};
use crate::engine::Choice;
use crate::image_reference;

/// Which engine.
pub const ENGINE: &str = "engine.use";
/// By this name everything is found that belongs to the deployment.
pub const CLUSTER_NAME: &str = "cluster.name";

/// Where the hub is published.
const HUB_PORTS: &str = "hub.ports";

const LABEL: &str = "1 to 40 of a-z, 0-9 and `-`, beginning and ending with a letter or digit";

/// One thing that can be set.
#[derive(Debug)]
pub struct Field {
    /// `section.key`.
    pub name: &'static str,
    /// What is allowed, to be read after "use".
    pub allowed: &'static str,
    access: Access,
}

/// How a value gets into the settings and out of them. What is not allowed is not set, and `false` given back.
#[derive(Debug)]
enum Access {
    Text { default: &'static str, get: fn(&Settings) -> String, set: fn(&mut Settings, &str) -> bool },
    Number { default: u64, get: fn(&Settings) -> u64, set: fn(&mut Settings, u64) -> bool },
}

/// A value, of the types that settings have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(u64),
}

/// As it is written in the file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", toml::Value::from(text.as_str())),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Why a value was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A text was given for a number, or the other way round.
    Type,
    /// It is not one of those that are allowed.
    Value,
}

impl Field {
    /// Sets the value, if it is allowed.
    ///
    /// # Errors
    /// Why it is not.
    pub fn set(&self, settings: &mut Settings, value: &Value) -> Result<(), Refusal> {
        let is_set = match (&self.access, value) {
            (Access::Text { set, .. }, Value::Text(text)) => set(settings, text),
            (Access::Number { set, .. }, Value::Number(number)) => set(settings, *number),
            _ => return Err(Refusal::Type),
        };
        if is_set { Ok(()) } else { Err(Refusal::Value) }
    }

    /// The value that it has.
    #[must_use]
    pub fn get(&self, settings: &Settings) -> Value {
        match &self.access {
            Access::Text { get, .. } => Value::Text(get(settings)),
            Access::Number { get, .. } => Value::Number(get(settings)),
        }
    }

    /// The value that it has unless it is set.
    #[must_use]
    pub fn default(&self) -> Value {
        match &self.access {
            Access::Text { default, .. } => Value::Text((*default).to_owned()),
            Access::Number { default, .. } => Value::Number(*default),
        }
    }

    /// Sets the default, which is always allowed.
    pub(super) fn set_default(&self, settings: &mut Settings) {
        let result = self.set(settings, &self.default());
        debug_assert_eq!(result, Ok(()), "{}", self.name);
    }

    /// Whether it is a number, and not a text.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(self.access, Access::Number { .. })
    }

    /// Section and key.
    #[must_use]
    pub fn section_and_key(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or((self.name, ""))
    }
}

/// All of them, in the order in which they are shown.
pub static FIELDS: [Field; 12] = [
    Field {
        name: ENGINE,
        allowed: "\"auto\", \"docker\" or \"podman\"",
        access: Access::Text {
            default: "auto",
            get: |settings| {
                let name = settings.engine.choice.to_possible_value();
                name.map(|name| name.get_name().to_owned()).unwrap_or_default()
            },
            set: |settings, text| {
                Choice::from_str(text, false).map(|choice| settings.engine.choice = choice).is_ok()
            },
        },
    },
    Field {
        name: CLUSTER_NAME,
        allowed: LABEL,
        access: Access::Text {
            default: "kedge",
            get: |settings| settings.cluster.name.clone(),
            set: |settings, text| put(&mut settings.cluster.name, text, is_label(text, 40)),
        },
    },
    Field {
        name: "cluster.node-image",
        allowed: "\"auto\", \"debian\" or the reference of an image",
        access: Access::Text {
            default: "auto",
            get: |settings| settings.cluster.node_image.clone(),
            set: |settings, text| {
                put(&mut settings.cluster.node_image, text, image_reference::check(text).is_ok())
            },
        },
    },
    Field {
        name: "registry.port",
        allowed: "a whole number from 1 to 65535",
        access: Access::Number {
            default: 5001,
            get: |settings| settings.registry.port.into(),
            set: |settings, number| {
                let port = u16::try_from(number).ok().filter(|port| *port != 0);
                port.map(|port| settings.registry.port = port).is_some()
            },
        },
    },
    Field {
        name: "hub.host-name",
        allowed: "a DNS name in lower case, not an address and not `localhost`",
        access: Access::Text {
            default: "hub.kedge.test",
            get: |settings| settings.hub.host_name.clone(),
            set: |settings, text| put(&mut settings.hub.host_name, text, is_host_name(text)),
        },
    },
    Field {
        name: HUB_PORTS,
        allowed: "\"free\" or \"standard\"",
        access: Access::Text {
            default: "free",
            get: |settings| match settings.hub.ports {
                HubPorts::Free => "free".to_owned(),
                HubPorts::Standard => "standard".to_owned(),
            },
            set: |settings, text| {
                let ports = match text {
                    "free" => Some(HubPorts::Free),
                    "standard" => Some(HubPorts::Standard),
                    _ => None,
                };
                ports.map(|ports| settings.hub.ports = ports).is_some()
            },
        },
    },
    Field {
        name: "device.id",
        allowed: "1 to 128 letters, digits and characters of -:.%_*?!(),=@$'",
        access: Access::Text {
            default: "kedge-device",
            get: |settings| settings.device.id.clone(),
            set: |settings, text| put(&mut settings.device.id, text, is_device_id(text)),
        },
    },
    Field {
        name: "device.deployment",
        allowed: "the path of a deployment manifest, absolute or relative to the workspace",
        access: Access::Text {
            default: "config/deployment.json",
            get: |settings| settings.device.deployment.clone(),
            set: |settings, text| put(&mut settings.device.deployment, text, is_path(text)),
        },
    },
    Field {
        name: "device.config",
        allowed: "the path of a configuration of the runtime, absolute or relative to the workspace",
        access: Access::Text {
            default: "config/config.toml",
            get: |settings| settings.device.config.clone(),
            set: |settings, text| put(&mut settings.device.config, text, is_path(text)),
        },
    },
    Field {
        name: "deploy.namespace",
        allowed: LABEL,
        access: Access::Text {
            default: "kedge",
            get: |settings| settings.deploy.namespace.clone(),
            set: |settings, text| put(&mut settings.deploy.namespace, text, is_label(text, 40)),
        },
    },
    Field {
        name: "verify.messages",
        allowed: "a whole number from 1 to 1000",
        access: Access::Number {
            default: 5,
            get: |settings| settings.verify.messages as u64,
            set: |settings, number| {
                let messages = usize::try_from(number).ok().filter(|messages| (1..=1000).contains(messages));
                messages.map(|messages| settings.verify.messages = messages).is_some()
            },
        },
    },
    Field {
        name: "verify.time-limit",
        allowed: "a whole number of seconds from 1 to 3600",
        access: Access::Number {
            default: 120,
            get: |settings| settings.verify.time_limit,
            set: |settings, number| {
                let limit = Some(number).filter(|limit| (1..=3600).contains(limit));
                limit.map(|limit| settings.verify.time_limit = limit).is_some()
            },
        },
    },
];

/// Takes the text over if it is allowed.
fn put(slot: &mut String, text: &str, is_allowed: bool) -> bool {
    if is_allowed {
        text.clone_into(slot);
    }
    is_allowed
}

/// A DNS label of RFC 1123, as Kubernetes wants it.
fn is_label(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A name that leads to the hub's container from everywhere on the network: in a pod, `localhost` is the pod.
fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| is_label(part, 63))
        && text != "localhost"
        && text.parse::<Ipv4Addr>().is_err()
}

/// The rule of IoT Hub's identity registry, but for `;`, which ends a part of a connection string, and for `+` and
/// `#`, which are wildcards in MQTT topics.
fn is_device_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-:.%_*?!(),=@$'".contains(&byte))
}

/// Whether the file is there is seen when it is read.
fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_have_a_section_and_a_key() {
        for (index, field) in FIELDS.iter().enumerate() {
            let (section, key) = field.section_and_key();
            assert!(!section.is_empty() && !key.is_empty() && !key.contains('.'), "{}", field.name);
            assert!(FIELDS[..index].iter().all(|other| other.name != field.name), "{}", field.name);
        }
    }

    #[test]
    fn what_is_set_is_what_is_shown() {
        for field in &FIELDS {
            let mut settings = Settings::default();
            assert_eq!(field.get(&settings), field.default(), "{}", field.name);
            let (other, wrong) = match field.name {
                ENGINE => (Value::Text("podman".into()), Value::Text("Podman".into())),
                HUB_PORTS => (Value::Text("standard".into()), Value::Text("8883".into())),
                _ if field.is_number() => (Value::Number(7), Value::Number(0)),
                _ => (Value::Text("other".into()), Value::Text(String::new())),
            };
            assert_eq!(field.set(&mut settings, &other), Ok(()), "{}", field.name);
            assert_eq!(field.set(&mut settings, &wrong), Err(Refusal::Value), "{}", field.name);
            assert_eq!(field.get(&settings), other, "{}", field.name);
        }
    }

    #[test]
    fn a_device_id_that_would_break_a_topic_or_a_connection_string_is_refused() {
        assert!(is_device_id("Line-1:press.2"));
        assert!(["a;b", "a#", "+", "", "a b", "ä"].iter().all(|id| !is_device_id(id)));
    }

    #[test]
    fn a_host_name_is_a_name() {
        assert!(is_host_name("hub.kedge.test") && is_host_name("hub"));
        assert!(
            ["localhost", "127.0.0.1", "Hub", "hub..test", "hub.", ""].iter().all(|name| !is_host_name(name))
        );
    }
}
