//! What the gateway refuses.

use std::time::Duration;

use jiff::Timestamp;
use kedge_sim::edge::board::{LinkState, RuntimeState};
use kedge_sim::identity::Identity;
use kedge_sim::mqtt::packet::{
    Connect, ConnectReturnCode, LastWill, Publish, Subscribe, SubscribeReasonCode,
};
use kedge_sim::mqtt::{Connection, Packet, QoS};
use kedge_sim::pki::IssuedCertificate;
use kedge_sim::sas::{CLOCK_SKEW_SECS, SharedAccessKey, Unsigned, sign, unix_seconds};
use kedge_sim::tls::{self, ClientStream, Endpoint, Trust, client_config, client_config_as};
use kedge_sim::topics::{HubTopic, MAX_MESSAGE};
use serde_json::json;

use crate::task_engine::TaskEngine;
use crate::world::{DEVICE, EDGE, Edge, HUB, SENSOR, World, ask, sensor, within_limit};

/// What a test client says of itself.
pub(crate) struct Login {
    pub(crate) client_id: String,
    pub(crate) username: String,
    pub(crate) password: String,
}

impl Login {
    /// That of the sensor, with a token that its workload socket signed.
    pub(crate) async fn of_sensor(edge: &Edge) -> Self {
        let sensor = Identity::module(DEVICE, SENSOR).unwrap();
        Self {
            client_id: sensor.client_id(),
            username: sensor.username(HUB),
            password: signed(edge, &sensor.resource(HUB), unix_seconds(Timestamp::now()) + 600).await,
        }
    }

    pub(crate) async fn connect(&self, edge: &Edge) -> (ConnectReturnCode, Connection<ClientStream>) {
        self.connect_with(edge, None, None).await
    }

