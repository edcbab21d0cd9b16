//! `/devices/{device}/modules`: what the identity service of IoT Edge asks of a hub, also open to services.

use axum::Json;
use axum::extract::{Path, State};
use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::{IfMatch, JsonBody, ModuleBody};
use super::{SharedHub, view};
use crate::hub::Hub;
use crate::hub::store::{Module, Precondition, StoreError};
use crate::identity::Identity;

/// A module, as long as it is switched on of another generation, which is the same each time.
fn view(hub: &Hub, module: &Module) -> Value {
    let mut view = view::module(module);
    if hub.faults.has_wrong_generation_ids() {
        view["generationId"] = json!(format!("{}0", module.record.generation_id));
    }
    view
}

pub(super) async fn list(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let state = hub.state();
    let modules = state.store.device(&device)?.modules.values();
    Ok(Json(modules.map(|module| view(&hub, module)).collect()))
}

pub(super) async fn read(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(view(&hub, hub.state().store.module(&device, &module)?)))
}

/// Creates the module, or updates it when there is an `If-Match`.
pub(super) async fn write(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
    IfMatch(precondition): IfMatch,
    JsonBody(body): JsonBody<ModuleBody>,
) -> Result<Json<Value>, ApiError> {
    let (spec, now) = (body.into_spec(&device, &module)?, Timestamp::now());
    let store = &mut hub.state().store;
    let written = match precondition {
        Some(precondition) => store.update_module(&device, &module, &precondition, spec, now)?,
        None => store.create_module(&device, &module, spec, now)?,
    };
    Ok(Json(view(&hub, written)))
}

pub(super) async fn delete(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, ApiError> {
    let identity = Identity::module(&device, &module).map_err(StoreError::from)?;
    let mut state = hub.state();
    state.store.delete_module(&device, &module, &precondition.unwrap_or(Precondition::Any))?;
    state.evict(&identity, Timestamp::now());
    Ok(StatusCode::NO_CONTENT)
}
