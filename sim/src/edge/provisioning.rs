//! From the settings to a device that a hub knows: written down by hand, or assigned by the provisioning service.
//!
//! What the service has said is kept, and is good until a hub refuses the device. A service that cannot be
//! reached, or refuses, is asked again and again: somebody may be about to enrol the device.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::config::{Dps, Proof, Provisioning};
use super::identity::{DeviceCredential, IdentityService, IdentityServiceError, with_causes};
use super::state::StateFolder;
use crate::http::{HttpClient, HttpError, Method, Request, StatusCode, header};
use crate::percent::encode_segment;
use crate::retry;
use crate::sas::{sign, unix_seconds};
use crate::secret::Secret;
use crate::tls::{Endpoint, TlsError, Trust, client_config_as};

const API_VERSION: &str = "2021-06-01";
/// The real service's token is made once for all polls of a registration.
const TOKEN_SECS: u64 = 30;
const POLICY: &str = "registration";
/// Between polls, and before the next attempt.
pub const PAUSE: Duration = Duration::from_secs(5);

/// A device with its hub.
#[derive(Debug, Clone)]
pub struct Device {
    /// Host name of the IoT Hub, as typed.
    pub hub_hostname: String,
    /// Device identity.
    pub device_id: String,
    /// By what it proves who it is.
    pub credential: DeviceCredential,
    /// For its requests to the hub; shows its certificate, when it has one.
    pub tls: Arc<ClientConfig>,
}

/// How to reach others.
pub struct Network<'a> {
    /// Whom to trust.
    pub trust: Trust<'a>,
    /// Where the HTTPS side of a hub is.
    pub hub: &'a (dyn Fn(&str) -> Endpoint + Sync),
    /// Between polls, and before the next attempt.
    pub pause: Duration,
}

/// Why the device has no hub.
#[derive(Debug, thiserror::Error)]
pub enum ProvisioningError {
    /// The certificate cannot be used, or nobody is trusted.
    #[error("the hub cannot be verified: {0}")]
    Tls(#[from] TlsError),
    /// The service cannot be reached.
    #[error("{}", with_causes(.0))]
    Unreachable(#[from] HttpError),
    /// The service refused the request.
    #[error("{message} ({status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The service's own text.
        message: String,
    },
    /// The service did not assign the device.
    #[error("the registration failed: {0}")]
    Failed(String),
    /// The service's answer cannot be read.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

/// What the service has said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Assignment {
    /// What was registered, and where.
    registration: String,
    hub_name: String,
    device_id: String,
}

/// Provisions the device; `None` when the shutdown came first.
pub async fn provision(
    settings: &Provisioning,
    network: &Network<'_>,
    state: &StateFolder,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Device>> {
    let (proof, always) = match settings {
        Provisioning::Manual { proof, .. } => (proof, true),
        Provisioning::Dps(dps) => (&dps.proof, dps.always),
    };
    let (credential, certificate) = match proof {
        Proof::Key(key) => (DeviceCredential::Sas(key.clone()), None),
        Proof::Certificate(certificate) => (DeviceCredential::X509, Some(certificate)),
    };
    let tls = client_config_as(network.trust, certificate).map_err(ProvisioningError::from)?;
    let device = |hub_hostname, device_id| Device { hub_hostname, device_id, credential, tls: tls.clone() };
    let dps = match settings {
        Provisioning::Manual { hub_hostname, device_id, .. } => {
            return Ok(Some(device(hub_hostname.clone(), device_id.clone())));
        }
        Provisioning::Dps(dps) => dps,
    };
    tracing::info!("Provisioning starting. Reason: Startup");
    let service =
        Service { http: HttpClient::new(dps.endpoint.clone(), tls.clone()), dps, pause: network.pause };
    let former = state.assignment().filter(|former| former.registration == service.registration());
    if let Some(former) = former.clone().filter(|_| !always) {
        let device = device(former.hub_name, former.device_id);
        if is_accepted(&device, network, state).await? {
            tracing::info!("Provisioning complete.");
            return Ok(Some(device));
        }
        tracing::warn!("The hub refuses the device as it was provisioned the last time. Reprovisioning.");
        return service.persist(None, state, shutdown).await.map(|found| {
            found.map(|found| Device { hub_hostname: found.hub_name, device_id: found.device_id, ..device })
        });
    }
    let assigned = service.persist(former, state, shutdown).await?;
    Ok(assigned.map(|assigned| device(assigned.hub_name, assigned.device_id)))
}

/// False when the hub does not know the device; one that is away may know it.
async fn is_accepted(device: &Device, network: &Network<'_>, state: &StateFolder) -> anyhow::Result<bool> {
    let http = HttpClient::new((network.hub)(&device.hub_hostname), device.tls.clone());
    let (hub, id) = (device.hub_hostname.clone(), device.device_id.clone());
    let backup = state.backup(&hub, &id);
    let identities =
        IdentityService::new(http, hub, id, device.credential.clone(), state.master_key()?, backup);
    let refusal = identities.list().await;
    Ok(!matches!(refusal, Err(IdentityServiceError::Refused { status: 401 | 404, .. })))
}

struct Service<'a> {
    http: HttpClient,
    dps: &'a Dps,
    pause: Duration,
}

impl Service<'_> {
    fn registration(&self) -> String {
        let Dps { endpoint, id_scope, registration_id, .. } = self.dps;
        format!("{}/{id_scope}/{registration_id}", endpoint.host).to_lowercase()
    }

