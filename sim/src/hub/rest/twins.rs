//! `/twins`: reading twins and changing their tags and desired properties, for services.

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::request::{IfMatch, JsonBody};
use super::{SharedHub, view};
use crate::hub::Hub;
use crate::hub::store::{Object, Precondition, StoreError, TwinParts};
use crate::identity::{Identity, IdentityError};
use crate::json::JsonObject;

/// The parts of a twin that a service may change. Clients send back the others, too, as they have read them.
#[derive(Deserialize)]
pub(super) struct TwinBody {
    #[serde(default)]
    tags: Option<Object>,
    #[serde(default)]
    properties: JsonObject<PropertiesBody>,
}

#[derive(Default, Deserialize)]
struct PropertiesBody {
    #[serde(default)]
    desired: Option<Object>,
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
    JsonBody(body): JsonBody<TwinBody>,
) -> Result<Json<Value>, ApiError> {
    write(&hub, Identity::device(&device), precondition, body, false)
}

pub(super) async fn patch_module(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
    IfMatch(precondition): IfMatch,
    JsonBody(body): JsonBody<TwinBody>,
) -> Result<Json<Value>, ApiError> {
    write(&hub, Identity::module(&device, &module), precondition, body, false)
}

pub(super) async fn replace_device(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
    IfMatch(precondition): IfMatch,
    JsonBody(body): JsonBody<TwinBody>,
) -> Result<Json<Value>, ApiError> {
    write(&hub, Identity::device(&device), precondition, body, true)
}

pub(super) async fn replace_module(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
    IfMatch(precondition): IfMatch,
    JsonBody(body): JsonBody<TwinBody>,
) -> Result<Json<Value>, ApiError> {
    write(&hub, Identity::module(&device, &module), precondition, body, true)
}

fn read(hub: &Hub, identity: Result<Identity, IdentityError>) -> Result<Json<Value>, ApiError> {
    let identity = identity.map_err(StoreError::from)?;
    Ok(Json(view::twin(&identity, &hub.state().store)?))
}

fn write(
    hub: &Hub,
    identity: Result<Identity, IdentityError>,
    precondition: Option<Precondition>,
    body: TwinBody,
    replace: bool,
) -> Result<Json<Value>, ApiError> {
    let (identity, now) = (identity.map_err(StoreError::from)?, Timestamp::now());
    let precondition = precondition.unwrap_or(Precondition::Any);
    let parts = TwinParts { tags: body.tags, desired: body.properties.0.desired, replace };
    let mut state = hub.state();
    if let Some(change) = state.store.write_twin_parts(&identity, parts, &precondition, now)? {
        state.announce(change, now);
    }
    Ok(Json(view::twin(&identity, &state.store)?))
}
