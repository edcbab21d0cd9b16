//! Reads what arrives at the Event-Hub-compatible endpoint of an IoT Hub: AMQP 1.0 over TLS, a token that is signed with
//! the policy's key, and a link for each partition, from a point in time on.

use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::connection::{Connection, ConnectionHandle};
use fe2o3_amqp::link::CreditMode;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::messaging::{ApplicationProperties, Body, Source};
use fe2o3_amqp::types::primitives::{SimpleValue, Value};
use fe2o3_amqp::{Receiver, Session};
use jiff::Timestamp;
use kedge_sim::sas::{SharedAccessKey, sign, unix_seconds};
use kedge_sim::service::TelemetryMessage;
use kedge_sim::tls;
use rustls::ClientConfig;
use serde_amqp::described::Described;
use serde_amqp::descriptor::Descriptor;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection_string::EventHub;
use super::trouble::{Kind, Trouble};
use super::{message, request};

/// How long it may take until all partitions are open.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// Longer than a proof may take.
const TOKEN_LIFE_SECS: u64 = 2 * 3600;
/// The other side is gone when it has said nothing for so long.
const IDLE_MILLISECONDS: u32 = 60_000;
/// How many messages of a partition may be under way.
const CREDIT: u32 = 200;
/// The most partitions that an IoT Hub has.
const MOST_PARTITIONS: u32 = 32;
/// By this name Event Hubs know the filter that is a condition on the annotations.
const SELECTOR: &str = "apache.org:selector-filter:string";
const SELECTOR_CODE: u64 = 0x0000_468C_0000_0004;

/// Whose messages count; those of others are not even kept.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The device.
    pub device: String,
    /// Its module.
    pub module: String,
}

/// Reading failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It will be refused the next time as well.
    #[error("{0}")]
    Refused(String),
    /// It may go better in a moment.
    #[error("{0}")]
    Passing(String),
}

/// An open reader of all partitions.
#[derive(Debug)]
pub struct Reader {
    arrived: mpsc::Receiver<Result<TelemetryMessage, ReadError>>,
    /// What has to be told about how it was opened.
    pub note: Option<String>,
    // Dropped in this order: the links, then what they rest on.
    _links: JoinSet<()>,
    _session: SessionHandle<()>,
    _connection: ConnectionHandle<()>,
}

impl Reader {
    /// Opens all partitions for what `sender` has sent since then, at a server that `trust` vouches for.
    ///
    /// # Errors
    /// [`ReadError`], in words that say what to look at.
    pub async fn open(
        hub: &EventHub,
        group: &str,
        sender: &Sender,
        since: Timestamp,
        trust: Arc<ClientConfig>,
    ) -> Result<Self, ReadError> {
        let host = &hub.endpoint.host;
        match tokio::time::timeout(OPEN_LIMIT, Self::open_all(hub, group, sender, since, trust)).await {
            Ok(opened) => opened,
            Err(_) => {
                let seconds = OPEN_LIMIT.as_secs();
                Err(ReadError::Passing(format!("`{host}` did not answer over AMQP within {seconds} s")))
            }
        }
    }

    async fn open_all(
        hub: &EventHub,
        group: &str,
        sender: &Sender,
        since: Timestamp,
        trust: Arc<ClientConfig>,
    ) -> Result<Self, ReadError> {
        let mut connection = connect(hub, trust).await?;
        let mut session =
            Session::begin(&mut connection).await.map_err(|error| not_opened(hub, &error.into()))?;
        let token = authorize(hub, &mut session).await?;
        let (partitions, note) = partitions(hub, &token, &mut session).await?;
        let (arrive, arrived) = mpsc::channel(1024);
        let mut links = JoinSet::new();
        for partition in &partitions.ids {
            let receiver = match attach(hub, group, partition, since, &mut session).await {
                Ok(receiver) => receiver,
                // The partitions were guessed, and this is one too many.
                Err(_) if !partitions.are_known && !links.is_empty() => break,
                Err(trouble) => return Err(not_attached(hub, group, &trouble)),
            };
            links.spawn(forward(receiver, sender.clone(), hub.endpoint.host.clone(), arrive.clone()));
        }
        Ok(Self { arrived, note, _links: links, _session: session, _connection: connection })
    }