    /// Registers, until it works; what was `former`ly said is good while the service is away.
    async fn persist(
        &self,
        former: Option<Assignment>,
        state: &StateFolder,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<Assignment>> {
        loop {
            let error = match shutdown.run_until_cancelled(self.register()).await {
                None => return Ok(None),
                Some(Ok(assigned)) => {
                    state.keep_assignment(&assigned)?;
                    tracing::info!("Provisioning complete.");
                    return Ok(Some(assigned));
                }
                Some(Err(error)) => error,
            };
            match (&error, &former) {
                (ProvisioningError::Unreachable(_), Some(former)) => {
                    tracing::warn!("The provisioning service is away, the last assignment is used: {error}");
                    return Ok(Some(former.clone()));
                }
                _ => tracing::error!(
                    "Failed to provision with IoT Hub, and no valid device backup was found: {error}"
                ),
            }
            if !retry::pause(self.pause, shutdown).await {
                return Ok(None);
            }
        }
    }

    async fn register(&self) -> Result<Assignment, ProvisioningError> {
        let Dps { id_scope, registration_id, payload, .. } = self.dps;
        let base = format!("/{}/registrations/{}", encode_segment(id_scope), encode_segment(registration_id));
        let token = self.token();
        let mut body = json!({"registrationId": registration_id});
        if let Some(payload) = payload {
            body["payload"] = payload.clone();
        }
        let path = format!("{base}/register?api-version={API_VERSION}");
        let answer = self.ask(Method::PUT, path, token.as_ref(), body.to_string().into()).await?;
        let operation = answer["operationId"].as_str().map(encode_segment);
        let operation =
            operation.ok_or_else(|| ProvisioningError::Malformed("operationId is missing".to_owned()))?;
        let path = format!("{base}/operations/{operation}?api-version={API_VERSION}");
        loop {
            tokio::time::sleep(self.pause).await;
            let answer = self.ask(Method::GET, path.clone(), token.as_ref(), Bytes::new()).await?;
            let state = &answer["registrationState"];
            match answer["status"].as_str() {
                Some("assigned") => return self.assignment(state),
                Some("assigning") => {}
                other => {
                    let message = state["errorMessage"].as_str().or(other).unwrap_or("no status");
                    return Err(ProvisioningError::Failed(message.to_owned()));
                }
            }
        }
    }

    fn assignment(&self, state: &Value) -> Result<Assignment, ProvisioningError> {
        let text = |name: &str| {
            let text = state[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            text.ok_or_else(|| ProvisioningError::Malformed(format!("{name} is missing")))
        };
        Ok(Assignment {
            registration: self.registration(),
            hub_name: text("assignedHub")?,
            device_id: text("deviceId")?,
        })
    }

    /// Everything lower case, as the real service sends it; a certificate needs none.
    fn token(&self) -> Option<Secret> {
        let Proof::Key(key) = &self.dps.proof else { return None };
        let resource =
            format!("{}/registrations/{}", self.dps.id_scope, self.dps.registration_id).to_lowercase();
        let expiry = unix_seconds(Timestamp::now()) + TOKEN_SECS;
        Some(Secret::new(sign(&resource, key, expiry, Some(POLICY))))
    }

    async fn ask(
        &self,
        method: Method,
        path: String,
        token: Option<&Secret>,
        body: Bytes,
    ) -> Result<Value, ProvisioningError> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token.expose());
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let response = self.http.send(request.body(body).map_err(HttpError::from)?).await?;
        let answer = serde_json::from_slice::<Value>(response.body());
        match response.status() {
            StatusCode::OK | StatusCode::ACCEPTED => {
                answer.map_err(|error| ProvisioningError::Malformed(error.to_string()))
            }
            status => {
                let answer = answer.unwrap_or_default();
                let message = answer["message"].as_str().or(answer["Message"].as_str());
                let message = message.unwrap_or("no message").to_owned();
                Err(ProvisioningError::Refused { status: status.as_u16(), message })
            }
        }
    }
}
