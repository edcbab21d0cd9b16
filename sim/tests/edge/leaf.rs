//! Leaf devices, which reach the hub through the gateway.

use jiff::Timestamp;
use kedge_sim::edge::board::LinkState;
use kedge_sim::http::Method;
use kedge_sim::identity::Identity;
use kedge_sim::mqtt::packet::{ConnectReturnCode, LastWill};
use kedge_sim::mqtt::{Packet, QoS};
use kedge_sim::pki::{Validity, self_signed_client};
use kedge_sim::sas::{SharedAccessKey, sign, unix_seconds};
use kedge_sim::service::TelemetryFilter;
use kedge_sim::topics::HubTopic;
use kedge_sim::x509::ClientCertificate;
use serde_json::{Value, json};

use crate::gateway::{Login, is_closed};
use crate::relay::{Client, use_routes};
use crate::task_engine::TaskEngine;
use crate::world::{DEVICE, Edge, HUB, World, with_modules, within_limit};

const LEAF: &str = "leaf";

pub(crate) fn login(id: &str, key: &str) -> Login {
    let identity = Identity::from_client_id(id).unwrap();
    let key = SharedAccessKey::from_base64(key).unwrap();
    let expiry = unix_seconds(Timestamp::now()) + 600;
    Login {
        client_id: id.to_owned(),
        username: identity.username(HUB),
        password: sign(&identity.resource(HUB), &key, expiry, None),
    }
}

async fn register(world: &World, id: &str, parent: &str) -> Login {
    let connection_string = world.service.register_leaf_device(id, parent).await.unwrap();
    login(id, key_of(&connection_string))
}

pub(crate) fn key_of(connection_string: &kedge_sim::secret::Secret) -> &str {
    connection_string.expose().rsplit_once("SharedAccessKey=").unwrap().1
}

pub(crate) async fn connect(login: &Login, edge: &Edge) -> Client {
    let (code, connection) = login.connect(edge).await;
    assert_eq!(code, ConnectReturnCode::Success);
    Client::new(connection)
}

