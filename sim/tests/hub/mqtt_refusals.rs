//! What the hub refuses over MQTT: connections by a code, messages by closing the connection.

use kedge_sim::mqtt::packet::{self, ConnectReturnCode};
use kedge_sim::mqtt::{Client, ClientError, Connection, Packet, QoS};
use kedge_sim::sas::{SharedAccessKey, sign};
use kedge_sim::tls::ClientStream;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::{DEVICE, HUB, TestHub, manifest, now, token, within};
use crate::websockets;

fn code<T>(result: Result<(Client, T), ClientError>) -> ConnectReturnCode {
    match result {
        Err(ClientError::Refused(code)) => code,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("connected"),
    }
}

#[tokio::test]
async fn who_cannot_prove_the_identity_is_not_authorized() {
    let (hub, key) = TestHub::with_device().await;
    let other_key = hub.register("other-device").await;
    let resource = format!("{HUB}/devices/{DEVICE}");
    let cases = [
        ("expired", DEVICE, sign(&resource, &key, now() - 3600, None)),
        ("wrong key", DEVICE, token(&resource, &SharedAccessKey::generate().unwrap())),
        ("wrong audience", DEVICE, token("hub.elsewhere.test/devices/kedge-device", &key)),
        ("other device's token", DEVICE, token(&format!("{HUB}/devices/other-device"), &other_key)),
        ("unknown device", "unknown", token(&format!("{HUB}/devices/unknown"), &key)),
        ("unknown module", "kedge-device/x", token(&format!("{resource}/modules/x"), &key)),
        ("device key for a module", "kedge-device/$edgeHub", token(&resource, &key)),
        ("module token for the device", DEVICE, token(&format!("{resource}/modules/$edgeHub"), &key)),
        ("owner's token", DEVICE, sign(HUB, &hub.owner_key, now() + 60, Some("iothubowner"))),
    ];
    for (case, client_id, password) in cases {
        let username = format!("{HUB}/{client_id}/?api-version=2021-04-12");
        let refused = code(hub.connect_with(client_id, &username, &password).await);
        assert_eq!(refused, ConnectReturnCode::NotAuthorized, "{case}");
        let refused = code(websockets::connect_with(&hub, client_id, &username, &password).await);
        assert_eq!(refused, ConnectReturnCode::NotAuthorized, "{case}, over WebSockets");
    }
    hub.service().set_device_enabled("other-device", false).await.unwrap();
    let refused = code(hub.connect("other-device", &other_key).await);
    assert_eq!(refused, ConnectReturnCode::NotAuthorized, "disabled");
    assert!(hub.connect(DEVICE, &key).await.is_ok());
}

#[tokio::test]
async fn bad_credentials_have_a_code_of_their_own() {
    let (hub, key) = TestHub::with_device().await;
    let good = token(&format!("{HUB}/devices/{DEVICE}"), &key);
    let username = format!("{HUB}/{DEVICE}/?api-version=2021-04-12");
    for (username, password) in [
        ("hub.elsewhere.test/kedge-device/", good.as_str()),
        ("hub.kedge.test/other-device/", good.as_str()),
        ("kedge-device", good.as_str()),
        (username.as_str(), "not a token"),
        (username.as_str(), ""),
    ] {
        let refused = code(hub.connect_with(DEVICE, username, password).await);
        assert_eq!(refused, ConnectReturnCode::BadUserNamePassword, "{username:?} {password:?}");
    }
    let refused = code(hub.connect_with("a/b/c", &username, &good).await);
    assert_eq!(refused, ConnectReturnCode::BadClientId);
}

/// Publishes and expects that the hub closes without an acknowledgement.
async fn expect_closed(mut connection: Connection<ClientStream>, publish: packet::Publish, case: &str) {
    // The hub may close before the whole message is written.
    let _ = connection.write(&Packet::Publish(publish)).await;
    let answer = within(connection.read()).await;
    assert!(!matches!(answer, Ok(Some(_))), "{case}: {answer:?}");
}

fn publish(topic: impl Into<String>, qos: QoS, payload: impl Into<Vec<u8>>) -> packet::Publish {
    let mut publish = packet::Publish::new(topic, qos, payload);
    publish.pkid = 1;
    publish
}

