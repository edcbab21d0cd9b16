//! What can be set: [`FIELDS`] is the table of all settings, with name, default, what is allowed, and where it goes in
//! [`Settings`].

mod rules;
mod table;

pub use table::FIELDS;

use std::fmt;

use serde::Serialize;

use super::Settings;
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
/// How the edge is confined.
pub const TIER: &str = "security.tier";
/// The folder of Microsoft's packages.
pub const PACKAGES: &str = "runtime.packages";
/// Modules' images in the edge's image.
pub const PRELOAD: &str = "runtime.preload";
/// The section in which the keys are the user's: names of images.
pub const IMAGES: &str = "images";

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

#[cfg(test)]
mod tests {
    use super::table::*;
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
                TIER => (Value::Text("confined".into()), Value::Text("rootless".into())),
                HUB | RUNTIME => (Value::Text("azure".into()), Value::Text("aws".into())),
                RUNTIME_VERSION => (Value::Text("1.5.21".into()), Value::Text("1.2".into())),
                RUNTIME_ENGINE => (Value::Text("moby-engine".into()), Value::Text("podman".into())),
                REPOSITORY => (
                    Value::Text("http://repo.test/debian".into()),
                    Value::Text("https://u:p@repo.test".into()),
                ),
                PRELOAD => (Value::List(vec!["a:1".into()]), Value::List(vec!["a@sha256:1".into()])),
                PACKAGES | REPOSITORY_KEY => (Value::Text("debs".into()), Value::Text("\0".into())),
                "deploy.context" => (Value::Text("aks one".into()), Value::Text("a\nb".into())),
                "deploy.kubeconfig" => (Value::Text("kubeconfig".into()), Value::Text("\0".into())),
                "deploy.image" => (Value::Text("r.test/edge".into()), Value::Text("r.test/Edge".into())),
                "deploy.storage-class" => (Value::Text("managed-csi".into()), Value::Text("A b".into())),
                _ if field.allowed == QUANTITY => (Value::Text("3Gi".into()), Value::Text("3 GB".into())),
                "deploy.memory-limit" => (Value::Text("3Gi".into()), Value::Text("0".into())),
                _ if field.kind() == Kind::Number => (Value::Number(7), Value::Number(0)),
                _ => (Value::Text("other".into()), Value::Text(String::new())),
            };
            assert_eq!(field.set(&mut settings, &other), Ok(()), "{}", field.name);
            assert_eq!(field.set(&mut settings, &wrong), Err(Refusal::Value), "{}", field.name);
            assert_eq!(field.get(&settings), other, "{}", field.name);
        }
    }
}
