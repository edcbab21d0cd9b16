//! The typed client of the hub's service interface: what the orchestrator and the tests do with a hub.
//!
//! All calls but [`ServiceClient::telemetry`] and [`ServiceClient::health`] are those of IoT Hub. Each request is
//! signed anew with the owner's key, so a client may be kept for as long as one likes.

mod administration;
mod answers;
mod messages;

pub use answers::{
    ConnectionState, Device, Health, Module, TelemetryFilter, TelemetryMessage, TelemetryPage,
};
pub use messages::{CloudToDeviceMessage, FeedbackBatch, FeedbackRecord, MethodCall, MethodResult};

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::http::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use crate::http::{DEFAULT_TIMEOUT, HttpClient, HttpError, Method, Request, Response, StatusCode};
use crate::percent;
use crate::sas::{OWNER_POLICY, SharedAccessKey, sign, unix_seconds};
use crate::secret::Secret;
use crate::tls::{Endpoint, TlsError, Trust, client_config};

/// The longest that the hub lets a reader of telemetry wait.
pub const MAX_TELEMETRY_WAIT: Duration = Duration::from_secs(30);
const API_VERSION: &str = "2021-04-12";
const TOKEN_LIFE_SECS: u64 = 300;

/// A call of the service interface failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There was no answer.
    #[error("no answer from the hub")]
    Http(#[from] HttpError),
    /// The hub refused.
    #[error("the hub answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The hub's text, `ErrorCode:…;…`.
        message: String,
    },
    /// The answer was not what was expected.
    #[error("the answer of the hub is not what was expected")]
    Answer(#[from] serde_json::Error),
}

impl ServiceError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Http(_) | Self::Answer(_) => None,
        }
    }
}

/// A client of the service interface of one hub.
#[derive(Debug, Clone)]
pub struct ServiceClient {
    http: HttpClient,
    hub_name: String,
    owner_key: SharedAccessKey,
}

impl ServiceClient {
    /// A client of the hub at `endpoint`, whose tokens are for `hub_name`. `ca_pem` is trusted beside the
    /// authorities of the system.
    pub fn new(
        endpoint: Endpoint,
        hub_name: impl Into<String>,
        owner_key: SharedAccessKey,
        ca_pem: Option<&str>,
    ) -> Result<Self, TlsError> {
        let http = HttpClient::new(endpoint, client_config(Trust::SystemAnd(ca_pem))?);
        Ok(Self { http, hub_name: hub_name.into(), owner_key })
    }

    /// Asks the hub whether it runs. No token is sent.
    pub async fn health(&self) -> Result<Health, ServiceError> {
        let request = Request::get("/kedge/health").body(Bytes::new()).map_err(HttpError::from)?;
        Ok(serde_json::from_slice(&self.send(request, DEFAULT_TIMEOUT).await?)?)
    }

    /// Makes sure that the edge device exists, and gives its connection string. Keys that it has are kept.
    pub async fn register_edge_device(&self, device: &str) -> Result<Secret, ServiceError> {
        self.create_or_update(device, &json!({"deviceId": device, "capabilities": {"iotEdge": true}})).await
    }

    async fn create_or_update(&self, device: &str, body: &Value) -> Result<Secret, ServiceError> {
        let path = device_path(device);
        let created = self.call(Method::PUT, &path, None, Some(body)).await;
        let answer = match created {
            Err(error) if error.status() == Some(StatusCode::CONFLICT) => {
                self.call(Method::PUT, &path, Some("*"), Some(body)).await?
            }
            created => created?,
        };
        self.connection_string_in(device, &answer)
    }

    /// Makes sure that the device exists, and gives its connection string. Keys that it has are kept.
    pub async fn register_device(&self, device: &str) -> Result<Secret, ServiceError> {
        self.create_or_update(device, &json!({"deviceId": device})).await
    }

    /// Makes sure that a device exists which is a child of an edge device, and gives its connection string, in which
    /// the hub is named; the gateway's name comes from whoever uses it. Keys that it has are kept.
    pub async fn register_leaf_device(&self, leaf: &str, parent: &str) -> Result<Secret, ServiceError> {
        let parent: Scoped = self.get(&device_path(parent)).await?;
        let body = json!({"deviceId": leaf, "deviceScope": parent.device_scope});
        self.create_or_update(leaf, &body).await
    }

