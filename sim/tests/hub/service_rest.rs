//! The service interface, through its typed client where it has a method, else by hand.

use std::time::Duration;

use kedge_sim::http::{Method, StatusCode};
use kedge_sim::sas::{OWNER_POLICY, sign};
use kedge_sim::service::{ConnectionState, ServiceError, TelemetryFilter};
use serde_json::json;

use crate::harness::{DEVICE, HUB, TestHub, manifest, now, within};

fn status<T: std::fmt::Debug>(result: Result<T, ServiceError>) -> u16 {
    result.expect_err("refused").status().expect("a status").as_u16()
}

#[tokio::test]
async fn health_needs_no_token() {
    let hub = TestHub::start().await;
    let health = hub.service().health().await.unwrap();
    assert_eq!((health.status.as_str(), health.host_name.as_str()), ("running", HUB));
    let answer = hub.rest(Method::GET, "/kedge/health", None, None, "").await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn registering_again_keeps_keys_and_generation() {
    let (hub, key) = TestHub::with_device().await;
    let before = hub.service().device(DEVICE).await.unwrap();
    assert_eq!((before.status.as_str(), before.connection_state), ("enabled", ConnectionState::Disconnected));
    assert_eq!(hub.register(DEVICE).await, key);
    assert_eq!(hub.service().device(DEVICE).await.unwrap().generation_id, before.generation_id);
}

#[tokio::test]
async fn devices_are_created_read_listed_and_deleted() {
    let hub = TestHub::start().await;
    let owner = sign(HUB, &hub.owner_key, now() + 60, Some(OWNER_POLICY));
    let put = async |path: &str, if_match: Option<&str>, body: &str| {
        hub.rest(Method::PUT, path, Some(&owner), if_match, body.to_owned()).await
    };
    let created = put("/devices/plain", None, r#"{"deviceId":"plain"}"#).await;
    assert_eq!(created.status, StatusCode::OK);
    assert_eq!(created.body["capabilities"]["iotEdge"], false);
    assert!(created.body["authentication"]["symmetricKey"]["primaryKey"].is_string());
    let exists = put("/devices/plain", None, "{}").await;
    assert_eq!(exists.status, StatusCode::CONFLICT);
    assert!(exists.message().starts_with("ErrorCode:DeviceAlreadyExists;"));
    assert_eq!(put("/devices/missing", Some("*"), "{}").await.status, StatusCode::NOT_FOUND);
    assert_eq!(put("/devices/plain", Some("\"1\""), "{}").await.status, StatusCode::PRECONDITION_FAILED);
    for body in [r#"{"deviceId":"other"}"#, r#"{"status":"asleep"}"#, "", "[]", "{"] {
        assert_eq!(put("/devices/plain", Some("*"), body).await.status, StatusCode::BAD_REQUEST, "{body:?}");
    }
    assert_eq!(put("/devices/a%20b", None, "{}").await.status, StatusCode::BAD_REQUEST);
    let list = hub.rest(Method::GET, "/devices", Some(&owner), None, "").await;
    assert_eq!(list.body.as_array().map(Vec::len), Some(1));
    let stale = hub.rest(Method::DELETE, "/devices/plain", Some(&owner), Some("\"1\""), "").await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    hub.service().delete_device("plain").await.unwrap();
    assert_eq!(status(hub.service().device("plain").await), 404);
    assert_eq!(status(hub.service().delete_device("plain").await), 404);
}

#[tokio::test]
async fn a_deployment_makes_modules_and_twins() {
    let (hub, _) = TestHub::with_device().await;
    let service = hub.service();
    service
        .apply_configuration_content(DEVICE, &manifest(&json!({"sensor": {"version": "1.0"}})))
        .await
        .unwrap();
    let modules = service.modules(DEVICE).await.unwrap();
    let ids: Vec<_> = modules.iter().map(|module| module.module_id.as_str()).collect();
    assert_eq!(ids, ["$edgeAgent", "$edgeHub", "sensor"]);
    assert_eq!(service.module(DEVICE, "sensor").await.unwrap().managed_by.as_deref(), Some("iotEdge"));
    let twin = service.module_twin(DEVICE, "$edgeAgent").await.unwrap();
    let desired = &twin["properties"]["desired"];
    assert_eq!((&desired["modules"]["sensor"]["version"], &desired["$version"]), (&json!("1.0"), &json!(2)));

    service.apply_configuration_content(DEVICE, &manifest(&json!({}))).await.unwrap();
    assert_eq!(status(service.module(DEVICE, "sensor").await), 404);
    let twin = service.module_twin(DEVICE, "$edgeAgent").await.unwrap();
    assert_eq!(twin["properties"]["desired"]["modules"], json!({}));
    assert_eq!(twin["properties"]["desired"]["$version"], 3);
}

#[tokio::test]
async fn bad_deployments_are_refused() {
    let (hub, _) = TestHub::with_device().await;
    let service = hub.service();
    let apply = async |device: &str, content| service.apply_configuration_content(device, &content).await;
    assert_eq!(status(apply(DEVICE, json!({})).await), 400);
    assert_eq!(status(apply(DEVICE, json!({"modulesContent": {}})).await), 400);
    assert_eq!(status(apply(DEVICE, manifest(&json!({"a.b": {}}))).await), 400);
    assert_eq!(status(apply("unknown", manifest(&json!({}))).await), 404);
}

#[tokio::test]
async fn desired_properties_are_patched() {
    let (hub, _) = TestHub::with_device().await;
    let service = hub.service();
    let twin =
        service.patch_module_desired(DEVICE, "$edgeHub", &json!({"a": {"b": 1, "c": 2}})).await.unwrap();
    assert_eq!(twin["properties"]["desired"]["$version"], 2);
    let twin = service.patch_module_desired(DEVICE, "$edgeHub", &json!({"a": {"b": null}})).await.unwrap();
    assert_eq!(twin["properties"]["desired"]["a"], json!({"c": 2}));
    assert_eq!(service.device_twin(DEVICE).await.unwrap()["properties"]["desired"]["$version"], 1);
    assert_eq!(status(service.patch_module_desired(DEVICE, "$edgeHub", &json!({"a.b": 1})).await), 400);
    assert_eq!(status(service.patch_module_desired(DEVICE, "x", &json!({})).await), 404);
    assert_eq!(status(service.patch_module_desired(DEVICE, "x y", &json!({})).await), 400);
    assert_eq!(status(service.module_twin("x", "y").await), 404);

    let owner = sign(HUB, &hub.owner_key, now() + 60, Some(OWNER_POLICY));
    let path = format!("/twins/{DEVICE}");
    let patch = async |if_match: Option<&str>, body: &str| {
        hub.rest(Method::PATCH, &path, Some(&owner), if_match, body.to_owned()).await.status.as_u16()
    };
    assert_eq!(patch(None, r#"{"tags":{"a":1}}"#).await, 400);
    assert_eq!(patch(None, r#"{"properties":{"reported":{}}}"#).await, 400);
    assert_eq!(patch(Some("\"7\""), r#"{"properties":{"desired":{}}}"#).await, 412);
    assert_eq!(patch(Some("\"1\""), r#"{"properties":{"desired":{}}}"#).await, 200);
}

#[tokio::test]
async fn the_telemetry_poll_waits_for_a_message_and_ends_when_its_time_is_up() {
    let (hub, key) = TestHub::with_device().await;
    let (service, filter) = (hub.service(), TelemetryFilter::default());
    hub.assert_no_telemetry().await;
    let started = tokio::time::Instant::now();
    let page = service.telemetry(&filter, 0, Duration::from_secs(1)).await.unwrap();
    assert_eq!((page.messages.len(), page.next), (0, 0));
    assert!(started.elapsed() >= Duration::from_secs(1));

    let (client, _incoming) = hub.connect(DEVICE, &key).await.unwrap();
    let publish = async |body: &'static [u8]| {
        client.publish(format!("devices/{DEVICE}/messages/events/a=1"), body.into()).await.unwrap();
    };
    let other = TelemetryFilter { device_id: Some("other".into()), module_id: None };
    publish(b"first").await;
    let page = service.telemetry(&other, 0, Duration::ZERO).await.unwrap();
    assert_eq!((page.messages.len(), page.next), (0, 1));
    let (page, ()) = within(async {
        tokio::join!(service.telemetry(&filter, 1, Duration::from_secs(10)), publish(&[0xff, 0xfe]))
    })
    .await;
    let page = page.unwrap();
    assert_eq!((page.messages[0].offset, page.next), (2, 2));
    assert_eq!((&page.messages[0].body, page.messages[0].body_base64.as_deref()), (&None, Some("//4=")));

    let owner = sign(HUB, &hub.owner_key, now() + 60, Some(OWNER_POLICY));
    for query in ["wait=31", "after=-1", "after=x", "wait=1&wait=2"] {
        let path = format!("/kedge/telemetry?{query}");
        let answer = hub.rest(Method::GET, &path, Some(&owner), None, "").await;
        assert_eq!((answer.status, answer.message().is_empty()), (StatusCode::BAD_REQUEST, false), "{query}");
    }
}