    /// What has arrived, as soon as there is anything, and after `wait` at the latest.
    ///
    /// # Errors
    /// [`ReadError`] when the connection was lost; the reader is of no use then.
    pub async fn page(&mut self, wait: Duration) -> Result<Vec<TelemetryMessage>, ReadError> {
        let mut page = Vec::new();
        let Ok(first) = tokio::time::timeout(wait, self.arrived.recv()).await else { return Ok(page) };
        let mut next = first;
        while let Some(message) = next {
            page.push(message?);
            next = self.arrived.try_recv().ok();
        }
        Ok(page)
    }
}

async fn connect(hub: &EventHub, trust: Arc<ClientConfig>) -> Result<ConnectionHandle<()>, ReadError> {
    let (host, port) = (&hub.endpoint.host, hub.endpoint.port);
    let stream = tls::connect(&hub.endpoint, trust).await.map_err(|error| {
        let what = format!("`{host}` cannot be reached at its port {port}: {error}");
        // A certificate that is not trusted comes as data that makes no sense.
        if error.kind() == std::io::ErrorKind::InvalidData {
            ReadError::Refused(what)
        } else {
            ReadError::Passing(format!("{what}; the reader needs this port towards Azure to be open"))
        }
    })?;
    Connection::builder()
        .container_id("kedge")
        .scheme("amqp")
        .hostname(host.as_str())
        .idle_time_out(IDLE_MILLISECONDS)
        .sasl_profile(SaslProfile::Anonymous)
        .open_with_stream(stream)
        .await
        .map_err(|error| not_opened(hub, &error.into()))
}

/// Proves that the policy's key is known. The key itself stays here: a token goes out that is of no use for long.
async fn authorize(hub: &EventHub, session: &mut SessionHandle<()>) -> Result<String, ReadError> {
    let audience = format!("sb://{}/{}", hub.endpoint.host, hub.entity);
    // Unlike IoT Hub, Event Hubs sign with the text of the key.
    let key = SharedAccessKey::from_bytes(hub.key.expose().as_bytes().to_vec())
        .map_err(|error| ReadError::Refused(error.to_string()))?;
    let expiry = unix_seconds(Timestamp::now()) + TOKEN_LIFE_SECS;
    let token = sign(&audience, &key, expiry, Some(&hub.policy));
    let properties = ApplicationProperties::builder()
        .insert("operation", "put-token")
        .insert("type", "servicebus.windows.net:sastoken")
        .insert("name", audience)
        .build();
    let answer = request::ask(session, "$cbs", properties, Value::String(token.clone()))
        .await
        .map_err(|trouble| not_authorized(hub, &trouble))?;
    match answer.status {
        200..=299 => Ok(token),
        status => Err(not_authorized(hub, &Trouble::of_status(status, &answer.description))),
    }
}

struct Partitions {
    ids: Vec<String>,
    are_known: bool,
}

/// The partitions, and what has to be told about how they were found.
async fn partitions(
    hub: &EventHub,
    token: &str,
    session: &mut SessionHandle<()>,
) -> Result<(Partitions, Option<String>), ReadError> {
    let properties = ApplicationProperties::builder()
        .insert("operation", "READ")
        .insert("type", "com.microsoft:eventhub")
        .insert("name", SimpleValue::String(hub.entity.clone()))
        .insert("security_token", SimpleValue::String(token.to_owned()))
        .build();
    let trouble = match request::ask(session, "$management", properties, Value::Null).await {
        Ok(answer) if (200..=299).contains(&answer.status) => match partition_ids(&answer.body) {
            Some(ids) => return Ok((Partitions { ids, are_known: true }, None)),
            None => Trouble { kind: Kind::Passing, text: "its answer names no partitions".into() },
        },
        Ok(answer) => Trouble::of_status(answer.status, &answer.description),
        Err(trouble) => trouble,
    };
    if trouble.kind != Kind::Passing {
        return Err(not_authorized(hub, &trouble));
    }
    let note = format!(
        "`{}` does not tell its partitions ({}); those are read that answer to their number",
        hub.endpoint.host, trouble.text
    );
    let ids = (0..MOST_PARTITIONS).map(|number| number.to_string()).collect();
    Ok((Partitions { ids, are_known: false }, Some(note)))
}

