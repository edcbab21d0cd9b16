//! The table of everything that can be set: name, default, what is allowed, and where it goes in [`Settings`].

use std::fmt;
use std::net::Ipv4Addr;

use clap::ValueEnum;
use serde::Serialize;

use super::{Settings, word};
use crate::image_reference;
use crate::problems::shown;

/// Which engine.
pub const ENGINE: &str = "engine.use";
/// By this name everything is found that belongs to the deployment.
pub const CLUSTER_NAME: &str = "cluster.name";

/// Which hub.
pub const HUB: &str = "hub.use";
/// Which runtime.
pub const RUNTIME: &str = "runtime.use";
/// The folder of Microsoft's packages.
pub const PACKAGES: &str = "runtime.packages";
/// Modules' images in the edge's image.
pub const PRELOAD: &str = "runtime.preload";
/// The section in which the keys are the user's: names of images.
pub const IMAGES: &str = "images";

/// Takes over which image is pulled in the place of another one.
///
/// # Errors
/// What is wrong with the name or the reference.
pub fn set_image(settings: &mut Settings, name: &str, reference: &Value) -> Result<(), String> {
    image_reference::check(name).map_err(|what| format!("`{}`: {what}", shown(name)))?;
    let Value::Text(reference) = reference else {
        return Err(format!("`{}` is not a text: use the reference of an image", shown(name)));
    };
    image_reference::check(reference).map_err(|what| format!("{}: {what}", shown(reference)))?;
    settings.images.insert(name.to_owned(), reference.clone());
    Ok(())
}

/// Where the hub is published.
const HUB_PORTS: &str = "hub.ports";
const RUNTIME_VERSION: &str = "runtime.version";
const RUNTIME_ENGINE: &str = "runtime.engine";
const REPOSITORY: &str = "runtime.repository";

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
    Text {
        default: &'static str,
        get: fn(&Settings) -> String,
        set: fn(&mut Settings, &str) -> bool,
    },
    Number {
        default: u64,
        get: fn(&Settings) -> u64,
        set: fn(&mut Settings, u64) -> bool,
    },
    /// Of texts; none unless it is set.
    List {
        get: fn(&Settings) -> Vec<String>,
        set: fn(&mut Settings, &[String]) -> bool,
    },
}

/// A value, of the types that settings have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(u64),
    /// Several texts.
    List(Vec<String>),
}

/// The types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// Several texts.
    List,
}

/// As it is written in the file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", toml::Value::from(text.as_str())),
            Self::Number(number) => write!(f, "{number}"),
            Self::List(texts) => write!(f, "{}", toml::Value::from(texts.clone())),
        }
    }
}

/// Why a value was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A text was given for a number, for example.
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
            (Access::List { set, .. }, Value::List(texts)) => set(settings, texts),
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
            Access::List { get, .. } => Value::List(get(settings)),
        }
    }

    /// The value that it has unless it is set.
    #[must_use]
    pub fn default(&self) -> Value {
        match &self.access {
            Access::Text { default, .. } => Value::Text((*default).to_owned()),
            Access::Number { default, .. } => Value::Number(*default),
            Access::List { .. } => Value::List(Vec::new()),
        }
    }

    /// Sets the default, which is always allowed.
    pub(super) fn set_default(&self, settings: &mut Settings) {
        let result = self.set(settings, &self.default());
        debug_assert_eq!(result, Ok(()), "{}", self.name);
    }

    /// The type of its values.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.access {
            Access::Text { .. } => Kind::Text,
            Access::Number { .. } => Kind::Number,
            Access::List { .. } => Kind::List,
        }
    }

    /// Section and key.
    #[must_use]
    pub fn section_and_key(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or((self.name, ""))
    }
}

