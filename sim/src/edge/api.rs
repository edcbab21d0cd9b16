//! What the local APIs have in common: JSON answers, errors, and the version in the query.

use std::collections::HashMap;

use axum::extract::{Query, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::{StatusCode, header};

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
        Self::new(StatusCode::NOT_FOUND, "not found, or not supported by the simulated runtime")
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

/// Refuses requests without a version that the real daemon knows.
pub(super) async fn require_api_version(
    Query(query): Query<HashMap<String, String>>,
    request: Request,
    next: Next,
) -> Response {
    match query.get("api-version") {
        Some(version) if VERSIONS.contains(&version.as_str()) => next.run(request).await,
        Some(version) => ApiError::bad_request(&format!("invalid api-version: {version}")).into_response(),
        None => ApiError::bad_request("api-version not specified").into_response(),
    }
}
