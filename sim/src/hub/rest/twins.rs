//! `/twins`: reading twins and patching desired properties, for services.

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::request::{IfMatch, JsonBody};
use super::{SharedHub, view};
use crate::hub::Hub;
use crate::hub::store::{Object, Precondition, StoreError};
use crate::identity::{Identity, IdentityError};

/// The part of a twin that a service may patch. Anything else is an error, since it would be ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TwinPatch {
    properties: PropertiesPatch,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PropertiesPatch {
    desired: Object,
}

pub(super) async fn read_device(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
) -> Result<Json<Value>, ApiError> {
    read(&hub, Identity::device(&device))
}

pub(super) async fn read_module(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    read(&hub, Identity::module(&device, &module))
}

pub(super) async fn patch_device(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
    IfMatch(precondition): IfMatch,
    JsonBody(patch): JsonBody<TwinPatch>,
) -> Result<Json<Value>, ApiError> {
    self::patch(&hub, Identity::device(&device), precondition, patch)
}

pub(super) async fn patch_module(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
    IfMatch(precondition): IfMatch,
    JsonBody(patch): JsonBody<TwinPatch>,
) -> Result<Json<Value>, ApiError> {
    self::patch(&hub, Identity::module(&device, &module), precondition, patch)
}

fn read(hub: &Hub, identity: Result<Identity, IdentityError>) -> Result<Json<Value>, ApiError> {
    let identity = identity.map_err(StoreError::from)?;
    Ok(Json(view::twin(&identity, hub.state().store.record(&identity)?)))
}

fn patch(
    hub: &Hub,
    identity: Result<Identity, IdentityError>,
    precondition: Option<Precondition>,
    patch: TwinPatch,
) -> Result<Json<Value>, ApiError> {
    let (identity, now) = (identity.map_err(StoreError::from)?, Timestamp::now());
    let precondition = precondition.unwrap_or(Precondition::Any);
    let mut state = hub.state();
    let change = state.store.patch_desired(&identity, patch.properties.desired, &precondition, now)?;
    state.announce(change, now);
    Ok(Json(view::twin(&identity, state.store.record(&identity)?)))
}