/// All of them, in the order in which they are shown.
pub static FIELDS: [Field; 19] = [
    Field {
        name: ENGINE,
        allowed: "\"auto\", \"docker\" or \"podman\"",
        access: Access::Text {
            default: "auto",
            get: |settings| word(&settings.engine.choice),
            set: |settings, text| choose(&mut settings.engine.choice, text),
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
        name: HUB,
        allowed: "\"local\" or \"azure\"",
        access: Access::Text {
            default: "local",
            get: |settings| word(&settings.hub.kind),
            set: |settings, text| choose(&mut settings.hub.kind, text),
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
            get: |settings| word(&settings.hub.ports),
            set: |settings, text| choose(&mut settings.hub.ports, text),
        },
    },
    Field {
        name: RUNTIME,
        allowed: "\"simulated\" or \"azure\"",
        access: Access::Text {
            default: "simulated",
            get: |settings| word(&settings.runtime.kind),
            set: |settings, text| choose(&mut settings.runtime.kind, text),
        },
    },
    Field {
        name: RUNTIME_VERSION,
        allowed: "1.4 or later, such as \"1.6\" for the last one of that line, or \"1.6.0\"",
        access: Access::Text {
            default: "1.6",
            get: |settings| settings.runtime.version.clone(),
            set: |settings, text| put(&mut settings.runtime.version, text, is_runtime_version(text)),
        },
    },
    Field {
        name: RUNTIME_ENGINE,
        allowed: "\"docker.io\" or \"moby-engine\"",
        access: Access::Text {
            default: "docker.io",
            get: |settings| settings.runtime.engine.clone(),
            set: |settings, text| {
                put(&mut settings.runtime.engine, text, ["docker.io", "moby-engine"].contains(&text))
            },
        },
    },
    Field {
        name: PACKAGES,
        allowed: "the path of a folder with .deb files, absolute or relative to the workspace; or \"\"",
        access: Access::Text {
            default: "",
            get: |settings| settings.runtime.packages.clone(),
            set: |settings, text| put(&mut settings.runtime.packages, text, text.is_empty() || is_path(text)),
        },
    },
    Field {
        name: REPOSITORY,
        allowed: "the URL of a package repository, without a login",
        access: Access::Text {
            default: "https://packages.microsoft.com/debian/12/prod",
            get: |settings| settings.runtime.repository.clone(),
            set: |settings, text| put(&mut settings.runtime.repository, text, is_repository(text)),
        },
    },
    Field {
        name: PRELOAD,
        allowed: "a list of references of images with tags",
        access: Access::List {
            get: |settings| settings.runtime.preload.clone(),
            set: |settings, texts| {
                let is_tag = |text: &String| image_reference::check(text).is_ok() && !text.contains('@');
                let are_allowed = texts.iter().all(is_tag);
                if are_allowed {
                    texts.clone_into(&mut settings.runtime.preload);
                }
                are_allowed
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

/// Takes the choice over that has this name, if there is one.
fn choose<T: ValueEnum>(slot: &mut T, text: &str) -> bool {
    T::from_str(text, false).map(|choice| *slot = choice).is_ok()
}

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

/// Two or three numbers, from 1.4 on: before, the configuration was another one.
fn is_runtime_version(text: &str) -> bool {
    let numbers: Option<Vec<u16>> = text
        .split('.')
        .map(|part| part.parse().ok().filter(|number: &u16| number.to_string() == part))
        .collect();
    numbers.is_some_and(|numbers| (2..=3).contains(&numbers.len()) && numbers[0] == 1 && numbers[1] >= 4)
}

/// A login in the URL would stand in the image.
fn is_repository(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"@\"'\\`$[]".contains(&byte))
    })
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
                HUB | RUNTIME => (Value::Text("azure".into()), Value::Text("aws".into())),
                RUNTIME_VERSION => (Value::Text("1.5.21".into()), Value::Text("1.2".into())),
                RUNTIME_ENGINE => (Value::Text("moby-engine".into()), Value::Text("podman".into())),
                REPOSITORY => (
                    Value::Text("http://repo.test/debian".into()),
                    Value::Text("https://u:p@repo.test".into()),
                ),
                PRELOAD => (Value::List(vec!["a:1".into()]), Value::List(vec!["a@sha256:1".into()])),
                PACKAGES => (Value::Text("debs".into()), Value::Text("\0".into())),
                _ if field.kind() == Kind::Number => (Value::Number(7), Value::Number(0)),
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
    fn a_version_has_two_or_three_numbers() {
        assert!(["1.4", "1.6", "1.5.21", "1.10"].iter().all(|text| is_runtime_version(text)));
        assert!(
            ["", "1", "2.0", "1.3", "1.6.", "1.06", "1.6.0.1", "1.6-1", "1.x"]
                .iter()
                .all(|text| !is_runtime_version(text))
        );
    }

    #[test]
    fn a_host_name_is_a_name() {
        assert!(is_host_name("hub.kedge.test") && is_host_name("hub"));
        assert!(
            ["localhost", "127.0.0.1", "Hub", "hub..test", "hub.", ""].iter().all(|name| !is_host_name(name))
        );
    }
}
