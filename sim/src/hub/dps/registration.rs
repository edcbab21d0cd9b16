//! Registering: the proof of a device is verified against its enrolment, and the device is made in the registry.
//!
//! A registration is kept, so that an operation can still be asked for after a restart of the hub. It is done at
//! once; that it takes a while, as in the cloud, is a fault that can be switched on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::enrollment::{Attestation, Enrollment};
use super::errors::DpsError;
use super::{canonical, is_valid_id, new_uuid};
use crate::hub::authority::Credential;
use crate::hub::rest::certificates;
use crate::hub::store::{
    Authentication, DeviceSpec, Document, Kind, Object, Precondition, Status, Store, StoreError, TwinParts,
};
use crate::hub::{Hub, State};
use crate::identity::Identity;
use crate::json::JsonObject;
use crate::sas::{SasError, SharedAccessKey, Token, unix_seconds};
use crate::x509::{ClientCertificate, Thumbprint};

/// What tokens for the provisioning service name as their policy.
const TOKEN_POLICY: &str = "registration";
/// Operations that may be `assigning` at once.
const MAX_PENDING: usize = 1000;
/// IoT Hub's code for a request that cannot be carried out.
const FAILED_CODE: u32 = 400_004;

/// The provisioning service of a hub.
pub(in crate::hub) struct Provisioning {
    id_scope: String,
    /// How often each operation will still be told to be `assigning`.
    pending: Mutex<HashMap<String, u32>>,
}

/// A device that has proved who it is.
pub(super) struct Proven {
    registration_id: String,
    enrollment: Enrollment,
    group: Option<String>,
    authentication: Authentication,
}

/// How a registration ended, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    registration_id: String,
    operation_id: String,
    group: Option<String>,
    is_certificate: bool,
    outcome: Outcome,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Outcome {
    Assigned { device_id: String, assigned_hub: String },
    Disabled,
    Failed { error_code: u32, error_message: String },
}

/// The answer to a request for an operation.
pub(super) struct Answer {
    pub(super) assigning: bool,
    pub(super) body: Value,
}

impl Provisioning {
    pub(in crate::hub) fn new(id_scope: &str) -> Self {
        Self { id_scope: id_scope.to_owned(), pending: Mutex::default() }
    }

    pub(super) fn is_scope(&self, scope: &str) -> bool {
        self.id_scope.eq_ignore_ascii_case(scope)
    }

    fn set_pending(&self, operation_id: &str, times: u32) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if times > 0 && pending.len() < MAX_PENDING {
            pending.insert(operation_id.to_owned(), times);
        }
    }

    /// Counts a poll of an operation that takes a while; false when it is done.
    fn is_pending(&self, operation_id: &str) -> bool {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = pending.get_mut(operation_id) else { return false };
        *times -= 1;
        if *times == 0 {
            pending.remove(operation_id);
        }
        true
    }
}

/// Verifies the proof of a device. Whatever is wrong, the device learns only that it is not authorised.
pub(super) fn authenticate(
    hub: &Hub,
    store: &Store,
    scope: &str,
    registration_id: &str,
    credential: &Credential<'_>,
    now: Timestamp,
) -> Result<Proven, DpsError> {
    if !hub.provisioning.is_scope(scope) {
        return Err(DpsError::Unauthorized("unknown id scope"));
    }
    if !is_valid_id(registration_id) {
        return Err(DpsError::Invalid("the registration id is invalid".to_owned()));
    }
    let resource = format!("{scope}/registrations/{registration_id}");
    let proof = Proof { store, registration_id, resource: &resource, credential, now };
    if let Ok(document) = store.document(Kind::Enrollment, &canonical(registration_id)) {
        let enrollment: Enrollment = document.read().map_err(DpsError::Store)?;
        let authentication = proof.for_device(&enrollment)?;
        return Ok(Proven {
            registration_id: registration_id.to_owned(),
            enrollment,
            group: None,
            authentication,
        });
    }
    for (_, document) in store.documents(Kind::EnrollmentGroup) {
        let enrollment: Enrollment = document.read().map_err(DpsError::Store)?;
        if let Some(authentication) = proof.for_group(&enrollment) {
            let group = document.value["enrollmentGroupId"].as_str().map(str::to_owned);
            return Ok(Proven {
                registration_id: registration_id.to_owned(),
                enrollment,
                group,
                authentication,
            });
        }
    }
    Err(DpsError::Unauthorized("no enrollment fits the registration id and its proof"))
}

struct Proof<'a> {
    store: &'a Store,
    registration_id: &'a str,
    resource: &'a str,
    credential: &'a Credential<'a>,
    now: Timestamp,
}

