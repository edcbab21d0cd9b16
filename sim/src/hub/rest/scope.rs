//! The device scope: what the gateway of an edge device asks in order to know its clients and their keys.
//!
//! There are two forms of the same two questions. The older one is about the edge device itself; the newer one names
//! the edge device that it is about in a chain of identities, which ends with the one that asks.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::JsonBody;
use super::{SharedHub, view};
use crate::hub::authority::AuthError;
use crate::hub::store::{ScopePage, Store};
use crate::percent;

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// The query of [`list`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageParameters {
    device_count: Option<String>,
    continuation_token: Option<String>,
    #[serde(rename = "api-version")]
    api_version: Option<String>,
}

/// The query of [`read`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TargetParameters {
    target_device_id: String,
    target_module_id: Option<String>,
}

/// The body of [`list_nested`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NestedPage {
    page_size: Option<usize>,
    continuation_link: Option<String>,
    auth_chain: String,
}

/// The body of [`read_nested`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NestedTarget {
    target_device_id: String,
    target_module_id: Option<String>,
    auth_chain: String,
}

/// The edge device, its children, and the modules of all of them, page by page.
pub(super) async fn list(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
    parameters: Result<Query<PageParameters>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(parameters) = parameters.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let count =
        parameters.device_count.as_deref().map_or(Ok(None), |text| read_number(text, "deviceCount"))?;
    let token = parameters.continuation_token.as_deref();
    let begin = token.map_or(Ok(None), |text| read_number(text, "continuationToken"))?;
    let limit = page_size(count);
    let state = hub.state();
    let page = state.store.scope_page(&device, begin.unwrap_or(0), limit)?;
    let link = page.next.map(|next| {
        let (device, module) = (percent::encode_segment(&device), percent::encode_segment(&module));
        let version = parameters.api_version.unwrap_or_default();
        let version = percent::encode(&version);
        format!(
            "/devices/{device}/modules/{module}/devicesAndModulesInDeviceScope\
             ?deviceCount={limit}&continuationToken={next}&api-version={version}"
        )
    });
    Ok(Json(result(&page, link.as_deref())))
}

/// One device or module in the scope of the edge device.
pub(super) async fn read(
    State(hub): State<SharedHub>,
    Path((device, _)): Path<(String, String)>,
    parameters: Result<Query<TargetParameters>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(parameters) = parameters.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let TargetParameters { target_device_id, target_module_id } = parameters;
    one(&hub.state().store, &device, &target_device_id, target_module_id.as_deref())
}

/// As [`list`], of an edge device at or below the one that asks.
pub(super) async fn list_nested(
    State(hub): State<SharedHub>,
    Path((device, _)): Path<(String, String)>,
    JsonBody(body): JsonBody<NestedPage>,
) -> Result<Json<Value>, ApiError> {
    let target = first_in_chain(&body.auth_chain)?;
    let begin =
        body.continuation_link.as_deref().map_or(Ok(None), |text| read_number(text, "continuationLink"))?;
    let state = hub.state();
    if !state.store.is_in_scope(&device, target) {
        return Err(AuthError::NotInScope.into());
    }
    let page = state.store.scope_page(target, begin.unwrap_or(0), page_size(body.page_size))?;
    let link = page.next.map(|next| next.to_string());
    Ok(Json(result(&page, link.as_deref())))
}

/// As [`read`], for an edge device at or below the one that asks.
pub(super) async fn read_nested(
    State(hub): State<SharedHub>,
    Path((device, _)): Path<(String, String)>,
    JsonBody(body): JsonBody<NestedTarget>,
) -> Result<Json<Value>, ApiError> {
    let asking_for = first_in_chain(&body.auth_chain)?;
    let store = &hub.state().store;
    if !store.is_in_scope(&device, asking_for) {
        return Err(AuthError::NotInScope.into());
    }
    one(store, asking_for, &body.target_device_id, body.target_module_id.as_deref())
}

/// A module comes with its device, as from IoT Hub.
fn one(store: &Store, edge: &str, device: &str, module: Option<&str>) -> Result<Json<Value>, ApiError> {
    let found = store.device(device)?;
    if !store.is_in_scope(edge, device) {
        return Err(AuthError::NotInScope.into());
    }
    let modules = match module.filter(|module| !module.is_empty()) {
        Some(module) => vec![store.module(device, module)?],
        None => Vec::new(),
    };
    Ok(Json(result(&ScopePage { devices: vec![found], modules, next: None }, None)))
}

fn result(page: &ScopePage<'_>, continuation_link: Option<&str>) -> Value {
    json!({
        "devices": page.devices.iter().map(|device| view::device(device)).collect::<Vec<_>>(),
        "modules": page.modules.iter().map(|module| view::module(module)).collect::<Vec<_>>(),
        "continuationLink": continuation_link,
    })
}

/// The device at the begin of a chain, `target;…;actor`, where each part is `{device}` or `{device}/{module}`.
fn first_in_chain(chain: &str) -> Result<&str, ApiError> {
    let first = chain.split(';').find(|part| !part.is_empty());
    let device = first.and_then(|part| part.split('/').next()).filter(|device| !device.is_empty());
    device.ok_or_else(|| ApiError::bad_request("authChain names no device"))
}

/// Clients send a parameter without a value for what they do not know yet.
fn read_number(text: &str, name: &str) -> Result<Option<usize>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| ApiError::bad_request(format!("{name} is invalid")))
}

fn page_size(wish: Option<usize>) -> usize {
    wish.filter(|&wish| wish > 0).unwrap_or(DEFAULT_PAGE).min(MAX_PAGE)
}
