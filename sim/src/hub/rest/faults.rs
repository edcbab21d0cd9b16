//! `/kedge/faults`: switching faults on and off, and what requests meet while they are on.

use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{DATE, HeaderValue, RETRY_AFTER};
use jiff::Timestamp;

use super::SharedHub;
use super::error::ApiError;
use super::request::JsonBody;
use crate::http::CloseConnection;
use crate::hub::faults::FaultSettings;

/// Seconds that the real hub names in the text of its answer.
const RETRY_AFTER_SECS: u32 = 10;

pub(super) async fn read(State(hub): State<SharedHub>) -> Json<FaultSettings> {
    Json(hub.faults.settings())
}

/// Replaces what is switched on; what the body does not name is off.
pub(super) async fn write(
    State(hub): State<SharedHub>,
    JsonBody(settings): JsonBody<FaultSettings>,
) -> Result<Json<FaultSettings>, ApiError> {
    settings.check().map_err(ApiError::bad_request)?;
    hub.faults.set(settings.clone());
    let mut state = hub.state();
    state.throttled = settings.throttle;
    if settings.offline {
        state.evict_all(Timestamp::now());
    }
    tracing::warn!(?settings, "faults");
    Ok(Json(settings))
}

pub(super) async fn clear(State(hub): State<SharedHub>) -> StatusCode {
    hub.faults.set(FaultSettings::default());
    hub.state().throttled = false;
    tracing::warn!("no faults any longer");
    StatusCode::NO_CONTENT
}

/// Closes the connections of all clients, who may connect again at once.
pub(super) async fn close_connections(State(hub): State<SharedHub>) -> StatusCode {
    hub.state().evict_all(Timestamp::now());
    StatusCode::NO_CONTENT
}

/// Stands before everything but `/kedge`, by which faults are switched off again.
pub(super) async fn meet(State(hub): State<SharedHub>, request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("/kedge/") {
        return next.run(request).await;
    }
    let FaultSettings { offline, throttle, reject_status, clock_skew_secs, .. } = hub.faults.settings();
    if offline {
        return CloseConnection::response();
    }
    if throttle {
        return ([(RETRY_AFTER, RETRY_AFTER_SECS.to_string())], ApiError::throttled()).into_response();
    }
    match reject_status.map(StatusCode::from_u16) {
        Some(Ok(StatusCode::SERVICE_UNAVAILABLE)) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(Ok(status)) => ApiError::with_status(status).into_response(),
        _ if clock_skew_secs != 0 => dated(next.run(request).await, hub.now()),
        _ => next.run(request).await,
    }
}

/// Dates an answer by a clock that is wrong, as a server does.
fn dated(mut response: Response, now: Timestamp) -> Response {
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::from_str(&date) {
        response.headers_mut().insert(DATE, date);
    }
    response
}