impl Proof<'_> {
    fn for_device(&self, enrollment: &Enrollment) -> Result<Authentication, DpsError> {
        match (&enrollment.attestation.0, self.credential) {
            (Attestation::SymmetricKey { keys: JsonObject(keys) }, Credential::Token(token)) => {
                let keys = keys.read().ok_or(DpsError::Unauthorized("the enrollment has no keys"))?;
                self.verify(token, &keys).map_err(|_| DpsError::Unauthorized("the token is refused"))?;
                let [primary, secondary] = keys;
                Ok(Authentication::Sas { primary, secondary })
            }
            (Attestation::X509 { x509: JsonObject(x509) }, Credential::Certificate(shown)) => {
                let enrolled = x509.client_certificates();
                let is_enrolled = enrolled.iter().any(|one| one.thumbprint() == shown.thumbprint());
                let is_issued = enrolled.is_empty() && self.is_issued(x509, shown);
                let is_valid = shown.check_validity(self.now).is_ok() && self.is_named(shown);
                if !is_valid || !(is_enrolled || is_issued) {
                    return Err(DpsError::Unauthorized("the certificate is refused"));
                }
                let mut thumbprints = enrolled.iter().map(ClientCertificate::thumbprint);
                let primary = thumbprints.next().or_else(|| Some(shown.thumbprint()));
                Ok(Authentication::SelfSigned { primary, secondary: thumbprints.next() })
            }
            _ => Err(DpsError::Unauthorized("the enrollment asks for another kind of proof")),
        }
    }

    fn for_group(&self, enrollment: &Enrollment) -> Option<Authentication> {
        match (&enrollment.attestation.0, self.credential) {
            (Attestation::SymmetricKey { keys: JsonObject(keys) }, Credential::Token(token)) => {
                let group_keys = keys.read()?;
                // Tools derive the key from the id as it is written, others from its lower case.
                [self.registration_id.to_owned(), canonical(self.registration_id)].iter().find_map(|id| {
                    let [primary, secondary] = group_keys.each_ref().map(|key| key.derive(id));
                    let keys = [primary?, secondary?];
                    self.verify(token, &keys).ok()?;
                    let [primary, secondary] = keys;
                    Some(Authentication::Sas { primary, secondary })
                })
            }
            (Attestation::X509 { x509: JsonObject(x509) }, Credential::Certificate(shown)) => {
                let is_valid = self.is_issued(x509, shown) && self.is_named(shown);
                let primary: Option<Thumbprint> = Some(shown.thumbprint());
                is_valid.then_some(Authentication::SelfSigned { primary, secondary: None })
            }
            _ => None,
        }
    }

    fn verify(&self, token: &Token, keys: &[SharedAccessKey]) -> Result<(), SasError> {
        // The SDK for Python names no policy, the others this one.
        if token.policy().is_some_and(|policy| policy != TOKEN_POLICY) {
            return Err(SasError::WrongAudience);
        }
        token.verify(keys, self.resource, unix_seconds(self.now))
    }

    fn is_issued(&self, x509: &super::enrollment::X509, shown: &ClientCertificate) -> bool {
        let known = |name: &str| certificates::text(self.store, name);
        x509.authorities(known).have_issued(shown, self.now)
    }

    fn is_named(&self, shown: &ClientCertificate) -> bool {
        shown.common_name().is_some_and(|name| name.eq_ignore_ascii_case(self.registration_id))
    }
}

/// Registers a device that has proved who it is; gives the answer to the request.
pub(super) fn register(
    hub: &Hub,
    state: &mut State,
    proven: Proven,
    now: Timestamp,
) -> Result<Value, DpsError> {
    let outcome = match proven.enrollment.provisioning_status {
        Status::Disabled => Outcome::Disabled,
        Status::Enabled => assign(state, hub.authority.hub_name(), &proven, now),
    };
    // The form of the cloud's: the version of the service, a part of the scope, and a UUID.
    let operation_id = format!("5.{:016x}.{}", now.as_millisecond(), new_uuid());
    let name = canonical(&proven.registration_id);
    let registration = Registration {
        registration_id: proven.registration_id,
        operation_id: operation_id.clone(),
        group: proven.group,
        is_certificate: matches!(proven.authentication, Authentication::SelfSigned { .. }),
        outcome,
    };
    let kept = state.store.put_document(Kind::Registration, &name, &registration, None, now);
    kept.map_err(DpsError::Store)?;
    hub.provisioning.set_pending(&operation_id, hub.faults.provisioning_delay());
    Ok(json!({"operationId": operation_id, "status": "assigning"}))
}