#[tokio::test]
async fn messages_that_break_a_rule_close_the_connection_and_are_not_stored() {
    let (hub, device_key) = TestHub::with_device().await;
    hub.service()
        .apply_configuration_content(DEVICE, &manifest(&json!({"sensor": {}, "filter": {}})))
        .await
        .unwrap();
    let sensor_key = hub.upload_key(&device_key, "sensor").await;
    let own = "devices/kedge-device/modules/sensor/messages/events/";
    let once = QoS::AtLeastOnce;
    let cases = [
        (
            "another module's topic",
            publish("devices/kedge-device/modules/filter/messages/events/", once, "x"),
        ),
        ("the device's topic", publish("devices/kedge-device/messages/events/", once, "x")),
        ("another device's topic", publish("devices/other/modules/sensor/messages/events/", once, "x")),
        ("an unknown topic", publish("weather/today", once, "x")),
        ("QoS 2", publish(own, QoS::ExactlyOnce, "x")),
        ("too large", publish(own, once, vec![b'x'; 256 * 1024])),
        ("far too large", publish(own, once, vec![b'x'; 700 * 1024])),
        ("a malformed bag", publish(format!("{own}a=%ff"), once, "x")),
        ("speaking for another", publish(format!("{own}%24.cdid={DEVICE}&%24.cmid=filter"), once, "x")),
        ("speaking for itself", publish(format!("{own}%24.cdid={DEVICE}&%24.cmid=sensor"), once, "x")),
    ];
    for (case, publish) in cases {
        let connection = hub.raw("kedge-device/sensor", &sensor_key).await;
        expect_closed(connection, publish, case).await;
        hub.assert_no_telemetry().await;
    }
}

#[tokio::test]
async fn the_gateway_speaks_only_for_modules_of_its_own_device() {
    let (hub, device_key) = TestHub::with_device().await;
    hub.register("other-device").await;
    let gateway_key = hub.upload_key(&device_key, "$edgeHub").await;
    for bag in [
        "%24.cdid=other-device&%24.cmid=$edgeAgent",
        "%24.cdid=kedge-device&%24.cmid=unknown",
        "%24.cdid=kedge-device",
        "%24.cmid=$edgeAgent",
    ] {
        let connection = hub.raw("kedge-device/$edgeHub", &gateway_key).await;
        let topic = format!("devices/kedge-device/modules/$edgeHub/messages/events/{bag}");
        expect_closed(connection, publish(topic, QoS::AtLeastOnce, "x"), bag).await;
        hub.assert_no_telemetry().await;
    }
}

#[tokio::test]
async fn a_foreign_subscription_is_refused_and_the_connection_goes_on() {
    let (hub, key) = TestHub::with_device().await;
    let (client, _incoming) = hub.connect(DEVICE, &key).await.unwrap();
    for filter in ["#", "devices/other/messages/devicebound/#", "devices/kedge-device/messages/events/#"] {
        let refused = within(client.subscribe(vec![filter.into()])).await;
        assert!(matches!(refused, Err(ClientError::SubscriptionRefused)), "{filter}");
    }
    client.publish(format!("devices/{DEVICE}/messages/events/"), "x".into()).await.unwrap();
}

#[tokio::test]
async fn another_version_of_mqtt_is_refused_by_its_code() {
    let hub = TestHub::start().await;
    for (version, connect) in [
        ("3.1", b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x03abc".as_slice()),
        ("5", b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc"),
    ] {
        let mut stream = hub.tls_to_mqtt().await;
        stream.write_all(connect).await.unwrap();
        let mut connection = Connection::new(stream, 1024);
        match within(connection.read()).await.unwrap() {
            Some(Packet::ConnAck(ack)) => assert_eq!(ack.code, ConnectReturnCode::RefusedProtocolVersion),
            other => panic!("{version}: {other:?}"),
        }
        assert_eq!(within(connection.read()).await.unwrap(), None, "{version}: it is closed");
    }
}

#[tokio::test]
async fn what_is_not_mqtt_or_begins_without_a_connect_is_closed() {
    let (hub, key) = TestHub::with_device().await;
    let http = format!("GET / HTTP/1.1\r\nHost: {HUB}\r\nUser-Agent: {}\r\n\r\n", "x".repeat(80));
    for bytes in [http.as_bytes(), &[0xc0, 0x00], &[0x10, 0xff, 0xff, 0xff, 0x7f]] {
        let mut stream = hub.tls_to_mqtt().await;
        stream.write_all(bytes).await.unwrap();
        let mut connection = Connection::new(stream, 1024);
        assert!(!matches!(within(connection.read()).await, Ok(Some(_))), "{bytes:x?}");
    }
    let mut connection = hub.raw(DEVICE, &key).await;
    connection.write(&Packet::Connect(packet::Connect::new(DEVICE))).await.unwrap();
    assert!(!matches!(within(connection.read()).await, Ok(Some(_))), "a second CONNECT");
}
