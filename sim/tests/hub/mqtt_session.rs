//! What a client that keeps the rules can do over MQTT.

use kedge_sim::mqtt::{Client, Incoming, Packet, QoS, packet};
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::service::{ConnectionState, MAX_TELEMETRY_WAIT, TelemetryFilter};
use kedge_sim::topics::{ClientTopic, HubTopic};
use serde_json::{Value, json};

use crate::harness::{DEVICE, HUB, TestHub, manifest, token, within};

const TWIN_RESPONSES: &str = "$iothub/twin/res/#";
const DESIRED_PATCHES: &str = "$iothub/twin/PATCH/properties/desired/#";

/// A hub whose device runs the module `sensor`, with the keys of gateway and module.
async fn deployed() -> (TestHub, SharedAccessKey, SharedAccessKey) {
    let (hub, device_key) = TestHub::with_device().await;
    hub.service().apply_configuration_content(DEVICE, &manifest(&json!({"sensor": {}}))).await.unwrap();
    let gateway_key = hub.upload_key(&device_key, "$edgeHub").await;
    let sensor_key = hub.upload_key(&device_key, "sensor").await;
    (hub, gateway_key, sensor_key)
}

async fn next(incoming: &mut Incoming) -> (HubTopic, Value) {
    let publish = within(incoming.next()).await.unwrap();
    let body = if publish.payload.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&publish.payload).unwrap()
    };
    (HubTopic::parse(&publish.topic).unwrap(), body)
}

async fn send(client: &Client, topic: ClientTopic, body: &Value) {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    within(client.publish(topic.to_string(), body.into())).await.unwrap();
}

