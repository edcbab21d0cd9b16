//! From the JSON of the twin to a checked deployment.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Deployment, DeploymentError, DesiredStatus, ModuleSpec, PullPolicy, RegistryCredential, RestartPolicy,
};
use crate::identity::{EDGE_AGENT, EDGE_HUB, MAX_ID_LEN};
use crate::secret::without_quoted_text;

/// Reads the `desired` part of the twin of `$edgeAgent`.
pub(super) fn deployment(desired: &Value) -> Result<Deployment, DeploymentError> {
    let desired = desired.as_object().ok_or_else(|| malformed("the desired properties are no object"))?;
    if desired.keys().all(|key| key.starts_with('$')) {
        return Err(DeploymentError::Empty);
    }
    check_schema(desired.get("schemaVersion"))?;
    let raw: RawDeployment = structure(Value::Object(desired.clone()), "the deployment")?;
    docker_only(raw.runtime.kind.as_deref(), "the runtime")?;
    let modules = raw.modules.into_iter().map(module).collect::<Result<BTreeMap<_, _>, DeploymentError>>()?;
    Ok(Deployment {
        version: raw.version.unwrap_or_default(),
        registry_credentials: raw.runtime.settings.registry_credentials.into_values().collect(),
        ignored: ignored(desired),
        system_images: system_images(raw.system_modules)?,
        modules: distinct(modules)?,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDeployment {
    #[serde(rename = "$version")]
    version: Option<u64>,
    runtime: RawRuntime,
    system_modules: BTreeMap<String, Value>,
    #[serde(default)]
    modules: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct RawRuntime {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    settings: RawRuntimeSettings,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RawRuntimeSettings {
    #[serde(default)]
    registry_credentials: BTreeMap<String, RegistryCredential>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawModule {
    #[serde(rename = "type")]
    kind: Option<String>,
    version: Option<String>,
    #[serde(default)]
    status: DesiredStatus,
    #[serde(default)]
    restart_policy: RestartPolicy,
    #[serde(default)]
    image_pull_policy: PullPolicy,
    startup_order: Option<u32>,
    #[serde(default)]
    env: BTreeMap<String, RawVariable>,
    settings: Map<String, Value>,
}

#[derive(Deserialize)]
struct RawVariable {
    value: Value,
}

fn malformed(message: impl fmt::Display) -> DeploymentError {
    DeploymentError::Malformed(message.to_string())
}

fn structure<T: for<'de> Deserialize<'de>>(value: Value, what: &str) -> Result<T, DeploymentError> {
    // A value that stands in the wrong place may be a password.
    serde_json::from_value(value)
        .map_err(|error| malformed(format!("{what}: {}", without_quoted_text(&error.to_string()))))
}

fn check_schema(version: Option<&Value>) -> Result<(), DeploymentError> {
    let text = match version {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let mut parts = text.split('.');
    match (parts.next(), parts.next()) {
        (Some("1"), Some("0" | "1")) => Ok(()),
        _ => Err(DeploymentError::SchemaVersion(text)),
    }
}

/// What the real agent would act on and this one does not.
fn ignored(desired: &Map<String, Value>) -> Vec<&'static str> {
    let is_set = |value: Option<&Value>| match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !matches!(text.trim(), "" | "{}"),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    };
    let at = |path: &[&str]| path.iter().try_fold(desired, |map, key| map.get(*key)?.as_object());
    let logging = at(&["runtime", "settings"]).and_then(|settings| settings.get("loggingOptions"));
    let system_setting = |key: &str| {
        ["edgeAgent", "edgeHub"].iter().any(|name| {
            let module = at(&["systemModules", name]);
            let settings = at(&["systemModules", name, "settings"]);
            is_set(module.and_then(|module| module.get(key))) || is_set(settings.and_then(|map| map.get(key)))
        })
    };
    let candidates = [
        ("integrity", is_set(desired.get("integrity"))),
        ("loggingOptions", is_set(logging)),
        ("env of the system modules", system_setting("env")),
        ("createOptions of the system modules", system_setting("createOptions")),
    ];
    candidates.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
}

fn docker_only(kind: Option<&str>, what: &str) -> Result<(), DeploymentError> {
    match kind {
        Some("docker") => Ok(()),
        other => {
            Err(malformed(format!("{what}: the type is \"{}\", not \"docker\"", other.unwrap_or_default())))
        }
    }
}

fn module((name, value): (String, Value)) -> Result<(String, ModuleSpec), DeploymentError> {
    let what = format!("module {name}");
    check_name(&name)?;
    let raw: RawModule = structure(value, &what)?;
    docker_only(raw.kind.as_deref(), &what)?;
    let spec = ModuleSpec {
        version: raw.version,
        image: image(&raw.settings, &what)?,
        create_options: create_options(&raw.settings, &what)?,
        env: raw.env.into_iter().map(|variable| scalar(variable, &what)).collect::<Result<_, _>>()?,
        status: raw.status,
        restart_policy: raw.restart_policy,
        pull_policy: raw.image_pull_policy,
        startup_order: raw.startup_order.unwrap_or(u32::MAX),
    };
    Ok((name, spec))
}

/// A module's name becomes the name of a container and of a socket file.
fn check_name(name: &str) -> Result<(), DeploymentError> {
    let first_is_plain = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !first_is_plain || !plain || name.len() > MAX_ID_LEN {
        return Err(malformed(format!("\"{name}\" cannot be the name of a module")));
    }
    if [EDGE_AGENT, EDGE_HUB].iter().any(|system| system.trim_start_matches('$').eq_ignore_ascii_case(name)) {
        return Err(malformed(format!("\"{name}\" is the name of a system module")));
    }
    Ok(())
}

/// Two names that differ only in case would be one DNS name on the modules' network.
fn distinct(modules: BTreeMap<String, ModuleSpec>) -> Result<BTreeMap<String, ModuleSpec>, DeploymentError> {
    let mut seen = HashSet::new();
    match modules.keys().find(|name| !seen.insert(name.to_ascii_lowercase())) {
        Some(name) => Err(malformed(format!("there are two modules called \"{name}\""))),
        None => Ok(modules),
    }
}

fn image(settings: &Map<String, Value>, what: &str) -> Result<String, DeploymentError> {
    let image = settings.get("image").and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if image.is_empty() || image.contains(char::is_whitespace) {
        return Err(malformed(format!("{what}: settings.image is missing or not an image reference")));
    }
    Ok(image.to_owned())
}

/// Joins `createOptions`, `createOptions01`, …: a string of a twin has a limited length.
fn create_options(settings: &Map<String, Value>, what: &str) -> Result<Map<String, Value>, DeploymentError> {
    let parts: BTreeMap<&str, &Value> = settings
        .iter()
        .filter_map(|(key, value)| key.strip_prefix("createOptions").map(|number| (number, value)))
        .collect();
    let mut text = String::new();
    for (index, (number, part)) in parts.into_iter().enumerate() {
        let expected = if index == 0 { String::new() } else { format!("{index:02}") };
        if number != expected {
            return Err(malformed(format!("{what}: createOptions{expected} is missing")));
        }
        text.push_str(
            part.as_str().ok_or_else(|| malformed(format!("{what}: createOptions is not a string")))?,
        );
    }
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let options: Value = serde_json::from_str(&text)
        .map_err(|error| malformed(format!("{what}: createOptions is not JSON: {error}")))?;
    match options {
        Value::Object(options) => Ok(options),
        Value::Null => Ok(Map::new()),
        _ => Err(malformed(format!("{what}: createOptions is not a JSON object"))),
    }
}

fn scalar((name, variable): (String, RawVariable), what: &str) -> Result<(String, String), DeploymentError> {
    let value = match variable.value {
        Value::String(text) => text,
        Value::Null => String::new(),
        value @ (Value::Bool(_) | Value::Number(_)) => value.to_string(),
        _ => return Err(malformed(format!("{what}: the variable {name} is not a text or number"))),
    };
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(malformed(format!("{what}: the variable \"{name}\" cannot be set")));
    }
    Ok((name, value))
}

fn system_images(modules: BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, DeploymentError> {
    #[derive(Deserialize)]
    struct SystemModule {
        #[serde(rename = "type")]
        kind: Option<String>,
        settings: Map<String, Value>,
    }
    let mut images = BTreeMap::new();
    for (name, value) in modules {
        let what = format!("system module {name}");
        if name != "edgeAgent" && name != "edgeHub" {
            return Err(malformed(format!("{what}: there are only edgeAgent and edgeHub")));
        }
        let module: SystemModule = structure(value, &what)?;
        docker_only(module.kind.as_deref(), &what)?;
        images.insert(name, image(&module.settings, &what)?);
    }
    match ["edgeAgent", "edgeHub"].into_iter().find(|name| !images.contains_key(*name)) {
        Some(missing) => Err(malformed(format!("system module {missing} is missing"))),
        None => Ok(images),
    }
}
