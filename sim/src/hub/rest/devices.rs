//! `/devices`: registering devices and applying deployments, for services.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use hyper::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::request::{DeviceBody, IfMatch, JsonBody};
use super::{SharedHub, view};
use crate::hub::store::{ConfigurationContent, Device, Precondition, Status};

/// The largest number of devices in an answer, and how many there are when the caller does not say.
const MAX_TOP: usize = 1000;

#[derive(Deserialize)]
pub(super) struct ListParameters {
    top: Option<usize>,
}

/// The first devices by id. IoT Hub has no next page here: whoever wants more asks by a query.
pub(super) async fn list(
    State(hub): State<SharedHub>,
    parameters: Result<Query<ListParameters>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(parameters) = parameters.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let top = parameters.top.unwrap_or(MAX_TOP).min(MAX_TOP);
    Ok(Json(hub.state().store.devices().take(top).map(view::device).collect()))
}

pub(super) async fn read(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(view::device(hub.state().store.device(&device)?)))
}

/// Creates the device, or updates it when there is an `If-Match`.
pub(super) async fn write(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
    IfMatch(precondition): IfMatch,
    JsonBody(body): JsonBody<DeviceBody>,
) -> Result<Json<Value>, ApiError> {
    let now = Timestamp::now();
    let mut state = hub.state();
    let own_scope = state.store.device(&device).ok().and_then(Device::own_scope);
    let spec = body.into_spec(&device, own_scope.as_deref())?;
    let written = match precondition {
        Some(precondition) => state.store.update_device(&device, &precondition, spec, now)?,
        None => state.store.create_device(&device, spec, now)?,
    };
    let (view, is_disabled) = (view::device(written), written.status == Status::Disabled);
    if is_disabled {
        state.evict_device(&device, now);
    }
    // The device may have another parent.
    state.evict_out_of_scope(now);
    Ok(Json(view))
}

pub(super) async fn delete(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, ApiError> {
    let mut state = hub.state();
    state.store.delete_device(&device, &precondition.unwrap_or(Precondition::Any))?;
    state.evict_device(&device, Timestamp::now());
    state.evict_out_of_scope(Timestamp::now());
    Ok(StatusCode::NO_CONTENT)
}

/// Makes the modules of a device and their desired properties those of a deployment manifest.
pub(super) async fn apply_configuration(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
    JsonBody(content): JsonBody<Value>,
) -> Result<StatusCode, ApiError> {
    let (content, now) = (ConfigurationContent::parse(&content)?, Timestamp::now());
    let mut state = hub.state();
    let applied = state.store.apply_configuration(&device, &content, now)?;
    for identity in &applied.removed {
        state.evict(identity, now);
    }
    for change in applied.changes {
        state.announce(change, now);
    }
    Ok(StatusCode::NO_CONTENT)
}
