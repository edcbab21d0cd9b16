//! Parents and children: what the gateway of an edge device may know and say about others.

use kedge_sim::http::{Method, StatusCode};
use kedge_sim::mqtt::{Packet, QoS, packet};
use kedge_sim::sas::SharedAccessKey;
use serde_json::{Value, json};

use crate::harness::{Answer, DEVICE, HUB, TestHub, token, within};

const GATEWAY: &str = "/devices/kedge-device/modules/$edgeHub";

struct World {
    hub: TestHub,
    gateway_key: SharedAccessKey,
    token: String,
}

impl World {
    /// The edge device with the child `leaf`; `stray` and `other-edge` with its child `other-leaf` beside it.
    async fn new() -> Self {
        let (hub, device_key) = TestHub::with_device().await;
        hub.register("other-edge").await;
        let service = hub.service();
        service.register_leaf_device("leaf", DEVICE).await.unwrap();
        service.register_leaf_device("other-leaf", "other-edge").await.unwrap();
        hub.put_device("stray", &json!({})).await;
        let gateway_key = hub.upload_key(&device_key, "$edgeHub").await;
        let token = token(&format!("{HUB}{GATEWAY}"), &gateway_key);
        Self { hub, gateway_key, token }
    }

    async fn get(&self, question: &str) -> Answer {
        self.hub.rest(Method::GET, &format!("{GATEWAY}/{question}"), Some(&self.token), None, "").await
    }

    async fn post(&self, question: &str, body: &Value) -> Answer {
        let path = format!("{GATEWAY}/{question}");
        self.hub.rest(Method::POST, &path, Some(&self.token), None, body.to_string()).await
    }
}

