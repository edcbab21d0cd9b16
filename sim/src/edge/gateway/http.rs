//! The gateway over HTTPS: modules of this device call methods of its clients, and clients that can do no other speak
//! MQTT over WebSockets.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use hyper::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::Gateway;
use super::admission::Refusal;
use super::calls::{LocalAnswer, LocalCall};
use crate::http::{StatusCode, error_in_json, header};
use crate::identity::Identity;
use crate::json::read_object;
use crate::tls::Peer;
use crate::websocket;

/// Who calls, as `{device}/{module}`.
const CALLER: &str = "x-ms-edge-moduleid";
const JSON: &str = "application/json; charset=utf-8";
const MAX_BODY: usize = 256 * 1024;
const MAX_PAYLOAD: usize = 128 * 1024;
const MAX_NAME: usize = 100;
const RESPONSE_SECS: std::ops::RangeInclusive<u64> = 5..=300;
const CONNECT_SECS: std::ops::RangeInclusive<u64> = 0..=300;

/// Why a call has no answer of its callee.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("Invalid header value for x-ms-edge-moduleId")]
    NoCaller,
    /// The same for every reason, so that nobody learns who there is; the reason goes to the log.
    #[error("Unauthorized")]
    Unauthorized,
    #[error("{0}")]
    Request(String),
    #[error("Client {0} not found")]
    NotFound(Identity),
    #[error("Timed out waiting for device to respond to method request {0}")]
    NoAnswer(String),
}

impl CallError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoCaller | Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::NoAnswer(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl IntoResponse for CallError {
    fn into_response(self) -> Response {
        answer(self.status(), &json!({"message": self.to_string()}))
    }
}

/// Why somebody may not call anything.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error("it is no module of this device")]
    Foreign,
    #[error("the request has no api-version")]
    NoVersion,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MethodRequest {
    method_name: String,
    /// Passed on as it was written.
    payload: Option<Box<RawValue>>,
    response_timeout_in_seconds: Option<u64>,
    connect_timeout_in_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Version {
    #[serde(rename = "api-version")]
    api_version: Option<String>,
}

pub(super) fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/twins/{device}/methods", post(call_device))
        .route("/twins/{device}/modules/{module}/methods", post(call_module))
        .route(websocket::PATH, get(open_websocket))
        .route("/%24iothub/websocket", get(open_websocket))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response(async |response| error_in_json(response, refusal)))
        .with_state(gateway)
}

/// What the router itself refuses.
fn refusal(status: StatusCode) -> Response {
    answer(status, &json!({"message": status.canonical_reason().unwrap_or_default()}))
}

/// MQTT over WebSockets; who connects is asked by MQTT.
async fn open_websocket(
    State(gateway): State<Arc<Gateway>>,
    peer: Extension<Peer>,
    request: Request,
) -> Response {
    let Extension(peer) = peer;
    websocket::accept(request, move |stream| async move { gateway.converse(stream, &peer).await })
}

