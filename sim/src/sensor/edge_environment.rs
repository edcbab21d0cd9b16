//! How a module finds the runtime and proves who it is: seven variables and the workload API.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::http::{Method, StatusCode};
use crate::identity::{Identity, IdentityError};
use crate::module_client::{Link, Transport};
use crate::percent;
use crate::sas::{self, unix_seconds};
use crate::secret::Secret;
use crate::tls::{Endpoint, TlsError, Trust, client_config};
use crate::unix_http::{self, UnixHttpError};

const GATEWAY_PORT: u16 = 8883;
const TOKEN_SECS: u64 = 3600;

/// Why the module has no way to the gateway.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The container was not started by the runtime.
    #[error("the environment variable {0} is missing")]
    Missing(&'static str),
    /// A variable makes no sense.
    #[error("IOTEDGE_WORKLOADURI is not of the form unix:///path")]
    WorkloadUri,
    /// The ids are not ones of IoT Hub.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The workload API does not answer.
    #[error("the workload API: {0}")]
    Request(#[from] UnixHttpError),
    /// The workload API refused the request.
    #[error("the workload API answered {0}")]
    Refused(StatusCode),
    /// The workload API's answer cannot be read.
    #[error("the workload API's answer cannot be read: {0}")]
    Malformed(String),
    /// The trust bundle cannot be used.
    #[error("the trust bundle: {0}")]
    Trust(#[from] TlsError),
}

/// What the runtime tells a module.
#[derive(Debug, Clone)]
pub struct EdgeEnvironment {
    /// Who the module is.
    pub identity: Identity,
    /// Where the gateway is.
    pub gateway: Endpoint,
    hub_name: String,
    generation_id: String,
    api_version: String,
    workload_socket: PathBuf,
}

impl EdgeEnvironment {
    /// Reads the variables that the runtime gives every module.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let needed =
            |name| variable(name).filter(|value| !value.is_empty()).ok_or(EnvironmentError::Missing(name));
        let workload_uri = needed("IOTEDGE_WORKLOADURI")?;
        let socket = workload_uri.strip_prefix("unix://").ok_or(EnvironmentError::WorkloadUri)?;
        Ok(Self {
            identity: Identity::module(&needed("IOTEDGE_DEVICEID")?, &needed("IOTEDGE_MODULEID")?)?,
            gateway: Endpoint::new(needed("IOTEDGE_GATEWAYHOSTNAME")?, GATEWAY_PORT),
            hub_name: needed("IOTEDGE_IOTHUBHOSTNAME")?,
            generation_id: needed("IOTEDGE_MODULEGENERATIONID")?,
            api_version: needed("IOTEDGE_APIVERSION")?,
            workload_socket: PathBuf::from(socket),
        })
    }

    /// Where and how to connect: the gateway, trusted by what the runtime says.
    pub async fn link(&self) -> Result<Link, EnvironmentError> {
        #[derive(Deserialize)]
        struct TrustBundle {
            certificate: String,
        }
        let bundle: TrustBundle = self.ask(Method::GET, "/trust-bundle", Bytes::new()).await?;
        Ok(Link {
            endpoint: self.gateway.clone(),
            transport: Transport::Tls,
            tls: client_config(Trust::Only(&bundle.certificate))?,
            hub_name: self.hub_name.clone(),
        })
    }

    /// A token, signed by the runtime; the module never sees its key.
    pub async fn token(&self) -> Result<Secret, EnvironmentError> {
        #[derive(Deserialize)]
        struct Signature {
            digest: String,
        }
        let unsigned = sas::Unsigned::new(
            &self.identity.resource(&self.hub_name),
            unix_seconds(Timestamp::now()) + TOKEN_SECS,
        );
        let request =
            json!({"keyId": "primary", "algo": "HMACSHA256", "data": STANDARD.encode(unsigned.text())});
        let module = percent::encode(self.identity.module_id().unwrap_or_default());
        let generation = percent::encode(&self.generation_id);
        let path = format!("/modules/{module}/genid/{generation}/sign");
        let signature: Signature = self.ask(Method::POST, &path, request.to_string().into()).await?;
        let digest = STANDARD.decode(&signature.digest);
        let digest =
            digest.map_err(|_| EnvironmentError::Malformed("the digest is not base64".to_owned()))?;
        Ok(Secret::new(unsigned.with_signature(&digest)))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, EnvironmentError> {
        let path = format!("{path}?api-version={}", percent::encode(&self.api_version));
        let answer = unix_http::request(&self.workload_socket, method, &path, body).await?;
        match answer.status() {
            StatusCode::OK => serde_json::from_slice(answer.body())
                .map_err(|error| EnvironmentError::Malformed(error.to_string())),
            status => Err(EnvironmentError::Refused(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: [(&str, &str); 7] = [
        ("IOTEDGE_WORKLOADURI", "unix:///var/run/iotedge/workload.sock"),
        ("IOTEDGE_DEVICEID", "d"),
        ("IOTEDGE_MODULEID", "m"),
        ("IOTEDGE_GATEWAYHOSTNAME", "edge.test"),
        ("IOTEDGE_IOTHUBHOSTNAME", "hub.test"),
        ("IOTEDGE_MODULEGENERATIONID", "1"),
        ("IOTEDGE_APIVERSION", "2022-08-03"),
    ];

    fn read(changed: &str, value: Option<&str>) -> Result<EdgeEnvironment, EnvironmentError> {
        EdgeEnvironment::from_env(|name| {
            let complete = COMPLETE.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            if name == changed { value.map(str::to_owned) } else { complete.map(str::to_owned) }
        })
    }

    #[test]
    fn all_seven_variables_are_needed() {
        let environment = read("", None).unwrap();
        assert_eq!(environment.gateway, Endpoint::new("edge.test", 8883));
        assert_eq!(environment.identity.to_string(), "d/m");
        for (name, _) in COMPLETE {
            for value in [None, Some("")] {
                assert!(
                    matches!(read(name, value), Err(EnvironmentError::Missing(missing)) if missing == name)
                );
            }
        }
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let uri = read("IOTEDGE_WORKLOADURI", Some("http://localhost"));
        assert!(matches!(uri, Err(EnvironmentError::WorkloadUri)));
        assert!(matches!(read("IOTEDGE_MODULEID", Some("a/b")), Err(EnvironmentError::Identity(_))));
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_is_an_error() {
        let environment = read("IOTEDGE_WORKLOADURI", Some("unix:///nonexistent/workload.sock")).unwrap();
        assert!(matches!(environment.token().await, Err(EnvironmentError::Request(_))));
        assert!(matches!(environment.link().await, Err(EnvironmentError::Request(_))));
    }
}
