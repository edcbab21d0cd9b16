//! What the hub answers to services, as far as they look at it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether a client has a connection to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ConnectionState {
    /// It has one now.
    Connected,
    /// It has none.
    Disconnected,
}

/// What the hub says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `running`, or `degraded` when something is in its way.
    pub status: String,
    /// Why the hub cannot write its state, when it cannot: it acknowledges nothing meanwhile.
    pub storage_trouble: Option<String>,
    /// The name that tokens are for.
    pub host_name: String,
    /// The hub's version.
    pub version: String,
}

/// A device, without its keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its id.
    pub device_id: String,
    /// `enabled` or `disabled`.
    pub status: String,
    /// Whether it is connected as itself.
    pub connection_state: ConnectionState,
    /// Which of the devices that had this id it is.
    pub generation_id: String,
    /// For `If-Match`.
    pub etag: String,
}

/// A module, without its keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Module {
    /// Its id.
    pub module_id: String,
    /// The device that it belongs to.
    pub device_id: String,
    /// Whether it is connected to the hub as itself; behind a gateway it need not be.
    pub connection_state: ConnectionState,
    /// Which of the modules that had this id it is.
    pub generation_id: String,
    /// `iotEdge` for the modules of a deployment.
    pub managed_by: Option<String>,
}

/// Which telemetry to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TelemetryFilter {
    /// Of this device alone.
    pub device_id: Option<String>,
    /// Of modules with this id alone.
    pub module_id: Option<String>,
}

/// Some telemetry, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TelemetryPage {
    /// In the order of arrival.
    pub messages: Vec<TelemetryMessage>,
    /// To be given as `after` the next time.
    pub next: u64,
}

/// A message that arrived at the hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TelemetryMessage {
    /// Its place in the order of arrival, from 1.
    pub offset: u64,
    /// When it arrived.
    pub enqueued_time_utc: Timestamp,
    /// The device that it is from.
    pub device_id: String,
    /// The module that it is from.
    pub module_id: Option<String>,
    /// What the hub, the gateway and the client library said about it.
    pub system_properties: BTreeMap<String, String>,
    /// What the application said about it.
    pub properties: BTreeMap<String, String>,
    /// The body, when it is text.
    pub body: Option<String>,
    /// The body, when it is not.
    pub body_base64: Option<String>,
}
