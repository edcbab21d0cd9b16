//! Whose log: the words for the parts that are always the same, and any name of a container in the edge.

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

use crate::edge_config::SENSOR_MODULE;

/// Something that writes a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// The edge, as a pod or as a container.
    Edge,
    /// The local hub.
    Hub,
    /// The registry.
    Registry,
    /// The cluster's node.
    Node,
    /// The units of the edge runtime.
    Runtime,
    /// A container of the inner engine.
    Inner(String),
}

/// The words that stand for parts, and what they mean.
pub(super) const WORDS: [(&str, &str); 6] = [
    ("edge", "The pod or container: systemd, the inner engine, the runtime"),
    ("runtime", "The journal of the runtime's units in the edge"),
    ("sensor", "The module of the simulated temperature sensor"),
    ("hub", "The local hub"),
    ("registry", "The registry"),
    ("node", "The journal of the cluster's node: kubelet and containerd"),
];

impl Part {
    fn of(name: &str) -> Self {
        match name {
            "edge" | "pod" => Self::Edge,
            "hub" => Self::Hub,
            "registry" => Self::Registry,
            "node" => Self::Node,
            "runtime" => Self::Runtime,
            "sensor" => Self::Inner(SENSOR_MODULE.to_owned()),
            name => Self::Inner(name.to_owned()),
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Edge => "edge",
            Self::Hub => "hub",
            Self::Registry => "registry",
            Self::Node => "node",
            Self::Runtime => "runtime",
            Self::Inner(name) => name,
        }
    }
}

/// Takes every name that a container can have; which there are is known only when one looks.
#[derive(Debug, Clone)]
pub(super) struct PartParser;

impl TypedValueParser for PartParser {
    type Value = Part;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Part, Error> {
        if let Some(name) = value.to_str().filter(|name| is_name(name)) {
            return Ok(Part::of(name));
        }
        let mut error = Error::new(ErrorKind::ValueValidation).with_cmd(command);
        if let Some(arg) = arg {
            error.insert(ContextKind::InvalidArg, ContextValue::String(arg.to_string()));
        }
        let value = value.to_string_lossy().into_owned();
        error.insert(ContextKind::InvalidValue, ContextValue::String(value));
        Err(error)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(WORDS.iter().map(|(word, help)| PossibleValue::new(*word).help(*help))))
    }
}

/// Whether a container can have this name.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.bytes().all(allowed) && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_parts_and_every_other_name_for_a_container() {
        for (word, _) in WORDS {
            let part = Part::of(word);
            assert!(word == "sensor" || part.name() == word, "{word}");
            assert_eq!(matches!(part, Part::Inner(_)), word == "sensor", "{word}");
        }
        assert_eq!(Part::of("sensor"), Part::of("tempSensor"));
        assert_eq!(Part::of("pod"), Part::Edge);
        assert_eq!(Part::of("edgeHub"), Part::Inner("edgeHub".into()));
    }

    #[test]
    fn what_no_container_can_be_called_is_refused() {
        for name in ["", "-f", "a b", "a;b", "$(a)", "ä", "a\n"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("tempSensor") && is_name("a_1.b-c"));
    }
}
