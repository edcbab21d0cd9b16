//! The identity service's part: module identities in the hub and their keys.
//!
//! Keys are derived from the master key and the generation id that the hub gave the module, and are
//! uploaded; hub and gateway verify the same tokens with them. No private key leaves this module but
//! through signatures. While the hub is away the generations of the last time are good.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::backup::Backup;
use crate::http::{HttpClient, HttpError, Method, Request, StatusCode, header};
use crate::identity::Identity;
use crate::percent::encode_segment;
use crate::sas::{SasError, SharedAccessKey, sign, unix_seconds};
use crate::secret::Secret;

const API_VERSION: &str = "2017-11-08-preview";
/// Long enough for one request and a clock that is a little off.
const REQUEST_TOKEN_SECS: u64 = 60;
/// Lifetime of the tokens that open MQTT sessions.
pub(super) const SESSION_TOKEN_SECS: u64 = 3600;

/// Why the hub gave no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityServiceError {
    /// The hub cannot be reached.
    #[error("Hub client error caused by: {}", with_causes(.0))]
    Unreachable(#[from] HttpError),
    /// The hub answered with an error.
    #[error("Hub client error caused by: {message} ({status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The hub's own text.
        message: String,
    },
    /// The hub's answer is not a module identity.
    #[error("Hub client error caused by: the answer cannot be read: {0}")]
    Malformed(String),
    /// A key cannot be derived.
    #[error(transparent)]
    Key(#[from] SasError),
}

/// The status line of the device has room for one text: the error with what caused it.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A module identity with its keys.
#[derive(Debug)]
pub struct ModuleIdentity {
    /// Device and module id.
    pub identity: Identity,
    /// Changes when the module is made anew under the same name.
    pub generation_id: String,
    keys: [SharedAccessKey; 2],
}

impl ModuleIdentity {
    /// HMAC of `data` with the primary key.
    #[must_use]
    pub fn sign(&self, data: &[u8]) -> [u8; 32] {
        self.keys[0].hmac(data)
    }

    /// The primary and the secondary key.
    pub(super) fn keys(&self) -> &[SharedAccessKey; 2] {
        &self.keys
    }

    /// A token for an MQTT session of this identity.
    #[must_use]
    pub fn token(&self, hub_name: &str) -> Secret {
        let expiry = unix_seconds(Timestamp::now()) + SESSION_TOKEN_SECS;
        Secret::new(sign(&self.identity.resource(hub_name), &self.keys[0], expiry, None))
    }
}

/// By what the device itself proves who it is.
#[derive(Debug, Clone)]
pub enum DeviceCredential {
    /// Tokens that are signed with its key.
    Sas(SharedAccessKey),
    /// The certificate that its connections show.
    X509,
}

/// All module identities of the device that this process knows.
pub struct IdentityService {
    http: HttpClient,
    hub_name: String,
    device_id: String,
    credential: DeviceCredential,
    master_key: SharedAccessKey,
    backup: Backup,
    known: RwLock<HashMap<String, Arc<ModuleIdentity>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HubModule {
    module_id: Option<String>,
    generation_id: Option<String>,
}

#[derive(Deserialize)]
struct HubError {
    #[serde(rename = "Message", alias = "errorMessage")]
    message: String,
}

impl IdentityService {
    /// A service for the device; `http` shows its certificate when it has one.
    #[must_use]
    pub fn new(
        http: HttpClient,
        hub_name: String,
        device_id: String,
        credential: DeviceCredential,
        master_key: SharedAccessKey,
        backup: Backup,
    ) -> Self {
        Self { http, hub_name, device_id, credential, master_key, backup, known: RwLock::default() }
    }

    /// The device's id.
    #[must_use]
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// The identity, when it was provisioned before.
    #[must_use]
    pub fn get(&self, module_id: &str) -> Option<Arc<ModuleIdentity>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(module_id).cloned()
    }