fn ids(list: &Value, name: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|entry| entry[name].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_leaf_device_names_its_parent_as_iot_hub_writes_it() {
    let world = World::new().await;
    let leaf = world.hub.get_device("leaf").await;
    let edge = world.hub.get_device(DEVICE).await;
    let generation = edge["generationId"].as_str().unwrap();
    let scope = format!("ms-azure-iot-edge://{DEVICE}-{generation}");
    assert_eq!((&edge["deviceScope"], &edge["parentScopes"]), (&json!(scope), &json!([])));
    assert_eq!((&leaf["deviceScope"], &leaf["parentScopes"]), (&json!(scope), &json!([scope])));
    assert!(world.hub.get_device("stray").await.get("deviceScope").is_none());

    // What was read can be written back, and a parent is taken away by null.
    let same = world.hub.update_device("leaf", &leaf).await;
    assert_eq!(same.body["deviceScope"], json!(scope));
    assert_eq!(world.hub.update_device(DEVICE, &edge).await.status, StatusCode::OK);
    let orphan = world.hub.update_device("leaf", &json!({"deviceScope": null})).await;
    assert!(orphan.body.get("deviceScope").is_none(), "{}", orphan.body);
    let nested = world.hub.update_device("other-edge", &json!({"parentScopes": [scope]})).await;
    assert_eq!(nested.body["parentScopes"], json!([scope]));
    let cycle = world.hub.update_device(DEVICE, &json!({"parentScopes": [nested.body["deviceScope"]]})).await;
    assert_eq!(cycle.status, StatusCode::BAD_REQUEST);
    let unknown = world.hub.update_device("leaf", &json!({"deviceScope": "ms-azure-iot-edge://x-1"})).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_gateway_reads_its_scope_in_pages() {
    let world = World::new().await;
    let all = world.get("devicesAndModulesInDeviceScope?deviceCount=100&continuationToken=").await;
    assert_eq!(all.status, StatusCode::OK);
    assert_eq!(ids(&all.body["devices"], "deviceId"), [DEVICE, "leaf"]);
    assert_eq!(ids(&all.body["modules"], "moduleId"), ["$edgeAgent", "$edgeHub"]);
    assert!(all.body["continuationLink"].is_null());
    let keys = &all.body["devices"][1]["authentication"]["symmetricKey"];
    assert!(keys["primaryKey"].is_string() && keys["secondaryKey"].is_string());

    let first = world.get("devicesAndModulesInDeviceScope?deviceCount=1&continuationToken=").await;
    assert_eq!(ids(&first.body["devices"], "deviceId"), [DEVICE]);
    let link = first.body["continuationLink"].as_str().unwrap();
    assert!(link.starts_with(GATEWAY) && link.contains("api-version="), "{link}");
    let rest = world.hub.rest(Method::GET, link, Some(&world.token), None, "").await;
    assert_eq!(ids(&rest.body["devices"], "deviceId"), ["leaf"]);
    assert!(rest.body["continuationLink"].is_null());

    let page = json!({"pageSize": 1, "authChain": DEVICE});
    let first = world.post("devicesAndModulesInTargetDeviceScope", &page).await;
    assert_eq!(ids(&first.body["devices"], "deviceId"), [DEVICE]);
    let page =
        json!({"pageSize": 1, "authChain": DEVICE, "continuationLink": first.body["continuationLink"]});
    let rest = world.post("devicesAndModulesInTargetDeviceScope", &page).await;
    assert_eq!(ids(&rest.body["devices"], "deviceId"), ["leaf"]);
}

#[tokio::test]
async fn the_gateway_reads_one_identity_of_its_scope_and_no_other() {
    let world = World::new().await;
    let leaf = world.get("deviceAndModuleInDeviceScope?targetDeviceId=leaf&targetModuleId=").await;
    assert_eq!(
        (ids(&leaf.body["devices"], "deviceId"), &leaf.body["modules"]),
        (vec!["leaf".into()], &json!([]))
    );
    let module = format!("deviceAndModuleInDeviceScope?targetDeviceId={DEVICE}&targetModuleId=$edgeAgent");
    let module = world.get(&module).await;
    assert_eq!(ids(&module.body["modules"], "moduleId"), ["$edgeAgent"]);
    let nested = json!({"targetDeviceId": "leaf", "authChain": format!("{DEVICE};{DEVICE}")});
    let nested = world.post("getDeviceAndModuleOnBehalfOf", &nested).await;
    assert_eq!(nested.body, leaf.body);

    for (target, status) in [("stray", 401), ("other-leaf", 401), ("other-edge", 401), ("unknown", 404)] {
        let answer = world.get(&format!("deviceAndModuleInDeviceScope?targetDeviceId={target}")).await;
        assert_eq!(answer.status.as_u16(), status, "{target}");
        let body = json!({"targetDeviceId": target, "authChain": DEVICE});
        let answer = world.post("getDeviceAndModuleOnBehalfOf", &body).await;
        assert_eq!(answer.status.as_u16(), status, "{target}");
    }
    for (question, body, status) in [
        ("getDeviceAndModuleOnBehalfOf", json!({"targetDeviceId": "leaf", "authChain": "other-edge"}), 401),
        ("getDeviceAndModuleOnBehalfOf", json!({"targetDeviceId": "leaf", "authChain": ";"}), 400),
        ("getDeviceAndModuleOnBehalfOf", json!({"authChain": DEVICE}), 400),
        ("devicesAndModulesInTargetDeviceScope", json!({"authChain": "other-edge"}), 401),
        ("devicesAndModulesInTargetDeviceScope", json!({"authChain": DEVICE, "continuationLink": "x"}), 400),
    ] {
        assert_eq!(world.post(question, &body).await.status.as_u16(), status, "{body}");
    }
    for question in [
        "devicesAndModulesInDeviceScope?deviceCount=x",
        "devicesAndModulesInDeviceScope?continuationToken=-1",
        "deviceAndModuleInDeviceScope",
    ] {
        assert_eq!(world.get(question).await.status, StatusCode::BAD_REQUEST, "{question}");
    }
}

#[tokio::test]
async fn nobody_but_the_gateway_reads_the_scope() {
    let (hub, device_key) = TestHub::with_device().await;
    let agent_key = hub.upload_key(&device_key, "$edgeAgent").await;
    let agent = "/devices/kedge-device/modules/$edgeAgent";
    let path = "devicesAndModulesInDeviceScope";
    for (case, path, token) in [
        ("the agent", format!("{agent}/{path}"), Some(token(&format!("{HUB}{agent}"), &agent_key))),
        (
            "the agent for the gateway",
            format!("{GATEWAY}/{path}"),
            Some(token(&format!("{HUB}{agent}"), &agent_key)),
        ),
        (
            "the device's key",
            format!("{GATEWAY}/{path}"),
            Some(token(&format!("{HUB}{GATEWAY}"), &device_key)),
        ),
        ("nobody", format!("{GATEWAY}/{path}"), None),
    ] {
        let answer = hub.rest(Method::GET, &path, token.as_deref(), None, "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{case}");
    }
}

#[tokio::test]
async fn the_gateway_sends_for_devices_in_its_scope_and_for_no_other() {
    let world = World::new().await;
    let publish = |device: &str| {
        let topic = format!("devices/{DEVICE}/modules/$edgeHub/messages/events/%24.cdid={device}&a=1");
        let mut publish = packet::Publish::new(topic, QoS::AtLeastOnce, "x");
        publish.pkid = 1;
        Packet::Publish(publish)
    };
    for device in ["stray", "other-leaf", "other-edge", "unknown", DEVICE] {
        let mut connection = world.hub.raw("kedge-device/$edgeHub", &world.gateway_key).await;
        let _ = connection.write(&publish(device)).await;
        assert!(!matches!(within(connection.read()).await, Ok(Some(_))), "{device}");
    }
    world.hub.assert_no_telemetry().await;
    let mut connection = world.hub.raw("kedge-device/$edgeHub", &world.gateway_key).await;
    connection.write(&publish("leaf")).await.unwrap();
    assert!(matches!(within(connection.read()).await, Ok(Some(Packet::PubAck(_)))));
    let messages = world.hub.telemetry_of("leaf").await;
    assert_eq!((messages[0].device_id.as_str(), messages[0].module_id.as_deref()), ("leaf", None));
}

#[tokio::test]
async fn the_connections_of_a_gateway_end_with_its_rights() {
    let world = World::new().await;
    let connect = async || {
        let username = format!("{HUB}/leaf/?api-version=2021-04-12&auth-chain=leaf;kedge-device");
        within(world.hub.connect_with("leaf", &username, &world.token)).await
    };
    let (client, _incoming) = connect().await.unwrap();
    let leaf = world.hub.get_device("leaf").await;
    world.hub.update_device("leaf", &json!({"deviceScope": null})).await;
    within(client.closed()).await;
    assert!(connect().await.is_err());
    world.hub.update_device("leaf", &leaf).await;

    let (client, _incoming) = connect().await.unwrap();
    world.hub.update_device(DEVICE, &json!({"status": "disabled"})).await;
    within(client.closed()).await;
    world.hub.update_device(DEVICE, &json!({"status": "enabled"})).await;

    let (client, _incoming) = connect().await.unwrap();
    world.hub.update_device("stray", &json!({"status": "disabled"})).await;
    let other = world.hub.as_owner(Method::DELETE, "/devices/other-edge", Some("*"), &json!({})).await;
    assert_eq!(other.status, StatusCode::NO_CONTENT);
    client.publish("devices/leaf/messages/events/".to_owned(), "x".into()).await.unwrap();
    let gone = world.hub.as_owner(Method::DELETE, "/devices/kedge-device", Some("*"), &json!({})).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    within(client.closed()).await;
}
