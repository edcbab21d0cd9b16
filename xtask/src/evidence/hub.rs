//! The local hub: the last messages that have arrived, and the keys that it knows, to be taken out of everything.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kedge_sim::service::{ServiceClient, TelemetryFilter};

use super::folder::Folder;
use crate::context::Context;
use crate::provisioning::Redaction;
use crate::settings::Hub;
use crate::steps::hub;

/// How many messages are kept.
const MESSAGES: usize = 300;
/// How long the hub may take to tell its keys.
const KEYS_LIMIT: Duration = Duration::from_secs(3);
/// How long its messages are read: there may be very many.
const READING: Duration = Duration::from_secs(4);

/// All forms of the secrets of the deployment and of the devices that the hub knows.
pub(super) async fn secrets(context: &Context) -> Redaction {
    let credentials = &context.credentials;
    let (owner, password) = (credentials.owner_key.expose(), credentials.registry_password.expose());
    let mut secrets = vec![password.as_bytes().to_vec()];
    secrets.extend(STANDARD.decode(owner));
    if context.settings.hub.kind == Hub::Local {
        // A hub that does not answer has told nobody its keys since; those that are somewhere are told by their looks.
        let keys = async { device_keys(&hub::service(context).await?).await };
        if let Ok(Ok(keys)) = tokio::time::timeout(KEYS_LIMIT, keys).await {
            secrets.extend(keys);
        }
    }
    Redaction::of_secrets(&secrets, &[credentials.hub_key.expose()])
}

async fn device_keys(service: &ServiceClient) -> Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    for device in service.devices().await? {
        let text = service.connection_string(&device.device_id).await?;
        let key = text.as_ref().and_then(|text| text.expose().split_once("SharedAccessKey="));
        keys.extend(key.and_then(|(_, key)| STANDARD.decode(key).ok()));
    }
    Ok(keys)
}

pub(super) async fn keep(folder: &Folder<'_>, context: &Context) {
    if context.settings.hub.kind == Hub::Local {
        folder.keep("hub/messages.jsonl", last_messages(context)).await;
    }
}

async fn last_messages(context: &Context) -> Result<String> {
    let service = hub::service(context).await?;
    let (mut kept, mut after, began) = (VecDeque::new(), 0, Instant::now());
    while began.elapsed() < READING {
        let page = service.telemetry(&TelemetryFilter::default(), after, Duration::ZERO).await?;
        if page.messages.is_empty() {
            break;
        }
        after = page.next;
        kept.extend(page.messages);
        kept.drain(..kept.len().saturating_sub(MESSAGES));
    }
    let lines: Result<Vec<_>, _> = kept.iter().map(serde_json::to_string).collect();
    Ok(lines?.join("\n") + "\n")
}