    /// Forgets what the hub said of all modules, so that it is asked again.
    pub fn forget_all(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The identity; made in the hub when it is missing there, with its keys uploaded.
    pub async fn provision(&self, module_id: &str) -> Result<Arc<ModuleIdentity>, IdentityServiceError> {
        if let Some(known) = self.get(module_id) {
            return Ok(known);
        }
        let identity = match self.provision_online(module_id).await {
            Err(error @ IdentityServiceError::Unreachable(_)) => {
                let generation = self.backup.generations().remove(module_id).ok_or(error)?;
                tracing::info!("The hub is away; the identity of {module_id} is that of the last time");
                self.derive(module_id, generation)?
            }
            other => other?,
        };
        let identity = Arc::new(identity);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(module_id.to_owned(), identity.clone());
        Ok(identity)
    }

    async fn provision_online(&self, module_id: &str) -> Result<ModuleIdentity, IdentityServiceError> {
        let module = match self.call(Method::GET, Some(module_id), Bytes::new(), false).await {
            Err(IdentityServiceError::Refused { status: 404, .. }) => {
                let body = json!({"moduleId": module_id, "deviceId": self.device_id});
                self.call(Method::PUT, Some(module_id), body.to_string().into(), false).await?
            }
            other => other?,
        };
        let identity = self.derive(module_id, generation_of(&module)?)?;
        let [primary, secondary] = identity.keys.each_ref().map(SharedAccessKey::to_base64);
        let body = json!({
            "moduleId": module_id,
            "deviceId": self.device_id,
            "authentication": {
                "symmetricKey": {"primaryKey": primary.expose(), "secondaryKey": secondary.expose()},
                "type": "sas",
            },
        });
        self.call(Method::PUT, Some(module_id), body.to_string().into(), true).await?;
        self.backup.keep_generation(module_id, Some(&identity.generation_id));
        Ok(identity)
    }

    /// The module identities in the hub, with their generations; those that are known here while the hub is away.
    pub async fn list(&self) -> Result<Vec<(String, String)>, IdentityServiceError> {
        let answer = match self.call(Method::GET, None, Bytes::new(), false).await {
            Ok(answer) => answer,
            Err(IdentityServiceError::Unreachable(_)) => {
                let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
                let known = known.iter().map(|(name, module)| (name.clone(), module.generation_id.clone()));
                return Ok(known.collect());
            }
            Err(error) => return Err(error),
        };
        let modules: Vec<HubModule> = serde_json::from_slice(&answer)
            .map_err(|error| IdentityServiceError::Malformed(error.to_string()))?;
        let named = modules.into_iter().filter_map(|module| Some((module.module_id?, module.generation_id?)));
        Ok(named.collect())
    }

    /// Removes the identity from the hub; one that is gone already is fine.
    pub async fn delete(&self, module_id: &str) -> Result<(), IdentityServiceError> {
        self.backup.keep_generation(module_id, None);
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(module_id);
        match self.call(Method::DELETE, Some(module_id), Bytes::new(), true).await {
            Ok(_) | Err(IdentityServiceError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn derive(&self, module_id: &str, generation_id: String) -> Result<ModuleIdentity, IdentityServiceError> {
        let derived = |use_: &str| {
            let data = format!("{module_id}:{generation_id}:{use_}");
            SharedAccessKey::from_bytes(self.master_key.hmac(data.as_bytes()).to_vec())
        };
        let keys = [derived("primary")?, derived("secondary")?];
        let identity = Identity::module(&self.device_id, module_id)
            .map_err(|error| IdentityServiceError::Malformed(error.to_string()))?;
        Ok(ModuleIdentity { identity, generation_id, keys })
    }

    async fn call(
        &self,
        method: Method,
        module_id: Option<&str>,
        body: Bytes,
        if_match: bool,
    ) -> Result<Bytes, IdentityServiceError> {
        let module = module_id.map(|module| format!("/{}", encode_segment(module))).unwrap_or_default();
        let device = encode_segment(&self.device_id);
        let path = format!("/devices/{device}/modules{module}?api-version={API_VERSION}");
        let mut request = Request::builder().method(method).uri(path);
        if let DeviceCredential::Sas(key) = &self.credential {
            request = request.header(header::AUTHORIZATION, self.device_token(key).expose());
        }
        if if_match {
            request = request.header(header::IF_MATCH, "*");
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let response = self.http.send(request.body(body).map_err(HttpError::from)?).await?;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(response.into_body()),
            status => Err(IdentityServiceError::Refused {
                status: status.as_u16(),
                message: serde_json::from_slice(response.body())
                    .map_or_else(|_| "no message".to_owned(), |error: HubError| error.message),
            }),
        }
    }

    /// The hub compares the audience without regard to case; the real service sends lower case.
    fn device_token(&self, key: &SharedAccessKey) -> Secret {
        let resource = format!("{}/devices/{}", self.hub_name, self.device_id).to_lowercase();
        Secret::new(sign(&resource, key, unix_seconds(Timestamp::now()) + REQUEST_TOKEN_SECS, None))
    }
}

fn generation_of(answer: &[u8]) -> Result<String, IdentityServiceError> {
    let module: HubModule =
        serde_json::from_slice(answer).map_err(|error| IdentityServiceError::Malformed(error.to_string()))?;
    module
        .generation_id
        .ok_or_else(|| IdentityServiceError::Malformed("module identity not found".to_owned()))
}
