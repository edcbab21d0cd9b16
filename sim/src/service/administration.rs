//! What only a service with all permissions does: enrolments, authorities of devices, and faults.

use serde_json::{Value, json};

use super::{ServiceClient, ServiceError, device_path};
use crate::http::{Method, StatusCode};
use crate::hub::FaultSettings;
use crate::percent;

impl ServiceClient {
    /// Makes an edge device that proves itself as its `authentication` says, in the JSON of the hub.
    pub async fn create_edge_device(&self, device: &str, authentication: &Value) -> Result<(), ServiceError> {
        let capabilities = json!({ "iotEdge": true });
        let body =
            json!({ "deviceId": device, "authentication": authentication, "capabilities": capabilities });
        self.call(Method::PUT, &device_path(device), None, Some(&body)).await.map(drop)
    }

    /// Writes the enrolment of a device in the provisioning service, in the JSON of that service; gives it with its
    /// keys. One that exists is replaced.
    pub async fn put_enrollment(&self, registration: &str, body: &Value) -> Result<Value, ServiceError> {
        self.put_document("enrollments", registration, body).await
    }

    /// Writes the enrolment of a group of devices, as [`ServiceClient::put_enrollment`] does that of one.
    pub async fn put_enrollment_group(&self, group: &str, body: &Value) -> Result<Value, ServiceError> {
        self.put_document("enrollmentGroups", group, body).await
    }

    async fn put_document(&self, kind: &str, id: &str, body: &Value) -> Result<Value, ServiceError> {
        let path = format!("/{kind}/{}", percent::encode(id));
        let written = match self.call(Method::PUT, &path, None, Some(body)).await {
            Err(error) if error.status() == Some(StatusCode::CONFLICT) => {
                self.call(Method::PUT, &path, Some("*"), Some(body)).await?
            }
            written => written?,
        };
        Ok(serde_json::from_slice(&written)?)
    }

    /// Adds an authority that may issue the certificates of devices, or replaces the one with this name.
    pub async fn put_device_authority(&self, name: &str, pem: &str) -> Result<(), ServiceError> {
        let path = format!("/kedge/certificates/{}", percent::encode(name));
        self.call(Method::PUT, &path, None, Some(&json!({ "certificate": pem }))).await.map(|_| ())
    }

    /// Switches faults on, and off all those that are not named.
    pub async fn set_faults(&self, settings: &FaultSettings) -> Result<(), ServiceError> {
        let body = serde_json::to_value(settings)?;
        self.call(Method::PUT, "/kedge/faults", None, Some(&body)).await.map(|_| ())
    }

    /// Switches all faults off.
    pub async fn clear_faults(&self) -> Result<(), ServiceError> {
        self.call(Method::DELETE, "/kedge/faults", None, None).await.map(|_| ())
    }

    /// Closes the connections of all MQTT clients, who may connect again at once.
    pub async fn close_connections(&self) -> Result<(), ServiceError> {
        self.call(Method::POST, "/kedge/faults/closeConnections", None, None).await.map(|_| ())
    }
}
