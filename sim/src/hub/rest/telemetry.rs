//! `/kedge/telemetry`: what has arrived from devices, with a long poll. It stands for the Event Hubs endpoint.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::SharedHub;
use super::error::ApiError;
use crate::hub::store::{Page, Telemetry, TelemetryQuery};
use crate::topics::system;

const MAX_WAIT_SECS: u64 = 30;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Parameters {
    device_id: Option<String>,
    module_id: Option<String>,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait: u64,
}

/// Messages after an offset. When there is none yet, the answer waits for one, as long as the caller says.
pub(super) async fn read(
    State(hub): State<SharedHub>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(parameters) = parameters.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    if parameters.wait > MAX_WAIT_SECS {
        return Err(ApiError::bad_request(format!("wait is at most {MAX_WAIT_SECS} seconds")));
    }
    let end = Instant::now() + Duration::from_secs(parameters.wait);
    let Parameters { after, device_id, module_id, .. } = parameters;
    let mut query = TelemetryQuery { after, device_id, module_id };
    let mut latest = hub.latest_message.subscribe();
    loop {
        let receipt = *latest.borrow_and_update();
        // Asked before the page is read: what is committed after that is in the next one.
        let is_complete = hub.storage.writer.is_committed(receipt);
        let page = read_page(&hub, &query).await?;
        query.after = page.next;
        if !page.messages.is_empty() || (page.is_last && Instant::now() >= end) {
            let messages: Vec<_> = page.messages.iter().map(view).collect();
            return Ok(Json(json!({"messages": messages, "next": page.next})));
        }
        if page.is_last {
            let news = async {
                if is_complete {
                    return latest.changed().await.is_ok();
                }
                hub.storage.writer.committed(receipt).await.is_ok()
            };
            let _ = timeout_at(end, news).await;
        }
    }
}

/// The disk is read by a thread that may wait. It has the reader alone: the hub would live as long as the thread, and
/// its state folder with it, also when it was stopped meanwhile.
async fn read_page(hub: &SharedHub, query: &TelemetryQuery) -> Result<Page, ApiError> {
    let (telemetry, query) = (hub.storage.telemetry.clone(), query.clone());
    let page = spawn_blocking(move || telemetry.page(&query)).await;
    page.map_err(ApiError::storage)?.map_err(ApiError::storage)
}

fn view(message: &Telemetry) -> Value {
    let (mut system_properties, mut properties) = (origin(message), Map::new());
    for (name, value) in message.properties.iter() {
        match system_name(name) {
            Some(name) => system_properties.insert(name.to_owned(), json!(value)),
            None => properties.insert(name.to_owned(), json!(value)),
        };
    }
    let mut view = json!({
        "offset": message.offset,
        "enqueuedTimeUtc": message.enqueued.to_string(),
        "deviceId": message.origin.device_id(),
        "moduleId": message.origin.module_id(),
        "systemProperties": system_properties,
        "properties": properties,
        "body": std::str::from_utf8(&message.body).ok(),
    });
    if view["body"].is_null() {
        view["bodyBase64"] = json!(STANDARD.encode(&message.body));
    }
    view
}

/// What the hub itself says about a message.
fn origin(message: &Telemetry) -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert("iothub-connection-device-id".to_owned(), json!(message.origin.device_id()));
    if let Some(module) = message.origin.module_id() {
        properties.insert("iothub-connection-module-id".to_owned(), json!(module));
    }
    properties.insert("iothub-connection-auth-generation-id".to_owned(), json!(message.generation_id));
    properties.insert("iothub-enqueuedtime".to_owned(), json!(message.enqueued.to_string()));
    properties.insert("iothub-message-source".to_owned(), json!("Telemetry"));
    properties
}

/// The name of a system property at the Event Hubs endpoint; an unknown one keeps the name of its sender.
fn system_name(name: &str) -> Option<&str> {
    match name {
        system::CONTENT_TYPE => Some("content-type"),
        system::CONTENT_ENCODING => Some("content-encoding"),
        system::MESSAGE_ID => Some("message-id"),
        system::CREATION_TIME => Some("iothub-creation-time-utc"),
        system::OUTPUT_NAME => Some("iothub-output-name"),
        "$.cid" => Some("correlation-id"),
        "$.uid" => Some("user-id"),
        other => other.starts_with("$.").then_some(other),
    }
}