/// Telemetry of the leaf, when there is enough of it.
async fn telemetry(world: &World, count: usize) -> Vec<String> {
    let filter = TelemetryFilter { device_id: Some(LEAF.to_owned()), module_id: None };
    let enough = async {
        loop {
            let wait = std::time::Duration::from_secs(1);
            let page = world.service.telemetry(&filter, 0, wait).await.unwrap();
            if page.messages.len() >= count {
                let bodies = page.messages.into_iter().map(|message| message.body.unwrap_or_default());
                return bodies.collect();
            }
        }
    };
    within_limit(enough).await.expect("enough telemetry")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_of_the_edge_device_is_served_and_its_messages_are_its_own() {
    let (world, edge) = World::with_sensor().await;
    let leaf = register(&world, LEAF, DEVICE).await;
    use_routes(
        &world,
        &edge,
        &json!({"leaf": "FROM /messages/events WHERE NOT is_defined($connectionModuleId) INTO $upstream"}),
    )
    .await;
    let mut client = connect(&leaf, &edge).await;
    client.publish("devices/leaf/messages/events/a=1", "\"one\"").await;
    assert_eq!(telemetry(&world, 1).await, ["\"one\""]);
    let clients = world.reported("$edgeHub", |reported| reported["clients"][LEAF].is_object()).await;
    assert_eq!(clients["clients"][LEAF]["status"], "Connected");

    client.subscribe("$iothub/twin/res/#").await;
    client.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", "{\"color\": \"red\"}").await;
    let answer = client.next().await;
    assert!(answer.topic.starts_with("$iothub/twin/res/204/?$rid=1"), "{}", answer.topic);
    client.acknowledge(&answer).await;
    let twin = world.service.device_twin(LEAF).await.unwrap();
    assert_eq!(twin["properties"]["reported"]["color"], "red");

    client.subscribe("$iothub/twin/PATCH/properties/desired/#").await;
    world.service.patch_device_desired(LEAF, &json!({"mode": "fast"})).await.unwrap();
    let change = client.next().await;
    assert!(matches!(HubTopic::parse(&change.topic), Ok(HubTopic::DesiredPatch { .. })), "{}", change.topic);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_the_hub_is_complete_when_the_leaf_has_it() {
    let (world, edge) = World::with_sensor().await;
    let leaf = register(&world, LEAF, DEVICE).await;
    let mut client = connect(&leaf, &edge).await;
    client.subscribe("devices/leaf/messages/devicebound/#").await;
    let path = format!("/devices/{LEAF}/messages/deviceBound");
    let (status, answer) = world.ask_hub(Method::POST, &path, &json!({"n": 1})).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    let count = async || {
        let device = world.ask_hub(Method::GET, &format!("/devices/{LEAF}"), &json!(null)).await.1;
        device["cloudToDeviceMessageCount"].as_u64().unwrap()
    };
    let first = client.next().await;
    assert_eq!((first.payload.as_ref(), first.qos), (&b"{\"n\":1}"[..], QoS::AtLeastOnce));
    assert_eq!(count().await, 1, "it is not complete before the leaf has acknowledged it");
    // Without an acknowledgement it comes again, also when the hub was away.
    world.mqtt.cut();
    edge.state(|state| state.edge_hub != LinkState::Connected).await;
    world.mqtt.mend();
    let again = client.next().await;
    assert_eq!(again.payload, first.payload);
    client.acknowledge(&first).await;
    client.acknowledge(&again).await;
    let complete = async {
        while count().await > 0 {
            tokio::task::yield_now().await;
        }
    };
    within_limit(complete).await.expect("the hub hears of it");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_child_or_has_another_key_is_refused() {
    let (world, edge) = World::with_sensor().await;
    edge.state(|state| state.edge_hub == LinkState::Connected).await;
    let leaf = register(&world, LEAF, DEVICE).await;
    world.service.register_edge_device("other-edge").await.unwrap();
    let other = register(&world, "other-leaf", "other-edge").await;
    let disabled = register(&world, "disabled", DEVICE).await;
    world.service.set_device_enabled("disabled", false).await.unwrap();
    let stranger = login("stranger", "c3RyYW5nZXI=");
    let wrong = login(LEAF, "d3Jvbmc=");
    let own = login(DEVICE, "d3Jvbmc=");
    for (case, login, expected) in [
        ("another edge's leaf", &other, ConnectReturnCode::NotAuthorized),
        ("a disabled leaf", &disabled, ConnectReturnCode::NotAuthorized),
        ("a device that the hub does not know", &stranger, ConnectReturnCode::NotAuthorized),
        ("another key", &wrong, ConnectReturnCode::NotAuthorized),
        ("the edge device itself", &own, ConnectReturnCode::BadClientId),
        ("the leaf", &leaf, ConnectReturnCode::Success),
    ] {
        let (code, connection) = login.connect(&edge).await;
        assert_eq!(code, expected, "{case}");
        assert!(expected == ConnectReturnCode::Success || is_closed(connection).await, "{case}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_is_known_is_served_by_a_gateway_that_starts_without_the_hub() {
    let (world, edge) = World::with_sensor().await;
    let leaf = register(&world, LEAF, DEVICE).await;
    use_routes(&world, &edge, &json!({"leaf": "FROM /messages/events INTO $upstream"})).await;
    drop(connect(&leaf, &edge).await);
    edge.stop().await;
    world.https.cut();
    world.mqtt.cut();
    let edge = world.start_edge(TaskEngine::new(&[])).await;
    let unknown = register(&world, "unknown", DEVICE).await;
    assert_eq!(unknown.connect(&edge).await.0, ConnectReturnCode::ServiceUnavailable);
    let mut client = connect(&leaf, &edge).await;
    for number in 0..3 {
        client.publish("devices/leaf/messages/events/", &number.to_string()).await;
    }
    assert_ne!(edge.board.state().edge_hub, LinkState::Connected);
    world.https.mend();
    world.mqtt.mend();
    assert_eq!(telemetry(&world, 3).await, ["0", "1", "2"]);
    edge.stop().await;
}

/// A child of the edge device that proves itself by a certificate, and how it is registered.
async fn register_x509(world: &World, id: &str, authentication: &Value) -> Login {
    let edge = world.ask_hub(Method::GET, &format!("/devices/{DEVICE}"), &json!(null)).await.1;
    let body = json!({"deviceId": id, "deviceScope": edge["deviceScope"], "authentication": authentication});
    let (status, answer) = world.ask_hub(Method::PUT, &format!("/devices/{id}"), &body).await;
    assert_eq!(status, 200, "{answer}");
    let username = Identity::from_client_id(id).unwrap().username(HUB);
    Login { client_id: id.to_owned(), username, password: String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_proves_itself_by_the_thumbprint_of_its_certificate() {
    let (world, edge) = World::with_sensor().await;
    let valid = || Validity::for_next(std::time::Duration::from_secs(3600));
    let [own, other] = [(); 2].map(|()| self_signed_client(LEAF, valid()).unwrap());
    let thumbprint = ClientCertificate::from_pem(&own.chain_pem).unwrap().thumbprint();
    let thumbprints = json!({"primaryThumbprint": thumbprint, "secondaryThumbprint": thumbprint});
    let login =
        register_x509(&world, LEAF, &json!({"type": "selfSigned", "x509Thumbprint": thumbprints})).await;
    let no_authority = register_x509(&world, "by-ca", &json!({"type": "certificateAuthority"})).await;
    use_routes(&world, &edge, &json!({"leaf": "FROM /messages/events INTO $upstream"})).await;
    for (case, login, certificate, expected) in [
        ("another certificate", &login, Some(&other), ConnectReturnCode::NotAuthorized),
        ("no certificate", &login, None, ConnectReturnCode::BadUserNamePassword),
        ("no authority is trusted", &no_authority, Some(&own), ConnectReturnCode::NotAuthorized),
    ] {
        let (code, _) = login.connect_with(&edge, certificate, None).await;
        assert_eq!(code, expected, "{case}");
    }
    let (code, connection) = login.connect_with(&edge, Some(&own), None).await;
    assert_eq!(code, ConnectReturnCode::Success);
    let mut client = Client::new(connection);
    client.publish("devices/leaf/messages/events/", "1").await;
    assert_eq!(telemetry(&world, 1).await, ["1"]);
    // The gateway has no key of it, and speaks to the hub in its place.
    client.subscribe("$iothub/twin/res/#").await;
    client.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", "{\"color\": \"red\"}").await;
    let answer = client.next().await;
    assert!(answer.topic.starts_with("$iothub/twin/res/204/?$rid=1"), "{}", answer.topic);
    let twin = world.service.device_twin(LEAF).await.unwrap();
    assert_eq!(twin["properties"]["reported"]["color"], "red");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_will_is_telemetry_of_the_client_that_did_not_say_goodbye() {
    let (world, edge) = World::with_sensor().await;
    let leaf = register(&world, LEAF, DEVICE).await;
    use_routes(&world, &edge, &json!({"leaf": "FROM /messages/events INTO $upstream"})).await;
    let identity = Identity::device(LEAF).unwrap();
    let connected = async |expected: bool| {
        edge.state(|state| state.clients.get(&identity).is_some_and(|client| client.connected == expected))
            .await
    };
    for (topic, body, says_goodbye) in [
        ("devices/leaf/messages/events/", "after a goodbye", true),
        ("devices/other/messages/events/", "of another", false),
        ("no/topic", "nowhere", false),
        ("devices/leaf/messages/events/a=1", "gone", false),
    ] {
        let will = LastWill::new(topic, body, QoS::AtLeastOnce, false);
        let (code, mut connection) = leaf.connect_with(&edge, None, Some(will)).await;
        assert_eq!(code, ConnectReturnCode::Success);
        connected(true).await;
        if says_goodbye {
            connection.write(&Packet::Disconnect).await.unwrap();
        }
        drop(connection);
        connected(false).await;
    }
    let filter = TelemetryFilter { device_id: Some(LEAF.to_owned()), module_id: None };
    assert_eq!(telemetry(&world, 1).await, ["gone"]);
    let messages = world.service.telemetry(&filter, 0, std::time::Duration::ZERO).await.unwrap().messages;
    assert_eq!(messages[0].properties["a"], "1");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_clients_are_let_in_than_the_deployment_says() {
    let world = World::new().await;
    let mut content = with_modules(&json!({}));
    let desired = &mut content["modulesContent"]["$edgeAgent"]["properties.desired"];
    desired["systemModules"]["edgeHub"]["env"] = json!({"MaxConnectedClients": {"value": "1"}});
    world.deploy(&content).await;
    let edge = world.start_edge(TaskEngine::new(&[])).await;
    edge.state(|state| state.deployment.status == 200).await;
    let (one, two) = (register(&world, "one", DEVICE).await, register(&world, "two", DEVICE).await);
    let first = connect(&one, &edge).await;
    assert_eq!(two.connect(&edge).await.0, ConnectReturnCode::ServiceUnavailable);
    // The client that is connected already may come again.
    let again = connect(&one, &edge).await;
    drop((first, again));
    edge.state(|state| state.clients.values().all(|client| !client.connected)).await;
    drop(connect(&two, &edge).await);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_is_disabled_loses_its_connection_when_the_gateway_hears_of_it() {
    let world = World::new().await;
    world.deploy(&with_modules(&json!({}))).await;
    let leaf = register(&world, LEAF, DEVICE).await;
    let edge = world.start_edge(TaskEngine::new(&[])).await;
    edge.state(|state| state.deployment.status == 200).await;
    let (code, connection) = leaf.connect(&edge).await;
    assert_eq!(code, ConnectReturnCode::Success);
    world.service.set_device_enabled(LEAF, false).await.unwrap();
    // The hub is asked again for whoever shows a wrong token, unless it was asked a moment ago.
    let refused = async {
        let wrong = login(LEAF, "d3Jvbmc=");
        while edge.board.state().clients[&Identity::device(LEAF).unwrap()].connected {
            assert_eq!(wrong.connect(&edge).await.0, ConnectReturnCode::NotAuthorized);
        }
    };
    within_limit(refused).await.expect("the leaf is dismissed");
    assert!(is_closed(connection).await);
    assert_eq!(leaf.connect(&edge).await.0, ConnectReturnCode::NotAuthorized);
    edge.stop().await;
}
