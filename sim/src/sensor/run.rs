//! The sensor at work: connect, send, connect again.
//!
//! A message counts when it is acknowledged. One that was not is sent again with its number, so the
//! numbers at the hub have no gap, whatever goes away in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::control::{self, Control};
use super::edge_environment::{EdgeEnvironment, EnvironmentError};
use super::model::{Model, Noise};
use super::settings::Settings;
use crate::module_client::{InputMessage, MethodCall, ModuleClient, Notices, TwinError};
use crate::mqtt::ClientError;
use crate::random;
use crate::retry::{self, Backoff};
use crate::topics::{PropertyBag, system};

const OUTPUT: &str = "temperatureOutput";
const CONTROL_INPUT: &str = "control";
const RESET_METHOD: &str = "reset";
const OK: i32 = 200;
/// As SDKs answer for a method without a handler.
const NOT_IMPLEMENTED: i32 = 501;
/// The only one here.
const TRANSPORT: &str = "Mqtt_Tcp_Only";
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// The gateway answers twin requests with an error while the hub is away.
const TWIN_RETRY: Duration = Duration::from_secs(10);

/// Why a session ended, or did not begin.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Where the sensor's log lines go.
pub type Log = fn(&str);

/// Runs the sensor until the shutdown.
pub async fn run(settings: Settings, environment: EdgeEnvironment, say: Log, shutdown: CancellationToken) {
    say("SimulatedTemperatureSensor Main() started.");
    let count = settings.message_count.map_or_else(|| "unlimited".to_owned(), |count| count.to_string());
    say(&format!(
        "Initializing simulated temperature sensor to send {count} messages, at an interval of {} seconds.",
        settings.message_delay.as_secs_f64()
    ));
    if let Some(other) = settings.transport.as_deref().filter(|transport| *transport != TRANSPORT) {
        say(&format!("Transport type [{other}] is not supported by this sensor, [{TRANSPORT}] is used."));
    }
    let mut sensor = Sensor::new(settings, say);
    let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
    loop {
        let session = async {
            say(&format!("Trying to initialize module client using transport type [{TRANSPORT}]."));
            let (client, notices) = connect(&environment).await?;
            say(&format!("Successfully initialized module client of transport type [{TRANSPORT}]."));
            backoff.reset();
            Err::<(), SessionError>(sensor.work(&client, notices, &shutdown).await.into())
        };
        match shutdown.run_until_cancelled(session).await {
            Some(Err(error)) => say(&format!("The connection to the gateway is lost: {error}")),
            Some(Ok(())) | None => break,
        }
        if !backoff.pause(&shutdown).await {
            break;
        }
    }
    say("SimulatedTemperatureSensor Main() finished.");
}

async fn connect(environment: &EdgeEnvironment) -> Result<(ModuleClient, Notices), SessionError> {
    let (link, token) = tokio::try_join!(environment.link(), environment.token())?;
    Ok(ModuleClient::connect(&link, &environment.identity, token).await?)
}

struct Sensor {
    model: Model<Noise>,
    batch_id: String,
    message_count: Option<u64>,
    /// Messages that were acknowledged.
    sent: u64,
    /// The next message, when it was made and not acknowledged.
    unacknowledged: Option<Bytes>,
    control: watch::Sender<Control>,
    /// The next measurement begins anew.
    reset: Arc<AtomicBool>,
    say: Log,
}

impl Sensor {
    fn new(settings: Settings, say: Log) -> Self {
        let control = Control { send_data: true, interval: settings.message_delay };
        Self {
            message_count: settings.message_count,
            model: Model::new(settings, Noise::new()),
            batch_id: random_uuid(),
            sent: 0,
            unacknowledged: None,
            control: watch::Sender::new(control),
            reset: Arc::default(),
            say,
        }
    }

    /// Sends and listens until the connection ends.
    async fn work(
        &mut self,
        client: &ModuleClient,
        notices: Notices,
        shutdown: &CancellationToken,
    ) -> ClientError {
        let (calls, inputs) = match tokio::try_join!(client.method_calls(), client.inputs()) {
            Ok(queues) => queues,
            Err(error) => return error,
        };
        let (control, reset, say) = (self.control.clone(), self.reset.clone(), self.say);
        tokio::select! {
            error = self.send(client) => error,
            error = follow_twin(client, notices, &control, say, shutdown) => error,
            error = answer_calls(calls, &reset, say) => error,
            error = take_control(inputs, &reset, say) => error,
        }
    }

    async fn send(&mut self, client: &ModuleClient) -> ClientError {
        let mut control = self.control.subscribe();
        while self.message_count.is_none_or(|count| self.sent < count) {
            let Control { send_data, .. } = *control.borrow_and_update();
            if send_data {
                if let Err(error) = self.send_next(client).await {
                    return error;
                }
            } else {
                (self.say)("Sending data disabled. Change twin configuration to start sending again.");
            }
            if !wait(&mut control, send_data).await {
                return ClientError::Closed;
            }
        }
        (self.say)(&format!("Done sending {} messages", self.sent));
        // The original stays up as well: a module that ends would be started again and send everything again.
        client.mqtt().closed().await;
        ClientError::Closed
    }

    async fn send_next(&mut self, client: &ModuleClient) -> Result<(), ClientError> {
        let number = self.sent + 1;
        let body = match &self.unacknowledged {
            Some(body) => body.clone(),
            None => {
                if self.reset.swap(false, Ordering::Relaxed) {
                    self.model.reset();
                }
                let body = serde_json::to_string(&self.model.measure(Timestamp::now())).unwrap_or_default();
                (self.say)(&format!("Sending message: {number}, Body: [{body}]"));
                self.unacknowledged.insert(body.into()).clone()
            }
        };
        let properties = PropertyBag::from_iter([
            (system::OUTPUT_NAME, OUTPUT),
            (system::CONTENT_TYPE, "application/json"),
            (system::CONTENT_ENCODING, "utf-8"),
            ("sequenceNumber", &number.to_string()),
            ("batchId", &self.batch_id),
        ]);
        client.send_event(properties, body).await?;
        self.sent = number;
        self.unacknowledged = None;
        Ok(())
    }
}

