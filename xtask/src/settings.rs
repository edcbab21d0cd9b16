//! The desired state: `config/kedge.toml` and the command line, resolved once into typed settings.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine;

/// Everything that a user can decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The container engine.
    pub engine: EngineSettings,
    /// The kind cluster.
    pub cluster: ClusterSettings,
    /// The registry beside it.
    pub registry: RegistrySettings,
    /// The local hub beside it.
    pub hub: HubSettings,
    /// The device's identity.
    pub device: DeviceSettings,
    /// Where the Deployment goes.
    pub deploy: DeploySettings,
    /// What counts as proof.
    pub verify: VerifySettings,
}

/// The container engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EngineSettings {
    /// Which engine.
    #[serde(rename = "use")]
    pub choice: engine::Choice,
}

/// The kind cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClusterSettings {
    /// Its name.
    pub name: String,
    /// `auto`, `debian` or an image reference.
    pub node_image: String,
}

/// The registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegistrySettings {
    /// Its port on the loopback interface.
    pub port: u16,
}

/// The local hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HubSettings {
    /// Its host name on the cluster's network.
    pub host_name: String,
}

/// The device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceSettings {
    /// Its id.
    pub id: String,
}

/// The Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeploySettings {
    /// Its namespace.
    pub namespace: String,
}

/// What counts as proof.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerifySettings {
    /// How many messages.
    pub messages: usize,
    /// Seconds that the proof may take.
    pub time_limit: u64,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { name: "kedge".into(), node_image: "auto".into() }
    }
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self { port: 5001 }
    }
}

impl Default for HubSettings {
    fn default() -> Self {
        Self { host_name: "hub.kedge.test".into() }
    }
}

impl Default for DeviceSettings {
    fn default() -> Self {
        Self { id: "kedge-device".into() }
    }
}

impl Default for DeploySettings {
    fn default() -> Self {
        Self { namespace: "kedge".into() }
    }
}

impl Default for VerifySettings {
    fn default() -> Self {
        Self { messages: 5, time_limit: 120 }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("failed to read the settings")]
    Unreadable(#[source] std::io::Error),
    /// The file is not TOML of the right shape; the source has line and column.
    #[error("`{}` is not a valid settings file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: Box<toml::de::Error>,
    },
    /// Values that Kubernetes, the engine or IoT Hub would refuse.
    #[error("`{}` has settings that cannot be used:{}", path.display(), problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// One sentence for each.
        problems: Vec<String>,
    },
}

impl Settings {
    /// Reads the settings file.
    ///
    /// # Errors
    /// [`SettingsError`]; values that cannot be used are all reported at once.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = fs_err::read_to_string(path).map_err(SettingsError::Unreadable)?;
        let settings: Self = toml::from_str(&text)
            .map_err(|source| SettingsError::Malformed { path: path.to_owned(), source: Box::new(source) })?;
        let problems = settings.problems();
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(SettingsError::Impossible { path: path.to_owned(), problems })
        }
    }

    /// Name of the hub's container.
    #[must_use]
    pub fn hub_container(&self) -> String {
        format!("{}-hub", self.cluster.name)
    }

    /// Name of the registry's container.
    #[must_use]
    pub fn registry_container(&self) -> String {
        format!("{}-registry", self.cluster.name)
    }

    /// Every value that cannot be used, in words.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, setting: &str, value: &str, rule: &str| {
            if !fine {
                problems.push(format!("{setting} = {value:?}: {rule}"));
            }
        };
        let label = "use 1 to 40 of a-z, 0-9 and `-`, beginning and ending with a letter or digit";
        check(is_label(&self.cluster.name, 40), "cluster.name", &self.cluster.name, label);
        check(is_label(&self.deploy.namespace, 40), "deploy.namespace", &self.deploy.namespace, label);
        check(
            !self.cluster.node_image.is_empty() && !self.cluster.node_image.contains(char::is_whitespace),
            "cluster.node-image",
            &self.cluster.node_image,
            "use \"auto\", \"debian\" or the reference of an image",
        );
        check(
            self.hub.host_name.len() <= 253 && self.hub.host_name.split('.').all(|part| is_label(part, 63)),
            "hub.host-name",
            &self.hub.host_name,
            "use a DNS name in lower case",
        );
        check(
            is_device_id(&self.device.id),
            "device.id",
            &self.device.id,
            "use 1 to 128 letters, digits and characters of -:.%_*?!(),=@$'",
        );
        check(self.registry.port != 0, "registry.port", "0", "use a port between 1 and 65535");
        let messages = self.verify.messages;
        check((1..=1000).contains(&messages), "verify.messages", &messages.to_string(), "use 1 to 1000");
        let limit = self.verify.time_limit;
        check((1..=3600).contains(&limit), "verify.time-limit", &limit.to_string(), "use 1 to 3600 seconds");
        problems
    }
}

/// A DNS label of RFC 1123, as Kubernetes wants it.
fn is_label(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The rule of IoT Hub's identity registry, but for `;`, which ends a part of a connection string, and for `+` and
/// `#`, which are wildcards in MQTT topics.
fn is_device_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-:.%_*?!(),=@$'".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kedge.toml");
        fs_err::write(&path, text).unwrap();
        Settings::read(&path)
    }

    #[test]
    fn the_file_in_the_repository_holds_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/kedge.toml");
        assert_eq!(Settings::read(&path).unwrap(), Settings::default());
    }

    #[test]
    fn an_unknown_setting_is_told_with_its_line() {
        let error = read("[cluster]\nname = \"edge\"\nnodes = 3\n").unwrap_err();
        let SettingsError::Malformed { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("line 3") && source.to_string().contains("nodes"), "{source}");
    }

    #[test]
    fn all_impossible_values_are_told_at_once() {
        let error = read(
            "[cluster]\nname = \"My_Edge\"\nnode-image = \"\"\n[device]\nid = \"a b\"\n[hub]\nhost-name = \"hub..test\"\n\
             [deploy]\nnamespace = \"-x\"\n[registry]\nport = 0\n[verify]\nmessages = 0\ntime-limit = 0\n",
        )
        .unwrap_err();
        let SettingsError::Impossible { problems, .. } = &error else { panic!("{error}") };
        let named: Vec<_> = problems.iter().filter_map(|problem| problem.split(' ').next()).collect();
        assert_eq!(
            named,
            [
                "cluster.name",
                "deploy.namespace",
                "cluster.node-image",
                "hub.host-name",
                "device.id",
                "registry.port",
                "verify.messages",
                "verify.time-limit"
            ]
        );
    }

    #[test]
    fn a_device_id_that_would_break_a_topic_or_a_connection_string_is_refused() {
        assert!(is_device_id("Line-1:press.2"));
        assert!(["a;b", "a#", "+", "", "a b", "ä"].iter().all(|id| !is_device_id(id)));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Settings::read(Path::new("no/such/kedge.toml")).unwrap_err();
        assert!(format!("{:#}", anyhow::Error::from(error)).contains("no/such/kedge.toml"));
    }
}
