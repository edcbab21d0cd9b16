//! The table `[provisioning]`: how the device comes to its identity, and by what it proves who it is.

use serde::Deserialize;
use serde_json::Value;

use super::{ConfigError, file_path, invalid, read_uri};
use crate::edge::connection_string::{ConnectionString, parse_key};
use crate::identity::validate_id;
use crate::pki::IssuedCertificate;
use crate::sas::SharedAccessKey;
use crate::secret::{Secret, without_quoted_text};
use crate::tls::{Endpoint, server_config};
use crate::x509::ClientCertificate;

const HTTPS_PORT: u16 = 443;

/// How the device comes to its identity.
#[derive(Debug)]
pub enum Provisioning {
    /// It is written down.
    Manual {
        /// Host name of the IoT Hub, as typed.
        hub_hostname: String,
        /// Device identity.
        device_id: String,
        /// Of this device.
        proof: Proof,
    },
    /// The provisioning service tells it.
    Dps(Dps),
}

/// Registration with the provisioning service.
#[derive(Debug)]
pub struct Dps {
    /// The service.
    pub endpoint: Endpoint,
    /// The service's name for its customer.
    pub id_scope: String,
    /// Under which the device is enrolled.
    pub registration_id: String,
    /// Of this registration.
    pub proof: Proof,
    /// What the service is told besides.
    pub payload: Option<Value>,
    /// Ask at each start, also when the answer of the last time is there.
    pub always: bool,
}

/// By what the device proves who it is.
#[derive(Debug)]
pub enum Proof {
    /// A symmetric key.
    Key(SharedAccessKey),
    /// A certificate with its key.
    Certificate(IssuedCertificate),
}

#[derive(Deserialize)]
pub(super) struct Table {
    source: String,
    connection_string: Option<Secret>,
    iothub_hostname: Option<String>,
    device_id: Option<String>,
    authentication: Option<Attestation>,
    global_endpoint: Option<String>,
    id_scope: Option<String>,
    attestation: Option<Attestation>,
    payload: Option<Uri>,
}

/// `authentication` of a device and `attestation` of a registration have the same form.
#[derive(Deserialize)]
struct Attestation {
    method: String,
    registration_id: Option<String>,
    device_id_pk: Option<SymmetricKey>,
    symmetric_key: Option<SymmetricKey>,
    identity_cert: Option<FileOrIssuance>,
    identity_pk: Option<FileOrIssuance>,
}

#[derive(Deserialize)]
struct SymmetricKey {
    value: Option<Secret>,
    uri: Option<String>,
}

#[derive(Deserialize)]
struct Uri {
    uri: String,
}

/// The real runtime can also have a certificate issued, and make the key.
#[derive(Deserialize)]
#[serde(untagged)]
enum FileOrIssuance {
    File(String),
    Other(serde::de::IgnoredAny),
}

impl Table {
    pub(super) fn resolve(self, always: bool) -> Result<Provisioning, ConfigError> {
        match self.source.as_str() {
            "manual" => self.manual(),
            "dps" => self.dps(always).map(Provisioning::Dps),
            other => Err(invalid(format!(
                "provisioning source \"{other}\" is not supported by the simulated runtime, only \"manual\" and \"dps\""
            ))),
        }
    }

    fn manual(self) -> Result<Provisioning, ConfigError> {
        let (hub_hostname, device_id, proof) = match &self.connection_string {
            Some(text) => {
                let parsed = ConnectionString::parse(text.expose())
                    .map_err(|error| invalid(format!("invalid connection string: {error}")))?;
                (parsed.hub_hostname, parsed.device_id, Proof::Key(parsed.key))
            }
            None => {
                let authentication = self.authentication.ok_or_else(|| missing("connection_string"))?;
                let proof = match authentication.method.as_str() {
                    "sas" => authentication.key("device_id_pk", authentication.device_id_pk.as_ref())?,
                    "x509" => Proof::Certificate(authentication.certificate()?),
                    other => return Err(unsupported(other, "sas")),
                };
                let hub = self.iothub_hostname.ok_or_else(|| missing("iothub_hostname"))?;
                (hub, self.device_id.ok_or_else(|| missing("device_id"))?, proof)
            }
        };
        validate_id(&device_id).map_err(|error| invalid(format!("device id: {error}")))?;
        Ok(Provisioning::Manual { hub_hostname, device_id, proof })
    }

