//! The management API, and the health of the runtime beside it.
//!
//! What only edgeAgent may ask of the real daemon is refused: here the daemon is edgeAgent itself.

mod modules;
mod system;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post, put};
use bytes::Bytes;
use serde_json::json;

use super::api::{ApiError, json_response, require_api_version};
use super::engine::Engine;
use super::health::Health;
use super::link::Upstream;
use super::supervisor::Orders;
use crate::http::{Method, StatusCode};
use crate::unix_http::{self, UnixHttpError};

pub(super) use modules::module_list;

/// Where the socket is.
pub const DEFAULT_SOCKET: &str = "/var/run/iotedge/mgmt.sock";
/// As the real one: for the runtime's own group.
pub(super) const SOCKET_MODE: u32 = 0o660;

/// What requests are answered from.
struct Services<E> {
    engine: Arc<E>,
    orders: Orders,
    upstream: Arc<Upstream>,
}

type Shared<E> = State<Arc<Services<E>>>;

pub(super) fn router<E: Engine>(engine: Arc<E>, orders: Orders, upstream: Arc<Upstream>) -> Router {
    let forbidden = async || ApiError::forbidden();
    let versioned = Router::new()
        .route("/modules", get(modules::list).post(forbidden))
        .route("/modules/{module}", get(modules::one).put(forbidden).delete(forbidden))
        .route("/modules/{module}/prepareupdate", post(forbidden))
        .route("/modules/{module}/logs", get(modules::logs))
        .route("/modules/{module}/{action}", post(modules::act))
        .route("/identities", get(identities).post(forbidden))
        .route("/identities/", get(identities).post(forbidden))
        .route("/identities/{module}", put(forbidden).delete(forbidden))
        .route("/systeminfo", get(system::info))
        .route("/device/reprovision", post(forbidden))
        .layer(axum::middleware::from_fn(require_api_version));
    Router::new()
        .route("/kedge/health", get(health))
        .merge(versioned)
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(Arc::new(Services { engine, orders, upstream }))
}

async fn health<E: Engine>(State(services): Shared<E>) -> Result<Response, ApiError> {
    let health = serde_json::to_value(Health::from(&services.upstream.board.state()));
    Ok(json_response(StatusCode::OK, &health.map_err(ApiError::internal)?))
}

async fn identities<E: Engine>(State(services): Shared<E>) -> Result<Response, ApiError> {
    let identities = services.upstream.identities.list().await.map_err(ApiError::internal)?;
    let identities = identities.into_iter().map(|(module, generation)| {
        json!({
            "moduleId": module,
            "managedBy": "iotedge",
            "generationId": generation,
            "authType": "sas",
        })
    });
    Ok(json_response(StatusCode::OK, &json!({"identities": identities.collect::<Vec<_>>()})))
}

/// Asks the daemon behind a management socket for its health.
pub async fn ask_health(socket: &Path) -> Result<Health, AskError> {
    let answer = unix_http::request(socket, Method::GET, "/kedge/health", Bytes::new()).await?;
    Ok(serde_json::from_slice(answer.body())?)
}

/// Why a daemon did not tell its health.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answers on the socket.
    #[error("the runtime does not answer: {0}")]
    Request(#[from] UnixHttpError),
    /// The answer is not what this version expects.
    #[error("the runtime's answer cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
}
