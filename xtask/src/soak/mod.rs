//! The soak: which faults happen when, what the messages of the producer prove, and what its deployment is. Pure functions; the
//! command carries them out.

pub mod judge;

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::images::Image;

/// The module that sends numbers.
pub const PRODUCER: &str = "producer";
/// Where the edge sees the ledgers of the producer: on the volume that outlives the pod.
pub const LEDGERS: &str = "/var/lib/aziot/soak";
/// How often each fault happens in ten minutes.
const EACH_IN_TEN_MINUTES: u32 = 3;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The hub is killed, and is away for a while.
    HubStopped,
    /// The edge daemon is killed with SIGKILL; systemd starts it again.
    EdgeKilled,
    /// The pod is deleted; its volume of state is kept.
    PodDeleted,
}

impl Fault {
    const ALL: [Self; 3] = [Self::HubStopped, Self::EdgeKilled, Self::PodDeleted];

    /// What happens, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::HubStopped => "the hub is stopped",
            Self::EdgeKilled => "the edge daemon is killed",
            Self::PodDeleted => "the pod is deleted",
        }
    }
}

/// The faults in order, with when each begins after the start: evenly over the time, each kind equally often, and the last
/// one early enough for telemetry to follow it.
#[must_use]
pub fn schedule(time: Duration) -> Vec<(Duration, Fault)> {
    let rounds =
        u32::try_from(time.as_secs() * u64::from(EACH_IN_TEN_MINUTES) / 600).unwrap_or(u32::MAX).max(1);
    let kinds = Fault::ALL.iter().cycle().take(Fault::ALL.len() * rounds as usize);
    let step = time / (3 * rounds + 1);
    kinds.zip(1..).map(|(fault, place)| (step * place, *fault)).collect()
}

/// The deployment manifest of the project with the producer in it, which sends `count` numbers, `rate` of them in a second, and
/// keeps those that were acknowledged in the ledger of this name.
///
/// # Errors
/// When the source is not a deployment manifest.
pub fn deployment(source: &str, rate: u32, count: u64, ledger: &str) -> Result<Value> {
    let mut manifest: Value = serde_json::from_str(source).context("the deployment manifest is not JSON")?;
    let content = &mut manifest["modulesContent"];
    let modules = content["$edgeAgent"]["properties.desired"]["modules"].as_object_mut();
    let modules = modules.context("the deployment manifest has no modules")?;
    modules.insert(
        PRODUCER.to_owned(),
        json!({
            "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
            "settings": {
                "image": Image::TemperatureSensor.repository(),
                "createOptions": {
                    "User": "0:0",
                    "Entrypoint": ["/kedge-load"],
                    "Cmd": [
                        "produce", "--rate", rate.to_string(), "--count", count.to_string(),
                        "--ledger", format!("/ledger/{ledger}"),
                    ],
                    "HostConfig": { "Binds": [format!("{LEDGERS}:/ledger")] },
                },
            },
        }),
    );
    let routes = &mut content["$edgeHub"]["properties.desired"]["routes"];
    routes[PRODUCER] = json!({ "route": format!("FROM /messages/modules/{PRODUCER}/* INTO $upstream") });
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_happens_equally_often_and_evenly() {
        let faults = schedule(Duration::from_secs(600));
        assert_eq!(faults.len(), 9);
        for kind in Fault::ALL {
            assert_eq!(faults.iter().filter(|(_, fault)| *fault == kind).count(), 3);
        }
        assert!(faults.iter().zip(1..).all(|((at, _), place)| *at == Duration::from_secs(60) * place));
        assert_eq!(schedule(Duration::from_secs(60)).len(), 3, "each happens once at least");
    }

    #[test]
    fn the_producer_is_a_module_with_a_route_and_a_ledger() {
        let source = include_str!("../../../config/deployment.json");
        let manifest = deployment(source, 50, 30_000, "a").unwrap();
        let agent = &manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"];
        assert!(agent["tempSensor"].is_object(), "the sensor stays");
        let options = &agent[PRODUCER]["settings"]["createOptions"];
        assert_eq!(options["HostConfig"]["Binds"][0], "/var/lib/aziot/soak:/ledger");
        assert_eq!(options["Cmd"][4], "30000");
        let routes = &manifest["modulesContent"]["$edgeHub"]["properties.desired"]["routes"];
        assert!(routes[PRODUCER]["route"].as_str().unwrap().contains("producer/*"), "{routes}");
        assert!(deployment("{}", 1, 1, "a").is_err());
    }
}
