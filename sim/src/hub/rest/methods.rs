//! `POST /twins/{device}[/modules/{module}]/methods`: calling a method of a connected client.
//!
//! The call is answered by the client, or refused in IoT Hub's own form when the client is not there in time or does
//! not answer in time. Nothing of it is kept.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::SharedHub;
use super::error::ApiError;
use super::request::JsonBody;
use crate::hub::connections::{MethodAnswer, NotTaken};
use crate::hub::store::StoreError;
use crate::identity::{Identity, MAX_ID_LEN};
use crate::random;

const MAX_PAYLOAD: usize = 128 * 1024;
const RESPONSE_TIMEOUT_SECS: std::ops::RangeInclusive<u64> = 5..=300;
const CONNECT_TIMEOUT_SECS: std::ops::RangeInclusive<u64> = 0..=300;

/// The body of a call.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MethodBody {
    method_name: String,
    #[serde(default)]
    payload: Value,
    #[serde(default = "default_response_timeout")]
    response_timeout_in_seconds: u64,
    #[serde(default)]
    connect_timeout_in_seconds: u64,
}

fn default_response_timeout() -> u64 {
    30
}

pub(super) async fn call_device(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
    JsonBody(body): JsonBody<MethodBody>,
) -> Result<Json<Value>, CallError> {
    call(&hub, &Identity::device(&device).map_err(StoreError::from)?, &body).await
}

pub(super) async fn call_module(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
    JsonBody(body): JsonBody<MethodBody>,
) -> Result<Json<Value>, CallError> {
    call(&hub, &Identity::module(&device, &module).map_err(StoreError::from)?, &body).await
}

async fn call(hub: &SharedHub, identity: &Identity, body: &MethodBody) -> Result<Json<Value>, CallError> {
    let payload = checked(body)?;
    let connect_timeout = Duration::from_secs(body.connect_timeout_in_seconds);
    let answer = send(hub, identity, &body.method_name, &payload, connect_timeout).await?;
    let response_timeout = Duration::from_secs(body.response_timeout_in_seconds);
    let MethodAnswer { status, payload } = timeout(response_timeout, answer)
        .await
        .map_err(|_| CallError::NoAnswer)?
        .map_err(|_| CallError::Gone)?;
    Ok(Json(json!({"status": status, "payload": to_json(&payload)})))
}

/// Checks the limits of IoT Hub; gives the payload as it is sent.
fn checked(body: &MethodBody) -> Result<Bytes, ApiError> {
    let name = &body.method_name;
    if name.is_empty()
        || name.len() > MAX_ID_LEN
        || name.contains(|c: char| "/?#+".contains(c) || c.is_control())
    {
        return Err(ApiError::bad_request("methodName is empty, too long, or has one of /?#+"));
    }
    for (name, secs, allowed) in [
        ("responseTimeoutInSeconds", body.response_timeout_in_seconds, RESPONSE_TIMEOUT_SECS),
        ("connectTimeoutInSeconds", body.connect_timeout_in_seconds, CONNECT_TIMEOUT_SECS),
    ] {
        if !allowed.contains(&secs) {
            let (from, to) = allowed.into_inner();
            return Err(ApiError::bad_request(format!("{name} must be between {from} and {to}")));
        }
    }
    let payload = body.payload.to_string();
    if payload.len() > MAX_PAYLOAD {
        return Err(ApiError::too_large(format!("the payload is larger than {MAX_PAYLOAD} bytes")));
    }
    Ok(payload.into())
}

