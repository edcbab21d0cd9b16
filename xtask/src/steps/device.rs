//! The edge device in the hub: registered once, its deployment applied.

use anyhow::{Context as _, Result};
use hyper::StatusCode;
use kedge_sim::secret::Secret;
use kedge_sim::service::ServiceClient;
use serde_json::Value;

use crate::context::Context;
use crate::edge_config::{self, SensorImage};
use crate::execute::Effect;
use crate::images::Image;
use crate::plan::Condition;
use crate::provisioning::{HUB_CA, SecretFiles};
use crate::steps::{hub, registry};

/// Whether the hub knows the device with this deployment.
///
/// # Errors
/// When the hub or the registry does not answer, or the deployment manifest cannot be used.
pub async fn observe(context: &Context) -> Result<Condition> {
    let id = &context.settings.device.id;
    let service = hub::service(context).await?;
    if service.connection_string(id).await?.is_none() {
        return Ok(Condition::Differs(format!("the hub does not know `{id}`")));
    }
    Ok(if is_current(&service, id, &manifest(context).await?).await? {
        Condition::Holds(format!("`{id}`, with this deployment"))
    } else {
        Condition::Differs(format!("`{id}` has another deployment"))
    })
}

/// The deployment manifest, filled in.
async fn manifest(context: &Context) -> Result<Value> {
    let digest = registry::pushed_digest(context, Image::TemperatureSensor).await?;
    let login = context.credentials.registry_login();
    let sensor = SensorImage { registry: registry::INNER_HOST, digest: &digest, login: &login };
    let source = fs_err::read_to_string(context.paths.project.join(&context.settings.device.deployment))?;
    edge_config::deployment(&source, &sensor)
}

/// Registers the device unless the hub knows it, and applies the deployment unless it is the current one.
///
/// # Errors
/// When the hub refuses, or the deployment manifest cannot be used.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let id = &context.settings.device.id;
    let manifest = manifest(context).await?;
    let service = hub::service(context).await?;
    service
        .register_edge_device(id)
        .await
        .with_context(|| format!("failed to register the device `{id}`"))?;
    if is_current(&service, id, &manifest).await? {
        return Ok(Effect::unchanged(format!("`{id}`, with this deployment")));
    }
    service
        .apply_configuration_content(id, &manifest)
        .await
        .with_context(|| format!("the hub refuses `{}`", context.settings.device.deployment))?;
    Ok(Effect::changed(format!("registered `{id}`, deployment applied")))
}

/// The device's configuration and credentials, as they are delivered to the edge.
///
/// # Errors
/// When the hub does not answer or does not know the device, or the runtime's configuration cannot be used.
pub async fn files(context: &Context) -> Result<SecretFiles> {
    let source = fs_err::read_to_string(context.paths.project.join(&context.settings.device.config))?;
    let config = edge_config::runtime(&source, &connection_string(context).await?)?;
    Ok(SecretFiles::new(&config).with(HUB_CA, context.credentials.hub_ca.as_str()))
}

/// The connection string of the device, which is its credential.
///
/// # Errors
/// When the hub does not answer, or does not know the device.
async fn connection_string(context: &Context) -> Result<Secret> {
    let id = &context.settings.device.id;
    let service = hub::service(context).await?;
    let found = service.connection_string(id).await;
    found
        .with_context(|| format!("failed to read the credential of the device `{id}`"))?
        .with_context(|| format!("the hub does not know the device `{id}`; run `cargo xtask up`"))
}

/// Whether the twins of all modules with desired properties hold this deployment already.
async fn is_current(service: &ServiceClient, device: &str, manifest: &Value) -> Result<bool> {
    for (module, content) in manifest["modulesContent"].as_object().into_iter().flatten() {
        let twin = match service.module_twin(device, module).await {
            Ok(twin) => twin,
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => return Ok(false),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read the twin of `{module}`"));
            }
        };
        if !holds(&twin["properties"]["desired"], &content["properties.desired"]) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a twin's desired properties are the wanted ones; what begins with `$` is the hub's own.
fn holds(desired: &Value, wanted: &Value) -> bool {
    let mut desired = desired.clone();
    if let Some(properties) = desired.as_object_mut() {
        properties.retain(|name, _| !name.starts_with('$'));
    }
    desired == without_nulls(wanted)
}

/// A twin has no property that is `null`: it means that there is none.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(properties) => {
            let kept = properties.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_twin_is_compared_without_what_the_hub_adds_and_what_it_drops() {
        let twin = json!({ "$version": 3, "$metadata": {}, "a": { "b": 1 }, "list": [null] });
        assert!(holds(&twin, &json!({ "a": { "b": 1, "none": null }, "list": [null], "integrity": null })));
        assert!(!holds(&twin, &json!({ "a": { "b": 2 }, "list": [null] })));
        assert!(!holds(&twin, &json!({ "a": { "b": 1 } })));
    }
}
