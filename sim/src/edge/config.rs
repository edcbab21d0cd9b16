//! `/etc/aziot/config.toml`, the file that configures the whole runtime.
//!
//! The same file serves Microsoft's runtime, so settings that have no meaning here are named in a
//! notice instead of being refused; settings that would change what the device trusts or how it
//! authenticates are refused, because a substitute would be a silent lie. No error quotes a line of
//! the file: it holds the device key.

mod provisioning;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::module_client::Transport;
use crate::secret::without_quoted_text;

pub use provisioning::{Dps, Proof, Provisioning};

/// The exit status of the real daemon for bad settings; its unit tells systemd not to restart on it.
pub const EXIT_BAD_SETTINGS: u8 = 153;

/// Where the file is looked for.
pub const DEFAULT_PATH: &str = "/etc/aziot/config.toml";

const DEFAULT_ENGINE_URI: &str = "unix:///var/run/docker.sock";
const DEFAULT_NETWORK: &str = "azure-iot-edge";
/// The variable of edgeAgent by which the protocol to the hub is chosen.
const UPSTREAM_PROTOCOL: &str = "UpstreamProtocol";
const SUPPORTED: [&str; 5] =
    ["hostname", "trust_bundle_cert", "provisioning", "auto_reprovisioning_mode", "moby_runtime"];

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or a file that it names, cannot be read.
    #[error("could not read config file: {0}")]
    Unreadable(#[from] std::io::Error),
    /// The file is not TOML, or a setting has the wrong type.
    #[error("could not parse config file: line {line}: {message}")]
    Syntax {
        /// Line of the file, from 1.
        line: usize,
        /// What is wrong there, without the text of the line.
        message: String,
    },
    /// A setting is missing, wrong, or asks for what this runtime does not have.
    #[error("invalid config: {0}")]
    Invalid(String),
}

/// What the runtime needs to know, checked.
#[derive(Debug)]
pub struct Settings {
    /// The device's own name: the gateway's TLS name, which modules connect to.
    pub hostname: String,
    /// How the device comes to its identity.
    pub provisioning: Provisioning,
    /// Certificates that modules shall trust besides the Edge CA.
    pub trust_bundle: Option<String>,
    /// How MQTT gets to the hub.
    pub upstream: Transport,
    /// Path of the container engine's socket.
    pub engine_socket: PathBuf,
    /// The engine network of the modules.
    pub network: String,
    /// Settings of the file that have no meaning for this runtime.
    pub ignored: Vec<String>,
}

impl Settings {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&fs_err::read_to_string(path)?)
    }

    /// Checks the text of a file; reads the files that it names.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        let file: File = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        refuse_unsupported(&table)?;
        let always = match file.auto_reprovisioning_mode.as_deref() {
            None | Some("Dynamic" | "OnErrorOnly") => false,
            Some("AlwaysOnStartup") => true,
            Some(other) => return Err(invalid(format!("unknown auto_reprovisioning_mode \"{other}\""))),
        };
        let agent_is_followed = file.agent.as_ref().is_some_and(Agent::is_followed);
        let provisioning = file.provisioning.ok_or_else(|| invalid("[provisioning] is missing"))?;
        let runtime = file.moby_runtime.unwrap_or_default();
        Ok(Self {
            hostname: file.hostname.map_or_else(machine_hostname, Ok)?,
            provisioning: provisioning.resolve(always)?,
            trust_bundle: file.trust_bundle_cert.as_deref().map(read_uri).transpose()?,
            upstream: file.agent.and_then(|agent| agent.transport()).unwrap_or_default(),
            engine_socket: engine_socket(runtime.uri.as_deref())?,
            network: runtime.network.unwrap_or_else(|| DEFAULT_NETWORK.to_owned()),
            ignored: ignored(&table, agent_is_followed),
        })
    }
}

#[derive(Deserialize)]
struct File {
    hostname: Option<String>,
    trust_bundle_cert: Option<String>,
    provisioning: Option<provisioning::Table>,
    auto_reprovisioning_mode: Option<String>,
    moby_runtime: Option<MobyRuntime>,
    agent: Option<Agent>,
}

/// What the real runtime starts edgeAgent with; edgeAgent passes the protocol on to edgeHub.
#[derive(Deserialize)]
struct Agent {
    #[serde(default)]
    env: toml::Table,
    #[serde(flatten)]
    others: toml::Table,
}

impl Agent {
    /// That of the protocol that is asked for, when there is one of the two. The real runtime knows AMQP as well.
    fn transport(&self) -> Option<Transport> {
        let protocol = self.env.get(UPSTREAM_PROTOCOL)?.as_str()?;
        let known = [("Mqtt", Transport::Tls), ("MqttWs", Transport::WebSocket)];
        let (_, transport) = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(protocol))?;
        Some(transport)
    }

    fn is_followed(&self) -> bool {
        self.others.is_empty() && self.env.len() == 1 && self.transport().is_some()
    }
}

#[derive(Deserialize, Default)]
struct MobyRuntime {
    uri: Option<String>,
    network: Option<String>,
}

fn invalid(message: impl Into<String>) -> ConfigError {
    ConfigError::Invalid(message.into())
}

/// The library's own text shows the offending line, which may hold a key.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1;
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    ConfigError::Syntax { line, message: without_quoted_text(&message) }
}

/// Settings that cannot be left out without weakening or changing what the user asked for.
fn refuse_unsupported(table: &toml::Table) -> Result<(), ConfigError> {
    let edge_ca = table.get("edge_ca").and_then(toml::Value::as_table);
    let refused = [
        (table.contains_key("parent_hostname"), "parent_hostname"),
        (table.contains_key("local_gateway_hostname"), "local_gateway_hostname"),
        (edge_ca.is_some_and(|ca| ca.contains_key("cert") || ca.contains_key("method")), "[edge_ca] cert"),
    ];
    match refused.iter().find(|(present, _)| *present) {
        Some((_, name)) => Err(invalid(format!("{name} is not supported by the simulated runtime"))),
        None => Ok(()),
    }
}

fn ignored(table: &toml::Table, agent_is_followed: bool) -> Vec<String> {
    let is_followed = |key: &str| SUPPORTED.contains(&key) || (key == "agent" && agent_is_followed);
    table.keys().filter(|key| !is_followed(key)).cloned().collect()
}

fn file_path(uri: &str) -> Result<&Path, ConfigError> {
    uri.strip_prefix("file://")
        .map(Path::new)
        .filter(|path| path.is_absolute())
        .ok_or_else(|| invalid("a file URI must have the form \"file:///path\""))
}

fn read_uri(uri: &str) -> Result<String, ConfigError> {
    Ok(fs_err::read_to_string(file_path(uri)?)?)
}

fn engine_socket(uri: Option<&str>) -> Result<PathBuf, ConfigError> {
    let uri = uri.unwrap_or(DEFAULT_ENGINE_URI);
    uri.strip_prefix("unix://")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .ok_or_else(|| invalid("moby_runtime: uri must have the form \"unix:///path\""))
}

fn machine_hostname() -> Result<String, ConfigError> {
    Ok(fs_err::read_to_string("/proc/sys/kernel/hostname")?.trim().to_lowercase())
}

#[cfg(test)]
mod tests;