    pub(crate) async fn connect_with(
        &self,
        edge: &Edge,
        certificate: Option<&IssuedCertificate>,
        will: Option<LastWill>,
    ) -> (ConnectReturnCode, Connection<ClientStream>) {
        let edge_ca = fs_err::read_to_string(edge.folder.join("certd/aziot-edged-ca.pem")).unwrap();
        let config = client_config_as(Trust::Only(&edge_ca), certificate).unwrap();
        let stream = tls::connect(&Endpoint::at(EDGE, edge.gateway), config).await.unwrap();
        let mut connection = Connection::new(stream, 1024 * 1024);
        let mut connect = Connect::new(&self.client_id);
        connect.clean_session = false;
        // A busy machine gets its time: a client that waits for the gateway says nothing itself.
        connect.keep_alive = 60;
        connect.last_will = will;
        connect.set_login(&self.username, &self.password);
        connection.write(&Packet::Connect(connect)).await.unwrap();
        match within_limit(connection.read()).await.unwrap().unwrap() {
            Some(Packet::ConnAck(answer)) => (answer.code, connection),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_speak_mqtt_over_websockets() {
    let (_world, edge) = World::with_sensor().await;
    cut_the_sensor_off(&edge).await;
    let login = Login::of_sensor(&edge).await;
    let edge_ca = fs_err::read_to_string(edge.folder.join("certd/aziot-edged-ca.pem")).unwrap();
    let config = client_config(Trust::Only(&edge_ca)).unwrap();
    let stream = kedge_sim::websocket::connect(&Endpoint::at(EDGE, edge.https), config).await.unwrap();
    let mut connection = Connection::new(stream, 1024 * 1024);
    let mut connect = Connect::new(&login.client_id);
    connect.set_login(&login.username, &login.password);
    connection.write(&Packet::Connect(connect)).await.unwrap();
    let topic = format!("devices/{DEVICE}/modules/{SENSOR}/messages/events/");
    connection.write(&publish(&topic, QoS::AtLeastOnce)).await.unwrap();
    for expected in ["ConnAck", "PubAck"] {
        let packet = within_limit(connection.read()).await.unwrap().unwrap().unwrap();
        assert!(format!("{packet:?}").starts_with(expected), "{packet:?}");
    }
    edge.stop().await;
}

/// A connection as the sensor, which itself is cut off, since it would take it over.
pub(crate) async fn in_place_of_the_sensor(edge: &Edge) -> Connection<ClientStream> {
    cut_the_sensor_off(edge).await;
    let (code, connection) = Login::of_sensor(edge).await.connect(edge).await;
    assert_eq!(code, ConnectReturnCode::Success);
    connection
}

pub(crate) async fn cut_the_sensor_off(edge: &Edge) {
    let is_connected = |state: &RuntimeState, expected| {
        state.clients.get(&sensor()).is_some_and(|client| client.connected == expected)
    };
    edge.state(|state| is_connected(state, true)).await;
    edge.engine.gateway().await.cut();
    edge.state(|state| is_connected(state, false)).await;
}

pub(crate) async fn signed(edge: &Edge, resource: &str, expiry: u64) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let unsigned = Unsigned::new(resource, expiry);
    let body = json!({"keyId": "primary", "algo": "HMACSHA256", "data": STANDARD.encode(unsigned.text())});
    let path = format!("/modules/{SENSOR}/genid/1/sign?api-version=2022-08-03");
    let (status, answer) = ask(&edge.workload_socket(SENSOR), "POST", &path, &body.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    unsigned.with_signature(&STANDARD.decode(answer["digest"].as_str().unwrap()).unwrap())
}

/// True when the gateway closes the connection without an acknowledgement.
pub(crate) async fn is_closed(mut connection: Connection<ClientStream>) -> bool {
    matches!(within_limit(connection.read()).await.expect("an answer"), Ok(None) | Err(_))
}

fn publish(topic: &str, qos: QoS) -> Packet {
    let mut publish = Publish::new(topic, qos, *b"{}");
    publish.pkid = if qos == QoS::AtMostOnce { 0 } else { 9 };
    Packet::Publish(publish)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_modules_of_the_deployment_with_their_own_token_may_connect() {
    let (_world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let good = Login::of_sensor(&edge).await;
    let sensor_resource = format!("{HUB}/devices/{DEVICE}/modules/{SENSOR}");
    let other_key = SharedAccessKey::generate().unwrap();
    let login = |client_id: &str, username: String, password: &str| Login {
        client_id: client_id.to_owned(),
        username,
        password: password.to_owned(),
    };
    let user = |id: &str| format!("{HUB}/{id}/?api-version=2021-04-12");
    let sensor = good.client_id.as_str();
    let stranger = format!("{DEVICE}/stranger");
    let expired = signed(&edge, &sensor_resource, unix_seconds(Timestamp::now()) - 3600).await;
    let foreign =
        signed(&edge, &format!("{HUB}/devices/{DEVICE}/modules/other"), unix_seconds(Timestamp::now()) + 600)
            .await;
    let forged = sign(&sensor_resource, &other_key, unix_seconds(Timestamp::now()) + 600, None);
    let edge_hub = format!("{DEVICE}/$edgeHub");
    for (case, login, expected) in [
        ("expired", login(sensor, user(sensor), &expired), ConnectReturnCode::NotAuthorized),
        ("another audience", login(sensor, user(sensor), &foreign), ConnectReturnCode::NotAuthorized),
        ("another key", login(sensor, user(sensor), &forged), ConnectReturnCode::NotAuthorized),
        ("no token", login(sensor, user(sensor), "password"), ConnectReturnCode::BadUserNamePassword),
        (
            "unknown module",
            login(&stranger, user(&stranger), &good.password),
            ConnectReturnCode::NotAuthorized,
        ),
        (
            "no token of an unknown module",
            login(&stranger, user(&stranger), "password"),
            ConnectReturnCode::BadUserNamePassword,
        ),
        ("system module", login(&edge_hub, user(&edge_hub), &good.password), ConnectReturnCode::BadClientId),
        (
            "another device",
            login("other/tempSensor", user("other/tempSensor"), &good.password),
            ConnectReturnCode::NotAuthorized,
        ),
        ("no module", login(DEVICE, user(DEVICE), &good.password), ConnectReturnCode::BadClientId),
        (
            "other user",
            login(sensor, user(&stranger), &good.password),
            ConnectReturnCode::BadUserNamePassword,
        ),
        (
            "other hub",
            login(sensor, format!("other.hub/{sensor}/"), &good.password),
            ConnectReturnCode::BadUserNamePassword,
        ),
        ("no user", login(sensor, String::new(), ""), ConnectReturnCode::BadUserNamePassword),
    ] {
        let (code, connection) = login.connect(&edge).await;
        assert_eq!(code, expected, "{case}");
        assert!(is_closed(connection).await, "{case}");
    }
    assert_eq!(good.connect(&edge).await.0, ConnectReturnCode::Success);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_deployment_a_module_is_asked_to_come_again() {
    let world = World::new().await;
    world.https.cut();
    let edge = world.start_edge(TaskEngine::new(&[])).await;
    let sensor = Identity::module(DEVICE, SENSOR).unwrap();
    let (client_id, username) = (sensor.client_id(), sensor.username(HUB));
    let key = SharedAccessKey::generate().unwrap();
    let password = sign(&sensor.resource(HUB), &key, unix_seconds(Timestamp::now()) + 600, None);
    let login = Login { client_id, username, password };
    assert_eq!(login.connect(&edge).await.0, ConnectReturnCode::ServiceUnavailable);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_sees_its_twin_and_is_told_when_the_hub_is_away() {
    let (world, edge) = World::with_sensor().await;
    let mut connection = in_place_of_the_sensor(&edge).await;
    let mut subscribe = Subscribe::new("$iothub/twin/res/#", QoS::AtLeastOnce);
    subscribe.pkid = 3;
    connection.write(&Packet::Subscribe(subscribe)).await.unwrap();
    assert_eq!(twin_status(&mut connection).await, 200);
    world.mqtt.cut();
    edge.state(|state| state.edge_hub != LinkState::Connected).await;
    assert_eq!(twin_status(&mut connection).await, 503);
    edge.stop().await;
}

/// The status of the answer to a twin request.
async fn twin_status(connection: &mut Connection<ClientStream>) -> u16 {
    connection.write(&publish("$iothub/twin/GET/?$rid=7", QoS::AtLeastOnce)).await.unwrap();
    loop {
        let packet = within_limit(connection.read()).await.unwrap().unwrap();
        let Packet::Publish(answer) = packet.expect("the connection stays") else { continue };
        match HubTopic::parse(&answer.topic).unwrap() {
            HubTopic::TwinResponse { status, request_id, .. } if request_id == "7" => return status,
            // The sensor's session may have more.
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_message_reaches_the_hub_and_a_larger_one_does_not_disturb_others() {
    let (world, edge) = World::with_sensor().await;
    let mut connection = in_place_of_the_sensor(&edge).await;
    // The gateway writes more bytes for these properties, and adds two.
    let topic = format!("devices/{DEVICE}/modules/{SENSOR}/messages/events/$.ct=text/plain&large=1");
    let packet = |size: usize| {
        let mut publish = Publish::new(&topic, QoS::AtLeastOnce, vec![b'x'; size - topic.len()]);
        publish.pkid = 1;
        Packet::Publish(publish)
    };
    connection.write(&packet(MAX_MESSAGE)).await.unwrap();
    let answer = within_limit(connection.read()).await.unwrap().unwrap();
    assert!(matches!(answer, Some(Packet::PubAck(_))), "{answer:?}");
    let is_large = |message: &kedge_sim::service::TelemetryMessage| message.properties.contains_key("large");
    let messages = world.telemetry(|messages| messages.iter().any(is_large)).await;
    let body = messages.iter().find(|message| is_large(message)).unwrap().body.as_deref();
    assert_eq!(body.map(str::len), Some(MAX_MESSAGE - topic.len()));
    connection.write(&packet(MAX_MESSAGE + 1)).await.unwrap();
    assert!(is_closed(connection).await);
    assert_eq!(edge.board.state().edge_hub, LinkState::Connected);
    edge.engine.gateway().await.mend();
    let before = world.count().await;
    world.telemetry(|messages| messages.len() > before).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_publishes_for_another_or_against_the_protocol_is_disconnected() {
    let (world, edge) = World::with_sensor().await;
    cut_the_sensor_off(&edge).await;
    for (case, packet) in [
        (
            "another module",
            publish(&format!("devices/{DEVICE}/modules/other/messages/events/"), QoS::AtLeastOnce),
        ),
        ("the device", publish(&format!("devices/{DEVICE}/messages/events/"), QoS::AtLeastOnce)),
        (
            "another device",
            publish(&format!("devices/other/modules/{SENSOR}/messages/events/"), QoS::AtMostOnce),
        ),
        ("no topic of IoT Hub", publish("anything", QoS::AtLeastOnce)),
        (
            "bad properties",
            publish(&format!("devices/{DEVICE}/modules/{SENSOR}/messages/events/a=%ff"), QoS::AtLeastOnce),
        ),
        ("QoS 2", publish(&format!("devices/{DEVICE}/modules/{SENSOR}/messages/events/"), QoS::ExactlyOnce)),
        ("a second CONNECT", Packet::Connect(Connect::new("x"))),
        ("a server's packet", Packet::PingResp),
    ] {
        let (code, mut connection) = Login::of_sensor(&edge).await.connect(&edge).await;
        assert_eq!(code, ConnectReturnCode::Success, "{case}");
        connection.write(&packet).await.unwrap();
        assert!(is_closed(connection).await, "{case}");
    }
    edge.engine.gateway().await.mend();
    let messages = world.telemetry(|messages| !messages.is_empty()).await;
    assert!(messages.iter().all(|message| message.module_id.as_deref() == Some(SENSOR)));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_cannot_claim_another_origin_in_its_properties() {
    let (world, edge) = World::with_sensor().await;
    let mut connection = in_place_of_the_sensor(&edge).await;
    let topic = format!(
        "devices/{DEVICE}/modules/{SENSOR}/messages/events/%24.cmid=%24edgeAgent&%24.cdid=other&forged=1"
    );
    connection.write(&publish(&topic, QoS::AtLeastOnce)).await.unwrap();
    let forged = |message: &kedge_sim::service::TelemetryMessage| message.properties.contains_key("forged");
    let messages = world.telemetry(|messages| messages.iter().any(forged)).await;
    let message = messages.iter().find(|message| forged(message)).unwrap();
    assert_eq!((message.device_id.as_str(), message.module_id.as_deref()), (DEVICE, Some(SENSOR)));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_granted_for_the_modules_own_topics_only() {
    let (_world, edge) = World::with_sensor().await;
    let mut connection = in_place_of_the_sensor(&edge).await;
    for (filter, granted) in [
        ("$iothub/twin/res/#".to_owned(), true),
        (format!("devices/{DEVICE}/modules/{SENSOR}/inputs/#"), true),
        ("$iothub/methods/POST/#".to_owned(), true),
        (format!("devices/{DEVICE}/modules/other/inputs/#"), false),
        ("#".to_owned(), false),
        ("devices/#".to_owned(), false),
    ] {
        let mut subscribe = Subscribe::new(&filter, QoS::AtLeastOnce);
        subscribe.pkid = 3;
        connection.write(&Packet::Subscribe(subscribe)).await.unwrap();
        let Some(Packet::SubAck(answer)) = within_limit(connection.read()).await.unwrap().unwrap() else {
            panic!("no SUBACK for {filter}")
        };
        assert_eq!(answer.return_codes[0] != SubscribeReasonCode::Failure, granted, "{filter}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_route_is_acknowledged_and_goes_nowhere() {
    let (world, edge) = World::with_sensor().await;
    let nothing = json!({"routes": {"upstream": {"route": "FROM /messages/modules/other/* INTO $upstream"}}});
    world.service.patch_module_desired(DEVICE, "$edgeHub", &nothing).await.unwrap();
    let twin = world.service.module_twin(DEVICE, "$edgeHub").await.unwrap();
    let version = &twin["properties"]["desired"]["$version"];
    world.reported("$edgeHub", |reported| reported["lastDesiredVersion"] == *version).await;
    edge.running(SENSOR).await;
    let mut connection = in_place_of_the_sensor(&edge).await;
    let before = world.count().await;
    let topic = format!("devices/{DEVICE}/modules/{SENSOR}/messages/events/");
    connection.write(&publish(&topic, QoS::AtLeastOnce)).await.unwrap();
    let answer = within_limit(connection.read()).await.unwrap().unwrap();
    assert!(matches!(&answer, Some(Packet::PubAck(ack)) if ack.pkid == 9), "{answer:?}");
    assert_eq!(world.count().await, before);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_token() {
    let (_world, edge) = World::with_sensor().await;
    cut_the_sensor_off(&edge).await;
    let mut login = Login::of_sensor(&edge).await;
    let sensor = Identity::module(DEVICE, SENSOR).unwrap();
    let soon = unix_seconds(Timestamp::now()) - CLOCK_SKEW_SECS + 4;
    login.password = signed(&edge, &sensor.resource(HUB), soon).await;
    let (code, connection) = login.connect(&edge).await;
    assert_eq!(code, ConnectReturnCode::Success);
    // The keep-alive time would end it much later.
    let closed = tokio::time::timeout(Duration::from_secs(12), is_closed(connection)).await;
    assert_eq!(closed, Ok(true));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_connection_of_a_module_takes_over() {
    let (_world, edge) = World::with_sensor().await;
    cut_the_sensor_off(&edge).await;
    let login = Login::of_sensor(&edge).await;
    let (_, first) = login.connect(&edge).await;
    let (code, mut second) = login.connect(&edge).await;
    assert_eq!(code, ConnectReturnCode::Success);
    assert!(is_closed(first).await);
    second.write(&Packet::PingReq).await.unwrap();
    assert_eq!(within_limit(second.read()).await.unwrap().unwrap(), Some(Packet::PingResp));
    edge.stop().await;
}