/// Gives the call to the client; waits for the client to connect and subscribe, as long as the caller says.
async fn send(
    hub: &SharedHub,
    identity: &Identity,
    name: &str,
    payload: &Bytes,
    connect_timeout: Duration,
) -> Result<oneshot::Receiver<MethodAnswer>, CallError> {
    let end = Instant::now() + connect_timeout;
    let mut listening = hub.state().connections.listening();
    loop {
        listening.mark_unchanged();
        {
            let mut state = hub.state();
            state.store.record(identity)?;
            match state.connections.call(identity, name, payload.clone()) {
                Ok(answer) => return Ok(answer),
                Err(NotTaken::Full) => return Err(CallError::TooMany),
                Err(NotTaken::Offline) => {}
            }
        }
        match timeout_at(end, listening.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(CallError::NotOnline(connect_timeout)),
        }
    }
}

/// What a client answers should be JSON; what is not is passed on as text.
fn to_json(payload: &[u8]) -> Value {
    if payload.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(payload).unwrap_or_else(|_| String::from_utf8_lossy(payload).into())
}

/// Why a call was not answered.
pub(super) enum CallError {
    Refused(ApiError),
    NotOnline(Duration),
    Gone,
    NoAnswer,
    TooMany,
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl IntoResponse for CallError {
    fn into_response(self) -> Response {
        let (status, code, message, waited) = match self {
            Self::Refused(error) => return error.into_response(),
            Self::NotOnline(waited) => {
                (StatusCode::NOT_FOUND, 404_103, "Timed out waiting for device to connect.", Some(waited))
            }
            Self::Gone => (StatusCode::NOT_FOUND, 404_103, "Device unavailable", None),
            Self::NoAnswer => {
                let message = "Timed out waiting for the response from device.";
                (StatusCode::GATEWAY_TIMEOUT, 504_101, message, None)
            }
            Self::TooMany => {
                (StatusCode::TOO_MANY_REQUESTS, 429_001, "Too many calls wait for the device.", None)
            }
        };
        let info = waited.map_or_else(|| json!({}), |waited| json!({"timeout": clock(waited)}));
        let now = Timestamp::now();
        // Without randomness the id says less, and the answer is as good.
        let id = random::bytes::<16>().unwrap_or_default().map(|byte| format!("{byte:02x}")).concat();
        let inner = json!({
            "errorCode": code,
            "trackingId": format!("{id}-G:0-TimeStamp:{}", now.strftime("%m/%d/%Y %H:%M:%S")),
            "message": message,
            "info": info,
            "timestampUtc": now.to_string(),
        });
        (status, Json(json!({"Message": inner.to_string(), "ExceptionMessage": ""}))).into_response()
    }
}

/// A duration as `hh:mm:ss`.
fn clock(duration: Duration) -> String {
    let secs = duration.as_secs();
    format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> MethodBody {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_limits_are_those_of_iot_hub() {
        let call = body(r#"{"methodName":"ping"}"#);
        assert_eq!((call.response_timeout_in_seconds, call.connect_timeout_in_seconds), (30, 0));
        assert_eq!(checked(&call).unwrap(), "null");
        let fits = "x".repeat(MAX_PAYLOAD - 2);
        assert!(checked(&MethodBody { payload: json!(fits), ..body(r#"{"methodName":"a"}"#) }).is_ok());
        let too_large = MethodBody { payload: json!(fits + "x"), ..body(r#"{"methodName":"a"}"#) };
        assert!(checked(&too_large).is_err());
        for refused in [
            r#"{"methodName":""}"#,
            r#"{"methodName":"a/b"}"#,
            r#"{"methodName":"a\u0000"}"#,
            r#"{"methodName":"a","responseTimeoutInSeconds":4}"#,
            r#"{"methodName":"a","responseTimeoutInSeconds":301}"#,
            r#"{"methodName":"a","connectTimeoutInSeconds":301}"#,
        ] {
            assert!(checked(&body(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn answers_are_json_and_anything_else_is_text() {
        assert_eq!(to_json(b""), Value::Null);
        assert_eq!(to_json(b"{\"a\":1}"), json!({"a": 1}));
        assert_eq!(to_json(b"no \xff json"), json!("no \u{fffd} json"));
        assert_eq!(clock(Duration::from_secs(3_725)), "01:02:05");
    }
}
