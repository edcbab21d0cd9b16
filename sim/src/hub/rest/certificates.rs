//! `/kedge/certificates`: the authorities that may issue the certificates of devices. In the cloud this is a part of
//! Azure's resource manager; here a service that may write to the registry adds them, without a proof of possession.

use axum::Json;
use axum::extract::{Path, State};
use hyper::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SharedHub;
use super::error::ApiError;
use super::request::JsonBody;
use crate::hub::store::{Document, Kind, Precondition, Store, StoreError};
use crate::identity::validate_id;
use crate::x509::Authorities;

/// One or more certificates as PEM.
#[derive(Serialize, Deserialize)]
pub(super) struct Certificate {
    certificate: String,
}

pub(super) async fn list(State(hub): State<SharedHub>) -> Json<Value> {
    let state = hub.state();
    let documents = state.store.documents(Kind::Certificate);
    Json(documents.map(|(name, document)| (name.to_owned(), view(document))).collect())
}

pub(super) async fn write(
    State(hub): State<SharedHub>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<Certificate>,
) -> Result<Json<Certificate>, ApiError> {
    validate_id(&name).map_err(StoreError::from)?;
    Authorities::from_pem([body.certificate.as_str()])
        .map_err(|error| ApiError::bad_request(format!("the certificate cannot be used: {error}")))?;
    let mut state = hub.state();
    state.store.put_document(Kind::Certificate, &name, &body, None, Timestamp::now())?;
    hub.authority.set_added_authorities(&texts(&state.store));
    Ok(Json(body))
}

pub(super) async fn delete(
    State(hub): State<SharedHub>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut state = hub.state();
    state.store.delete_document(Kind::Certificate, &name, &Precondition::Any)?;
    hub.authority.set_added_authorities(&texts(&state.store));
    Ok(StatusCode::NO_CONTENT)
}

fn view(document: &Document) -> Value {
    let mut view = document.value.clone();
    view["created"] = json!(document.created);
    view["updated"] = json!(document.updated);
    view
}

/// The text of one certificate.
pub(in crate::hub) fn text(store: &Store, name: &str) -> Option<String> {
    Some(store.document(Kind::Certificate, name).ok()?.read::<Certificate>().ok()?.certificate)
}

/// The texts of all certificates.
pub(in crate::hub) fn texts(store: &Store) -> Vec<String> {
    let documents = store.documents(Kind::Certificate);
    documents.filter_map(|(_, document)| Some(document.read::<Certificate>().ok()?.certificate)).collect()
}
