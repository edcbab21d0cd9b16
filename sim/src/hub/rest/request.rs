//! Requests as they are read: bodies, `If-Match`, and the identities in them.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::IntoResponse;
use hyper::StatusCode;
use hyper::header::IF_MATCH;
use hyper::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;

use super::error::ApiError;
use crate::hub::store::{Authentication, DeviceSpec, ModuleSpec, Parent, Precondition, Status};
use crate::json::{JsonObject, read_object, read_object_if_any};
use crate::sas::SharedAccessKey;
use crate::secret::Secret;
use crate::x509::Thumbprint;

/// A client that sends its body more slowly only holds a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A body that is a JSON object. The content type is not looked at, and errors are JSON too.
pub(in crate::hub) struct JsonBody<T>(pub(in crate::hub) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = read_body(request, state).await?;
        read_object(&body).map(Self).map_err(|error| invalid(&error))
    }
}

/// As [`JsonBody`], of a request that may have no body.
pub(in crate::hub) struct JsonBodyIfAny<T>(pub(in crate::hub) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBodyIfAny<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = read_body(request, state).await?;
        read_object_if_any(&body).map(Self).map_err(|error| invalid(&error))
    }
}

fn invalid(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request(format!("the body is invalid: {error}"))
}

/// Reads a body of any kind.
pub(super) async fn read_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    let body = timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await;
    body.map_err(|_| ApiError::with_status(StatusCode::REQUEST_TIMEOUT))?.map_err(unreadable)
}

fn unreadable(rejection: BytesRejection) -> ApiError {
    let message = rejection.body_text();
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(message),
        _ => ApiError::bad_request(message),
    }
}

/// The `If-Match` header, when there is one.
pub(in crate::hub) struct IfMatch(pub(in crate::hub) Option<Precondition>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let header = parts.headers.get(IF_MATCH).map(|value| value.to_str());
        let text = header.transpose().map_err(|_| ApiError::bad_request("If-Match is not text"))?;
        Ok(Self(text.map(Precondition::parse)))
    }
}

/// The body of `PUT /devices/{device}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceBody {
    device_id: Option<String>,
    authentication: Option<JsonObject<AuthenticationBody>>,
    status: Option<Status>,
    status_reason: Option<String>,
    capabilities: Option<JsonObject<Capabilities>>,
    #[serde(default, deserialize_with = "given")]
    device_scope: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    parent_scopes: Option<Option<Vec<String>>>,
}

/// The body of `PUT /devices/{device}/modules/{module}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModuleBody {
    device_id: Option<String>,
    module_id: Option<String>,
    managed_by: Option<String>,
    authentication: Option<JsonObject<AuthenticationBody>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    iot_edge: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationBody {
    r#type: Option<String>,
    symmetric_key: Option<JsonObject<SymmetricKey>>,
    #[serde(rename = "x509Thumbprint")]
    x509_thumbprint: Option<JsonObject<Thumbprints>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Thumbprints {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SymmetricKey {
    primary_key: Option<Secret>,
    secondary_key: Option<Secret>,
}

/// Tells `null`, which takes something away, from nothing, which leaves it.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl DeviceBody {
    /// Checks the body against the path. `own_scope` is that of the device, when it is an edge device already.
    pub(super) fn into_spec(self, device: &str, own_scope: Option<&str>) -> Result<DeviceSpec, ApiError> {
        same_id("deviceId", self.device_id.as_deref(), device)?;
        let parent = self.parent(own_scope);
        Ok(DeviceSpec {
            authentication: read_authentication(self.authentication)?,
            status: self.status,
            status_reason: self.status_reason,
            iot_edge: self.capabilities.and_then(|JsonObject(it)| it.iot_edge),
            parent,
        })
    }

    /// An edge device names its parent in `parentScopes`, since `deviceScope` is its own; any other device may
    /// name it in either.
    fn parent(&self, own_scope: Option<&str>) -> Parent {
        let is_edge =
            own_scope.is_some() || self.capabilities.as_ref().is_some_and(|it| it.0.iot_edge == Some(true));
        let first = |scopes: &[String]| scopes.first().filter(|scope| !scope.is_empty()).cloned();
        let in_parents = self.parent_scopes.as_ref().map(|scopes| scopes.as_deref().and_then(first));
        let in_device = self.device_scope.as_ref().filter(|_| !is_edge);
        let in_device = in_device.map(|scope| scope.clone().filter(|scope| !scope.is_empty()));
        match (in_parents, in_device) {
            (Some(Some(scope)), _) | (_, Some(Some(scope))) => Parent::Scope(scope),
            (None, None) => Parent::Keep,
            _ => Parent::Nobody,
        }
    }
}

impl ModuleBody {
    /// Checks the body against the path.
    pub(super) fn into_spec(self, device: &str, module: &str) -> Result<ModuleSpec, ApiError> {
        same_id("deviceId", self.device_id.as_deref(), device)?;
        same_id("moduleId", self.module_id.as_deref(), module)?;
        Ok(ModuleSpec {
            authentication: read_authentication(self.authentication)?,
            managed_by: self.managed_by,
        })
    }
}

fn read_authentication(
    body: Option<JsonObject<AuthenticationBody>>,
) -> Result<Option<Authentication>, ApiError> {
    body.map(|JsonObject(body)| body.into_authentication()).transpose()
}

impl AuthenticationBody {
    fn into_authentication(self) -> Result<Authentication, ApiError> {
        match self.r#type.as_deref() {
            None | Some("sas") => self.into_keys(),
            Some("selfSigned") => self.into_thumbprints(),
            Some("certificateAuthority") => Ok(Authentication::CertificateAuthority),
            Some("none") => Ok(Authentication::None),
            Some(other) => {
                Err(ApiError::bad_request(format!("authentication of type {other:?} is not supported")))
            }
        }
    }

    fn into_thumbprints(self) -> Result<Authentication, ApiError> {
        let JsonObject(Thumbprints { primary_thumbprint, secondary_thumbprint }) =
            self.x509_thumbprint.unwrap_or_default();
        let read = |text: Option<String>| {
            let text = text.filter(|text| !text.is_empty());
            let thumbprint = text.map(|text| text.parse::<Thumbprint>()).transpose();
            thumbprint.map_err(|error| ApiError::bad_request(error.to_string()))
        };
        let (primary, secondary) = (read(primary_thumbprint)?, read(secondary_thumbprint)?);
        if primary.is_none() && secondary.is_none() {
            return Err(ApiError::bad_request("authentication of type \"selfSigned\" needs a thumbprint"));
        }
        Ok(Authentication::SelfSigned { primary, secondary })
    }

    fn into_keys(self) -> Result<Authentication, ApiError> {
        let JsonObject(SymmetricKey { primary_key, secondary_key }) = self.symmetric_key.unwrap_or_default();
        Ok(Authentication::sas(read_key(primary_key)?, read_key(secondary_key)?)?)
    }
}

/// An empty key is what a caller sends who has read `null` before.
fn read_key(key: Option<Secret>) -> Result<Option<SharedAccessKey>, ApiError> {
    let key = key.filter(|key| !key.expose().is_empty());
    let key = key.map(|key| SharedAccessKey::from_base64(key.expose())).transpose();
    key.map_err(|error| ApiError::bad_request(error.to_string()))
}

fn same_id(name: &str, in_body: Option<&str>, in_path: &str) -> Result<(), ApiError> {
    match in_body {
        Some(id) if id != in_path => Err(ApiError::bad_request(format!("{name} differs from the path"))),
        _ => Ok(()),
    }
}
