//! The desired state: `config/kedge.toml` and the command line, resolved once into typed settings.
//!
//! [`fields`] is the table of what can be set; reading, checking, defaults and printing all go by it. Where each value
//! comes from is kept, so that `cargo xtask config` can tell.

pub mod fields;
mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::engine;
use crate::problems::{self, Problem};
use crate::text_file;

/// Everything that a user can decide. The defaults are in [`fields`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The container engine.
    pub engine: EngineSettings,
    /// The kind cluster.
    pub cluster: ClusterSettings,
    /// The registry beside it.
    pub registry: RegistrySettings,
    /// The local hub beside it.
    pub hub: HubSettings,
    /// The device's identity and configuration.
    pub device: DeviceSettings,
    /// Where the Deployment goes.
    pub deploy: DeploySettings,
    /// What counts as proof.
    pub verify: VerifySettings,
}

/// The container engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// Which engine.
    pub choice: engine::Choice,
}

/// The kind cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Its name.
    pub name: String,
    /// `auto`, `debian` or an image reference.
    pub node_image: String,
}

/// The registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Its port on the loopback interface.
    pub port: u16,
}

/// The local hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// Its host name on the cluster's network.
    pub host_name: String,
    /// Where it is published on the loopback interface.
    pub ports: HubPorts,
}

/// Where the hub is published on the loopback interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubPorts {
    /// At ports that are free, so that nothing is in the way.
    Free,
    /// At those of an IoT Hub, the only ones that device SDKs know.
    Standard,
}

/// The device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Its id.
    pub id: String,
    /// Its deployment manifest; relative to the workspace.
    pub deployment: String,
    /// Its runtime's configuration; relative to the workspace.
    pub config: String,
}

/// The Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploySettings {
    /// Its namespace.
    pub namespace: String,
}

/// What counts as proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifySettings {
    /// How many messages.
    pub messages: usize,
    /// Seconds that the proof may take.
    pub time_limit: u64,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has set it.
    Default,
    /// A line of the settings file.
    File {
        /// The file, as it is shown.
        file: String,
        /// The line.
        line: usize,
    },
    /// A flag on the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Where each value comes from, by the name of its field. What is not in it is a default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<&'static str, Origin>);

impl Origins {
    /// The origin of the field called `name`.
    #[must_use]
    pub fn of(&self, name: &str) -> &Origin {
        self.0.get(name).unwrap_or(&Origin::Default)
    }
}

/// The settings, and where they come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The desired state.
    pub settings: Settings,
    /// Where each value comes from.
    pub origins: Origins,
}

impl Resolved {
    /// The engine that was asked for on the command line counts more than that of the file.
    pub fn override_engine(&mut self, choice: Option<engine::Choice>) {
        if let Some(choice) = choice {
            self.settings.engine.choice = choice;
            self.origins.0.insert(fields::ENGINE, Origin::Flag("--engine"));
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the settings cannot be used, and nothing was changed:{}", problems::list(problems))]
pub struct SettingsError {
    /// All that is wrong with the file.
    pub problems: Vec<Problem>,
}

impl Settings {
    /// Reads the settings file, which is called `name` in what is told about it.
    ///
    /// # Errors
    /// [`SettingsError`] with all that is wrong.
    pub fn read(path: &Path, name: &str) -> Result<Resolved, SettingsError> {
        let (resolved, problems) = Self::read_leniently(path, name)?;
        if problems.is_empty() { Ok(resolved) } else { Err(SettingsError { problems }) }
    }

    /// Reads as much of the settings file as is needed to remove what was made by it: with the name of the cluster,
    /// everything can be found, so problems elsewhere are given back and do not hinder.
    ///
    /// # Errors
    /// [`SettingsError`] when the name of the cluster cannot be told for sure.
    pub fn read_for_removal(path: &Path, name: &str) -> Result<(Resolved, Vec<Problem>), SettingsError> {
        let (resolved, problems) = Self::read_leniently(path, name)?;
        // What is left of a damaged file may lack its name, and the default is then the name of something else.
        let is_sure = problems.is_empty() || resolved.origins.of(fields::CLUSTER_NAME) != &Origin::Default;
        if is_sure { Ok((resolved, problems)) } else { Err(SettingsError { problems }) }
    }

    /// The settings of all lines that can be used, and what is wrong with the others.
    fn read_leniently(path: &Path, name: &str) -> Result<(Resolved, Vec<Problem>), SettingsError> {
        let text =
            text_file::read(path, name).map_err(|problem| SettingsError { problems: vec![problem] })?;
        Ok(file::parse(name, &text))
    }

    /// Name of the hub's container.
    #[must_use]
    pub fn hub_container(&self) -> String {
        format!("{}-hub", self.cluster.name)
    }

    /// Name of the volume with what the hub knows.
    #[must_use]
    pub fn hub_volume(&self) -> String {
        format!("{}-hub-state", self.cluster.name)
    }

    /// Name of the edge's container, where it runs directly on the engine.
    #[must_use]
    pub fn edge_container(&self) -> String {
        format!("{}-edge", self.cluster.name)
    }

    /// Name of the registry's container.
    #[must_use]
    pub fn registry_container(&self) -> String {
        format!("{}-registry", self.cluster.name)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let mut settings = Self {
            engine: EngineSettings { choice: engine::Choice::Auto },
            cluster: ClusterSettings { name: String::new(), node_image: String::new() },
            registry: RegistrySettings { port: 0 },
            hub: HubSettings { host_name: String::new(), ports: HubPorts::Free },
            device: DeviceSettings { id: String::new(), deployment: String::new(), config: String::new() },
            deploy: DeploySettings { namespace: String::new() },
            verify: VerifySettings { messages: 0, time_limit: 0 },
        };
        for field in &fields::FIELDS {
            field.set_default(&mut settings);
        }
        settings
    }
}
