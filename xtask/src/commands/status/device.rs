//! The edge device, as the local hub knows it: whether its agent is connected, and what that has reported.

use serde_json::Value;

use super::{LIMIT, Part, up, within};
use crate::credentials::Credentials;
use crate::engine::Engine;
use crate::session::Setup;
use crate::steps::hub;

/// What the hub says of the device.
#[derive(Debug)]
pub(super) struct Device {
    /// The device itself.
    pub(super) part: Part,
    /// What its agent has reported last.
    twin: Value,
}

/// Asks the local hub; nothing when it is not up, which its own part tells.
pub(super) async fn look(
    setup: &Setup,
    engine: &Engine,
    credentials: &Credentials,
    id: &str,
) -> Option<Device> {
    let service =
        within(LIMIT, "the engine", hub::service_of(engine, &setup.settings, credentials)).await.ok()?;
    let twin = within(LIMIT, "the hub", async { Ok(service.module_twin(id, "$edgeAgent").await?) }).await;
    Some(match twin {
        Ok(twin) => Device { part: part(id, &twin), twin },
        Err(error) => {
            Device { part: Part::new("device", "down", format!("{id}: {error:#}")), twin: Value::Null }
        }
    })
}

fn part(id: &str, twin: &Value) -> Part {
    let connected = twin["connectionState"] == "Connected";
    let word = if connected { "connected" } else { "disconnected" };
    let reported = &twin["properties"]["reported"];
    let deployment =
        match (reported["lastDesiredVersion"].as_i64(), reported["lastDesiredStatus"]["code"].as_i64()) {
            (Some(version), Some(200)) => format!(", deployment {version} applied"),
            (Some(version), Some(code)) => format!(", deployment {version} has status {code}"),
            _ => ", no deployment reported".into(),
        };
    Part::new("device", up(connected), format!("{id}, {word}{deployment}"))
}

impl Device {
    /// The runtime makes containers anew, so that it knows better than the inner engine how often a module was started.
    pub(super) fn count_restarts(&self, parts: &mut [Part]) {
        for part in parts.iter_mut().filter(|part| part.image.is_some()) {
            let reported = &self.twin["properties"]["reported"];
            let module = ["modules", "systemModules"]
                .map(|kind| reported[kind][part.name.as_str()]["restartCount"].as_i64());
            part.restarts = module.into_iter().flatten().chain(part.restarts).max();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_device_is_told_as_its_agent_reports() {
        let twin = json!({ "connectionState": "Connected", "properties": { "reported": {
            "lastDesiredVersion": 2, "lastDesiredStatus": { "code": 200 },
            "modules": { "tempSensor": { "restartCount": 4 } } } } });
        let device = Device { part: part("d", &twin), twin };
        assert_eq!(device.part, Part::new("device", "up", "d, connected, deployment 2 applied"));
        let module =
            |name: &str| Part { image: Some("i".into()), restarts: Some(1), ..Part::new(name, "up", "") };
        let mut parts = [module("tempSensor"), module("other"), Part::new("systemd", "up", "")];
        device.count_restarts(&mut parts);
        assert_eq!(parts.map(|part| part.restarts), [Some(4), Some(1), None]);
        assert_eq!(part("d", &json!(null)).detail, "d, disconnected, no deployment reported");
    }
}
