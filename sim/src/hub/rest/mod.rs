//! The HTTPS interface: identities for devices, and everything else for services.
//!
//! Authorization is a layer of each group of routes, so that none can be added without it: those for services ask
//! for the owner's token, those for modules also take the token of the device that they are about. Every error
//! is JSON with a `Message`, because the identity service of IoT Edge reads nothing else.

mod batch;
pub(super) mod certificates;
mod devices;
mod error;
mod faults;
mod messages;
mod methods;
mod modules;
pub(super) mod paging;
mod query;
pub(super) mod request;
mod scope;
mod telemetry;
mod twins;
mod view;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json, Router};
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::http::Extensions;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::timeout;

use self::error::ApiError;
use super::authority::{AuthError, Credential, Permission, read_token};
use super::store::StoreError;
use super::{Hub, dps, mqtt};
use crate::http::error_in_json;
use crate::identity::Identity;
use crate::tls::Peer;
use crate::websocket;

/// The largest request body; a deployment manifest is a few tens of kilobytes.
const MAX_BODY: usize = 1024 * 1024;

/// Longest wait for a commit, which takes milliseconds unless the disk is full.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type SharedHub = Arc<Hub>;

/// All routes of the hub.
pub(super) fn router(hub: SharedHub) -> Router {
    let service = Router::new()
        .route("/devices", get(devices::list))
        .route("/devices/query", post(query::run))
        .route("/devices/{device}", get(devices::read).put(devices::write).delete(devices::delete))
        .route("/devices/{device}/applyConfigurationContent", post(devices::apply_configuration))
        .route(
            "/twins/{device}",
            get(twins::read_device).patch(twins::patch_device).put(twins::replace_device),
        )
        .route(
            "/twins/{device}/modules/{module}",
            get(twins::read_module).patch(twins::patch_module).put(twins::replace_module),
        )
        .route("/twins/{device}/methods", post(methods::call_device))
        .route("/twins/{device}/modules/{module}/methods", post(methods::call_module))
        .route("/devices/{device}/messages/deviceBound", post(messages::send))
        .route("/devices/{device}/commands", delete(messages::purge))
        .route("/messages/serviceBound/feedback", get(messages::feedback))
        .route("/messages/serviceBound/feedback/{token}", delete(messages::complete_feedback))
        .route("/messages/serviceBound/feedback/{token}/abandon", post(messages::abandon_feedback))
        .route("/kedge/telemetry", get(telemetry::read))
        .route("/kedge/certificates", get(certificates::list))
        .route("/kedge/certificates/{name}", put(certificates::write).delete(certificates::delete))
        .route("/kedge/faults", get(faults::read).put(faults::write).delete(faults::clear))
        .route("/kedge/faults/closeConnections", post(faults::close_connections))
        .merge(dps::service_routes())
        .route_layer(from_fn_with_state(hub.clone(), require_service));
    let modules = Router::new()
        .route("/devices/{device}/modules", get(modules::list))
        .route(
            "/devices/{device}/modules/{module}",
            get(modules::read).put(modules::write).delete(modules::delete),
        )
        .route("/devices/{device}/messages/events", post(messages::send_device_telemetry))
        .route("/devices/{device}/messages/deviceBound", get(messages::fetch))
        .route("/devices/{device}/messages/deviceBound/{token}", delete(messages::settle))
        .route("/devices/{device}/messages/deviceBound/{token}/abandon", post(messages::abandon))
        .route_layer(from_fn_with_state(hub.clone(), require_service_or_device));
    let module = Router::new()
        .route("/devices/{device}/modules/{module}/messages/events", post(messages::send_module_telemetry))
        .route_layer(from_fn_with_state(hub.clone(), require_module));
    let gateways = Router::new()
        .route("/devices/{device}/modules/{module}/devicesAndModulesInDeviceScope", get(scope::list))
        .route("/devices/{device}/modules/{module}/deviceAndModuleInDeviceScope", get(scope::read))
        .route(
            "/devices/{device}/modules/{module}/devicesAndModulesInTargetDeviceScope",
            post(scope::list_nested),
        )
        .route("/devices/{device}/modules/{module}/getDeviceAndModuleOnBehalfOf", post(scope::read_nested))
        .route_layer(from_fn_with_state(hub.clone(), require_edge_hub));
    Router::new()
        .route("/kedge/health", get(health))
        .route(websocket::PATH, get(open_websocket))
        .route("/%24iothub/websocket", get(open_websocket))
        .merge(service)
        .merge(modules)
        .merge(module)
        .merge(gateways)
        .merge(dps::device_routes())
        .fallback(|| async { ApiError::with_status(StatusCode::NOT_FOUND) })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(hub.clone(), confirm))
        .layer(map_response(async |response| {
            error_in_json(response, |status| ApiError::with_status(status).into_response())
        }))
        .layer(from_fn_with_state(hub.clone(), faults::meet))
        .layer(from_fn(log))
        .with_state(hub)
}

