//! The layers of the simulated runtime, as its daemon tells them.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::layers::{Name, Seen};
use super::scene::Scene;
use crate::edge_config::SENSOR_MODULE;

/// How the daemon begins what it says of a deployment that fails at a module.
const OF_A_MODULE: &str = "module ";

/// One look at a layer above the daemon's service.
pub(super) async fn look(scene: &Scene<'_>, daemon: &str, name: Name) -> Result<Seen> {
    let health = health(scene, daemon).await?;
    Ok(match name {
        Name::Agent => agent(&health),
        Name::Module => module(&health),
        _ => gateway(&health),
    })
}

/// What the edge daemon says of itself.
async fn health(scene: &Scene<'_>, daemon: &str) -> Result<Value> {
    let output = scene.run(&[daemon, "health", "--json"]).await?;
    serde_json::from_str(&output.stdout)
        .with_context(|| format!("the edge daemon tells no health: {}", output.text()))
}

fn agent(health: &Value) -> Seen {
    let text = |pointer: &str| health.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    for identity in ["agent", "edgeHub"] {
        let state = text(&format!("/hub/{identity}"));
        if state != "connected" {
            return Err(format!("{identity} is {state}: {}", text("/hub/error")));
        }
    }
    let status = health.pointer("/deployment/status").and_then(Value::as_i64);
    let description = text("/deployment/description");
    match status {
        Some(200) => Ok(format!("deployment {} applied", health["deployment"]["version"])),
        // Where it is a module that does not come, the next layer says why.
        Some(code) if description.starts_with(OF_A_MODULE) => {
            Ok(format!("deployment {} has status {code}", health["deployment"]["version"]))
        }
        Some(code) => Err(format!("the deployment has status {code}: {description}")),
        None => Err("no deployment has arrived yet".into()),
    }
}

fn module(health: &Value) -> Seen {
    let description = health.pointer("/deployment/description").and_then(Value::as_str).unwrap_or_default();
    if health.pointer("/deployment/status").and_then(Value::as_i64) != Some(200)
        && let Some(trouble) = description.strip_prefix(OF_A_MODULE)
    {
        // The one of before may go on running until the new one is there.
        return Err(trouble.to_owned());
    }
    let modules = health["modules"].as_array().map(Vec::as_slice).unwrap_or_default();
    match modules.iter().find(|module| module["name"] == SENSOR_MODULE) {
        Some(module) if module["status"] == "running" => Ok(format!("{SENSOR_MODULE} is running")),
        Some(module) => Err(format!(
            "{SENSOR_MODULE} is {}: {}",
            module["status"].as_str().unwrap_or("unknown"),
            module["description"].as_str().unwrap_or_default()
        )),
        None => Err(format!("{SENSOR_MODULE} is not there")),
    }
}

fn gateway(health: &Value) -> Seen {
    let clients: Vec<_> = health
        .pointer("/gateway/clients")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if clients.iter().any(|client| client.rsplit('/').next() == Some(SENSOR_MODULE)) {
        Ok(format!("connected: {}", clients.join(", ")))
    } else {
        Err(format!("{SENSOR_MODULE} is not connected; connected are: {}", clients.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn healthy() -> Value {
        json!({
            "hub": { "agent": "connected", "edgeHub": "connected", "error": null },
            "deployment": { "version": 2, "status": 200, "description": "" },
            "modules": [{ "name": "tempSensor", "status": "running", "description": "" }],
            "gateway": { "clients": ["kedge-device/tempSensor"] },
        })
    }

    #[test]
    fn a_healthy_edge_is_fine_in_every_layer() {
        assert_eq!(agent(&healthy()).unwrap(), "deployment 2 applied");
        assert_eq!(module(&healthy()).unwrap(), "tempSensor is running");
        assert_eq!(gateway(&healthy()).unwrap(), "connected: kedge-device/tempSensor");
    }

    #[test]
    fn each_kind_of_trouble_is_told_by_its_own_layer() {
        let mut health = healthy();
        health["hub"] = json!({ "agent": "connected", "edgeHub": "disconnected", "error": "401" });
        assert_eq!(agent(&health).unwrap_err(), "edgeHub is disconnected: 401");
        let mut health = healthy();
        health["deployment"] =
            json!({ "version": 2, "status": 406, "description": "tempSensor: no such image" });
        assert_eq!(agent(&health).unwrap_err(), "the deployment has status 406: tempSensor: no such image");
        health["deployment"]["description"] = "module tempSensor: cannot pull x".into();
        assert_eq!(agent(&health).unwrap(), "deployment 2 has status 406");
        assert_eq!(module(&health).unwrap_err(), "tempSensor: cannot pull x");
        health["deployment"]["status"] = 200.into();
        health["modules"] = json!([{ "name": "tempSensor", "status": "backoff", "description": "exited" }]);
        assert_eq!(module(&health).unwrap_err(), "tempSensor is backoff: exited");
        health["modules"] = json!([]);
        assert_eq!(module(&health).unwrap_err(), "tempSensor is not there");
        health["gateway"]["clients"] = json!(["kedge-device/other"]);
        assert!(gateway(&health).is_err());
        assert!(agent(&json!({})).is_err() && module(&json!(null)).is_err() && gateway(&json!([])).is_err());
    }
}
