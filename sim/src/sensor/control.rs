//! What the sensor is told: by its twin whether to send, and how often; by its input `control` to begin anew.

use std::time::Duration;

use serde_json::{Value, json};

/// Far above any use, and small enough for every clock.
const MAX_INTERVAL_SECS: f64 = 30.0 * 24.0 * 3600.0;

/// How the sensor sends now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Control {
    pub(super) send_data: bool,
    pub(super) interval: Duration,
}

impl Control {
    /// The control after these desired properties. A value that cannot be used changes nothing.
    pub(super) fn updated(self, desired: &Value) -> Self {
        let interval = desired.get("SendInterval").and_then(Value::as_f64);
        let interval = interval.filter(|seconds| (0.0..=MAX_INTERVAL_SECS).contains(seconds));
        Self {
            send_data: desired.get("SendData").and_then(Value::as_bool).unwrap_or(self.send_data),
            interval: interval.map_or(self.interval, Duration::from_secs_f64),
        }
    }

    /// What is reported back.
    pub(super) fn reported(self) -> Value {
        json!({"SendData": self.send_data, "SendInterval": self.interval.as_secs_f64()})
    }
}

/// How often a message of the input `control` asks for a reset: it is one command, or a list of them.
pub(super) fn resets(message: &[u8]) -> Result<usize, String> {
    let message: Value = serde_json::from_slice(message).map_err(|error| error.to_string())?;
    let commands = match message {
        Value::Array(commands) => commands,
        one => vec![one],
    };
    commands.iter().try_fold(0, |count, command| Ok(count + usize::from(is_reset(command)?)))
}

/// By name in whatever case, or by number, as the original reads it. What is missing has the first value.
fn is_reset(command: &Value) -> Result<bool, String> {
    let command = command.as_object().ok_or("a command is an object")?;
    Ok(match command.get("command").or_else(|| command.get("Command")) {
        Some(Value::String(name)) => name.eq_ignore_ascii_case("reset"),
        Some(number) => number.as_i64() == Some(0),
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Control = Control { send_data: true, interval: Duration::from_secs(5) };

    #[test]
    fn desired_properties_change_what_they_name() {
        let faster = START.updated(&json!({"SendInterval": 0.5, "$version": 2}));
        assert_eq!(faster, Control { interval: Duration::from_millis(500), ..START });
        assert_eq!(START.updated(&json!({"SendData": false})), Control { send_data: false, ..START });
        assert_eq!(faster.reported(), json!({"SendData": true, "SendInterval": 0.5}));
    }

    #[test]
    fn values_that_cannot_be_used_change_nothing() {
        for desired in [
            json!({}),
            json!({"SendInterval": -1}),
            json!({"SendInterval": 1e300}),
            json!({"SendInterval": "fast", "SendData": "no"}),
            json!({"SendInterval": null, "SendData": null}),
            Value::Null,
        ] {
            assert_eq!(START.updated(&desired), START, "{desired}");
        }
    }

    #[test]
    fn a_reset_comes_by_name_or_number_alone_or_in_a_list() {
        for (message, count) in [
            (r#"{"command":"reset"}"#, 1),
            (r#"{"command":"Reset"}"#, 1),
            (r#"{"Command":0}"#, 1),
            (r#"{}"#, 1),
            (r#"{"command":"NoOperation"}"#, 0),
            (r#"{"command":1}"#, 0),
            (r#"[{"command":"reset"},{"command":1},{"command":"reset"}]"#, 2),
            ("[]", 0),
        ] {
            assert_eq!(resets(message.as_bytes()).unwrap(), count, "{message}");
        }
        for message in ["", "reset", "7", "\"reset\"", "[1]", "null"] {
            assert!(resets(message.as_bytes()).is_err(), "{message}");
        }
    }
}
