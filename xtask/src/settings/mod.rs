//! The desired state: `config/kedge.toml` and the command line, resolved once into typed settings.
//!
//! [`fields`] is the table of what can be set; reading, checking, defaults and printing all go by it. Where each value
//! comes from is kept, so that `cargo xtask config` can tell.

pub mod fields;
mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use self::fields::{FIELDS, Value};
use crate::cli::Global;
use crate::edge_config::images::Supply;
use crate::engine;
use crate::exit::Usage;
use crate::plan::Shape;
use crate::problems::{self, Problem};
use crate::text_file;
use crate::tier;

/// Everything that a user can decide. The defaults are in [`fields`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The container engine.
    pub engine: EngineSettings,
    /// The kind cluster.
    pub cluster: ClusterSettings,
    /// The registry beside it.
    pub registry: RegistrySettings,
    /// The hub.
    pub hub: HubSettings,
    /// The runtime in the edge's image.
    pub runtime: RuntimeSettings,
    /// The device's identity and configuration.
    pub device: DeviceSettings,
    /// How the edge is confined.
    pub security: SecuritySettings,
    /// Where the Deployment goes.
    pub deploy: DeploySettings,
    /// What counts as proof.
    pub verify: VerifySettings,
    /// Which image is pulled in the place of the one that a deployment manifest names.
    pub images: BTreeMap<String, String>,
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

/// Which hub the edge connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Hub {
    /// KEdge's own, beside the cluster.
    Local,
    /// The user's IoT Hub.
    Azure,
}

/// Which runtime is in the edge's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Runtime {
    /// KEdge's own small daemon.
    Simulated,
    /// Microsoft's packages.
    Azure,
}

/// The word for a choice, as it is written in the settings, on the command line and in reports.
#[must_use]
pub fn word(choice: &impl clap::ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// Which one.
    pub kind: Runtime,
    /// Version of Microsoft's packages, whole or as far as it matters.
    pub version: String,
    /// The package of the inner engine.
    pub engine: String,
    /// Folder of `.deb` files, relative to the workspace; empty when they come from the repository.
    pub packages: String,
    /// URL of Microsoft's package repository, and its suite if that is not the one of Debian 12.
    pub repository: String,
    /// File with the key of its signatures, relative to the workspace; empty when it is fetched from the repository's host.
    pub repository_key: String,
    /// Images of modules that are part of the edge's image.
    pub preload: Vec<String>,
}

/// The hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// Which one.
    pub kind: Hub,
    /// Host name of the local one on the cluster's network.
    pub host_name: String,
    /// Where it is published on the loopback interface.
    pub ports: HubPorts,
}

/// Where the hub is published on the loopback interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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

/// How the edge is confined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SecuritySettings {
    /// The tier.
    pub tier: tier::Choice,
}

/// The Deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeploySettings {
    /// The context of the kubeconfig that names the cluster of somebody else; empty until one is named.
    pub context: String,
    /// That kubeconfig, relative to the workspace; empty for the user's usual one.
    pub kubeconfig: String,
    /// Its namespace.
    pub namespace: String,
    /// The edge's image in a registry that the cluster pulls from, or its repository there; may be empty.
    pub image: String,
    /// The storage class of its volumes; empty for the cluster's default.
    pub storage_class: String,
    /// Size of the volume with the runtime's state.
    pub state_size: String,
    /// Size of the volume of the inner engine.
    pub engine_size: String,
    /// Processor time that is set aside for the pod.
    pub cpu: String,
    /// Memory that is set aside for the pod.
    pub memory: String,
    /// Memory that the pod may use at most; empty for no limit.
    pub memory_limit: String,
}

/// What counts as proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifySettings {
    /// How many messages.
    pub messages: usize,
    /// Seconds that the proof may take.
    pub time_limit: u64,
    /// As which of its readers the user's hub is read.
    pub consumer_group: String,
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

/// Where each value comes from, by the name of its setting. What is not in it is a default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// The origin of the setting called `name`.
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
    /// What was asked for on the command line counts more than what stands in the file.
    ///
    /// # Errors
    /// [`Usage`] for a value that is not allowed.
    pub fn override_by(&mut self, global: &Global) -> Result<(), Usage> {
        let text = |value: String| Some(Value::Text(value));
        let overrides = [
            (fields::ENGINE, "--engine", global.engine.as_ref().map(word).and_then(text)),
            (fields::HUB, "--hub", global.hub.as_ref().map(word).and_then(text)),
            (fields::RUNTIME, "--runtime", global.runtime.as_ref().map(word).and_then(text)),
            (fields::TIER, "--tier", global.tier.as_ref().map(word).and_then(text)),
            // Unlike in the file, a path is here relative to the folder in which the user is.
            (fields::PACKAGES, "--packages", global.packages.as_deref().map(absolute).and_then(text)),
            (
                fields::PRELOAD,
                "--preload",
                Some(Value::List(global.preload.clone())).filter(|_| !global.preload.is_empty()),
            ),
        ];
        for (name, flag, value) in overrides {
            let (Some(value), Some(field)) = (value, FIELDS.iter().find(|field| field.name == name)) else {
                continue;
            };
            if field.set(&mut self.settings, &value).is_err() {
                return Err(Usage(format!("{flag} {value}: use {}", field.allowed)));
            }
            self.origins.0.insert(field.name.to_owned(), Origin::Flag(flag));
        }
        Ok(())
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).as_deref().unwrap_or(path).to_string_lossy().into_owned()
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

    /// What is simulated, which decides what the steps need.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape { hub: self.hub.kind, runtime: self.runtime.kind }
    }

    /// Where the images come from that the deployment manifest names.
    #[must_use]
    pub fn supply(&self) -> Supply<'_> {
        Supply { images: &self.images, preload: &self.runtime.preload }
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
            hub: HubSettings { kind: Hub::Local, host_name: String::new(), ports: HubPorts::Free },
            runtime: RuntimeSettings {
                kind: Runtime::Simulated,
                version: String::new(),
                engine: String::new(),
                packages: String::new(),
                repository: String::new(),
                repository_key: String::new(),
                preload: Vec::new(),
            },
            device: DeviceSettings { id: String::new(), deployment: String::new(), config: String::new() },
            security: SecuritySettings::default(),
            deploy: DeploySettings::default(),
            verify: VerifySettings { messages: 0, time_limit: 0, consumer_group: String::new() },
            images: BTreeMap::new(),
        };
        for field in &fields::FIELDS {
            field.set_default(&mut settings);
        }
        settings
    }
}
