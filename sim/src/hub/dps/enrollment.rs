//! Enrolments: who may register, in the JSON of the service interface.
//!
//! What is not understood here is kept and given back, since clients write back what they have read. Keys and
//! certificates are shown when they are written and when they are asked for, otherwise left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::errors::DpsError;
use crate::hub::store::{Document, Object, Status};
use crate::identity::validate_id;
use crate::json::JsonObject;
use crate::sas::SharedAccessKey;
use crate::x509::{Authorities, ClientCertificate};

/// Whether one device or a group of them is enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Individual,
    Group,
}

/// An enrolment, of a device or of a group.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Enrollment {
    pub(super) attestation: JsonObject<Attestation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device_id: Option<String>,
    #[serde(default)]
    pub(super) provisioning_status: Status,
    #[serde(default)]
    pub(super) capabilities: JsonObject<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) initial_twin: Option<JsonObject<InitialTwin>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iot_hub_host_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iot_hubs: Option<Vec<String>>,
    #[serde(flatten)]
    other: Object,
}

/// How a device proves that it is the one that is enrolled.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(super) enum Attestation {
    SymmetricKey {
        #[serde(default, rename = "symmetricKey")]
        keys: JsonObject<Keys>,
    },
    X509 {
        x509: JsonObject<X509>,
    },
}

/// Base64 text; what is missing is made when the enrolment is written.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Keys {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

/// The certificate of a device, those of authorities, or names of authorities that the hub knows.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct X509 {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificates: Option<JsonObject<Pair<JsonObject<Certificate>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_certificates: Option<JsonObject<Pair<JsonObject<Certificate>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_references: Option<JsonObject<Pair<String>>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Pair<T> {
    primary: Option<T>,
    secondary: Option<T>,
}

/// PEM, or the base64 of DER.
#[derive(Clone, Serialize, Deserialize)]
struct Certificate {
    certificate: String,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Capabilities {
    pub(super) iot_edge: bool,
}

/// What the twin of a new device begins with.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct InitialTwin {
    pub(super) tags: Object,
    pub(super) properties: JsonObject<InitialProperties>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct InitialProperties {
    pub(super) desired: Object,
}

/// What a pair has, if there is one.
fn entries<T>(pair: Option<&JsonObject<Pair<T>>>) -> impl Iterator<Item = &T> {
    pair.into_iter().flat_map(|JsonObject(pair)| [&pair.primary, &pair.secondary]).flatten()
}

impl Certificate {
    fn pem(&self) -> Result<String, DpsError> {
        let text = self.certificate.trim();
        if text.starts_with("-----BEGIN") {
            return Ok(text.to_owned());
        }
        let compact: String = text.split_whitespace().collect();
        STANDARD.decode(&compact).map_err(|_| invalid("a certificate is neither PEM nor base64"))?;
        Ok(format!("-----BEGIN CERTIFICATE-----\n{compact}\n-----END CERTIFICATE-----\n"))
    }
}

impl Keys {
    /// Makes missing keys, and refuses what is not a key.
    fn complete(&mut self) -> Result<(), DpsError> {
        for text in [&mut self.primary_key, &mut self.secondary_key] {
            let given = text.as_deref().filter(|text| !text.is_empty());
            let key = given.map_or_else(SharedAccessKey::generate, SharedAccessKey::from_base64);
            let key = key.map_err(|error| invalid(&error.to_string()))?;
            *text = Some(key.to_base64().expose().to_owned());
        }
        Ok(())
    }

    /// The primary and the secondary key.
    pub(super) fn read(&self) -> Option<[SharedAccessKey; 2]> {
        let read = |text: &Option<String>| SharedAccessKey::from_base64(text.as_deref()?).ok();
        Some([read(&self.primary_key)?, read(&self.secondary_key)?])
    }
}

impl X509 {
    /// The certificates of the one device that is enrolled.
    pub(super) fn client_certificates(&self) -> Vec<ClientCertificate> {
        let certificates = entries(self.client_certificates.as_ref());
        certificates.filter_map(|it| ClientCertificate::from_pem(&it.0.pem().ok()?).ok()).collect()
    }

    /// The authorities that may issue the certificates of devices. `known` finds those that are named.
    pub(super) fn authorities(&self, known: impl Fn(&str) -> Option<String>) -> Authorities {
        let signing = entries(self.signing_certificates.as_ref());
        let signing = signing.filter_map(|JsonObject(certificate)| certificate.pem().ok());
        let named = entries(self.ca_references.as_ref()).filter_map(|name| known(name));
        let texts: Vec<_> = signing.chain(named).collect();
        Authorities::from_pem(texts.iter().map(String::as_str)).unwrap_or_default()
    }