#[tokio::test]
async fn telemetry_of_a_module_arrives_with_its_identity_and_properties() {
    let (hub, _, sensor_key) = deployed().await;
    let (client, _incoming) = hub.connect(&format!("{DEVICE}/sensor"), &sensor_key).await.unwrap();
    let bag = "%24.on=temperatureOutput&%24.ct=application%2Fjson&%24.ce=utf-8&%24.mid=7&sequenceNumber=1";
    let topic = format!("devices/{DEVICE}/modules/sensor/messages/events/{bag}");
    client.publish(topic, r#"{"machine":{"temperature":21.5}}"#.into()).await.unwrap();
    let messages = hub.telemetry_after(0).await;
    let message = &messages[0];
    assert_eq!((message.offset, message.device_id.as_str()), (1, DEVICE));
    assert_eq!(message.module_id.as_deref(), Some("sensor"));
    assert_eq!(message.properties, [("sequenceNumber".to_owned(), "1".to_owned())].into());
    assert_eq!(message.body.as_deref(), Some(r#"{"machine":{"temperature":21.5}}"#));
    let system = |name: &str| message.system_properties.get(name).map(String::as_str);
    assert_eq!(system("iothub-connection-device-id"), Some(DEVICE));
    assert_eq!(system("iothub-connection-module-id"), Some("sensor"));
    assert_eq!(
        (system("content-type"), system("content-encoding")),
        (Some("application/json"), Some("utf-8"))
    );
    assert_eq!((system("message-id"), system("iothub-output-name")), (Some("7"), Some("temperatureOutput")));
    let generation = hub.service().module(DEVICE, "sensor").await.unwrap().generation_id;
    assert_eq!(system("iothub-connection-auth-generation-id"), Some(generation.as_str()));
}

#[tokio::test]
async fn the_gateway_forwards_for_a_module() {
    let (hub, gateway_key, _) = deployed().await;
    let (client, _incoming) = hub.connect(&format!("{DEVICE}/$edgeHub"), &gateway_key).await.unwrap();
    let topic =
        format!("devices/{DEVICE}/modules/$edgeHub/messages/events/%24.cdid={DEVICE}&%24.cmid=sensor&n=1");
    client.publish(topic, "x".into()).await.unwrap();
    let message = hub.telemetry_after(0).await.remove(0);
    assert_eq!(message.module_id.as_deref(), Some("sensor"));
    assert_eq!(message.properties, [("n".to_owned(), "1".to_owned())].into());
    assert!(!message.system_properties.keys().any(|name| name.starts_with("$.")));
}

#[tokio::test]
async fn the_twin_is_read_reported_and_pushed() {
    let (hub, _, sensor_key) = deployed().await;
    let (client, mut incoming) = hub.connect(&format!("{DEVICE}/sensor"), &sensor_key).await.unwrap();
    client.subscribe(vec![TWIN_RESPONSES.into(), DESIRED_PATCHES.into()]).await.unwrap();

    send(&client, ClientTopic::TwinGet { request_id: "1".into() }, &Value::Null).await;
    let (topic, twin) = next(&mut incoming).await;
    assert_eq!(topic, HubTopic::TwinResponse { status: 200, request_id: "1".into(), version: None });
    assert_eq!(twin, json!({"desired": {"$version": 1}, "reported": {"$version": 1}}));

    let report = ClientTopic::ReportedPatch { request_id: "2".into() };
    send(&client, report, &json!({"SendInterval": 5})).await;
    let expected = HubTopic::TwinResponse { status: 204, request_id: "2".into(), version: Some(2) };
    assert_eq!(next(&mut incoming).await, (expected, Value::Null));
    let twin = hub.service().module_twin(DEVICE, "sensor").await.unwrap();
    assert_eq!(twin["properties"]["reported"]["SendInterval"], 5);

    hub.service().patch_module_desired(DEVICE, "sensor", &json!({"SendData": false})).await.unwrap();
    let (topic, patch) = next(&mut incoming).await;
    assert_eq!(topic, HubTopic::DesiredPatch { version: 2 });
    assert_eq!(patch, json!({"SendData": false, "$version": 2}));

    let mut deployment = manifest(&json!({"sensor": {}}));
    deployment["modulesContent"]["sensor"] = json!({"properties.desired": {"SendInterval": 1}});
    hub.service().apply_configuration_content(DEVICE, &deployment).await.unwrap();
    let (topic, patch) = next(&mut incoming).await;
    assert_eq!(topic, HubTopic::DesiredPatch { version: 3 });
    assert_eq!(patch, json!({"SendData": null, "SendInterval": 1, "$version": 3}));
}

#[tokio::test]
async fn the_connection_state_follows_the_connection() {
    let (hub, _, sensor_key) = deployed().await;
    let state = async || hub.service().module(DEVICE, "sensor").await.unwrap().connection_state;
    assert_eq!(state().await, ConnectionState::Disconnected);
    let mut connection = hub.raw(&format!("{DEVICE}/sensor"), &sensor_key).await;
    assert_eq!(state().await, ConnectionState::Connected);
    connection.write(&Packet::Disconnect).await.unwrap();
    // The hub closes after it has taken the client off its books.
    assert_eq!(within(connection.read()).await.unwrap(), None);
    assert_eq!(state().await, ConnectionState::Disconnected);
}

#[tokio::test]
async fn a_newer_connection_takes_over() {
    let (hub, _, sensor_key) = deployed().await;
    let client_id = format!("{DEVICE}/sensor");
    let (_older, mut older_incoming) = hub.connect(&client_id, &sensor_key).await.unwrap();
    let (newer, _newer_incoming) = hub.connect(&client_id, &sensor_key).await.unwrap();
    assert!(within(older_incoming.next()).await.is_err());
    newer.publish(format!("devices/{DEVICE}/modules/sensor/messages/events/"), "x".into()).await.unwrap();
    let module = hub.service().module(DEVICE, "sensor").await.unwrap();
    assert_eq!(module.connection_state, ConnectionState::Connected);
}

#[tokio::test]
async fn who_may_not_be_connected_any_longer_is_disconnected() {
    let (hub, device_key) = TestHub::with_device().await;
    let service = hub.service();
    service.apply_configuration_content(DEVICE, &manifest(&json!({"sensor": {}}))).await.unwrap();
    let sensor_key = hub.upload_key(&device_key, "sensor").await;
    let gateway_key = hub.upload_key(&device_key, "$edgeHub").await;
    let (_sensor, mut sensor) = hub.connect(&format!("{DEVICE}/sensor"), &sensor_key).await.unwrap();
    let (_gateway, mut gateway) = hub.connect(&format!("{DEVICE}/$edgeHub"), &gateway_key).await.unwrap();

    service.apply_configuration_content(DEVICE, &manifest(&json!({}))).await.unwrap();
    assert!(within(sensor.next()).await.is_err(), "a module that was removed");
    service.set_device_enabled(DEVICE, false).await.unwrap();
    assert!(within(gateway.next()).await.is_err(), "a module of a disabled device");
    assert!(hub.connect(&format!("{DEVICE}/$edgeHub"), &gateway_key).await.is_err());
    service.set_device_enabled(DEVICE, true).await.unwrap();
    let (_gateway, mut gateway) = hub.connect(&format!("{DEVICE}/$edgeHub"), &gateway_key).await.unwrap();
    let (_device, mut device) = hub.connect(DEVICE, &device_key).await.unwrap();
    service.delete_device(DEVICE).await.unwrap();
    assert!(within(gateway.next()).await.is_err(), "a module of a deleted device");
    assert!(within(device.next()).await.is_err(), "a deleted device");
}

#[tokio::test]
async fn a_last_will_is_delivered_unless_the_client_says_goodbye() {
    let (hub, key) = TestHub::with_device().await;
    let connect = || {
        let mut connect = packet::Connect::new(DEVICE);
        connect.keep_alive = 60;
        connect.set_login(format!("{HUB}/{DEVICE}/"), token(&format!("{HUB}/devices/{DEVICE}"), &key));
        let topic = format!("devices/{DEVICE}/messages/events/a=1");
        connect.last_will = Some(packet::LastWill::new(topic, "gone", QoS::AtLeastOnce, false));
        connect
    };
    let mut polite = hub.raw_with(connect()).await;
    polite.write(&Packet::Disconnect).await.unwrap();
    assert_eq!(within(polite.read()).await.unwrap(), None);
    hub.assert_no_telemetry().await;
    drop(hub.raw_with(connect()).await);
    let message = hub.telemetry_after(0).await.remove(0);
    assert_eq!(message.body.as_deref(), Some("gone"));
    assert_eq!(message.properties.get("iothub-MessageType").map(String::as_str), Some("Will"));
}

#[tokio::test]
async fn a_message_that_arrives_with_the_goodbye_is_stored_and_announced() {
    let (hub, key) = TestHub::with_device().await;
    let service = hub.service();
    let waiting = tokio::spawn(async move {
        service.telemetry(&TelemetryFilter::default(), 0, MAX_TELEMETRY_WAIT).await.unwrap().messages
    });
    let mut connection = hub.raw(DEVICE, &key).await;
    let mut publish =
        packet::Publish::new(format!("devices/{DEVICE}/messages/events/"), QoS::AtLeastOnce, "x");
    publish.pkid = 1;
    connection.queue(&Packet::Publish(publish)).unwrap();
    connection.queue(&Packet::Disconnect).unwrap();
    connection.flush().await.unwrap();
    assert_eq!(within(waiting).await.unwrap().len(), 1);
}
