//! Why the provisioning service refuses, and the JSON in which it says so.

use axum::Json;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::HeaderName;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::new_uuid;
use crate::hub::authority::AuthError;
use crate::hub::store::StoreError;

const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DpsError {
    /// The client is told no more than this, whatever is wrong.
    #[error("Unauthorized")]
    Unauthorized(&'static str),
    #[error("{0}")]
    Invalid(String),
    #[error("Operation not found.")]
    OperationNotFound,
    #[error("Enrollment not found.")]
    EnrollmentNotFound,
    #[error("Enrollment group not found.")]
    GroupNotFound,
    #[error("Registration not found.")]
    RegistrationNotFound,
    #[error("There is an enrollment with this id already; If-Match is missing.")]
    Exists,
    #[error("Precondition failed")]
    PreconditionFailed,
    #[error("Too many requests")]
    Throttled,
    #[error("{0}")]
    Store(StoreError),
}

impl From<AuthError> for DpsError {
    fn from(_: AuthError) -> Self {
        Self::Unauthorized("the token or the certificate is refused")
    }
}

impl DpsError {
    /// The error of the store about a document of a kind.
    pub(super) fn of(error: StoreError, missing: Self) -> Self {
        match error {
            StoreError::DocumentNotFound(_) => missing,
            StoreError::PreconditionFailed => Self::PreconditionFailed,
            error => Self::Store(error),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::OperationNotFound
            | Self::EnrollmentNotFound
            | Self::GroupNotFound
            | Self::RegistrationNotFound => StatusCode::NOT_FOUND,
            Self::Exists => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::Throttled => StatusCode::TOO_MANY_REQUESTS,
            Self::Store(StoreError::TooManyDocuments) => StatusCode::FORBIDDEN,
            Self::Store(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The status with three digits that say more.
    fn code(&self) -> u32 {
        let detail = match self {
            Self::Unauthorized(_) => 2,
            Self::Invalid(_) | Self::Store(_) => 4,
            Self::EnrollmentNotFound => 201,
            Self::GroupNotFound => 202,
            Self::RegistrationNotFound => 203,
            Self::OperationNotFound => 204,
            Self::Exists => 201,
            Self::PreconditionFailed => 2,
            Self::Throttled => 1,
        };
        u32::from(self.status().as_u16()) * 1000 + detail
    }

    /// What the client gets.
    pub(super) fn body(&self) -> Value {
        json!({
            "errorCode": self.code(),
            "trackingId": new_uuid(),
            "message": self.to_string(),
            "timestampUtc": Timestamp::now().to_string(),
        })
    }
}

impl IntoResponse for DpsError {
    fn into_response(self) -> Response {
        let body = self.body();
        tracing::info!(error = %self, detail = ?self, tracking_id = %body["trackingId"], "provisioning refused");
        let headers = [(ERROR_CODE, self.code().to_string())];
        (self.status(), headers, Json(body)).into_response()
    }
}
