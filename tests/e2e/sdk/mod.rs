//! Microsoft's SDK for Python, unmodified, as a module in a container of the inner engine.
//!
//! The module does what direct methods of the hub tell it, and everything is judged at the hub's service side.

mod deployment;
#[path = "../../python/sdk.rs"]
mod python;

use std::time::Duration;

use kedge_sim::service::{MethodCall, TelemetryFilter, TelemetryMessage};
use serde_json::{Value, json};
use xtask::wait::{Observation, wait_for};

use deployment::{DEVICE, Deployment, MODULE};

/// Longer than anything takes here once the deployment is up.
const LIMIT: Duration = Duration::from_secs(120);
/// How many messages of the module are waited for, each time that something is away.
const MANY: u64 = 50;

#[tokio::test]
#[ignore = "needs a container engine"]
async fn a_module_of_microsofts_sdk_has_all_that_a_module_has() {
    let packages = python::environment(std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))).await;
    let deployment = Deployment::up(&packages);
    telemetry_arrives_with_its_properties(&deployment).await;
    the_twin_is_read_reported_and_patched(&deployment).await;
    inputs_get_what_routes_lead_to_them(&deployment).await;
    another_module_answers_its_call(&deployment).await;
    nothing_is_lost_while_the_hub_is_away_and_the_edge_is_killed(&deployment).await;
    deployment.down();
}

async fn telemetry_arrives_with_its_properties(deployment: &Deployment) {
    let message = json!({
        "output": "out", "body": "{\"t\": 21.5}", "message_id": "m-1", "correlation_id": "c/1",
        "content_type": "application/json", "content_encoding": "utf-8",
        "properties": {"room": "küche 1&2", "a/b=c": "%2F"},
    });
    invoke(deployment, "send", message).await;
    let message = first(deployment, |message| message.properties.contains_key("room")).await;
    assert_eq!(message.body.as_deref(), Some("{\"t\": 21.5}"));
    assert_eq!(
        (message.properties["room"].as_str(), message.properties["a/b=c"].as_str()),
        ("küche 1&2", "%2F")
    );
    let expected = [
        ("iothub-output-name", "out"),
        ("message-id", "m-1"),
        ("correlation-id", "c/1"),
        ("content-type", "application/json"),
        ("content-encoding", "utf-8"),
    ];
    for (name, value) in expected {
        assert_eq!(
            message.system_properties.get(name).map(String::as_str),
            Some(value),
            "{name} of {message:?}"
        );
    }
}

async fn the_twin_is_read_reported_and_patched(deployment: &Deployment) {
    let service = deployment.service();
    service.patch_module_desired(DEVICE, MODULE, &json!({"interval": 5})).await.unwrap();
    let reported = reported(deployment, |reported| reported["seen"] == 5).await;
    assert_eq!(reported["version"], 2);
    invoke(deployment, "report", json!({"firmware": {"version": "2.1"}, "gone": null})).await;
    let twin = service.module_twin(DEVICE, MODULE).await.unwrap();
    assert_eq!(twin["properties"]["reported"]["firmware"], json!({"version": "2.1"}));
    let seen = invoke(deployment, "twin", Value::Null).await;
    assert_eq!(
        (&seen["desired"]["interval"], &seen["reported"]["firmware"]["version"]),
        (&json!(5), &json!("2.1"))
    );
}

/// One input gets what the module's own second output sends, the other the sensor's messages.
async fn inputs_get_what_routes_lead_to_them(deployment: &Deployment) {
    invoke(deployment, "send", json!({"output": "loop", "body": "around", "properties": {"a": "b c"}})).await;
    let echo =
        first(deployment, |message| message.properties.get("input").is_some_and(|it| it == "own")).await;
    assert_eq!((echo.body.as_deref(), echo.properties["a"].as_str()), (Some("around"), "b c"));
    let echo =
        first(deployment, |message| message.properties.get("input").is_some_and(|it| it == "sensor")).await;
    let body: Value = serde_json::from_str(echo.body.as_deref().unwrap()).unwrap();
    assert!(body["machine"]["temperature"].is_number(), "{body}");
}

