//! What a service asks of connected clients, and sends to devices: method calls, messages, and their feedback.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{API_VERSION, ServiceClient, ServiceError, device_path};
use crate::http::header::{ETAG, HeaderName, HeaderValue};
use crate::http::{DEFAULT_TIMEOUT, HttpError, Method, StatusCode};
use crate::percent;

/// A method call. The hub waits 30 seconds for the answer, and not at all for the client to connect, unless it is
/// told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodCall {
    /// Name of the method.
    pub method_name: String,
    /// What the method is given.
    pub payload: Value,
    /// How long the hub waits for the answer, 5 to 300 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_timeout_in_seconds: Option<u64>,
    /// How long the hub waits for the client to connect, at most 300 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout_in_seconds: Option<u64>,
}

/// What the client answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MethodResult {
    /// Chosen by the client; 200 when all is well, by convention.
    pub status: i32,
    /// What the method gave.
    pub payload: Value,
}

/// A message to a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloudToDeviceMessage {
    /// The body.
    pub body: Bytes,
    /// Named in the feedback.
    pub message_id: Option<String>,
    /// `none`, `positive`, `negative` or `full`: about which fates there is to be feedback.
    pub ack: Option<String>,
    /// Until when the message waits for the device; one hour when nothing is said.
    pub expiry: Option<Timestamp>,
    /// Properties of the application.
    pub properties: BTreeMap<String, String>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedbackRecord {
    /// The message.
    pub original_message_id: Option<String>,
    /// The device that it was for.
    pub device_id: String,
    /// `Success`, `Expired`, `DeliveryCountExceeded`, `Rejected` or `Purged`.
    pub status_code: String,
    /// When that happened.
    pub enqueued_time_utc: Timestamp,
}

/// Feedback that is to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedbackBatch {
    /// For [`ServiceClient::complete_feedback`].
    pub lock_token: String,
    /// In the order of their time.
    pub records: Vec<FeedbackRecord>,
}

impl ServiceClient {
    /// Calls a method of a device, or of one of its modules, and waits for the answer.
    pub async fn invoke_method(
        &self,
        device: &str,
        module: Option<&str>,
        call: &MethodCall,
    ) -> Result<MethodResult, ServiceError> {
        let module = module.map(|module| format!("/modules/{}", percent::encode(module)));
        let target = format!("/twins/{}{}", percent::encode(device), module.unwrap_or_default());
        let path = format!("{target}/methods?api-version={API_VERSION}");
        let body = serde_json::to_value(call)?;
        let secs =
            call.response_timeout_in_seconds.unwrap_or(30) + call.connect_timeout_in_seconds.unwrap_or(0);
        let request = self.request(Method::POST, &path, None, Some(&body))?;
        let answer = self.send(request, DEFAULT_TIMEOUT + Duration::from_secs(secs)).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Puts a message into the queue of a device.
    pub async fn send_cloud_to_device(
        &self,
        device: &str,
        message: &CloudToDeviceMessage,
    ) -> Result<(), ServiceError> {
        let path = format!("{}/messages/deviceBound?api-version={API_VERSION}", device_path(device));
        let mut request = self.request(Method::POST, &path, None, None)?.map(|_| message.body.clone());
        let expiry = message.expiry.map(|expiry| expiry.to_string());
        let system = [
            ("iothub-messageid", message.message_id.as_ref()),
            ("iothub-ack", message.ack.as_ref()),
            ("iothub-expiry", expiry.as_ref()),
        ];
        let system = system.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let application =
            message.properties.iter().map(|(name, value)| (format!("iothub-app-{name}"), value));
        for (name, value) in system.chain(application) {
            let name = HeaderName::try_from(name).map_err(|error| HttpError::Request(error.into()))?;
            let value = HeaderValue::try_from(value).map_err(|error| HttpError::Request(error.into()))?;
            request.headers_mut().insert(name, value);
        }
        self.send(request, DEFAULT_TIMEOUT).await.map(drop)
    }

    /// Fetches what became of messages; `None` when there is nothing new.
    pub async fn feedback(&self) -> Result<Option<FeedbackBatch>, ServiceError> {
        let path = format!("/messages/serviceBound/feedback?api-version={API_VERSION}");
        let request = self.request(Method::GET, &path, None, None)?;
        let (head, body) = self.exchange(request, DEFAULT_TIMEOUT).await?.into_parts();
        if head.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let token = head.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default();
        let lock_token = token.trim_matches('"').to_owned();
        Ok(Some(FeedbackBatch { lock_token, records: serde_json::from_slice(&body)? }))
    }

    /// Confirms feedback, which is then not given out again.
    pub async fn complete_feedback(&self, batch: &FeedbackBatch) -> Result<(), ServiceError> {
        let path = format!("/messages/serviceBound/feedback/{}", batch.lock_token);
        self.call(Method::DELETE, &path, None, None).await.map(drop)
    }
}
