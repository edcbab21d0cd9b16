//! What a deployment needs so that Microsoft's runtime, or one of its modules, works where KEdge brings it: defaults that
//! the user's file overrides.

use serde_json::{Map, Value, json};

use super::images::{name, tag};
use crate::plan::Shape;
use crate::settings::{Hub, Runtime};

/// Microsoft's own sensor, which speaks AMQP unless it is told.
pub(super) const SENSOR: &str = "azureiotedge-simulated-temperature-sensor";
/// The ports of the gateway: MQTT, AMQP, and both over WebSockets.
const PORTS: [&str; 3] = ["8883/tcp", "5671/tcp", "443/tcp"];

/// Completes the definition of a system module.
pub(super) fn system_module(module: &str, definition: &mut Value, shape: Shape) {
    if shape.runtime == Runtime::Simulated {
        return;
    }
    if shape.hub == Hub::Local {
        default_variable(definition, "UpstreamProtocol", "Mqtt");
    }
    if module == "edgeHub"
        && let Some(settings) = definition.get_mut("settings").and_then(Value::as_object_mut)
    {
        publish_ports(settings);
    }
}

/// Completes the definition of a module, whose image is as the user has named it.
pub(super) fn module(definition: &mut Value, shape: Shape) {
    let image = definition.pointer("/settings/image").and_then(Value::as_str).unwrap_or_default();
    let is_sensor = name(image).rsplit('/').next() == Some(SENSOR);
    // The simulated gateway knows nothing else. Microsoft's knows AMQP, and some releases of it no MQTT.
    if is_sensor && shape.runtime == Runtime::Simulated {
        default_variable(definition, "ClientTransportType", "Mqtt_Tcp_Only");
    }
}

fn default_variable(definition: &mut Value, name: &str, value: &str) {
    let Some(definition) = definition.as_object_mut() else { return };
    if let Some(env) = definition.entry("env").or_insert_with(|| json!({})).as_object_mut() {
        env.entry(name).or_insert_with(|| json!({ "value": value }));
    }
}

/// Without them, the gateway is reached by modules alone, and not through the pod's Service. A user who publishes some
/// has decided.
fn publish_ports(settings: &mut Map<String, Value>) {
    let Some(mut options) = create_options(settings) else { return };
    let bindings: Map<_, _> = PORTS
        .iter()
        .map(|port| ((*port).to_owned(), json!([{ "HostPort": port.split('/').next() }])))
        .collect();
    let host = options.entry("HostConfig").or_insert_with(|| json!({}));
    let Some(host) = host.as_object_mut().filter(|host| !host.contains_key("PortBindings")) else { return };
    host.insert("PortBindings".into(), bindings.into());
    settings.retain(|name, _| !name.starts_with("createOptions"));
    settings.insert("createOptions".into(), options.into());
}

/// The options, which may be an object, a text, or a text in several parts. `None` when they cannot be read.
fn create_options(settings: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut parts: Vec<_> = settings.iter().filter(|(name, _)| name.starts_with("createOptions")).collect();
    parts.sort_by_key(|(name, _)| name.as_str());
    if let [(_, Value::Object(options))] = parts.as_slice() {
        return Some(options.clone());
    }
    let text: String = parts.iter().map(|(_, part)| part.as_str()).collect::<Option<_>>()?;
    if text.trim().is_empty() { Some(Map::new()) } else { serde_json::from_str(&text).ok() }
}

/// What is told of a system module whose version is not the runtime's: they are made for each other.
pub(super) fn other_version(module: &str, image: &str, runtime: &str) -> Option<String> {
    let minor = |version: &str| version.splitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>();
    let repository = name(image).rsplit('/').next()?;
    let version = tag(image).filter(|_| ["azureiotedge-agent", "azureiotedge-hub"].contains(&repository))?;
    let is_version = version.starts_with(|first: char| first.is_ascii_digit());
    (is_version && minor(version) != minor(runtime)).then(|| {
        format!("{module} is {version}, and the runtime {runtime}; Microsoft keeps them at one version")
    })
}

/// Releases of the gateway that take no MQTT over TLS from modules: these, and a tag that may be one of them.
const WITHOUT_MQTT: [&str; 3] = ["1.6", "1.6.0", "1.6.1"];