async fn call_device(
    State(gateway): State<Arc<Gateway>>,
    Path(device): Path<String>,
    version: Query<Version>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, CallError> {
    let callee = Identity::device(&device).map_err(|error| CallError::Request(error.to_string()))?;
    gateway.call(callee, &version, &headers, &body).await
}

async fn call_module(
    State(gateway): State<Arc<Gateway>>,
    Path((device, module)): Path<(String, String)>,
    version: Query<Version>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, CallError> {
    let callee = Identity::module(&device, &module).map_err(|error| CallError::Request(error.to_string()))?;
    gateway.call(callee, &version, &headers, &body).await
}

impl Gateway {
    async fn call(
        &self,
        callee: Identity,
        version: &Version,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Response, CallError> {
        self.check_caller(version, headers).await?;
        let request = read(body)?;
        let secs = |given: Option<u64>, default| Duration::from_secs(given.unwrap_or(default));
        let end = Instant::now() + secs(request.connect_timeout_in_seconds, 0);
        let calls = self.callee(&callee, end).await.ok_or_else(|| CallError::NotFound(callee.clone()))?;
        let payload = request.payload.map_or_else(Bytes::new, |payload| payload.get().to_owned().into());
        let (reply, answered) = oneshot::channel();
        let call = LocalCall { method: request.method_name.clone(), payload, reply };
        let exchange = async {
            calls.send(call).await.ok()?;
            answered.await.ok()
        };
        let limit = secs(request.response_timeout_in_seconds, 30);
        // Whoever leaves with a call unanswered is as silent as one that does not answer.
        let LocalAnswer { status, payload } =
            timeout(limit, exchange).await.ok().flatten().ok_or(CallError::NoAnswer(request.method_name))?;
        let payload: Value = serde_json::from_slice(&payload).unwrap_or_else(|_| {
            if payload.is_empty() { Value::Null } else { String::from_utf8_lossy(&payload).into() }
        });
        Ok(answer(StatusCode::OK, &json!({"status": status, "payload": payload})))
    }

    async fn check_caller(&self, version: &Version, headers: &HeaderMap) -> Result<(), CallError> {
        let caller = headers.get(CALLER).and_then(|value| value.to_str().ok());
        let (device, module) = caller.and_then(|text| text.split_once('/')).ok_or(CallError::NoCaller)?;
        let caller = Identity::module(device, module).map_err(|_| CallError::NoCaller)?;
        let proven = self.prove(&caller, version, headers).await;
        proven.map_err(|reason| {
            tracing::warn!("The gateway refused a call of {caller}: {reason}");
            CallError::Unauthorized
        })
    }

    async fn prove(&self, caller: &Identity, version: &Version, headers: &HeaderMap) -> Result<(), Stranger> {
        if caller.device_id() != self.upstream.identities.device_id() {
            return Err(Stranger::Foreign);
        }
        if version.api_version.as_deref().unwrap_or_default().is_empty() {
            return Err(Stranger::NoVersion);
        }
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.verify(caller.clone(), token.unwrap_or_default(), None).await?;
        Ok(())
    }

    /// Waits for a client that takes calls.
    async fn callee(&self, identity: &Identity, end: Instant) -> Option<mpsc::Sender<LocalCall>> {
        let mut listening = self.registry.listening();
        loop {
            if let Some(calls) = self.registry.callee(identity) {
                return Some(calls);
            }
            timeout_at(end, listening.changed()).await.ok()?.ok()?;
        }
    }
}

fn read(body: &[u8]) -> Result<MethodRequest, CallError> {
    let wrong = |message: String| CallError::Request(message);
    let request: MethodRequest = read_object(body).map_err(|error| wrong(error.to_string()))?;
    let name = &request.method_name;
    if name.trim().is_empty() || name.len() > MAX_NAME || name.contains(['/', '?', '#', '+', '\0']) {
        return Err(wrong(format!("methodName is empty, longer than {MAX_NAME}, or has one of /?#+")));
    }
    for (name, given, allowed) in [
        ("responseTimeoutInSeconds", request.response_timeout_in_seconds, RESPONSE_SECS),
        ("connectTimeoutInSeconds", request.connect_timeout_in_seconds, CONNECT_SECS),
    ] {
        if given.is_some_and(|given| !allowed.contains(&given)) {
            let (from, to) = allowed.into_inner();
            return Err(wrong(format!("{name} has to be between {from} and {to} seconds")));
        }
    }
    if request.payload.as_ref().is_some_and(|payload| payload.get().len() > MAX_PAYLOAD) {
        return Err(wrong(format!("the payload is larger than {MAX_PAYLOAD} bytes")));
    }
    Ok(request)
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_beyond_the_limits_are_refused() {
        let large = format!("{{\"methodName\": \"a\", \"payload\": \"{}\"}}", "x".repeat(MAX_PAYLOAD));
        let name = format!("{{\"methodName\": \"{}\"}}", "x".repeat(MAX_NAME + 1));
        for text in [
            "",
            "[]",
            "[\"a\", null, null, null]",
            "{}",
            "{\"methodName\": \"\"}",
            "{\"methodName\": \"a/b\"}",
            &name,
            &large,
            "{\"methodName\": \"a\", \"responseTimeoutInSeconds\": 4}",
            "{\"methodName\": \"a\", \"responseTimeoutInSeconds\": 301}",
            "{\"methodName\": \"a\", \"connectTimeoutInSeconds\": 301}",
            "{\"methodName\": \"a\", \"connectTimeoutInSeconds\": -1}",
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{text}: {error}");
        }
        let request = read(b"{\"methodName\": \"a\", \"payload\": {\"x\":  1.0}}").unwrap();
        assert_eq!(request.payload.unwrap().get(), "{\"x\":  1.0}");
    }
}