    /// Reads the connection string of a device; `None` when the hub does not know it.
    pub async fn connection_string(&self, device: &str) -> Result<Option<Secret>, ServiceError> {
        match self.call(Method::GET, &device_path(device), None, None).await {
            Ok(answer) => self.connection_string_in(device, &answer).map(Some),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn connection_string_in(&self, device: &str, answer: &[u8]) -> Result<Secret, ServiceError> {
        let keys: DeviceKeys = serde_json::from_slice(answer)?;
        let hub = &self.hub_name;
        let proof = match &keys.authentication.symmetric_key.primary_key {
            Some(key) => format!("SharedAccessKey={}", key.expose()),
            None => "x509=true".to_owned(),
        };
        Ok(Secret::new(format!("HostName={hub};DeviceId={device};{proof}")))
    }

    /// Enables or disables a device; a disabled one is disconnected.
    pub async fn set_device_enabled(&self, device: &str, enabled: bool) -> Result<(), ServiceError> {
        let body = json!({"deviceId": device, "status": if enabled { "enabled" } else { "disabled" }});
        self.call(Method::PUT, &device_path(device), Some("*"), Some(&body)).await.map(|_| ())
    }

    /// Deletes a device with its modules.
    pub async fn delete_device(&self, device: &str) -> Result<(), ServiceError> {
        self.call(Method::DELETE, &device_path(device), Some("*"), None).await.map(|_| ())
    }

    /// Lists the devices.
    pub async fn devices(&self) -> Result<Vec<Device>, ServiceError> {
        self.get("/devices").await
    }

    /// Reads a device.
    pub async fn device(&self, device: &str) -> Result<Device, ServiceError> {
        self.get(&device_path(device)).await
    }

    /// Lists the modules of a device.
    pub async fn modules(&self, device: &str) -> Result<Vec<Module>, ServiceError> {
        self.get(&format!("{}/modules", device_path(device))).await
    }

    /// Reads a module.
    pub async fn module(&self, device: &str, module: &str) -> Result<Module, ServiceError> {
        self.get(&format!("{}/modules/{}", device_path(device), percent::encode(module))).await
    }

    /// Makes the modules of an edge device those of a deployment manifest.
    pub async fn apply_configuration_content(
        &self,
        device: &str,
        content: &Value,
    ) -> Result<(), ServiceError> {
        let path = format!("{}/applyConfigurationContent", device_path(device));
        self.call(Method::POST, &path, None, Some(content)).await.map(|_| ())
    }

    /// Reads the twin of a device.
    pub async fn device_twin(&self, device: &str) -> Result<Value, ServiceError> {
        self.get(&device_twin_path(device)).await
    }

    /// Reads the twin of a module.
    pub async fn module_twin(&self, device: &str, module: &str) -> Result<Value, ServiceError> {
        self.get(&module_twin_path(device, module)).await
    }

    /// Merges a patch into the desired properties of a device; gives the twin as it is then.
    pub async fn patch_device_desired(&self, device: &str, patch: &Value) -> Result<Value, ServiceError> {
        self.patch_desired(&device_twin_path(device), patch).await
    }

    /// Merges a patch into the desired properties of a module; gives the twin as it is then.
    pub async fn patch_module_desired(
        &self,
        device: &str,
        module: &str,
        patch: &Value,
    ) -> Result<Value, ServiceError> {
        self.patch_desired(&module_twin_path(device, module), patch).await
    }

    async fn patch_desired(&self, twin: &str, patch: &Value) -> Result<Value, ServiceError> {
        let body = json!({"properties": {"desired": patch}});
        let answer = self.call(Method::PATCH, twin, None, Some(&body)).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Reads telemetry after an offset, which is 0 at first. When there is none, waits for some, for at most
    /// `wait` in whole seconds and [`MAX_TELEMETRY_WAIT`].
    pub async fn telemetry(
        &self,
        filter: &TelemetryFilter,
        after: u64,
        wait: Duration,
    ) -> Result<TelemetryPage, ServiceError> {
        let wait = wait.min(MAX_TELEMETRY_WAIT);
        let mut path = format!("/kedge/telemetry?after={after}&wait={}", wait.as_secs());
        for (name, value) in [("deviceId", &filter.device_id), ("moduleId", &filter.module_id)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", percent::encode(value)));
            }
        }
        let answer = self.send(self.request(Method::GET, &path, None, None)?, DEFAULT_TIMEOUT + wait).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ServiceError> {
        Ok(serde_json::from_slice(&self.call(Method::GET, path, None, None).await?)?)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Bytes, ServiceError> {
        let path = format!("{path}?api-version={API_VERSION}");
        self.send(self.request(method, &path, if_match, body)?, DEFAULT_TIMEOUT).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Request<Bytes>, HttpError> {
        let expiry = unix_seconds(Timestamp::now()) + TOKEN_LIFE_SECS;
        let token = sign(&self.hub_name, &self.owner_key, expiry, Some(OWNER_POLICY));
        let mut request = Request::builder().method(method).uri(path).header(AUTHORIZATION, token);
        if let Some(etag) = if_match {
            request = request.header(IF_MATCH, etag);
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                body.to_string().into()
            }
            None => Bytes::new(),
        };
        Ok(request.body(body)?)
    }

    async fn send(&self, request: Request<Bytes>, limit: Duration) -> Result<Bytes, ServiceError> {
        Ok(self.exchange(request, limit).await?.into_body())
    }

    async fn exchange(
        &self,
        request: Request<Bytes>,
        limit: Duration,
    ) -> Result<Response<Bytes>, ServiceError> {
        let response = self.http.clone().with_timeout(limit).send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let message = serde_json::from_slice::<Refusal>(response.body()).map(|refusal| refusal.message);
        Err(ServiceError::Refused { status: response.status(), message: message.unwrap_or_default() })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    message: String,
}

/// Only an edge device has a scope that others can be in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scoped {
    device_scope: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceKeys {
    authentication: Authentication,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authentication {
    symmetric_key: SymmetricKey,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SymmetricKey {
    primary_key: Option<Secret>,
}

fn device_path(device: &str) -> String {
    format!("/devices/{}", percent::encode(device))
}

fn device_twin_path(device: &str) -> String {
    format!("/twins/{}", percent::encode(device))
}

fn module_twin_path(device: &str, module: &str) -> String {
    format!("/twins/{}/modules/{}", percent::encode(device), percent::encode(module))
}