/// Waits for the next message: an interval, which a change of the twin cuts short or makes longer.
async fn wait(control: &mut watch::Receiver<Control>, is_sending: bool) -> bool {
    let began = tokio::time::Instant::now();
    loop {
        let due = is_sending.then(|| began + control.borrow().interval);
        let passed = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = passed => return true,
            changed = control.changed() => match changed {
                Ok(()) if control.borrow().send_data != is_sending => return true,
                Ok(()) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Answers direct methods until the connection ends.
async fn answer_calls(mut calls: mpsc::Receiver<MethodCall>, reset: &AtomicBool, say: Log) -> ClientError {
    while let Some(call) = calls.recv().await {
        let status = match call.name.as_str() {
            RESET_METHOD => {
                say("Received direct method call to reset temperature sensor...");
                reset.store(true, Ordering::Relaxed);
                OK
            }
            _ => NOT_IMPLEMENTED,
        };
        if let Err(error) = call.answer(status, Bytes::new()).await {
            return error;
        }
    }
    ClientError::Closed
}

/// Follows the commands of the input until the connection ends.
async fn take_control(mut inputs: mpsc::Receiver<InputMessage>, reset: &AtomicBool, say: Log) -> ClientError {
    while let Some(message) = inputs.recv().await {
        if message.input != CONTROL_INPUT {
            continue;
        }
        say(&format!("Received message Body: [{}]", String::from_utf8_lossy(&message.body)));
        match control::resets(&message.body) {
            Ok(count) => {
                for _ in 0..count {
                    say("Resetting temperature sensor..");
                    reset.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => {
                say(&format!("Error: Failed to deserialize control command with exception: [{error}]"));
            }
        }
    }
    ClientError::Closed
}

/// Takes up the desired properties and reports them back, until the connection ends.
async fn follow_twin(
    client: &ModuleClient,
    mut notices: Notices,
    control: &watch::Sender<Control>,
    say: Log,
    shutdown: &CancellationToken,
) -> ClientError {
    loop {
        match exchange_twin(client, control).await {
            Ok(()) => {}
            Err(TwinError::Client(error)) => return error,
            Err(error) => {
                say(&format!("The twin cannot be read: {error}"));
                retry::pause(TWIN_RETRY, shutdown).await;
                continue;
            }
        }
        if let Err(error) = notices.desired_changed().await {
            return error;
        }
    }
}

async fn exchange_twin(client: &ModuleClient, control: &watch::Sender<Control>) -> Result<(), TwinError> {
    let twin = client.twin().await?;
    control.send_if_modified(|control| {
        let updated = control.updated(&twin.desired);
        std::mem::replace(control, updated) != updated
    });
    let reported = control.borrow().reported();
    client.report(&reported).await
}

/// A version 4 UUID; all zeros when the system gives no random bytes.
fn random_uuid() -> String {
    let mut bytes: [u8; 16] = random::bytes().unwrap_or_default();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::module_client::tests::Peer;

    #[test]
    fn a_batch_id_is_a_version_4_uuid() {
        let id = random_uuid();
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert_ne!(id, random_uuid());
    }

    #[tokio::test(start_paused = true)]
    async fn the_twin_shortens_a_wait_and_ends_a_pause() {
        let hour = Control { send_data: true, interval: Duration::from_secs(3600) };
        let (sender, mut receiver) = watch::channel(hour);
        let began = tokio::time::Instant::now();
        let second = Duration::from_secs(1);
        let (go_on, _) = tokio::join!(wait(&mut receiver, true), async {
            sender.send(Control { interval: second, ..hour })
        });
        assert!(go_on && began.elapsed() <= 2 * second, "{:?}", began.elapsed());
        let (go_on, _) = tokio::join!(wait(&mut receiver, false), async { sender.send(hour) });
        assert!(go_on);
        drop(sender);
        assert!(!wait(&mut receiver, false).await);
    }

    #[tokio::test]
    async fn the_sensor_begins_anew_by_its_method_and_by_its_input() {
        let identity = Identity::module("d", "tempSensor").unwrap();
        let (mut peer, client, _notices) = Peer::with_client(&identity).await;
        let (calls, inputs) = tokio::try_join!(client.method_calls(), client.inputs()).unwrap();
        let reset = Arc::new(AtomicBool::new(false));
        let (by_method, by_input) = (reset.clone(), reset.clone());
        tokio::spawn(async move { answer_calls(calls, &by_method, |_| {}).await });
        assert_eq!(peer.call("other", "null").await, (501, Bytes::new()));
        assert!(!reset.load(Ordering::Relaxed));
        assert_eq!(peer.call("reset", "null").await, (200, Bytes::new()));
        assert!(reset.swap(false, Ordering::Relaxed));
        let controlled = tokio::spawn(async move { take_control(inputs, &by_input, |_| {}).await });
        for (input, body) in [("other", r#"{"command":"reset"}"#), ("control", "junk")] {
            peer.send(&format!("devices/d/modules/tempSensor/inputs/{input}/"), body);
        }
        peer.send("devices/d/modules/tempSensor/inputs/control/", r#"[{"command":"reset"}]"#);
        // The answer to a call comes after what was sent before it has been handed over.
        peer.call("other", "null").await;
        drop(client);
        controlled.await.unwrap();
        assert!(reset.load(Ordering::Relaxed));
    }
}
