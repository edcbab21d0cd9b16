//! What counts as telemetry: at the hub, from the right device and module, in the sensor's schema, with
//! continuous sequence numbers.

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use kedge_sim::service::TelemetryMessage;
use serde::{Deserialize, Serialize};

/// What is expected of the telemetry.
#[derive(Debug)]
pub struct Expectation<'a> {
    /// The device that must have sent it.
    pub device: &'a str,
    /// The module that must have sent it.
    pub module: &'a str,
    /// How many messages.
    pub count: usize,
    /// Messages that were enqueued earlier prove nothing.
    pub since: Timestamp,
}

impl Expectation<'_> {
    /// Whether a message may count.
    fn counts(&self, message: &TelemetryMessage) -> bool {
        message.enqueued_time_utc >= self.since
            && message.device_id == self.device
            && message.module_id.as_deref() == Some(self.module)
    }

    /// What the sensor has measured in the messages that may count, in degrees Celsius, for a person to see.
    pub(super) fn temperatures(&self, messages: &[TelemetryMessage]) -> Vec<f64> {
        let counting = messages.iter().filter(|message| self.counts(message));
        counting.filter_map(|message| Some(body(message).ok()?.temperature())).collect()
    }
}

/// A message that counts, for the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Its place in the order of arrival at the hub.
    pub offset: u64,
    /// When it arrived there.
    pub enqueued_time_utc: Timestamp,
    /// Who sent it.
    pub device_id: String,
    /// Which of its modules.
    pub module_id: String,
    /// Its number in the batch, from 1.
    pub sequence_number: u64,
    /// The run of the sensor that it belongs to.
    pub batch_id: String,
    /// What the sensor measured.
    pub body: Body,
}

/// What the messages at the hub prove.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Enough, in order, without a gap.
    Proved(Vec<Evidence>),
    /// So far fine, but not enough.
    NotEnough(usize),
    /// Something that must not be.
    Refuted(String),
}

/// The body of the simulated temperature sensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Body {
    machine: Machine,
    ambient: Ambient,
    time_created: Timestamp,
}