    fn dps(self, always: bool) -> Result<Dps, ConfigError> {
        let endpoint = self.global_endpoint.ok_or_else(|| missing("global_endpoint"))?;
        let endpoint = https_endpoint(&endpoint).ok_or_else(|| {
            invalid(
                "provisioning: global_endpoint must have the form \"https://name\" or \"https://name:port\"",
            )
        })?;
        let attestation = self.attestation.ok_or_else(|| invalid("[provisioning.attestation] is missing"))?;
        let (proof, common_name) = match attestation.method.as_str() {
            "symmetric_key" => (attestation.key("symmetric_key", attestation.symmetric_key.as_ref())?, None),
            "x509" => {
                let certificate = attestation.certificate()?;
                let read = ClientCertificate::from_pem(&certificate.chain_pem);
                let name = read.ok().and_then(|read| read.common_name().map(str::to_owned));
                (Proof::Certificate(certificate), name)
            }
            other => return Err(unsupported(other, "symmetric_key")),
        };
        Ok(Dps {
            endpoint,
            id_scope: self.id_scope.ok_or_else(|| missing("id_scope"))?,
            registration_id: attestation
                .registration_id
                .or(common_name)
                .ok_or_else(|| missing("registration_id"))?,
            proof,
            payload: self.payload.map(|payload| payload.json()).transpose()?,
            always,
        })
    }
}

impl Attestation {
    fn key(&self, name: &str, key: Option<&SymmetricKey>) -> Result<Proof, ConfigError> {
        let key = key.ok_or_else(|| missing(name))?.resolve();
        Ok(Proof::Key(key?.map_err(|error| invalid(format!("{name}: {error}")))?))
    }

    fn certificate(&self) -> Result<IssuedCertificate, ConfigError> {
        let chain_pem = file("identity_cert", self.identity_cert.as_ref())?;
        let key_pem = Secret::new(file("identity_pk", self.identity_pk.as_ref())?);
        ClientCertificate::from_pem(&chain_pem)
            .map_err(|error| invalid(format!("identity_cert: {error}")))?;
        // A server has the same needs: a chain, and the key that belongs to it.
        server_config(&chain_pem, &key_pem).map_err(|error| invalid(format!("identity_pk: {error}")))?;
        Ok(IssuedCertificate { chain_pem, key_pem })
    }
}

impl SymmetricKey {
    /// Keys in files are raw bytes, as the real key service takes them.
    fn resolve(&self) -> Result<Result<SharedAccessKey, String>, ConfigError> {
        Ok(match (&self.value, &self.uri) {
            (Some(value), None) => parse_key(value.expose()),
            (None, Some(uri)) => {
                SharedAccessKey::from_bytes(fs_err::read(file_path(uri)?)?).map_err(|error| error.to_string())
            }
            _ => Err("one of \"value\" and \"uri\" is needed".to_owned()),
        })
    }
}

impl Uri {
    fn json(&self) -> Result<Value, ConfigError> {
        serde_json::from_str(&read_uri(&self.uri)?)
            .map_err(|error| invalid(format!("payload: {}", without_quoted_text(&error.to_string()))))
    }
}

fn file(name: &str, source: Option<&FileOrIssuance>) -> Result<String, ConfigError> {
    match source.ok_or_else(|| missing(name))? {
        FileOrIssuance::File(uri) => read_uri(uri),
        FileOrIssuance::Other(_) => {
            Err(invalid(format!("{name}: only a file is supported by the simulated runtime")))
        }
    }
}

fn https_endpoint(text: &str) -> Option<Endpoint> {
    let authority = text.strip_prefix("https://")?.trim_end_matches('/');
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, HTTPS_PORT),
    };
    let is_name = !host.is_empty() && !host.contains(['/', '?', '@', ' ']);
    is_name.then(|| Endpoint::new(host, port))
}

fn missing(name: &str) -> ConfigError {
    invalid(format!("provisioning: \"{name}\" is missing"))
}

fn unsupported(method: &str, other: &str) -> ConfigError {
    invalid(format!(
        "authentication method \"{method}\" is not supported by the simulated runtime, only \"{other}\" and \"x509\""
    ))
}