/// What is told of KEdge's own sensor, which speaks MQTT, beside a gateway that may not take it.
pub(super) fn without_mqtt(gateway: &str, sensor: &str) -> Option<String> {
    let repository = name(gateway).rsplit('/').next()?;
    let version =
        tag(gateway).filter(|tag| repository == "azureiotedge-hub" && WITHOUT_MQTT.contains(tag))?;
    sensor.contains("/kedge/temperature-sensor@").then(|| {
        format!(
            "edgeHub {version}: the releases 1.6.0 and 1.6.1 take no MQTT over TLS, which KEdge's sensor speaks; put \
             \"kedge/temperature-sensor\" = \"mcr.microsoft.com/{SENSOR}:1.5\" in [images], or use another edgeHub"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Shape = Shape { hub: Hub::Local, runtime: Runtime::Azure };
    const AZURE: Shape = Shape { hub: Hub::Azure, runtime: Runtime::Azure };

    fn edge_hub(options: &Value, shape: Shape) -> Value {
        let mut module = json!({ "settings": { "image": "i", "createOptions": options } });
        system_module("edgeHub", &mut module, shape);
        module
    }

    #[test]
    fn the_gateway_is_published_unless_the_user_has_decided() {
        for options in [json!({}), json!("{}"), json!("")] {
            let module = edge_hub(&options, LOCAL);
            let bindings = &module["settings"]["createOptions"]["HostConfig"]["PortBindings"];
            assert_eq!(bindings["8883/tcp"], json!([{ "HostPort": "8883" }]));
            assert_eq!(bindings.as_object().unwrap().len(), 3);
        }
        let own = json!("{\"HostConfig\":{\"PortBindings\":{}}}");
        assert_eq!(edge_hub(&own, LOCAL)["settings"]["createOptions"], own);
        let kept = edge_hub(&json!({ "HostConfig": { "Binds": ["a:b"] } }), AZURE);
        assert_eq!(kept["settings"]["createOptions"]["HostConfig"]["Binds"], json!(["a:b"]));
        let broken = json!("{");
        assert_eq!(edge_hub(&broken, LOCAL)["settings"]["createOptions"], broken, "that is told elsewhere");
    }

    #[test]
    fn options_in_several_parts_become_one() {
        let mut module = json!({ "settings": { "createOptions": "{\"Labels\":", "createOptions01": "{}}" } });
        system_module("edgeHub", &mut module, LOCAL);
        assert!(module["settings"]["createOptions"]["Labels"].is_object());
        assert!(module["settings"].get("createOptions01").is_none());
    }

    #[test]
    fn only_towards_the_local_hub_the_protocol_is_mqtt() {
        assert_eq!(edge_hub(&json!({}), LOCAL)["env"]["UpstreamProtocol"]["value"], "Mqtt");
        assert!(edge_hub(&json!({}), AZURE).get("env").is_none());
        let simulated = edge_hub(&json!({}), Shape::SIMULATED);
        assert_eq!(simulated, json!({ "settings": { "image": "i", "createOptions": {} } }));
        let mut agent = json!({ "env": { "UpstreamProtocol": { "value": "MqttWs" } }, "settings": {} });
        system_module("edgeAgent", &mut agent, LOCAL);
        assert_eq!(agent["env"]["UpstreamProtocol"]["value"], "MqttWs");
    }

    #[test]
    fn microsofts_sensor_speaks_mqtt_to_the_simulated_gateway() {
        let sensor = |image: &str, shape| {
            let mut definition = json!({ "settings": { "image": image } });
            module(&mut definition, shape);
            definition.pointer("/env/ClientTransportType/value").cloned()
        };
        let image = format!("mcr.microsoft.com/{SENSOR}:1.5");
        assert_eq!(sensor(&image, Shape::SIMULATED), Some(json!("Mqtt_Tcp_Only")));
        assert_eq!((sensor(&image, LOCAL), sensor(&image, AZURE)), (None, None));
        assert_eq!(sensor("kedge/temperature-sensor", Shape::SIMULATED), None);
    }

    #[test]
    fn a_gateway_that_takes_no_mqtt_is_told_where_the_sensor_speaks_it() {
        let own = "kedge-registry:5000/kedge/temperature-sensor@sha256:ab";
        let told = |tag: &str, sensor: &str| {
            without_mqtt(&format!("mcr.microsoft.com/azureiotedge-hub:{tag}"), sensor).is_some()
        };
        assert!(told("1.6", own) && told("1.6.1", own));
        assert!(!told("1.5", own) && !told("1.6.2", own) && !told("1.6", "mcr.microsoft.com/x:1"));
    }

    #[test]
    fn a_system_module_of_another_version_is_told() {
        let told = |image: &str| other_version("edgeHub", image, "1.6").is_some();
        assert!(told("mcr.microsoft.com/azureiotedge-hub:1.5") && told("x/azureiotedge-agent:1.5.21"));
        for fine in [
            "mcr.microsoft.com/azureiotedge-hub:1.6.2",
            "x/azureiotedge-hub:latest",
            "x/hub:1.5",
            "x/azureiotedge-hub",
        ] {
            assert!(!told(fine), "{fine}");
        }
    }
}
