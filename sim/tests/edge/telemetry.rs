//! From the sensor to the hub, through everything that may break in between.

use std::sync::atomic::Ordering;
use std::time::Duration;

use kedge_sim::edge::board::LinkState;
use kedge_sim::edge::health::Health;
use kedge_sim::sensor::Body;
use kedge_sim::service::TelemetryMessage;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::task_engine::TaskEngine;
use crate::world::{DEVICE, HUB, IMAGE, SENSOR, World, assert_continuous, deployment, number, sensor};

fn at_least(count: u64) -> impl Fn(&[TelemetryMessage]) -> bool {
    move |messages| messages.last().is_some_and(|message| number(message).0 >= count)
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_arrives_with_identity_schema_and_continuous_numbers() {
    let began = Instant::now();
    let (world, edge) = World::with_sensor().await;
    world.telemetry(at_least(1)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "the first message took {:?}", began.elapsed());
    let messages = world.telemetry(at_least(5)).await;
    assert_continuous(&messages);
    for message in &messages {
        assert_eq!((message.device_id.as_str(), message.module_id.as_deref()), (DEVICE, Some(SENSOR)));
        let body: Body = serde_json::from_str(message.body.as_ref().unwrap()).unwrap();
        assert!(body.machine.temperature > 20.0 && body.ambient.humidity >= 24, "{body:?}");
        let system: Vec<&str> = message.system_properties.values().map(String::as_str).collect();
        for expected in ["application/json", "utf-8"] {
            assert!(system.contains(&expected), "{:?}", message.system_properties);
        }
    }
    edge.state(|state| Health::from(state).problem().is_none()).await;
    let clients = world.reported("$edgeHub", |reported| reported["clients"].is_object()).await;
    assert_eq!(clients["clients"][format!("{DEVICE}/{SENSOR}")]["status"], "Connected");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_websockets_the_port_of_https_is_enough() {
    let world = World::new().await;
    world.deploy(&deployment(&json!({}))).await;
    world.mqtt.cut();
    let protocol = "[agent.env]\nUpstreamProtocol = \"MqttWs\"";
    let edge = world.start_edge_configured(protocol, TaskEngine::new(&[IMAGE])).await;
    let messages = world.telemetry(at_least(3)).await;
    assert_continuous(&messages);
    // What the hub asks for comes the same way.
    assert_eq!(world.call("$edgeAgent", "ping", &json!({})).await.0, 200);
    edge.state(|state| Health::from(state).problem().is_none()).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_when_the_hub_goes_away_and_comes_back() {
    let (world, edge) = World::with_sensor().await;
    world.telemetry(at_least(3)).await;
    for _ in 0..2 {
        world.mqtt.cut();
        edge.state(|state| matches!(state.edge_hub, LinkState::Disconnected(_))).await;
        assert!(Health::from(&edge.board.state()).problem().is_some());
        let before = world.count().await;
        world.mqtt.mend();
        edge.state(|state| state.edge_hub == LinkState::Connected && state.agent == LinkState::Connected)
            .await;
        let messages = world.telemetry(|messages| messages.len() > before + 3).await;
        assert_continuous(&messages);
        assert_eq!(
            number(&messages[0]).1,
            number(messages.last().unwrap()).1,
            "the sensor was not restarted"
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_when_the_gateway_is_out_of_reach() {
    let (world, edge) = World::with_sensor().await;
    let gateway = edge.engine.gateway().await;
    for round in 1..=3 {
        let messages = world.telemetry(at_least(5 * round)).await;
        assert_continuous(&messages);
        gateway.cut();
        edge.state(|state| state.clients.get(&sensor()).is_some_and(|client| !client.connected)).await;
        gateway.mend();
    }
    let messages = world.telemetry(at_least(20)).await;
    assert_continuous(&messages);
    assert_eq!(edge.engine.starts(SENSOR), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_daemon_begins_a_new_batch_without_a_gap() {
    let (world, edge) = World::with_sensor().await;
    let first = world.telemetry(at_least(3)).await;
    let engine = edge.stop().await;
    assert_eq!(engine.names(), [SENSOR], "the container stays for the next start");
    let edge = world.start_edge(engine).await;
    let messages =
        world.telemetry(|messages| messages.len() > first.len() + 10 && at_least(3)(messages)).await;
    assert_continuous(&messages);
    assert_ne!(number(&messages[0]).1, number(messages.last().unwrap()).1);
    assert_eq!(edge.engine.starts(SENSOR), 2);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_waits_for_the_hub_and_for_the_engine() {
    let world = World::new().await;
    world.deploy(&deployment(&json!({}))).await;
    world.https.cut();
    world.mqtt.cut();
    let engine = TaskEngine::new(&[IMAGE]);
    engine.refusals.store(20, Ordering::SeqCst);
    let edge = world.start_edge(engine).await;
    let state = edge.state(|state| matches!(state.agent, LinkState::Disconnected(_))).await;
    let problem = Health::from(&state).problem().unwrap();
    assert!(
        problem.starts_with("$edgeAgent is not connected to the hub: Failed to update $edgeAgent identity"),
        "{problem}"
    );
    world.https.mend();
    world.mqtt.mend();
    assert_continuous(&world.telemetry(at_least(3)).await);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_key_that_the_hub_refuses_is_named_in_the_health() {
    let world = World::new().await;
    let wrong = format!("HostName={HUB};DeviceId={DEVICE};SharedAccessKey=d3Jvbmcga2V5");
    let edge = world.start_edge_with(&wrong, TaskEngine::new(&[IMAGE])).await;
    let state = edge.state(|state| matches!(state.agent, LinkState::Disconnected(_))).await;
    let problem = Health::from(&state).problem().unwrap();
    assert!(
        problem.contains("Failed to update $edgeAgent identity") && problem.ends_with("(401)"),
        "{problem}"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_made_anew_in_the_hub_comes_back_by_itself() {
    let (world, edge) = World::with_sensor().await;
    world.telemetry(at_least(2)).await;
    world.service.delete_device(DEVICE).await.unwrap();
    edge.state(|state| matches!(state.agent, LinkState::Disconnected(_))).await;
    world.register_again().await;
    world.deploy(&deployment(&json!({}))).await;
    let before = world.count().await;
    world.telemetry(|messages| messages.len() > before + 2).await;
    edge.running(SENSOR).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sensor_follows_its_twin_and_reports_back() {
    let world = World::new().await;
    world.deploy(&deployment(&json!({"env": {"MessageDelay": {"value": "01:00:00"}}}))).await;
    let edge = world.start_edge(TaskEngine::new(&[IMAGE])).await;
    world.telemetry(at_least(1)).await;
    let reported = world.reported(SENSOR, |reported| reported["SendData"] == true).await;
    assert_eq!(reported["SendInterval"], 3600.0);
    let faster = json!({"SendInterval": 0.05});
    world.service.patch_module_desired(DEVICE, SENSOR, &faster).await.unwrap();
    assert_continuous(&world.telemetry(at_least(5)).await);
    world.service.patch_module_desired(DEVICE, SENSOR, &json!({"SendData": false})).await.unwrap();
    world.reported(SENSOR, |reported| reported["SendData"] == false).await;
    let before = world.count().await;
    sleep(Duration::from_millis(300)).await;
    assert!(world.count().await <= before + 1, "one message may have been on its way");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_changes_while_the_hub_is_away_is_followed_afterwards() {
    let world = World::new().await;
    world.deploy(&deployment(&json!({"env": {"MessageDelay": {"value": "01:00:00"}}}))).await;
    let edge = world.start_edge(TaskEngine::new(&[IMAGE])).await;
    world.reported(SENSOR, |reported| reported["SendInterval"] == 3600.0).await;
    world.mqtt.cut();
    edge.state(|state| matches!(state.edge_hub, LinkState::Disconnected(_))).await;
    let slower = json!({"SendInterval": 7200});
    world.service.patch_module_desired(DEVICE, SENSOR, &slower).await.unwrap();
    world.mqtt.mend();
    world.reported(SENSOR, |reported| reported["SendInterval"] == 7200.0).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_with_a_count_stops_there_and_stays_up() {
    let world = World::new().await;
    let env = json!({"MessageDelay": {"value": "00:00:00.01"}, "MessageCount": {"value": 4}});
    world.deploy(&deployment(&json!({"env": env}))).await;
    let edge = world.start_edge(TaskEngine::new(&[IMAGE])).await;
    let messages = world.telemetry(at_least(4)).await;
    assert_eq!(assert_continuous(&messages), 4);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.count().await, messages.len());
    edge.running(SENSOR).await;
    edge.stop().await;
}
