//! Devices, modules and twins as JSON, with the field names of IoT Hub.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::hub::store::{Authentication, Device, Module, Properties, Record, Store, StoreError};
use crate::identity::Identity;
use crate::secret::Secret;

/// A device with its keys, for those who may see them.
pub(super) fn device(device: &Device) -> Value {
    let mut view = record(&device.record);
    view["deviceId"] = json!(device.id);
    view["status"] = json!(device.status);
    view["statusReason"] = json!(device.status_reason);
    view["capabilities"] = json!({"iotEdge": device.iot_edge});
    view["statusUpdatedTime"] = json!(time(device.status_updated));
    add_scopes(&mut view, device);
    view
}

/// A module with its keys, for those who may see them.
pub(super) fn module(module: &Module) -> Value {
    let mut view = record(&module.record);
    view["moduleId"] = json!(module.id);
    view["deviceId"] = json!(module.device_id);
    view["managedBy"] = json!(module.managed_by);
    view
}

/// The twin of a device or module.
pub(super) fn twin(identity: &Identity, store: &Store) -> Result<Value, StoreError> {
    let (device, record) = (store.device(identity.device_id())?, store.record(identity)?);
    let authentication = authentication(&record.authentication);
    let twin = &record.twin;
    let mut view = json!({
        "deviceId": identity.device_id(),
        "etag": twin.etag().to_string(),
        "deviceEtag": record.etag.to_string(),
        "status": device.status,
        "statusReason": device.status_reason,
        "statusUpdateTime": time(device.status_updated),
        "connectionState": connection_state(record),
        "lastActivityTime": time(record.last_activity),
        "cloudToDeviceMessageCount": record.cloud_message_count,
        "authenticationType": authentication["type"],
        "x509Thumbprint": authentication["x509Thumbprint"],
        "modelId": "",
        "version": twin.version(),
        "properties": {"desired": section(&twin.desired), "reported": section(&twin.reported)},
    });
    match identity.module_id() {
        Some(module) => view["moduleId"] = json!(module),
        None => {
            view["capabilities"] = json!({"iotEdge": device.iot_edge});
            view["tags"] = json!(twin.tags);
            add_scopes(&mut view, device);
        }
    }
    Ok(view)
}

/// A child that is no edge device has the scope of its parent as its own.
fn add_scopes(view: &mut Value, device: &Device) {
    let scope = device.own_scope().or_else(|| device.parent_scope.clone());
    if let Some(scope) = scope {
        view["deviceScope"] = json!(scope);
        view["parentScopes"] = json!(device.parent_scope.as_slice());
    }
}

fn record(record: &Record) -> Value {
    json!({
        "generationId": record.generation_id,
        "etag": record.etag.to_string(),
        "connectionState": connection_state(record),
        "connectionStateUpdatedTime": time(record.connection_state_updated),
        "lastActivityTime": time(record.last_activity),
        "cloudToDeviceMessageCount": record.cloud_message_count,
        "authentication": authentication(&record.authentication),
    })
}

/// All parts stand in every kind of authentication; those of another kind are null.
fn authentication(authentication: &Authentication) -> Value {
    let (mut keys, mut thumbprints) = ((None, None), (None, None));
    let kind = match authentication {
        Authentication::Sas { primary, secondary } => {
            keys = (Some(primary.to_base64()), Some(secondary.to_base64()));
            "sas"
        }
        Authentication::SelfSigned { primary, secondary } => {
            thumbprints = (primary.as_ref(), secondary.as_ref());
            "selfSigned"
        }
        Authentication::CertificateAuthority => "certificateAuthority",
        Authentication::None => "none",
    };
    json!({
        "type": kind,
        "symmetricKey": {
            "primaryKey": keys.0.as_ref().map(Secret::expose),
            "secondaryKey": keys.1.as_ref().map(Secret::expose),
        },
        "x509Thumbprint": {"primaryThumbprint": thumbprints.0, "secondaryThumbprint": thumbprints.1},
    })
}

fn section(properties: &Properties) -> Value {
    let mut section = properties.to_object();
    section.insert("$metadata".to_owned(), Value::Object(properties.metadata()));
    Value::Object(section)
}

pub(super) fn connection_state(record: &Record) -> &'static str {
    if record.connected { "Connected" } else { "Disconnected" }
}

/// What never happened has the first day of the calendar, as in IoT Hub.
fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}
