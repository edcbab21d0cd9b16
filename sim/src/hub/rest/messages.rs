//! Messages over HTTPS: services send to devices and fetch feedback; devices without MQTT send telemetry and fetch
//! what is for them. Properties are headers: `iothub-app-*` those of the application, `iothub-*` those of the system.
//! Their names are in lower case on both ways, since the HTTP library does not tell how a header was written; the
//! names in a batch are as the device wrote them.

use axum::Json;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue};
use hyper::{StatusCode, http};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::read_body;
use super::{SharedHub, batch};
use crate::hub::store::{Ack, CloudDraft, CloudMessage, Settlement, StoreError};
use crate::identity::Identity;
use crate::topics::{MAX_MESSAGE, PropertyBag, system};

/// The largest message to a device, with its properties.
const MAX_CLOUD_MESSAGE: usize = 64 * 1024;
pub(super) const MAX_PROPERTIES: usize = 100;
const APP_PREFIX: &str = "iothub-app-";
const FEEDBACK_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.microsoft.iothub.feedback.json");
/// System properties that pass as they are: the header and the name in a property bag.
const SYSTEM_HEADERS: [(&str, &str); 5] = [
    ("iothub-messageid", system::MESSAGE_ID),
    ("iothub-correlationid", "$.cid"),
    ("iothub-userid", "$.uid"),
    ("iothub-contenttype", system::CONTENT_TYPE),
    ("iothub-contentencoding", system::CONTENT_ENCODING),
];

/// A body with the headers that are its properties. The body is not looked at.
pub(super) struct Message {
    headers: HeaderMap,
    body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Message {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        Ok(Self { headers, body: read_body(request, state).await? })
    }
}

/// The name in a property bag of what a header says; other headers are no properties.
pub(super) fn bag_name(header: &str) -> Option<&str> {
    let system = SYSTEM_HEADERS.iter().find(|(known, _)| *known == header).map(|(_, name)| *name);
    system.or_else(|| app_property(header))
}

/// System properties have headers of their own.
fn app_property(header: &str) -> Option<&str> {
    header.strip_prefix(APP_PREFIX).filter(|name| !name.is_empty() && !name.starts_with("$."))
}

impl Message {
    /// The properties, when message and properties are small enough.
    fn properties(&self, limit: usize) -> Result<PropertyBag, ApiError> {
        let mut properties = PropertyBag::new();
        for (header, name) in SYSTEM_HEADERS {
            if let Some(value) = self.text(header)? {
                properties.set(name, value);
            }
        }
        if let (None, Some(value)) = (properties.get(system::CONTENT_TYPE), self.text(CONTENT_TYPE.as_str())?)
        {
            properties.set(system::CONTENT_TYPE, value);
        }
        for name in self.headers.keys() {
            if let Some(property) = app_property(name.as_str()) {
                properties.set(property, self.text(name.as_str())?.unwrap_or_default());
            }
        }
        let size: usize = properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        if properties.iter().count() > MAX_PROPERTIES {
            return Err(ApiError::too_large(format!("a message has at most {MAX_PROPERTIES} properties")));
        }
        if size + self.body.len() > limit {
            return Err(ApiError::too_large(format!("a message is at most {limit} bytes")));
        }
        Ok(properties)
    }

    fn text(&self, header: &str) -> Result<Option<&str>, ApiError> {
        let value = self.headers.get(header).map(|value| std::str::from_utf8(value.as_bytes()));
        value.transpose().map_err(|_| ApiError::bad_request(format!("{header} is not UTF-8")))
    }

    fn into_draft(self) -> Result<CloudDraft, ApiError> {
        let mut properties = self.properties(MAX_CLOUD_MESSAGE)?;
        let expiry = self.text("iothub-expiry")?.map(str::parse::<Timestamp>).transpose();
        let expiry = expiry.map_err(|error| ApiError::bad_request(format!("iothub-expiry: {error}")))?;
        if let Some(expiry) = expiry {
            properties.set("$.exp", expiry.to_string());
        }
        let ack = match self.text("iothub-ack")? {
            None | Some("none") => Ack::None,
            Some("positive") => Ack::Positive,
            Some("negative") => Ack::Negative,
            Some("full") => Ack::Full,
            Some(other) => {
                let allowed = "none, positive, negative or full";
                return Err(ApiError::bad_request(format!("iothub-ack is {allowed}, not {other:?}")));
            }
        };
        let message_id = properties.get(system::MESSAGE_ID).map(str::to_owned);
        Ok(CloudDraft { properties, message_id, ack, expiry, body: self.body })
    }
}

/// A service sends to a device.
pub(super) async fn send(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
    message: Message,
) -> Result<StatusCode, ApiError> {
    let identity = Identity::device(&device).map_err(StoreError::from)?;
    let draft = message.into_draft()?;
    let mut state = hub.state();
    state.store.enqueue_cloud_message(&device, draft, Timestamp::now())?;
    state.offer_cloud_messages(&identity);
    Ok(StatusCode::NO_CONTENT)
}

/// A service empties the queue of a device.
pub(super) async fn purge(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let count = hub.state().store.purge_cloud_messages(&device, Timestamp::now())?;
    Ok(Json(json!({"totalMessagesPurged": count, "deviceId": device, "moduleId": null})))
}

