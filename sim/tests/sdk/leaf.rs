//! The SDK as a leaf device, which reaches the hub through the gateway of an edge device.

use std::time::Duration;

use kedge_sim::service::{CloudToDeviceMessage, MethodResult};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::device::{bodies, method};
use crate::gateway::{Gateway, LEAF};
use crate::hub::Hub;
use crate::sdk::{LIMIT, Sdk};

const PAUSE: Duration = Duration::from_millis(100);

/// The SDK, once the gateway lets the leaf in: it has to learn from the hub first who its children are.
async fn connected(gateway: &Gateway) -> Sdk {
    let mut sdk = Sdk::start().await;
    let create = gateway.create();
    let let_in = async {
        while !gateway.ca().exists() {
            tokio::time::sleep(PAUSE).await;
        }
        while sdk.attempt(&create).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    timeout(LIMIT, let_in).await.expect("the gateway lets the leaf in");
    sdk.next("connected").await;
    sdk
}

async fn send(sdk: &mut Sdk, bodies: std::ops::Range<u32>) {
    for body in bodies {
        sdk.call(json!({"do": "send", "body": body.to_string()})).await;
    }
}

/// The bodies that have arrived, up to the last one. One that was on its way when something was killed may come twice.
async fn first_arrivals(hub: &Hub, last: &str) -> Vec<String> {
    let mut count = 1;
    loop {
        let messages = hub.telemetry(count).await;
        let mut first: Vec<String> = Vec::new();
        for body in bodies(&messages) {
            if !first.iter().any(|known| known == body) {
                first.push(body.to_owned());
            }
        }
        if first.iter().any(|body| body == last) {
            return first;
        }
        count = messages.len() + 1;
    }
}

/// What the leaf answers, once the hub can reach it.
async fn invoke(hub: &Hub, name: &str, payload: Value) -> MethodResult {
    let call = method(name, payload);
    let answered = async {
        loop {
            match hub.service().invoke_method(LEAF, None, &call).await {
                Ok(answer) => return answer,
                Err(error) if error.status().is_some_and(|status| status == 404) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(LIMIT, answered).await.expect("the hub reaches the leaf")
}

/// A gateway finds its hub at the port of HTTPS only.
fn has_port_of_https(hub: &Hub) -> bool {
    if !hub.has_web_sockets() {
        eprintln!(
            "NOT TRIED: an edge device wants its hub on port 443, which this user may not have; root may"
        );
    }
    hub.has_web_sockets()
}

#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn a_leaf_has_all_that_a_device_has() {
    let hub = Hub::start().await;
    if !has_port_of_https(&hub) {
        return;
    }
    let gateway = Gateway::start(&hub).await;
    let mut sdk = connected(&gateway).await;
    sdk.call(json!({
        "do": "send", "body": "{\"t\": 1}", "message_id": "m-1", "content_type": "application/json",
        "content_encoding": "utf-8", "properties": {"room": "küche 1&2"},
    }))
    .await;
    let message = hub.telemetry(1).await.remove(0);
    assert_eq!((message.device_id.as_str(), message.module_id.as_deref()), (LEAF, None), "it is its own");
    assert_eq!(
        (message.body.as_deref(), message.properties["room"].as_str()),
        (Some("{\"t\": 1}"), "küche 1&2")
    );
    let system: Vec<_> = message.system_properties.values().map(String::as_str).collect();
    assert!(["m-1", "application/json", "utf-8"].iter().all(|it| system.contains(it)), "{message:?}");

    let service = hub.service();
    sdk.call(json!({"do": "report", "patch": {"firmware": "2.1"}})).await;
    assert_eq!(service.device_twin(LEAF).await.unwrap()["properties"]["reported"]["firmware"], "2.1");
    service.patch_device_desired(LEAF, &json!({"interval": 5})).await.unwrap();
    while sdk.next("desired").await["patch"]["interval"] != 5 {}
    let twin = sdk.call(json!({"do": "twin"})).await;
    assert_eq!((&twin["desired"]["interval"], &twin["reported"]["firmware"]), (&json!(5), &json!("2.1")));

    let answer = invoke(&hub, "restart", json!({"delay": 3})).await;
    assert_eq!((answer.status, answer.payload), (201, json!({"echo": {"delay": 3}})));

    let message = CloudToDeviceMessage {
        body: "on".into(),
        message_id: Some("c-1".to_owned()),
        properties: [("room".to_owned(), "kitchen 1".to_owned())].into(),
        ..CloudToDeviceMessage::default()
    };
    service.send_cloud_to_device(LEAF, &message).await.unwrap();
    let arrived = sdk.next("message").await;
    assert_eq!((&arrived["body"], &arrived["id"]), (&json!("on"), &json!("c-1")));
    assert_eq!(arrived["properties"]["room"], "kitchen 1");
    sdk.call(json!({"do": "end"})).await;
}

/// What the gateway acknowledges while the hub is away it keeps, also when it is killed itself.
#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn nothing_of_a_leaf_is_lost_while_the_hub_is_away_and_the_gateway_is_killed() {
    let mut hub = Hub::start().await;
    if !has_port_of_https(&hub) {
        return;
    }
    let mut gateway = Gateway::start(&hub).await;
    let mut sdk = connected(&gateway).await;
    send(&mut sdk, 0..3).await;
    assert_eq!(hub.telemetry(3).await.len(), 3);
    hub.kill().await;
    send(&mut sdk, 3..6).await;
    gateway.kill().await;
    sdk.next("away").await;
    gateway.start_again();
    sdk.next("connected").await;
    send(&mut sdk, 6..8).await;
    hub.start_again().await;
    let answer = invoke(&hub, "ping", json!(1)).await;
    assert_eq!(answer.payload, json!({"echo": 1}));
    send(&mut sdk, 8..9).await;
    assert_eq!(first_arrivals(&hub, "8").await, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
    hub.service().patch_device_desired(LEAF, &json!({"after": "the kill"})).await.unwrap();
    while sdk.next("desired").await["patch"]["after"] != "the kill" {}
    sdk.call(json!({"do": "end"})).await;
}
