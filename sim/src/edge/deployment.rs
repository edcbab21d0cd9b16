//! The deployment: what the desired properties of `$edgeAgent` ask for.
//!
//! Parsing is all or nothing, as in the real agent: a deployment with one wrong module is refused as
//! a whole and the previous one stays in force. The codes of [`DeploymentError`] are those that
//! the real agent reports as `lastDesiredStatus`.

mod parse;

use std::collections::BTreeMap;

use bollard::models::HostConfigLogConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::secret::Secret;

/// Why the desired properties are not a deployment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeploymentError {
    /// The structure is wrong.
    #[error("{0}")]
    Malformed(String),
    /// The version of the schema is no version.
    #[error("the schema version \"{0}\" is no version")]
    NoSchemaVersion(String),
    /// The schema is not one that the runtime knows.
    #[error("the schema version \"{0}\" is not supported, only 1.0 and 1.1")]
    SchemaVersion(String),
    /// Nothing was deployed to the device yet.
    #[error("the deployment is empty: no modules were set for this device")]
    Empty,
}

impl DeploymentError {
    /// The code of `lastDesiredStatus`.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NoSchemaVersion(_) | Self::SchemaVersion(_) => 412,
            Self::Empty => 417,
        }
    }

    /// The description of `lastDesiredStatus`; it begins with the real agent's words.
    #[must_use]
    pub fn description(&self) -> String {
        match self {
            Self::Malformed(detail) => format!("Agent configuration format is invalid. {detail}"),
            Self::NoSchemaVersion(version) => {
                format!("Invalid desired properties schema version {version}")
            }
            Self::SchemaVersion(version) => format!(
                "The desired properties schema version {version} is not compatible with the expected version 1.1.0"
            ),
            Self::Empty => "This device has an empty configuration for the edge agent. \
                            Please set a deployment manifest."
                .to_owned(),
        }
    }
}

/// A deployment that was checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deployment {
    /// `$version` of the desired properties.
    pub version: u64,
    /// Settings of the container runtime.
    pub runtime: RuntimeSettings,
    /// The modules by name.
    pub modules: BTreeMap<String, ModuleSpec>,
    /// What the deployment says of edgeAgent and edgeHub, by these names; the daemon does their work.
    pub system_modules: BTreeMap<String, ModuleSpec>,
    /// Parts of the deployment that have no meaning for this runtime.
    pub ignored: Vec<String>,
}

/// Settings of the container runtime.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeSettings {
    /// The version of the engine's API that is needed, as it was written.
    pub min_docker_version: String,
    /// The logging of the containers, as it was written.
    pub logging_options: String,
    /// The same for the engine; it applies to containers whose own options have nothing of the kind.
    pub log_config: Option<HostConfigLogConfig>,
    /// Logins for the registries of the images, by the author's names.
    pub registry_credentials: BTreeMap<String, RegistryCredential>,
}

/// Login for one registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RegistryCredential {
    /// Host, with a port when it is not the standard one.
    pub address: String,
    /// User.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// One module of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleSpec {
    /// Free text of the deployment's author.
    pub version: String,
    /// Image reference.
    pub image: String,
    /// Docker's options for the container.
    pub create_options: Map<String, Value>,
    /// Environment of the container.
    pub env: BTreeMap<String, String>,
    /// Whether it shall run.
    pub status: DesiredStatus,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
    /// When its image is pulled.
    pub pull_policy: PullPolicy,
    /// Modules with a lower number start first.
    pub startup_order: u32,
}

/// Whether a module shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredStatus {
    /// Start it, and start it again by its restart policy.
    #[default]
    Running,
    /// Create its container only.
    Stopped,
}

/// When a module is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    Never,
    /// When it exits with a status other than 0.
    OnFailure,
    /// When it exits with a status other than 0, or its health check fails.
    OnUnhealthy,
    /// Whenever it exits, or its health check fails.
    #[default]
    Always,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Whenever the container is created.
    #[default]
    OnCreate,
    /// Never: it must be there.
    Never,
}

impl DesiredStatus {
    /// As it is written in a deployment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

impl RestartPolicy {
    /// As it is written in a deployment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnFailure => "on-failure",
            Self::OnUnhealthy => "on-unhealthy",
            Self::Always => "always",
        }
    }
}

impl PullPolicy {
    /// As it is written in a deployment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OnCreate => "on-create",
            Self::Never => "never",
        }
    }
}

impl Deployment {
    /// Reads the `desired` part of the twin of `$edgeAgent`.
    pub fn parse(desired: &Value) -> Result<Self, DeploymentError> {
        parse::deployment(desired)
    }

    /// The login for the registry of an image, when the deployment has one.
    #[must_use]
    pub fn credential_for(&self, image: &str) -> Option<&RegistryCredential> {
        let registry = registry_of(image);
        let mut credentials = self.runtime.registry_credentials.values();
        credentials.find(|credential| credential.address.eq_ignore_ascii_case(registry))
    }

    /// A variable of a system module: `edgeAgent` or `edgeHub`. Names are compared without regard to case, as the
    /// configuration of .NET does.
    #[must_use]
    pub fn system_variable(&self, module: &str, name: &str) -> Option<&str> {
        let env = &self.system_modules.get(module)?.env;
        env.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The registry of an image reference, by Docker's rule: the first component counts as a host when
/// it has a dot or a port, or is `localhost`.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests;
