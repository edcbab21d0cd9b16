//! Whether telemetry is continuous: within each run of the sensor no number is missing between the first and the last
//! that arrived. What came twice does no harm.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kedge_sim::service::TelemetryMessage;

/// A message, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// The run of the sensor.
    pub batch: String,
    /// Its number there.
    pub number: u64,
    /// When it arrived.
    pub time: Timestamp,
}

impl Numbered {
    /// The numbers of a message of the sensor; none for others.
    #[must_use]
    pub fn of(message: &TelemetryMessage) -> Option<Self> {
        Some(Self {
            batch: message.properties.get("batchId")?.clone(),
            number: message.properties.get("sequenceNumber")?.parse().ok()?,
            time: message.enqueued_time_utc,
        })
    }
}

/// The numbers that are missing, in words; nothing when none is.
#[must_use]
pub fn missing(messages: &[Numbered]) -> Vec<String> {
    let mut batches: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for message in messages {
        batches.entry(&message.batch).or_default().insert(message.number);
    }
    let gaps = batches.values().flat_map(|numbers| numbers.iter().zip(numbers.iter().skip(1)));
    gaps.filter(|(before, after)| *before + 1 < **after)
        .map(|(before, after)| match after - before {
            2 => format!("{} is missing", before + 1),
            _ => format!("{} to {} are missing", before + 1, after - 1),
        })
        .collect()
}

/// The longest time between two messages from `since` on, in seconds.
#[must_use]
pub fn longest_silence(messages: &[Numbered], since: Timestamp) -> Option<f64> {
    let mut times: Vec<_> = messages.iter().map(|message| message.time).collect();
    times.sort_unstable();
    let pairs = times.windows(2).filter(|pair| pair[1] >= since);
    pairs.map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(messages: &[(&str, u64, i64)]) -> Vec<Numbered> {
        let message = |&(batch, number, second): &(&str, u64, i64)| Numbered {
            batch: batch.into(),
            number,
            time: Timestamp::from_second(second).unwrap(),
        };
        messages.iter().map(message).collect()
    }

    #[test]
    fn only_a_gap_within_a_run_of_the_sensor_is_one() {
        assert!(
            missing(&numbered(&[("a", 7, 0), ("a", 9, 1), ("a", 8, 2), ("a", 8, 3), ("b", 1, 4)])).is_empty()
        );
        assert_eq!(
            missing(&numbered(&[("a", 1, 0), ("a", 3, 1), ("a", 9, 2)])),
            ["2 is missing", "4 to 8 are missing"]
        );
        assert!(missing(&[]).is_empty());
    }

    #[test]
    fn the_longest_silence_is_that_after_the_fault() {
        let messages = numbered(&[("a", 1, 0), ("a", 2, 50), ("a", 3, 52), ("a", 4, 60)]);
        let since = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(longest_silence(&messages, since(51)), Some(8.0));
        assert_eq!(longest_silence(&messages, since(49)), Some(50.0));
        assert_eq!(longest_silence(&messages, since(61)), None);
    }
}
