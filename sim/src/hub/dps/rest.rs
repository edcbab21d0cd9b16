//! The HTTPS interface of the provisioning service: registering for devices, and enrolments for services.

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use hyper::StatusCode;
use hyper::header::{HeaderMap, LOCATION, RETRY_AFTER};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::enrollment::{Enrollment, Scope, view};
use super::errors::DpsError;
use super::registration::{authenticate, operation, register, registration_state};
use super::{canonical, is_valid_id};
use crate::hub::rest::paging::Paging;
use crate::hub::rest::request::{IfMatch, JsonBody, JsonBodyIfAny};
use crate::hub::rest::{Caller, SharedHub};
use crate::hub::store::{Kind, Precondition};

/// Seconds that a device is told to wait before it asks again.
pub(super) const RETRY_AFTER_SECS: u32 = 3;
/// Devices say little about themselves, and are not known when their bodies are read.
const MAX_BODY: usize = 16 * 1024;

/// The body of a registration, which the samples of the Embedded C SDK leave out. A payload is for custom allocation,
/// which is not offered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RegistrationBody {
    pub(super) registration_id: Option<String>,
}

impl RegistrationBody {
    pub(super) fn check(&self, registration_id: &str) -> Result<(), DpsError> {
        match &self.registration_id {
            Some(id) if !id.eq_ignore_ascii_case(registration_id) => {
                Err(DpsError::Invalid("registrationId is not that of the path or the user name".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// What devices ask. Each request is authorised by itself.
pub(in crate::hub) fn device_routes() -> Router<SharedHub> {
    Router::new()
        .route("/{scope}/registrations/{registration}/register", put(register_device))
        .route("/{scope}/registrations/{registration}/operations/{operation}", get(read_operation))
        .route("/{scope}/registrations/{registration}", post(look_up))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

/// What services ask. The caller adds their authorisation.
pub(in crate::hub) fn service_routes() -> Router<SharedHub> {
    Router::new()
        .route(
            "/enrollments/query",
            post(async |state: State<SharedHub>, headers: HeaderMap| {
                list(&state, &headers, Scope::Individual)
            }),
        )
        .route(
            "/enrollmentGroups/query",
            post(async |state: State<SharedHub>, headers: HeaderMap| list(&state, &headers, Scope::Group)),
        )
        .route("/enrollments/{id}", individual_methods())
        .route("/enrollmentGroups/{id}", group_methods())
        .route(
            "/enrollments/{id}/attestationmechanism",
            post(async |state: State<SharedHub>, id: Path<String>| {
                attestation(&state, &id, Scope::Individual)
            }),
        )
        .route(
            "/enrollmentGroups/{id}/attestationmechanism",
            post(async |state: State<SharedHub>, id: Path<String>| attestation(&state, &id, Scope::Group)),
        )
        .route("/registrations/{id}", get(read_registration).delete(delete_registration))
}

fn individual_methods() -> axum::routing::MethodRouter<SharedHub> {
    get(async |state: State<SharedHub>, id: Path<String>| read(&state, &id, Scope::Individual))
        .put(async |state: State<SharedHub>, id: Path<String>, if_match: IfMatch, body: JsonBody<Value>| {
            write(&state, &id, Scope::Individual, if_match.0.as_ref(), body.0)
        })
        .delete(async |state: State<SharedHub>, id: Path<String>, if_match: IfMatch| {
            delete(&state, &id, Scope::Individual, if_match.0)
        })
}

fn group_methods() -> axum::routing::MethodRouter<SharedHub> {
    get(async |state: State<SharedHub>, id: Path<String>| read(&state, &id, Scope::Group))
        .put(async |state: State<SharedHub>, id: Path<String>, if_match: IfMatch, body: JsonBody<Value>| {
            write(&state, &id, Scope::Group, if_match.0.as_ref(), body.0)
        })
        .delete(async |state: State<SharedHub>, id: Path<String>, if_match: IfMatch| {
            delete(&state, &id, Scope::Group, if_match.0)
        })
}

async fn register_device(
    State(hub): State<SharedHub>,
    Path((scope, registration)): Path<(String, String)>,
    caller: Caller,
    JsonBodyIfAny(body): JsonBodyIfAny<RegistrationBody>,
) -> Result<Response, DpsError> {
    let answer = {
        let mut state = hub.state();
        let credential = caller.credential()?;
        let proven = authenticate(&hub, &state.store, &scope, &registration, &credential, hub.now())?;
        body.check(&registration)?;
        register(&hub, &mut state, proven, Timestamp::now())?
    };
    let id = answer["operationId"].as_str().unwrap_or_default();
    let location = format!("/{scope}/registrations/{registration}/operations/{id}");
    let headers = [(RETRY_AFTER, RETRY_AFTER_SECS.to_string()), (LOCATION, location)];
    Ok((StatusCode::ACCEPTED, headers, Json(answer)).into_response())
}

async fn read_operation(
    State(hub): State<SharedHub>,
    Path((scope, registration, id)): Path<(String, String, String)>,
    caller: Caller,
) -> Result<Response, DpsError> {
    let state = hub.state();
    authenticate(&hub, &state.store, &scope, &registration, &caller.credential()?, hub.now())?;
    let answer = operation(&hub, &state.store, &registration, &id)?;
    Ok(if answer.assigning {
        let headers = [(RETRY_AFTER, RETRY_AFTER_SECS.to_string())];
        (StatusCode::ACCEPTED, headers, Json(answer.body)).into_response()
    } else {
        Json(answer.body).into_response()
    })
}

async fn look_up(
    State(hub): State<SharedHub>,
    Path((scope, registration)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<Value>, DpsError> {
    let state = hub.state();
    authenticate(&hub, &state.store, &scope, &registration, &caller.credential()?, hub.now())?;
    registration_state(&state.store, &registration).map(Json)
}

fn kind(scope: Scope) -> (Kind, DpsError) {
    match scope {
        Scope::Individual => (Kind::Enrollment, DpsError::EnrollmentNotFound),
        Scope::Group => (Kind::EnrollmentGroup, DpsError::GroupNotFound),
    }
}

fn list(hub: &SharedHub, headers: &HeaderMap, scope: Scope) -> Result<Response, DpsError> {
    let paging = Paging::of(headers).map_err(DpsError::Invalid)?;
    let item_type = match scope {
        Scope::Individual => "enrollment",
        Scope::Group => "enrollmentGroup",
    };
    let state = hub.state();
    let documents = state.store.documents(kind(scope).0);
    Ok(paging.answer(item_type, documents, |(_, document)| Some(view(document, false))))
}

fn read(hub: &SharedHub, id: &str, scope: Scope) -> Result<Json<Value>, DpsError> {
    let (kind, missing) = kind(scope);
    let state = hub.state();
    let document =
        state.store.document(kind, &canonical(id)).map_err(|error| DpsError::of(error, missing))?;
    Ok(Json(view(document, false)))
}

fn attestation(hub: &SharedHub, id: &str, scope: Scope) -> Result<Json<Value>, DpsError> {
    let (kind, missing) = kind(scope);
    let state = hub.state();
    let document =
        state.store.document(kind, &canonical(id)).map_err(|error| DpsError::of(error, missing))?;
    Ok(Json(view(document, true)["attestation"].take()))
}

fn write(
    hub: &SharedHub,
    id: &str,
    scope: Scope,
    precondition: Option<&Precondition>,
    body: Value,
) -> Result<Json<Value>, DpsError> {
    if !is_valid_id(id) {
        return Err(DpsError::Invalid(format!("{} is invalid", scope.id_name())));
    }
    let enrollment = Enrollment::parse(body, id, scope)?;
    let (kind, missing) = kind(scope);
    let (mut state, name) = (hub.state(), canonical(id));
    if precondition.is_none() && state.store.document(kind, &name).is_ok() {
        return Err(DpsError::Exists);
    }
    let written = state.store.put_document(kind, &name, &enrollment, precondition, Timestamp::now());
    let written = written.map_err(|error| DpsError::of(error, missing))?;
    Ok(Json(view(written, true)))
}

fn delete(
    hub: &SharedHub,
    id: &str,
    scope: Scope,
    precondition: Option<Precondition>,
) -> Result<StatusCode, DpsError> {
    let (kind, missing) = kind(scope);
    let precondition = precondition.unwrap_or(Precondition::Any);
    let deleted = hub.state().store.delete_document(kind, &canonical(id), &precondition);
    deleted.map_err(|error| DpsError::of(error, missing))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn read_registration(
    State(hub): State<SharedHub>,
    Path(id): Path<String>,
) -> Result<Json<Value>, DpsError> {
    registration_state(&hub.state().store, &id).map(Json)
}

async fn delete_registration(
    State(hub): State<SharedHub>,
    Path(id): Path<String>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, DpsError> {
    let precondition = precondition.unwrap_or(Precondition::Any);
    let deleted = hub.state().store.delete_document(Kind::Registration, &canonical(&id), &precondition);
    deleted.map_err(|error| DpsError::of(error, DpsError::RegistrationNotFound))?;
    Ok(StatusCode::NO_CONTENT)
}
