//! The edge device in the hub: registered once, its deployment applied.

use anyhow::{Context as _, Result};
use hyper::StatusCode;
use jiff::Timestamp;
use kedge_sim::service::{ServiceClient, ServiceError};
use serde_json::{Value, json};

use crate::context::Context;
use crate::edge_config::{self, Filled, Filling, SensorImage};
use crate::execute::Effect;
use crate::images::Image;
use crate::plan::Condition;
use crate::provisioning::{self, Delivery, Draft, Given, Kept, Provisioning, SecretFiles};
use crate::settings::Hub;
use crate::steps::{hub, registry};

/// Whether the hub knows the device with this deployment.
///
/// # Errors
/// When the hub or the registry does not answer, or the deployment manifest cannot be used.
pub async fn observe(context: &Context) -> Result<Condition> {
    let id = context.device_id();
    let service = hub::service(context).await?;
    if service.connection_string(id).await?.is_none() {
        return Ok(Condition::Differs(format!("the hub does not know `{id}`")));
    }
    Ok(if is_current(&service, id, manifest(context).await?.expose()).await? {
        Condition::Holds(format!("`{id}`, with this deployment"))
    } else {
        Condition::Differs(format!("`{id}` has another deployment"))
    })
}

/// The deployment manifest, filled in. For the user's hub nothing in it leads to KEdge's registry.
///
/// # Errors
/// When the registry has no sensor, or the manifest cannot be used.
pub async fn manifest(context: &Context) -> Result<Filled> {
    let settings = &context.settings;
    let login = context.credentials.registry_login();
    let digest = match settings.hub.kind {
        Hub::Local => Some(registry::pushed_digest(context, Image::TemperatureSensor).await?),
        Hub::Azure => None,
    };
    let sensor =
        digest.as_ref().map(|digest| SensorImage { registry: registry::INNER_HOST, digest, login: &login });
    let source = fs_err::read_to_string(context.paths.project.join(&settings.device.deployment))?;
    let filling = Filling { sensor, supply: settings.supply(), shape: settings.shape() };
    edge_config::deployment(&source, &filling)
}

/// Registers the device unless the hub knows it, and applies the deployment unless it is the current one.
///
/// # Errors
/// When the hub refuses, or the deployment manifest cannot be used.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let id = context.device_id();
    let manifest = manifest(context).await?;
    for note in edge_config::notes(&manifest, context.settings.shape(), &context.settings.runtime.version) {
        context.progress.say(&format!("note: {note}"));
    }
    let service = hub::service(context).await?;
    register(context, &service).await.with_context(|| format!("failed to register the device `{id}`"))?;
    if is_current(&service, id, manifest.expose()).await? {
        return Ok(Effect::unchanged(format!("`{id}`, with this deployment")));
    }
    service
        .apply_configuration_content(id, manifest.expose())
        .await
        .with_context(|| format!("the hub refuses `{}`", context.settings.device.deployment))?;
    Ok(Effect::changed(format!("registered `{id}`, deployment applied")))
}

/// The device's configuration and credentials, as they are delivered to the edge.
///
/// # Errors
/// When the kept credentials are not those that are needed, the local hub does not answer or does not know the device,
/// or the runtime's configuration cannot be used.
pub async fn files(context: &Context) -> Result<SecretFiles> {
    let settings = &context.settings;
    provisioning::fit(context.device.as_deref(), settings)?;
    let config = fs_err::read_to_string(context.paths.project.join(&settings.device.config))?;
    let deployment = manifest(context).await?;
    let made;
    let kept = match &context.device {
        Some(kept) => kept.as_ref(),
        None => {
            made = registered(context).await?;
            &made
        }
    };
    let hub_ca = Some(context.credentials.hub_ca.as_str());
    Delivery { kept, settings, config: &config, deployment: &deployment, hub_ca }.files()
}

/// The credentials that the local hub has made for the device.
async fn registered(context: &Context) -> Result<Kept> {
    let id = context.device_id();
    let service = hub::service(context).await?;
    let found = service.connection_string(id).await;
    let text = found
        .with_context(|| format!("failed to read the credential of the device `{id}`"))?
        .with_context(|| format!("the hub does not know the device `{id}`; run `cargo xtask up`"))?;
    let given = Given::new("the hub's connection string", text.expose());
    Ok(Draft::ConnectionString(given).check(None, Timestamp::now()).usable()?)
}

/// Makes sure that the local hub knows the device. One that is new gets the kept credentials; one that is there keeps its
/// own, since somebody may want to see them refused. What the provisioning service is to take has to be enrolled there.
async fn register(context: &Context, service: &ServiceClient) -> Result<(), ServiceError> {
    let id = context.device_id();
    let authentication = context.device.as_ref().and_then(|kept| authentication(&kept.provisioning));
    match authentication {
        Some(authentication) if service.connection_string(id).await?.is_none() => {
            service.create_edge_device(id, &authentication).await
        }
        _ => service.register_edge_device(id).await.map(drop),
    }
}

/// How a device proves itself, in the words of the hub; `None` where the provisioning service tells the hub.
fn authentication(provisioning: &Provisioning) -> Option<Value> {
    match provisioning {
        Provisioning::ConnectionString { key, .. } | Provisioning::ManualSas { key, .. } => {
            let key = key.to_base64();
            let keys = json!({ "primaryKey": key.expose(), "secondaryKey": key.expose() });
            Some(json!({ "type": "sas", "symmetricKey": keys }))
        }
        Provisioning::ManualX509 { identity, .. } => {
            let thumbprint = identity.certificate.thumbprint().to_string();
            let thumbprints = json!({ "primaryThumbprint": thumbprint, "secondaryThumbprint": thumbprint });
            Some(json!({ "type": "selfSigned", "x509Thumbprint": thumbprints }))
        }
        Provisioning::DpsSymmetricKey { .. } | Provisioning::DpsX509 { .. } | Provisioning::DpsTpm { .. } => {
            None
        }
    }
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

    #[test]
    fn a_twin_is_compared_without_what_the_hub_adds_and_what_it_drops() {
        let twin = json!({ "$version": 3, "$metadata": {}, "a": { "b": 1 }, "list": [null] });
        assert!(holds(&twin, &json!({ "a": { "b": 1, "none": null }, "list": [null], "integrity": null })));
        assert!(!holds(&twin, &json!({ "a": { "b": 2 }, "list": [null] })));
        assert!(!holds(&twin, &json!({ "a": { "b": 1 } })));
    }
}