    fn check(&self, scope: Scope) -> Result<(), DpsError> {
        let client = entries(self.client_certificates.as_ref());
        let signing = entries(self.signing_certificates.as_ref());
        let references = entries(self.ca_references.as_ref()).count();
        let (mut clients, mut signers) = (0, 0);
        for JsonObject(certificate) in client {
            let read = ClientCertificate::from_pem(&certificate.pem()?);
            read.map_err(|error| invalid(&format!("clientCertificates: {error}")))?;
            clients += 1;
        }
        for JsonObject(certificate) in signing {
            let read = Authorities::from_pem([certificate.pem()?.as_str()]);
            read.map_err(|error| invalid(&format!("signingCertificates: {error}")))?;
            signers += 1;
        }
        match (scope, clients, signers + references) {
            (Scope::Individual, 1.., 0) | (Scope::Individual | Scope::Group, 0, 1..) => Ok(()),
            (Scope::Individual, ..) => {
                Err(invalid("x509 needs clientCertificates or, in their place, caReferences"))
            }
            (Scope::Group, ..) => Err(invalid("x509 of a group needs signingCertificates or caReferences")),
        }
    }
}

impl Enrollment {
    /// Reads and completes what a service wrote.
    pub(super) fn parse(body: Value, id: &str, scope: Scope) -> Result<Self, DpsError> {
        let mut enrollment: Self = serde_json::from_value(body)
            .map_err(|error| invalid(&format!("the body is invalid: {error}")))?;
        let id_name = scope.id_name();
        match enrollment.other.get(id_name).and_then(Value::as_str) {
            Some(other) if !other.eq_ignore_ascii_case(id) => {
                return Err(invalid(&format!("{id_name} differs from the path")));
            }
            _ => enrollment.other.insert(id_name.to_owned(), json!(id)),
        };
        for written_by_the_service in
            ["etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc", "registrationState"]
        {
            enrollment.other.remove(written_by_the_service);
        }
        match &mut enrollment.attestation.0 {
            Attestation::SymmetricKey { keys } => keys.0.complete()?,
            Attestation::X509 { x509 } => x509.0.check(scope)?,
        }
        match &enrollment.device_id {
            Some(_) if scope == Scope::Group => return Err(invalid("a group has no deviceId")),
            Some(id) => validate_id(id).map_err(|error| invalid(&error.to_string()))?,
            None => {}
        }
        Ok(enrollment)
    }

    /// True when devices may be assigned to this hub: none is named, or this one.
    pub(super) fn allows_hub(&self, hub_name: &str) -> bool {
        let mut named = self.iot_hub_host_name.iter().chain(self.iot_hubs.iter().flatten()).peekable();
        named.peek().is_none() || named.any(|name| name.eq_ignore_ascii_case(hub_name))
    }
}

impl Scope {
    pub(super) fn id_name(self) -> &'static str {
        match self {
            Self::Individual => "registrationId",
            Self::Group => "enrollmentGroupId",
        }
    }
}

/// An enrolment as a service sees it.
pub(super) fn view(document: &Document, with_keys: bool) -> Value {
    let mut view = document.value.clone();
    if let Some(x509) = view.pointer_mut("/attestation/x509") {
        describe_certificates(x509);
    }
    if !with_keys && let Some(attestation) = view["attestation"].as_object_mut() {
        attestation.remove("symmetricKey");
    }
    view["etag"] = json!(format!("\"{}\"", document.etag));
    view["createdDateTimeUtc"] = json!(document.created);
    view["lastUpdatedDateTimeUtc"] = json!(document.updated);
    view
}

/// Certificates are told by what is in them.
fn describe_certificates(x509: &mut Value) {
    for kind in ["clientCertificates", "signingCertificates"] {
        for place in ["primary", "secondary"] {
            let Some(entry) = x509.pointer_mut(&format!("/{kind}/{place}")).filter(|entry| entry.is_object())
            else {
                continue;
            };
            let certificate = Certificate::deserialize(&*entry).ok().and_then(|entry| entry.pem().ok());
            if let Some(certificate) = certificate.and_then(|pem| ClientCertificate::from_pem(&pem).ok()) {
                let [not_before, not_after] =
                    certificate.validity().map(|time| time.map(|time| time.to_string()));
                entry["info"] = json!({
                    "subjectName": certificate.common_name().map(|name| format!("CN={name}")),
                    "sha1Thumbprint": certificate.thumbprint_sha1(),
                    "sha256Thumbprint": certificate.thumbprint(),
                    "notBeforeUtc": not_before,
                    "notAfterUtc": not_after,
                });
            }
        }
    }
}

fn invalid(reason: &str) -> DpsError {
    DpsError::Invalid(reason.to_owned())
}