/// What services may do is told by the policy of their token.
async fn require_service(
    State(hub): State<SharedHub>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check_api_version(&request)?;
    let token = read_token(authorization(request.headers()))?;
    let permission = Permission::of(request.method(), request.uri().path());
    hub.authority.verify_service(&token, permission, Timestamp::now())?;
    Ok(next.run(request).await)
}

/// Every request to IoT Hub names the version of the interface; which one makes no difference here.
fn check_api_version(request: &Request) -> Result<(), ApiError> {
    let query = request.uri().query().unwrap_or_default();
    let version = query.split('&').find_map(|part| part.strip_prefix("api-version="));
    let is_own = request.uri().path().starts_with("/kedge/");
    if is_own || version.is_some_and(|version| !version.is_empty()) {
        Ok(())
    } else {
        Err(ApiError::no_api_version())
    }
}

/// A token that names a policy is a service's, any other one the device's.
async fn require_service_or_device(
    State(hub): State<SharedHub>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check_api_version(&request)?;
    let caller = Caller::of(request.headers(), request.extensions());
    let credential = caller.credential()?;
    match &credential {
        Credential::Token(token) if token.policy().is_some() => {
            let permission = Permission::of(request.method(), request.uri().path());
            hub.authority.verify_service(token, permission, Timestamp::now())?;
        }
        credential => {
            let device = path.get("device").map(String::as_str).unwrap_or_default();
            let device = Identity::device(device).map_err(StoreError::from)?;
            hub.authority.verify_identity(&hub.state().store, &device, credential, hub.now())?;
        }
    }
    Ok(next.run(request).await)
}

/// A module speaks for itself alone.
async fn require_module(
    State(hub): State<SharedHub>,
    Path(path): Path<(String, String)>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    verify_module(&hub, &path, &request)?;
    Ok(next.run(request).await)
}

/// Only the gateway of an edge device asks who is in its scope.
async fn require_edge_hub(
    State(hub): State<SharedHub>,
    Path(path): Path<(String, String)>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if !verify_module(&hub, &path, &request)?.is_edge_hub() {
        return Err(AuthError::NotInScope.into());
    }
    Ok(next.run(request).await)
}

fn verify_module(hub: &Hub, path: &(String, String), request: &Request) -> Result<Identity, ApiError> {
    check_api_version(request)?;
    let module = Identity::module(&path.0, &path.1).map_err(StoreError::from)?;
    let caller = Caller::of(request.headers(), request.extensions());
    hub.authority.verify_identity(&hub.state().store, &module, &caller.credential()?, hub.now())?;
    Ok(module)
}

/// MQTT over WebSockets; who connects is asked by MQTT.
async fn open_websocket(State(hub): State<SharedHub>, peer: Extension<Peer>, request: Request) -> Response {
    let Extension(peer) = peer;
    websocket::accept(request, |stream| mqtt::serve(hub, stream, peer))
}

/// Reads are told only to those who look for them; the telemetry poll would drown everything else.
async fn log(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    if method == Method::GET && status.is_success() {
        tracing::debug!(%method, path, status = status.as_u16());
    } else {
        tracing::info!(%method, path, status = status.as_u16());
    }
    response
}

/// Holds an answer back until all that it may tell of is committed: the change itself, or what others have changed
/// before. While nothing can be written, changes are refused, and reads are answered with what is in memory.
async fn confirm(State(hub): State<SharedHub>, request: Request, next: Next) -> Result<Response, ApiError> {
    let is_read = request.method() == Method::GET;
    let trouble = hub.storage.writer.trouble();
    if let Some(trouble) = trouble.as_ref().filter(|_| !is_read) {
        return Err(ApiError::storage(trouble));
    }
    // The telemetry is read from the database, where everything is committed.
    let is_certain = matches!(request.uri().path(), "/kedge/telemetry" | "/kedge/health");
    let response = next.run(request).await;
    if is_certain || trouble.is_some() {
        return Ok(response);
    }
    let receipt = hub.state().store.receipt();
    match timeout(CONFIRM_TIMEOUT, hub.storage.writer.committed(receipt)).await {
        Ok(Ok(())) => Ok(response),
        Ok(Err(error)) => Err(ApiError::storage(error)),
        Err(late) => Err(ApiError::storage(late)),
    }
}

/// By what the caller of a request may prove who it is.
pub(super) struct Caller {
    authorization: Option<String>,
    peer: Option<Peer>,
}

impl Caller {
    fn of(headers: &HeaderMap, extensions: &Extensions) -> Self {
        Self { authorization: authorization(headers).map(str::to_owned), peer: extensions.get().cloned() }
    }

    /// The token, or the certificate of the connection when there is no token.
    pub(super) fn credential(&self) -> Result<Credential<'_>, AuthError> {
        let certificate = self.peer.as_ref().and_then(|peer| peer.certificate.as_ref());
        Credential::read(self.authorization.as_deref(), certificate)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers, &parts.extensions))
    }
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()
}

async fn health(State(hub): State<SharedHub>) -> Json<Value> {
    let trouble = hub.storage.writer.trouble();
    Json(json!({
        "status": if trouble.is_none() { "running" } else { "degraded" },
        "storageTrouble": trouble.as_deref(),
        "hostName": hub.authority.hub_name(),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}
