//! A module that is connected and sends nothing: for how long that may be, and what arrives in the place of its messages.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kedge_sim::service::TelemetryFilter;

use super::cause::{Cause, Kind};
use super::scene::Scene;
use super::telemetry::Expectation;
use crate::edge_config::SENSOR_MODULE;
use crate::steps::hub;

/// How long the sensor may take for a message where its twin does not say more.
const LEAST: Duration = Duration::from_secs(15);
/// The longest pause between messages that is believed.
const MOST: Duration = Duration::from_secs(600);
/// The sensor's property with the seconds from one message to the next.
const INTERVAL: &str = "/properties/desired/SendInterval";

/// How long nothing new has come.
#[derive(Debug)]
pub(super) struct Quiet {
    allowed: Duration,
    count: usize,
    since: Instant,
}

impl Quiet {
    pub(super) fn begin(allowed: Duration) -> Self {
        Self { allowed, count: 0, since: Instant::now() }
    }

    /// Whether, with this many messages by now, it is too quiet.
    pub(super) fn is_over(&mut self, count: usize) -> bool {
        if count != self.count {
            (self.count, self.since) = (count, Instant::now());
        }
        self.since.elapsed() >= self.allowed
    }
}

/// For how long the sensor may say nothing: three times its own interval.
pub(super) async fn allowed(scene: &Scene<'_>) -> Duration {
    let asked = async {
        let service = hub::service(scene.local_hub()?).await.ok()?;
        let twin = service.module_twin(scene.device, SENSOR_MODULE).await.ok()?;
        twin.pointer(INTERVAL)?.as_f64()
    };
    let interval = asked.await.and_then(|seconds| Duration::try_from_secs_f64(seconds * 3.0).ok());
    interval.unwrap_or(LEAST).clamp(LEAST, MOST)
}

/// Why nothing comes of the module that is expected to send.
pub(super) async fn cause(scene: &Scene<'_>, expected: &Expectation<'_>, quiet: &Quiet) -> Cause {
    let seconds = quiet.since.elapsed().as_secs();
    let (device, module) = (expected.device, expected.module);
    match others(scene, expected).await {
        Some(others) => Cause::new(
            Kind::Telemetry,
            format!("in {seconds} s nothing has come of {device}/{module}, but of {others}"),
            "compare the device id in the credentials of the edge with `device.id` of the settings",
        ),
        None => Cause::new(
            Kind::Telemetry,
            format!("{device}/{module} is connected, and has sent nothing for {seconds} s"),
            "see what it says, `cargo xtask logs` with its name, and whether its twin has `SendData` false",
        ),
    }
}

/// Who else has sent since the run began.
async fn others(scene: &Scene<'_>, expected: &Expectation<'_>) -> Option<String> {
    let service = hub::service(scene.local_hub()?).await.ok()?;
    let mut senders = BTreeSet::new();
    let mut after = 0;
    loop {
        let page = service.telemetry(&TelemetryFilter::default(), after, Duration::ZERO).await.ok()?;
        if page.messages.is_empty() {
            break;
        }
        let new = page.messages.iter().filter(|message| message.enqueued_time_utc >= expected.since);
        senders.extend(new.map(|message| match &message.module_id {
            Some(module) => format!("{}/{module}", message.device_id),
            None => message.device_id.clone(),
        }));
        after = page.next;
    }
    senders.remove(&format!("{}/{}", expected.device, expected.module));
    (!senders.is_empty()).then(|| senders.into_iter().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_ends_the_silence() {
        let mut quiet = Quiet::begin(Duration::ZERO);
        assert!(quiet.is_over(0));
        quiet.allowed = Duration::from_secs(60);
        assert!(!quiet.is_over(0) && !quiet.is_over(1));
        assert_eq!(quiet.count, 1);
    }
}