fn partition_ids(body: &Value) -> Option<Vec<String>> {
    let Value::Map(map) = body else { return None };
    let ids = match map.get(&Value::String("partition_ids".into()))? {
        Value::Array(ids) => ids.iter().map(message::text).collect::<Option<Vec<_>>>()?,
        Value::List(ids) => ids.iter().map(message::text).collect::<Option<Vec<_>>>()?,
        _ => return None,
    };
    (!ids.is_empty()).then_some(ids)
}

async fn attach(
    hub: &EventHub,
    group: &str,
    partition: &str,
    since: Timestamp,
    session: &mut SessionHandle<()>,
) -> Result<Receiver, Trouble> {
    // The time is compared with `>`, and the moment itself counts.
    let after = (since.as_millisecond() - 1).max(0);
    let condition = Value::String(format!("amqp.annotation.x-opt-enqueued-time > '{after}'"));
    let filter = Described { descriptor: Descriptor::Code(SELECTOR_CODE), value: condition };
    let address = format!("{}/ConsumerGroups/{group}/Partitions/{partition}", hub.entity);
    let receiver = Receiver::builder()
        .name(format!("kedge-{partition}"))
        .source(Source::builder().address(address).add_to_filter(SELECTOR, filter).build())
        .credit_mode(CreditMode::Auto(CREDIT))
        .auto_accept(true)
        // From one that does not filter, more is read than counts, and that does no harm.
        .verify_incoming_source(false)
        .attach(session)
        .await?;
    Ok(receiver)
}

/// Passes on what the sender has sent, until nobody reads it any longer.
async fn forward(
    mut receiver: Receiver,
    sender: Sender,
    host: String,
    arrive: mpsc::Sender<Result<TelemetryMessage, ReadError>>,
) {
    loop {
        let item = match receiver.recv::<Body<Value>>().await {
            Ok(delivery) => match message::telemetry(delivery.into_message()) {
                Some(message) if sender.has_sent(&message) => Ok(message),
                _ => continue,
            },
            Err(error) => {
                let text = Trouble::from(error).text;
                Err(ReadError::Passing(format!("`{host}` has ended the connection: {text}")))
            }
        };
        let is_last = item.is_err();
        if arrive.send(item).await.is_err() || is_last {
            return;
        }
    }
}

impl Sender {
    fn has_sent(&self, message: &TelemetryMessage) -> bool {
        message.device_id == self.device && message.module_id.as_deref() == Some(self.module.as_str())
    }
}

fn not_opened(hub: &EventHub, trouble: &Trouble) -> ReadError {
    ReadError::Passing(format!("`{}` does not take the connection: {}", hub.endpoint.host, trouble.text))
}

fn not_authorized(hub: &EventHub, trouble: &Trouble) -> ReadError {
    let (host, entity, policy, text) = (&hub.endpoint.host, &hub.entity, &hub.policy, &trouble.text);
    match trouble.kind {
        Kind::Unauthorized => ReadError::Refused(format!(
            "`{host}` does not know the policy `{policy}` with this key: {text}; take the connection string anew, \
             its key may have been renewed"
        )),
        Kind::NotFound => ReadError::Refused(format!("`{host}` has no event hub `{entity}`: {text}")),
        Kind::Exhausted | Kind::Passing => {
            ReadError::Passing(format!("`{host}` does not take the token: {text}"))
        }
    }
}

fn not_attached(hub: &EventHub, group: &str, trouble: &Trouble) -> ReadError {
    let (host, entity, policy, text) = (&hub.endpoint.host, &hub.entity, &hub.policy, &trouble.text);
    match trouble.kind {
        Kind::Unauthorized => ReadError::Refused(format!(
            "the policy `{policy}` has no right to read `{entity}` at `{host}`: {text}; it needs `ServiceConnect`, as the \
             policy `service` has it"
        )),
        Kind::NotFound => ReadError::Refused(format!(
            "`{host}` has no event hub `{entity}` with a consumer group `{group}`: {text}"
        )),
        Kind::Exhausted => ReadError::Refused(format!(
            "`{entity}` at `{host}` has as many readers of the consumer group `{group}` as it allows: {text}; make a group \
             for KEdge alone, and name it in verify.consumer-group"
        )),
        Kind::Passing => ReadError::Passing(format!("`{entity}` at `{host}` cannot be read: {text}")),
    }
}
