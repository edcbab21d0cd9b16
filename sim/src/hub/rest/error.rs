//! Errors as IoT Hub answers them: a status, the code in a header, and JSON with the code, a text and a tracking id.
//!
//! Who is not authorised is never told why. The reason stands in the hub's log, with the tracking id of the answer.

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName};
use jiff::Timestamp;
use serde_json::json;

use crate::hub::authority::AuthError;
use crate::hub::store::StoreError;
use crate::random;

const ERROR_CODE: HeaderName = HeaderName::from_static("iothub-errorcode");

/// What a caller is told when a request is refused.
#[derive(Debug)]
pub(in crate::hub) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// What the caller is not told.
    reason: Option<String>,
}

impl ApiError {
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ArgumentInvalid", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// The hub cannot read or write its state.
    pub(super) fn storage(error: impl std::fmt::Display) -> Self {
        tracing::error!("the storage failed: {error}");
        let message = "the hub cannot use its storage; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// The caller asks more often than it may.
    pub(super) fn throttled() -> Self {
        let message = "The request has been throttled. Wait 10 seconds and try again. Operation type: CRUD";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "ThrottlingBacklogTimeout", message)
    }

    /// An error of which the status says everything.
    pub(super) fn with_status(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::BAD_REQUEST => "BadFormat",
            StatusCode::UNAUTHORIZED => "IotHubUnauthorizedAccess",
            StatusCode::NOT_FOUND => "ResourceNotFound",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
            StatusCode::TOO_MANY_REQUESTS => "ThrottlingException",
            StatusCode::INTERNAL_SERVER_ERROR => "ServerError",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            _ => "RequestRefused",
        };
        Self::new(status, code, status.canonical_reason().unwrap_or_default())
    }

    /// IoT Hub says no more about a request without `api-version`.
    pub(super) fn no_api_version() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidProtocolVersion", "BadRequest")
    }

    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), reason: None }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            // The token of a device that is not registered proves nothing; the real hub says so nevertheless.
            AuthError::Unknown(error @ StoreError::DeviceNotFound(_)) => error.into(),
            error => {
                let reason = Some(error.to_string());
                Self {
                    reason,
                    ..Self::new(StatusCode::UNAUTHORIZED, "IotHubUnauthorizedAccess", "Unauthorized")
                }
            }
        }
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
        let message = match &error {
            StoreError::DeviceNotFound(device) => format!("Device {device} not registered"),
            StoreError::ModuleNotFound(device, module) => {
                format!("Module {module} on device {device} not registered")
            }
            StoreError::DeviceAlreadyExists(device) => {
                format!("A device with ID '{device}' is already registered.")
            }
            StoreError::ModuleAlreadyExists(device, module) => {
                format!("A module with ID '{module}' is already registered on device '{device}'.")
            }
            StoreError::PreconditionFailed => "Precondition failed: Invalid ETag".to_owned(),
            error => error.to_string(),
        };
        Self::new(status, code, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, reason } = self;
        let id = tracking_id();
        if let Some(reason) = reason {
            tracing::info!(tracking_id = id, reason, "not authorised");
        }
        let time = Timestamp::now().strftime("%m/%d/%Y %H:%M:%S");
        let body = json!({
            "Message": format!("ErrorCode:{code};{message}"),
            "ExceptionMessage": format!("Tracking ID:{id}-G:0-TimeStamp:{time}"),
        });
        let headers = [(CONTENT_TYPE, "application/json; charset=utf-8"), (ERROR_CODE, code)];
        (status, headers, body.to_string()).into_response()
    }
}

/// 32 hexadecimal digits. Without randomness they are zeros, which only makes the log harder to read.
fn tracking_id() -> String {
    let bytes = random::bytes::<16>().unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
