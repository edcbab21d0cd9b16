//! The management API, as far as it reads, and the health of the runtime beside it.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};

use super::api::{ApiError, json_response, require_api_version};
use super::board::{Board, RuntimeState};
use super::health::Health;
use crate::http::{Method, StatusCode};
use crate::unix_http::{self, UnixHttpError};

/// Where the socket is.
pub const DEFAULT_SOCKET: &str = "/var/run/iotedge/mgmt.sock";
/// As the real one: for the runtime's own group.
pub(super) const SOCKET_MODE: u32 = 0o660;

pub(super) fn router(board: Arc<Board>) -> Router {
    let versioned =
        Router::new().route("/modules", get(list)).layer(axum::middleware::from_fn(require_api_version));
    Router::new()
        .route("/kedge/health", get(health))
        .merge(versioned)
        .fallback(async || ApiError::not_found())
        .with_state(board)
}

async fn list(State(board): State<Arc<Board>>) -> Response {
    json_response(StatusCode::OK, &module_list(&board.state()))
}

async fn health(State(board): State<Arc<Board>>) -> Result<Response, ApiError> {
    let health = serde_json::to_value(Health::from(&board.state()));
    let health =
        health.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
    Ok(json_response(StatusCode::OK, &health))
}

/// The answer of `GET /modules`, of both local APIs.
pub(super) fn module_list(state: &RuntimeState) -> Value {
    let modules = state.modules.iter().map(|(name, module)| {
        let observed = module.observed.as_ref();
        let exit = observed.and_then(|seen| {
            let code = seen.exit_code?;
            Some(json!({"exitTime": seen.finished_at, "statusCode": code.to_string()}))
        });
        json!({
            "id": name,
            "name": name,
            "type": "docker",
            "config": {"settings": {"image": module.spec.image}, "env": []},
            "status": {
                "startTime": observed.and_then(|seen| seen.started_at.clone()),
                "exitStatus": exit,
                "runtimeStatus": {"status": module.status, "description": module.description},
            },
        })
    });
    json!({"modules": modules.collect::<Vec<_>>()})
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