async fn another_module_answers_its_call(deployment: &Deployment) {
    let call = json!({"methodName": "reset", "payload": {}, "responseTimeoutInSeconds": 20});
    let answer =
        invoke(deployment, "invoke", json!({"call": call, "device": DEVICE, "module": "tempSensor"})).await;
    assert_eq!(answer["status"], 200, "{answer}");
}

async fn nothing_is_lost_while_the_hub_is_away_and_the_edge_is_killed(deployment: &Deployment) {
    invoke(deployment, "stream", Value::Null).await;
    first(deployment, |message| message.body.as_deref() == Some("9")).await;
    deployment.stop_hub();
    let last = deployment.acknowledged_after(deployment.acknowledged() + MANY).await;
    deployment.kill_edge();
    deployment.acknowledged_after(last + MANY).await;
    deployment.start_hub();
    invoke(deployment, "end", Value::Null).await;
    let count = deployment.ended().await;
    assert!(count > 2 * MANY, "{count} messages");
    first(deployment, |message| message.body == Some((count - 1).to_string())).await;
    // What was on its way when the hub was stopped or the edge killed may come twice.
    let mut next = 0;
    for message in telemetry(deployment).await {
        let Some(number) = number(&message) else { continue };
        assert!(number <= next, "{number} came before {next}");
        next = next.max(number + 1);
    }
    assert_eq!(next, count);
}

fn number(message: &TelemetryMessage) -> Option<u64> {
    let is_numbered =
        message.system_properties.get("iothub-output-name").is_some_and(|output| output == "numbers");
    message.body.as_ref().filter(|_| is_numbered)?.parse().ok()
}

/// What the module answers, once the hub reaches it.
async fn invoke(deployment: &Deployment, name: &str, payload: Value) -> Value {
    let call = MethodCall {
        method_name: name.to_owned(),
        payload,
        response_timeout_in_seconds: None,
        connect_timeout_in_seconds: None,
    };
    let service = deployment.service();
    let look = async || match service.invoke_method(DEVICE, Some(MODULE), &call).await {
        Ok(answer) => Observation::Ready(answer),
        Err(error) if error.status().is_some_and(|status| status == 404) => {
            Observation::NotYet(error.to_string())
        }
        Err(error) => panic!("{name}: {error}"),
    };
    let answer = wait_for(&format!("the answer to {name}"), LIMIT, look).await.unwrap();
    assert_eq!(answer.status, 201, "{name}: {}", answer.payload);
    answer.payload
}

/// All messages of the module.
async fn telemetry(deployment: &Deployment) -> Vec<TelemetryMessage> {
    let filter = TelemetryFilter { device_id: Some(DEVICE.to_owned()), module_id: Some(MODULE.to_owned()) };
    let (service, mut messages, mut after) = (deployment.service(), Vec::new(), 0);
    loop {
        let page = service.telemetry(&filter, after, Duration::ZERO).await.unwrap();
        if page.messages.is_empty() {
            return messages;
        }
        after = page.next;
        messages.extend(page.messages);
    }
}

/// The first message of this kind, once it is there.
async fn first(deployment: &Deployment, wanted: impl Fn(&TelemetryMessage) -> bool) -> TelemetryMessage {
    let look = async || {
        let messages = telemetry(deployment).await;
        let count = messages.len();
        match messages.into_iter().find(&wanted) {
            Some(message) => Observation::Ready(message),
            None => Observation::NotYet(format!("it is not among {count}")),
        }
    };
    wait_for("a message of the module", LIMIT, look).await.unwrap()
}

async fn reported(deployment: &Deployment, wanted: impl Fn(&Value) -> bool) -> Value {
    let service = deployment.service();
    let look = async || {
        let reported = service.module_twin(DEVICE, MODULE).await.unwrap()["properties"]["reported"].take();
        if wanted(&reported) {
            Observation::Ready(reported)
        } else {
            Observation::NotYet(reported.to_string())
        }
    };
    wait_for("what the module reports", LIMIT, look).await.unwrap()
}
