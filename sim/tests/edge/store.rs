//! Store and forward: what was acknowledged reaches the hub.

use kedge_sim::edge::board::LinkState;
use kedge_sim::mqtt::packet::Publish;
use kedge_sim::mqtt::{Connection, Packet, QoS};
use kedge_sim::tls::ClientStream;
use serde_json::{Value, json};

use crate::gateway::{in_place_of_the_sensor, is_closed};
use crate::world::{DEVICE, SENSOR, World, within_limit};

/// Publishes numbered messages of the sensor, and waits for all acknowledgements, which come in order.
async fn send(connection: &mut Connection<ClientStream>, numbers: std::ops::Range<u16>) {
    for number in numbers.clone() {
        let topic = format!("devices/{DEVICE}/modules/{SENSOR}/messages/events/n={number}");
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, *b"{}");
        publish.pkid = number + 1;
        connection.write(&Packet::Publish(publish)).await.unwrap();
    }
    for number in numbers {
        let answer = loop {
            match within_limit(connection.read()).await.expect("an acknowledgement").unwrap() {
                // The session is that of the sensor, which follows its twin.
                Some(Packet::Publish(change)) if change.topic.starts_with("$iothub/twin/PATCH/") => {}
                other => break other,
            }
        };
        assert!(matches!(&answer, Some(Packet::PubAck(ack)) if ack.pkid == number + 1), "{answer:?}");
    }
}

/// The numbers that the hub has, when there are enough. One that came twice, because its acknowledgement was lost,
/// counts where it came first.
async fn numbers(world: &World, count: usize) -> Vec<u16> {
    let numbered = |messages: &[kedge_sim::service::TelemetryMessage]| {
        let numbers = messages.iter().filter_map(|message| message.properties.get("n")?.parse().ok());
        let mut seen = std::collections::BTreeSet::new();
        numbers.filter(|number| seen.insert(*number)).collect::<Vec<u16>>()
    };
    numbered(&world.telemetry(|messages| numbered(messages).len() >= count).await)
}

async fn change_routes(world: &World, patch: &Value) {
    world.service.patch_module_desired(DEVICE, "$edgeHub", patch).await.unwrap();
    let twin = world.service.module_twin(DEVICE, "$edgeHub").await.unwrap();
    let version = twin["properties"]["desired"]["$version"].clone();
    world.reported("$edgeHub", |reported| reported["lastDesiredVersion"] == version).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_acknowledged_without_a_hub_and_arrive_after_a_restart_without_one() {
    let (world, edge) = World::with_sensor().await;
    let mut connection = in_place_of_the_sensor(&edge).await;
    send(&mut connection, 0..5).await;
    numbers(&world, 5).await;
    world.mqtt.cut();
    edge.state(|state| matches!(state.edge_hub, LinkState::Disconnected(_))).await;
    send(&mut connection, 5..500).await;
    let state = edge.state(|state| state.store.usage.messages >= 495).await;
    assert!(state.store.usage.bytes > 495 * 100, "{:?}", state.store);
    drop(connection);
    let engine = edge.stop().await;
    let edge = world.start_edge(engine).await;
    edge.state(|state| matches!(state.edge_hub, LinkState::Disconnected(_))).await;
    world.mqtt.mend();
    assert_eq!(numbers(&world, 500).await, (0..500).collect::<Vec<_>>());
    edge.state(|state| state.store.usage.expired == 0 && state.store.usage.messages < 100).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_time_to_live_is_over_is_dropped_and_counted() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    change_routes(&world, &json!({"storeAndForwardConfiguration": {"timeToLiveSecs": 1}})).await;
    let mut connection = in_place_of_the_sensor(&edge).await;
    world.mqtt.cut();
    edge.state(|state| matches!(state.edge_hub, LinkState::Disconnected(_))).await;
    send(&mut connection, 0..3).await;
    edge.state(|state| state.store.usage.expired >= 3 && state.store.usage.messages == 0).await;
    world.mqtt.mend();
    edge.state(|state| state.edge_hub == LinkState::Connected).await;
    // A second may pass on a slow machine before the next one is sent.
    change_routes(&world, &json!({"storeAndForwardConfiguration": {"timeToLiveSecs": 60}})).await;
    send(&mut connection, 3..4).await;
    assert_eq!(numbers(&world, 1).await, [3]);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_takes_no_message_and_loses_none() {
    let (world, edge) = World::with_sensor().await;
    let mut connection = in_place_of_the_sensor(&edge).await;
    let limits = json!({"storeAndForwardConfiguration": {"storeLimits": {"maxSizeBytes": 2000}}});
    change_routes(&world, &limits).await;
    world.mqtt.cut();
    edge.state(|state| matches!(state.edge_hub, LinkState::Disconnected(_))).await;
    send(&mut connection, 0..5).await;
    for number in 5..50 {
        let topic = format!("devices/{DEVICE}/modules/{SENSOR}/messages/events/n={number}");
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, *b"{}");
        publish.pkid = number + 1;
        connection.write(&Packet::Publish(publish)).await.unwrap();
    }
    let mut acknowledged = 5;
    let closed = async {
        while let Ok(Some(packet)) = connection.read().await {
            assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}");
            acknowledged += 1;
        }
    };
    within_limit(closed).await.expect("the gateway closes the connection");
    assert!((6..20).contains(&acknowledged), "{acknowledged} messages in 2000 bytes");
    assert!(is_closed(connection).await);
    world.mqtt.mend();
    let arrived = numbers(&world, acknowledged.into()).await;
    assert_eq!(arrived, (0..acknowledged).collect::<Vec<_>>());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_module_that_the_hub_has_lost_does_not_stand_in_the_way() {
    let (world, edge) = World::with_sensor().await;
    let leaf = world.service.register_leaf_device("gone", DEVICE).await.unwrap();
    edge.running(SENSOR).await;
    change_routes(&world, &json!({"routes": {"all": "FROM /messages/* INTO $upstream"}})).await;
    let mut gone = crate::leaf::connect(&crate::leaf::login("gone", crate::leaf::key_of(&leaf)), &edge).await;
    let mut connection = in_place_of_the_sensor(&edge).await;
    world.mqtt.cut();
    edge.state(|state| matches!(state.edge_hub, LinkState::Disconnected(_))).await;
    gone.publish("devices/gone/messages/events/", "{}").await;
    send(&mut connection, 0..5).await;
    world.service.delete_device("gone").await.unwrap();
    world.mqtt.mend();
    assert_eq!(numbers(&world, 5).await, (0..5).collect::<Vec<_>>());
    let state = edge.state(|state| state.store.usage.messages == 0).await;
    assert_eq!((state.store.usage.rejected, state.store.usage.expired), (1, 0));
    edge.stop().await;
}
