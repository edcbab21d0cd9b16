//! What the local APIs have in common: JSON answers, errors, and the version in the query.

use std::collections::HashMap;

use axum::extract::{Query, Request};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::http::{StatusCode, header};
use crate::json::read_object;

/// The versions that the real daemon serves.
const VERSIONS: [&str; 7] =
    ["2018-06-28", "2019-01-30", "2019-10-22", "2019-11-05", "2020-07-07", "2021-12-07", "2022-08-03"];

/// An error answer, `{"message":"…"}`.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: &str) -> Self {
        Self { status, message: message.to_owned() }
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Also for the parts of the real API that this runtime does not have.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found")
    }

    /// The path is known, and not for this method.
    pub(super) fn method_not_allowed() -> Self {
        Self::bad_request("method not allowed")
    }

    /// The caller is not the one that may ask this.
    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden")
    }

    /// The fault is on this side.
    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        json_response(self.status, &json!({"message": self.message}))
    }
}

pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Reads a body, by the rules of the real daemon: no content type is as good as JSON, and with another one there is no
/// body. The body is an object.
pub(super) fn json_body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = |text: &str| text.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    if body.is_empty() || !content_type.is_none_or(is_json) {
        return Err(ApiError::bad_request("missing request body"));
    }
    read_object(body).map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()))
}

/// Refuses requests without a version that the real daemon knows.
pub(super) async fn require_api_version(
    Query(query): Query<HashMap<String, String>>,
    request: Request,
    next: Next,
) -> Response {
    match query.get("api-version") {
        Some(version) if VERSIONS.contains(&version.as_str()) => next.run(request).await,
        Some(version) => ApiError::bad_request(&format!("invalid api-version {version:?}")).into_response(),
        None => ApiError::bad_request("api-version not specified").into_response(),
    }
}
