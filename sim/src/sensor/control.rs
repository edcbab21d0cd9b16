//! What the twin tells the sensor: whether to send, and how often.

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
}
