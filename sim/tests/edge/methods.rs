//! edgeAgent's direct methods, called at the hub.

use serde_json::{Value, json};

use crate::world::{SENSOR, World};

#[tokio::test(flavor = "multi_thread")]
async fn edge_agent_is_there_and_restarts_a_module() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    assert_eq!(world.call("$edgeAgent", "ping", &Value::Null).await, (200, Value::Null));
    let request = json!({"schemaVersion": "1.0", "id": SENSOR});
    assert_eq!(world.call("$edgeAgent", "RestartModule", &request).await, (200, Value::Null));
    assert_eq!((edge.engine.starts(SENSOR), edge.engine.created(SENSOR)), (2, 1));
    let state = edge.running(SENSOR).await;
    assert_eq!(state.modules[SENSOR].restarts, 0, "a restart that was asked for is no failure");
    let unknown = json!({"schemaVersion": "1.0", "id": "unknown"});
    let (status, answer) = world.call("$edgeAgent", "RestartModule", &unknown).await;
    let expected = json!({"message": "Module unknown not found in the current environment"});
    assert_eq!((status, answer), (500, expected));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_agent_gives_the_logs_of_modules() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    for line in ["<6> one", "<4> two", "<6> three"] {
        edge.engine.write_log(SENSOR, line);
    }
    let request = |content_type: &str| {
        json!({"schemaVersion": "1.1", "items": {"id": "temp.*", "filter": {"tail": 2, "loglevel": 6}},
            "encoding": "none", "contentType": content_type})
    };
    let (status, answer) = world.call("$edgeAgent", "GetModuleLogs", &request("text")).await;
    assert_eq!(
        (status, &answer[0]["id"], &answer[0]["payload"]),
        (200, &json!(SENSOR), &json!("<6> three\n"))
    );
    let (_, answer) = world.call("$edgeAgent", "GetModuleLogs", &request("json")).await;
    let messages: Value = serde_json::from_str(answer[0]["payload"].as_str().unwrap()).unwrap();
    assert_eq!((&messages[0]["text"], &messages[0]["loglevel"]), (&json!("three"), &json!(6)));
    edge.stop().await;
}