impl Body {
    /// What the machine's temperature is, in degrees Celsius.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        self.machine.temperature
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    temperature: f64,
    pressure: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ambient {
    temperature: f64,
    humidity: i64,
}

/// Judges all messages that the hub has, oldest first. Those of other senders do not count. A repeated message is allowed, because delivery is at
/// least once; a gap is not. A sensor that was restarted begins a new batch, and only the newest one counts.
#[must_use]
pub fn judge(messages: &[TelemetryMessage], expected: &Expectation<'_>) -> Verdict {
    let mut proved: Vec<Evidence> = Vec::new();
    for message in messages.iter().filter(|message| expected.counts(message)) {
        let evidence = match examine(message) {
            Ok(evidence) => evidence,
            Err(error) => return Verdict::Refuted(format!("message {}: {error:#}", message.offset)),
        };
        match proved.last() {
            Some(last) if last.batch_id != evidence.batch_id => proved.clear(),
            Some(last) if evidence.sequence_number <= last.sequence_number => continue,
            Some(last) if evidence.sequence_number != last.sequence_number + 1 => {
                let (number, last) = (evidence.sequence_number, last.sequence_number);
                return Verdict::Refuted(format!(
                    "sequence number {number} follows {last}: messages were lost"
                ));
            }
            _ => {}
        }
        proved.push(evidence);
    }
    if proved.len() < expected.count { Verdict::NotEnough(proved.len()) } else { Verdict::Proved(proved) }
}

fn body(message: &TelemetryMessage) -> Result<Body> {
    let body = message.body.as_deref().context("its body is not text")?;
    serde_json::from_str(body).context("its body is not in the sensor's schema")
}

/// Checks a message against the sensor's schema.
fn examine(message: &TelemetryMessage) -> Result<Evidence> {
    let property =
        |name: &str| message.properties.get(name).with_context(|| format!("it has no property `{name}`"));
    let number = property("sequenceNumber")?;
    let body = body(message)?;
    let finite = [body.machine.temperature, body.machine.pressure, body.ambient.temperature];
    ensure!(finite.iter().all(|value| value.is_finite()), "its body has an impossible number");
    ensure!((0..=100).contains(&body.ambient.humidity), "its humidity is {}", body.ambient.humidity);
    ensure!(body.time_created.as_second() > 0, "it was created before 1970");
    Ok(Evidence {
        offset: message.offset,
        enqueued_time_utc: message.enqueued_time_utc,
        device_id: message.device_id.clone(),
        module_id: message.module_id.clone().unwrap_or_default(),
        sequence_number: number.parse().with_context(|| format!("its sequenceNumber is {number:?}"))?,
        batch_id: property("batchId")?.clone(),
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"machine":{"temperature":21.5,"pressure":1.05},"ambient":{"temperature":20.9,"humidity":25},"timeCreated":"2026-11-22T13:00:00.123Z"}"#;

    fn message(offset: u64, batch: &str, number: &str) -> TelemetryMessage {
        TelemetryMessage {
            offset,
            enqueued_time_utc: Timestamp::from_second(1000 + i64::try_from(offset).unwrap()).unwrap(),
            device_id: "device".into(),
            module_id: Some("tempSensor".into()),
            system_properties: [].into(),
            properties: [("sequenceNumber", number), ("batchId", batch)]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
            body: Some(BODY.into()),
            body_base64: None,
        }
    }

    fn numbers(batch: &str, numbers: &[u64]) -> Vec<TelemetryMessage> {
        (1..).zip(numbers).map(|(offset, number)| message(offset, batch, &number.to_string())).collect()
    }

    fn verdict(messages: &[TelemetryMessage]) -> Verdict {
        let since = Timestamp::from_second(1001).unwrap();
        judge(messages, &Expectation { device: "device", module: "tempSensor", count: 3, since })
    }

    fn refuted(messages: &[TelemetryMessage]) -> String {
        match verdict(messages) {
            Verdict::Refuted(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn continuous_numbers_prove_and_repeated_ones_do_no_harm() {
        let Verdict::Proved(proved) = verdict(&numbers("a", &[4, 5, 5, 4, 5, 6])) else { panic!() };
        assert_eq!(proved.iter().map(|evidence| evidence.sequence_number).collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(verdict(&numbers("a", &[1, 2, 2])), Verdict::NotEnough(2));
        assert_eq!(verdict(&[]), Verdict::NotEnough(0));
    }

    #[test]
    fn a_gap_refutes() {
        assert_eq!(refuted(&numbers("a", &[1, 2, 4])), "sequence number 4 follows 2: messages were lost");
    }

    #[test]
    fn a_restarted_sensor_begins_again() {
        let mut messages = numbers("a", &[7, 8]);
        messages.extend([message(3, "b", "1"), message(4, "b", "2")]);
        assert_eq!(verdict(&messages), Verdict::NotEnough(2));
        messages.push(message(5, "b", "3"));
        assert!(matches!(verdict(&messages), Verdict::Proved(_)));
    }

    #[test]
    fn messages_from_before_the_run_prove_nothing() {
        let mut messages = numbers("a", &[1, 2, 3]);
        messages[0].enqueued_time_utc = Timestamp::from_second(1000).unwrap();
        assert_eq!(verdict(&messages), Verdict::NotEnough(2));
    }

    #[test]
    fn messages_of_other_senders_do_not_count() {
        let mut messages = numbers("a", &[1, 2, 3]);
        messages[0].device_id = "other".into();
        messages[1].module_id = None;
        assert_eq!(verdict(&messages), Verdict::NotEnough(1));
    }

    #[test]
    fn another_schema_or_missing_properties_refute() {
        let with = |change: fn(&mut TelemetryMessage)| {
            let mut messages = numbers("a", &[1]);
            change(&mut messages[0]);
            refuted(&messages)
        };
        assert!(with(|it| it.body = None).contains("not text"));
        assert!(with(|it| it.body = Some("{}".into())).contains("schema"));
        assert!(with(|it| it.body = Some(BODY.replace(":25", ":250"))).contains("humidity"));
        assert!(with(|it| it.body = Some(BODY.replace("\"pressure\"", "\"force\""))).contains("schema"));
        assert!(with(|it| drop(it.properties.remove("batchId"))).contains("batchId"));
        assert!(
            with(|it| drop(it.properties.insert("sequenceNumber".into(), "one".into())))
                .contains("sequenceNumber")
        );
    }
}