/// Makes the device in the registry what the enrolment says. What its twin has grown to stays.
fn assign(state: &mut State, hub_name: &str, proven: &Proven, now: Timestamp) -> Outcome {
    let failed = |error: &dyn std::error::Error| Outcome::Failed {
        error_code: FAILED_CODE,
        error_message: error.to_string(),
    };
    let enrollment = &proven.enrollment;
    if !enrollment.allows_hub(hub_name) {
        return Outcome::Failed {
            error_code: FAILED_CODE,
            error_message: format!("the enrollment names other hubs than {hub_name}"),
        };
    }
    let device_id = enrollment.device_id.clone().unwrap_or_else(|| proven.registration_id.clone());
    let spec = DeviceSpec {
        authentication: Some(proven.authentication.clone()),
        iot_edge: Some(enrollment.capabilities.0.iot_edge),
        ..DeviceSpec::default()
    };
    let made = match state.store.device(&device_id) {
        Ok(device) if device.record.authentication == proven.authentication => Ok(()),
        Ok(_) => state.store.update_device(&device_id, &Precondition::Any, spec, now).map(drop),
        Err(_) => state.store.create_device(&device_id, spec, now).map(drop).and_then(|()| {
            let JsonObject(twin) = enrollment.initial_twin.clone().unwrap_or_default();
            begin_twin(&mut state.store, &device_id, twin, now)
        }),
    };
    match made {
        Ok(()) => Outcome::Assigned { device_id, assigned_hub: hub_name.to_owned() },
        Err(error) => failed(&error),
    }
}

fn begin_twin(
    store: &mut Store,
    device_id: &str,
    twin: super::enrollment::InitialTwin,
    now: Timestamp,
) -> Result<(), StoreError> {
    let identity = Identity::device(device_id)?;
    let given = |part: Object| Some(part).filter(|part| !part.is_empty());
    let (tags, desired) = (given(twin.tags), given(twin.properties.0.desired));
    if tags.is_some() || desired.is_some() {
        let parts = TwinParts { tags, desired, replace: false };
        store.write_twin_parts(&identity, parts, &Precondition::Any, now)?;
    }
    Ok(())
}

/// The state of an operation.
pub(super) fn operation(
    hub: &Hub,
    store: &Store,
    registration_id: &str,
    operation_id: &str,
) -> Result<Answer, DpsError> {
    let document = store
        .document(Kind::Registration, &canonical(registration_id))
        .map_err(|error| DpsError::of(error, DpsError::OperationNotFound))?;
    let registration: Registration = document.read().map_err(DpsError::Store)?;
    if registration.operation_id != operation_id {
        return Err(DpsError::OperationNotFound);
    }
    if hub.provisioning.is_pending(operation_id) {
        let state = json!({"registrationId": registration.registration_id, "status": "assigning"});
        let body = json!({"operationId": operation_id, "status": "assigning", "registrationState": state});
        return Ok(Answer { assigning: true, body });
    }
    let state = registration.view(document);
    let body = json!({"operationId": operation_id, "status": state["status"], "registrationState": state});
    Ok(Answer { assigning: false, body })
}

/// The state of a registration, for its device and for services.
pub(super) fn registration_state(store: &Store, registration_id: &str) -> Result<Value, DpsError> {
    let document = store
        .document(Kind::Registration, &canonical(registration_id))
        .map_err(|error| DpsError::of(error, DpsError::RegistrationNotFound))?;
    Ok(document.read::<Registration>().map_err(DpsError::Store)?.view(document))
}

impl Registration {
    fn view(&self, document: &Document) -> Value {
        let mut view = json!({
            "registrationId": self.registration_id,
            "createdDateTimeUtc": document.created,
            "lastUpdatedDateTimeUtc": document.updated,
            "etag": format!("\"{}\"", document.etag),
        });
        match &self.outcome {
            Outcome::Assigned { device_id, assigned_hub } => {
                view["status"] = json!("assigned");
                view["substatus"] = json!("initialAssignment");
                view["deviceId"] = json!(device_id);
                view["assignedHub"] = json!(assigned_hub);
            }
            Outcome::Disabled => view["status"] = json!("disabled"),
            Outcome::Failed { error_code, error_message } => {
                view["status"] = json!("failed");
                view["errorCode"] = json!(error_code);
                view["errorMessage"] = json!(error_message);
            }
        }
        let kind = if self.is_certificate { "x509" } else { "symmetricKey" };
        view[kind] =
            self.group.as_ref().map_or_else(|| json!({}), |group| json!({"enrollmentGroupId": group}));
        view
    }
}
