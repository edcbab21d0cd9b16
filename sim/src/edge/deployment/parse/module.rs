//! The modules of a deployment, system modules included.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::{DeploymentError, DesiredStatus, ModuleSpec, PullPolicy, RestartPolicy};
use super::{docker_only, malformed, structure};
use crate::identity::{EDGE_AGENT, EDGE_HUB, MAX_ID_LEN};

/// `createOptions` and `createOptions01` to `createOptions99`.
const MAX_CHUNKS: usize = 100;
/// Modules with this order have no order.
pub(super) const LAST: u32 = u32::MAX;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawModule {
    #[serde(rename = "type")]
    kind: Option<String>,
    version: Option<String>,
    status: Option<DesiredStatus>,
    #[serde(default)]
    restart_policy: RestartPolicy,
    #[serde(default)]
    image_pull_policy: PullPolicy,
    startup_order: Option<u32>,
    #[serde(default)]
    env: Option<BTreeMap<String, RawVariable>>,
    settings: Map<String, Value>,
}

#[derive(Deserialize)]
struct RawVariable {
    value: Value,
}

/// The modules of the author.
pub(super) fn all(
    modules: Option<BTreeMap<String, Value>>,
) -> Result<BTreeMap<String, ModuleSpec>, DeploymentError> {
    let modules = modules.unwrap_or_default().into_iter().map(|(name, value)| {
        check_name(&name)?;
        let spec = spec(value, &format!("module {name}"), None)?;
        Ok((name, spec))
    });
    distinct(modules.collect::<Result<_, DeploymentError>>()?)
}

/// edgeAgent, which always runs and comes first, and edgeHub.
pub(super) fn system(
    modules: BTreeMap<String, Value>,
) -> Result<BTreeMap<String, ModuleSpec>, DeploymentError> {
    let mut specs = BTreeMap::new();
    for (name, value) in modules {
        let what = format!("system module {name}");
        let spec = match name.as_str() {
            "edgeAgent" => ModuleSpec {
                status: DesiredStatus::Running,
                restart_policy: RestartPolicy::Always,
                startup_order: 0,
                ..spec(value, &what, Some(DesiredStatus::Running))?
            },
            "edgeHub" => spec(value, &what, None)?,
            _ => return Err(malformed(format!("{what}: there are only edgeAgent and edgeHub"))),
        };
        specs.insert(name, spec);
    }
    match ["edgeAgent", "edgeHub"].into_iter().find(|name| !specs.contains_key(*name)) {
        Some(missing) => Err(malformed(format!("system module {missing} is missing"))),
        None => Ok(specs),
    }
}

fn spec(
    value: Value,
    what: &str,
    default_status: Option<DesiredStatus>,
) -> Result<ModuleSpec, DeploymentError> {
    let raw: RawModule = structure(value, what)?;
    docker_only(raw.kind.as_deref(), what)?;
    let status = raw.status.or(default_status);
    Ok(ModuleSpec {
        version: raw.version.unwrap_or_default(),
        image: image(&raw.settings, what)?,
        create_options: create_options(&raw.settings, what)?,
        env: variables(raw.env.unwrap_or_default(), what)?,
        status: status.ok_or_else(|| malformed(format!("{what}: missing field `status`")))?,
        restart_policy: raw.restart_policy,
        pull_policy: raw.image_pull_policy,
        startup_order: raw.startup_order.unwrap_or(LAST),
    })
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
    if parts.len() > MAX_CHUNKS {
        return Err(malformed(format!("{what}: createOptions has more than {MAX_CHUNKS} parts")));
    }
    let mut text = String::new();
    for (index, (number, part)) in parts.into_iter().enumerate() {
        let expected = if index == 0 { String::new() } else { format!("{index:02}") };
        if number != expected {
            return Err(malformed(format!("{what}: createOptions{expected} is missing")));
        }
        match part {
            Value::String(part) => text.push_str(part),
            Value::Null => {}
            _ => return Err(malformed(format!("{what}: createOptions is not a string"))),
        }
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

fn variables(
    raw: BTreeMap<String, RawVariable>,
    what: &str,
) -> Result<BTreeMap<String, String>, DeploymentError> {
    raw.into_iter()
        .map(|(name, variable)| Ok((checked_name(name, what)?, variable)))
        .map(|variable| {
            let (name, RawVariable { value }) = variable?;
            let value = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                value @ (Value::Bool(_) | Value::Number(_)) => value.to_string(),
                _ => return Err(malformed(format!("{what}: the variable {name} is not a text or number"))),
            };
            match value.contains('\0') {
                true => Err(malformed(format!("{what}: the variable \"{name}\" cannot be set"))),
                false => Ok((name, value)),
            }
        })
        .collect()
}

fn checked_name(name: String, what: &str) -> Result<String, DeploymentError> {
    match name.is_empty() || name.contains(['=', '\0']) {
        true => Err(malformed(format!("{what}: the variable \"{name}\" cannot be set"))),
        false => Ok(name),
    }
}
