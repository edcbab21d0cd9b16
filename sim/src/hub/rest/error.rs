//! Errors as IoT Hub answers them: a status, and `{"Message":"ErrorCode:…;…"}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use serde_json::json;

use crate::hub::authority::AuthError;
use crate::hub::store::StoreError;

/// What a caller is told when a request is refused.
#[derive(Debug)]
pub(in crate::hub) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "ArgumentInvalid", message: message.into() }
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Self { status, code: "RequestEntityTooLarge", message: message.into() }
    }

    /// The hub cannot read or write its state.
    pub(super) fn storage(error: impl std::fmt::Display) -> Self {
        tracing::error!("the storage failed: {error}");
        let message = "the hub cannot use its storage; try again later".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code: "ServiceUnavailable", message }
    }

    /// The caller asks more often than it may.
    pub(super) fn throttled() -> Self {
        let message = "The request has been throttled. Wait 10 seconds and try again. Operation type: CRUD";
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self { status, code: "ThrottlingBacklogTimeout", message: message.to_owned() }
    }

    /// An error of which the status says everything.
    pub(super) fn with_status(status: StatusCode) -> Self {
        let message = status.canonical_reason().unwrap_or_default().to_owned();
        Self { status, code: "RequestRefused", message }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let message = format!("Unauthorized: {error}");
        Self { status: StatusCode::UNAUTHORIZED, code: "IotHubUnauthorizedAccess", message }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (status, code) = match &error {
            StoreError::DeviceNotFound(_) => (StatusCode::NOT_FOUND, "DeviceNotFound"),
            StoreError::ModuleNotFound(..) => (StatusCode::NOT_FOUND, "ModuleNotFound"),
            StoreError::DeviceAlreadyExists(_) => (StatusCode::CONFLICT, "DeviceAlreadyExists"),
            StoreError::ModuleAlreadyExists(..) => (StatusCode::CONFLICT, "ModuleAlreadyExistsOnDevice"),
            StoreError::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
            StoreError::TooManyDevices => (StatusCode::FORBIDDEN, "DeviceMaximumQuotaExceeded"),
            StoreError::TooManyModules(_) => (StatusCode::FORBIDDEN, "TooManyModulesOnDevice"),
            StoreError::SystemModule(_) => (StatusCode::FORBIDDEN, "OperationNotAllowed"),
            StoreError::DocumentNotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            StoreError::TooManyDocuments => (StatusCode::FORBIDDEN, "QuotaExceeded"),
            StoreError::Document(_) | StoreError::UnknownScope(_) | StoreError::ParentCycle(_) => {
                (StatusCode::BAD_REQUEST, "ArgumentInvalid")
            }
            StoreError::QueueFull(_) => (StatusCode::FORBIDDEN, "DeviceMaximumQueueDepthExceeded"),
            StoreError::QueuesFull => (StatusCode::FORBIDDEN, "IotHubQuotaExceeded"),
            StoreError::LockLost => (StatusCode::PRECONDITION_FAILED, "DeviceMessageLockLost"),
            StoreError::Configuration(_) => (StatusCode::BAD_REQUEST, "InvalidConfigurationContent"),
            StoreError::Key(crate::sas::SasError::NoRandomness) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "ServerError")
            }
            StoreError::Identity(_) | StoreError::Key(_) | StoreError::Twin(_) => {
                (StatusCode::BAD_REQUEST, "ArgumentInvalid")
            }
        };
        Self { status, code, message: error.to_string() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let message = format!("ErrorCode:{};{}", self.code, self.message);
        (self.status, Json(json!({ "Message": message }))).into_response()
    }
}
