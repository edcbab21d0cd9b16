//! From the JSON of the twin to a checked deployment.

mod module;

use std::collections::BTreeMap;
use std::fmt;

use bollard::models::HostConfigLogConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Deployment, DeploymentError, DesiredStatus, RegistryCredential, RuntimeSettings};
use crate::secret::without_quoted_text;

/// The protocol to the hub; here it is always MQTT.
const UPSTREAM_PROTOCOL: (&str, &str) = ("UpstreamProtocol", "Mqtt");
/// The level that modules get from edgeAgent.
const LOG_LEVEL: &str = "RuntimeLogLevel";

/// Reads the `desired` part of the twin of `$edgeAgent`.
pub(super) fn deployment(desired: &Value) -> Result<Deployment, DeploymentError> {
    let desired = desired.as_object().ok_or_else(|| malformed("the desired properties are no object"))?;
    if desired.keys().all(|key| key.starts_with('$')) {
        return Err(DeploymentError::Empty);
    }
    let raw: RawDeployment = structure(Value::Object(desired.clone()), "the deployment")?;
    docker_only(raw.runtime.kind.as_deref(), "the runtime")?;
    let mut deployment = Deployment {
        version: raw.version.unwrap_or_default(),
        runtime: runtime_settings(raw.runtime.settings)?,
        modules: module::all(raw.modules)?,
        system_modules: module::system(raw.system_modules)?,
        ignored: Vec::new(),
    };
    // A structure that cannot be read comes first, as in the real agent.
    check_schema(&raw.schema_version)?;
    deployment.ignored = ignored(desired, &deployment);
    Ok(deployment)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDeployment {
    #[serde(rename = "$version")]
    version: Option<u64>,
    schema_version: Value,
    runtime: RawRuntime,
    system_modules: BTreeMap<String, Value>,
    #[serde(default)]
    modules: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct RawRuntime {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    settings: Option<RawRuntimeSettings>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RawRuntimeSettings {
    min_docker_version: Option<String>,
    logging_options: Option<String>,
    registry_credentials: Option<BTreeMap<String, RegistryCredential>>,
}

fn malformed(message: impl fmt::Display) -> DeploymentError {
    DeploymentError::Malformed(message.to_string())
}

fn structure<T: for<'de> Deserialize<'de>>(value: Value, what: &str) -> Result<T, DeploymentError> {
    // A value that stands in the wrong place may be a password.
    serde_json::from_value(value)
        .map_err(|error| malformed(format!("{what}: {}", without_quoted_text(&error.to_string()))))
}

/// Two to four numbers, and not above 1.1.0.
fn check_schema(version: &Value) -> Result<(), DeploymentError> {
    let text = match version {
        Value::String(text) => text.clone(),
        Value::Null => return Err(malformed("the deployment: schemaVersion is missing")),
        other => other.to_string(),
    };
    let parts: Option<Vec<u32>> = text.trim().split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([1, 0 | 1] | [1, 0, _] | [1, 0, _, _] | [1, 1, 0]) => Ok(()),
        Some([_, _, ..]) if parts.iter().flatten().count() <= 4 => Err(DeploymentError::SchemaVersion(text)),
        _ => Err(DeploymentError::NoSchemaVersion(text)),
    }
}

fn runtime_settings(raw: Option<RawRuntimeSettings>) -> Result<RuntimeSettings, DeploymentError> {
    let raw = raw.unwrap_or_default();
    let logging_options = raw.logging_options.unwrap_or_default();
    Ok(RuntimeSettings {
        min_docker_version: raw.min_docker_version.unwrap_or_default(),
        log_config: log_config(&logging_options)?,
        logging_options,
        registry_credentials: raw.registry_credentials.unwrap_or_default(),
    })
}

/// `{"type":"json-file","config":{"max-size":"4m"}}`, or with the engine's own names.
fn log_config(options: &str) -> Result<Option<HostConfigLogConfig>, DeploymentError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct LoggingOptions {
        #[serde(rename = "type", alias = "Type")]
        kind: Option<String>,
        #[serde(alias = "Config")]
        config: Option<std::collections::HashMap<String, String>>,
    }
    if options.trim().is_empty() {
        return Ok(None);
    }
    let read: Result<LoggingOptions, _> = serde_json::from_str(options);
    let read = read.map_err(|error| {
        malformed(format!("the runtime: loggingOptions: {}", without_quoted_text(&error.to_string())))
    })?;
    let is_empty = read.kind.is_none() && read.config.is_none();
    Ok((!is_empty).then_some(HostConfigLogConfig { typ: read.kind, config: read.config }))
}

/// What has a meaning in the real runtime only.
fn ignored(desired: &Map<String, Value>, deployment: &Deployment) -> Vec<String> {
    let mut ignored = Vec::new();
    if desired.get("integrity").is_some_and(|integrity| !integrity.is_null()) {
        ignored.push("integrity".to_owned());
    }
    for name in ["edgeAgent", "edgeHub"] {
        let Some(module) = deployment.system_modules.get(name) else { continue };
        if module.status == DesiredStatus::Stopped {
            ignored.push(format!("status of {name}"));
        }
        let is_followed = |variable: &str, value: &str| {
            let (protocol, mqtt) = UPSTREAM_PROTOCOL;
            (variable.eq_ignore_ascii_case(protocol) && value.eq_ignore_ascii_case(mqtt))
                || (variable.eq_ignore_ascii_case(LOG_LEVEL) && name == "edgeAgent")
        };
        let unknown = module.env.iter().filter(|(variable, value)| !is_followed(variable, value));
        ignored.extend(unknown.map(|(variable, _)| format!("env {variable} of {name}")));
    }
    ignored
}

fn docker_only(kind: Option<&str>, what: &str) -> Result<(), DeploymentError> {
    match kind {
        Some("docker") => Ok(()),
        other => {
            Err(malformed(format!("{what}: the type is \"{}\", not \"docker\"", other.unwrap_or_default())))
        }
    }
}