/// A service fetches feedback.
pub(super) async fn feedback(State(hub): State<SharedHub>) -> Result<Response, ApiError> {
    let batch = hub.state().store.lock_feedback(Timestamp::now());
    let Some((token, records)) = batch else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let mut response = Json(records).into_response();
    response.headers_mut().insert(CONTENT_TYPE, FEEDBACK_TYPE);
    insert(response.headers_mut(), ETAG, &format!("\"{token}\""));
    Ok(response)
}

/// A service has taken the feedback.
pub(super) async fn complete_feedback(
    State(hub): State<SharedHub>,
    Path(token): Path<String>,
) -> Result<StatusCode, ApiError> {
    hub.state().store.settle_feedback(&token, true, Timestamp::now())?;
    Ok(StatusCode::NO_CONTENT)
}

/// A service gives the feedback back.
pub(super) async fn abandon_feedback(
    State(hub): State<SharedHub>,
    Path(token): Path<String>,
) -> Result<StatusCode, ApiError> {
    hub.state().store.settle_feedback(&token, false, Timestamp::now())?;
    Ok(StatusCode::NO_CONTENT)
}

/// A device sends telemetry.
pub(super) async fn send_device_telemetry(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
    message: Message,
) -> Result<StatusCode, ApiError> {
    append(&hub, &Identity::device(&device).map_err(StoreError::from)?, message)
}

/// A module sends telemetry.
pub(super) async fn send_module_telemetry(
    State(hub): State<SharedHub>,
    Path((device, module)): Path<(String, String)>,
    message: Message,
) -> Result<StatusCode, ApiError> {
    append(&hub, &Identity::module(&device, &module).map_err(StoreError::from)?, message)
}

fn append(hub: &SharedHub, origin: &Identity, message: Message) -> Result<StatusCode, ApiError> {
    let messages = if batch::is_batch(&message.headers) {
        batch::read(&message.body)?
    } else {
        vec![(message.properties(MAX_MESSAGE)?, message.body)]
    };
    let mut state = hub.state();
    // They have one origin: when it is not registered, the first is refused already.
    for (properties, body) in messages {
        state.store.append_telemetry(origin, properties, body, Timestamp::now())?;
    }
    hub.announce_message(state.store.receipt());
    Ok(StatusCode::NO_CONTENT)
}

/// A device fetches the next message for it, and has to settle it soon.
pub(super) async fn fetch(
    State(hub): State<SharedHub>,
    Path(device): Path<String>,
) -> Result<Response, ApiError> {
    let locked = {
        let store = &mut hub.state().store;
        store.device(&device)?;
        store.lock_cloud_message(&device, Timestamp::now())
    };
    Ok(match locked {
        Some((token, message)) => deliver(&device, &token, message),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

fn deliver(device: &str, token: &str, message: CloudMessage) -> Response {
    let mut headers = HeaderMap::new();
    let properties = message.properties();
    for (name, value) in properties.iter() {
        let header = SYSTEM_HEADERS.iter().find(|(_, known)| *known == name).map(|(header, _)| *header);
        match header {
            Some(header) => insert(&mut headers, HeaderName::from_static(header), value),
            None if name.starts_with("$.") => {}
            None => {
                if let Ok(header) = HeaderName::try_from(format!("{APP_PREFIX}{name}")) {
                    insert(&mut headers, header, value);
                }
            }
        }
    }
    let to = format!("/devices/{device}/messages/devicebound");
    for (header, value) in [
        ("iothub-to", to.as_str()),
        ("iothub-sequencenumber", &message.sequence.to_string()),
        ("iothub-deliverycount", &(message.delivery_count - 1).to_string()),
        ("iothub-enqueuedtime", &message.enqueued.to_string()),
        ("iothub-expiry", &message.expiry.to_string()),
        ("iothub-ack", message.ack.as_str()),
        ("etag", &format!("\"{token}\"")),
        ("content-type", properties.get(system::CONTENT_TYPE).unwrap_or("application/octet-stream")),
    ] {
        insert(&mut headers, HeaderName::from_static(header), value);
    }
    (headers, message.body).into_response()
}

/// What cannot be a header is left out.
fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

#[derive(Deserialize)]
pub(super) struct SettleParameters {
    reject: Option<String>,
}

/// A device has taken a message, or rejects it.
pub(super) async fn settle(
    State(hub): State<SharedHub>,
    Path((device, token)): Path<(String, String)>,
    Query(parameters): Query<SettleParameters>,
) -> Result<StatusCode, ApiError> {
    let settlement = if parameters.reject.is_some() { Settlement::Reject } else { Settlement::Complete };
    hub.state().store.settle_cloud_message(&device, &token, settlement, Timestamp::now())?;
    Ok(StatusCode::NO_CONTENT)
}

/// A device gives a message back.
pub(super) async fn abandon(
    State(hub): State<SharedHub>,
    Path((device, token)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let identity = Identity::device(&device).map_err(StoreError::from)?;
    let mut state = hub.state();
    state.store.settle_cloud_message(&device, &token, Settlement::Abandon, Timestamp::now())?;
    state.offer_cloud_messages(&identity);
    Ok(StatusCode::NO_CONTENT)
}
