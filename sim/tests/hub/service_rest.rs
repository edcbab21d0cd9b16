//! The service interface, through its typed client where it has a method, else by hand.

use std::time::Duration;

use kedge_sim::http::{Method, StatusCode};
use kedge_sim::sas::{OWNER_POLICY, derived_policy_key, sign};
use kedge_sim::service::{ConnectionState, ServiceError, TelemetryFilter};
use serde_json::{Value, json};

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
    assert_eq!(patch(None, r#"{"tags":{"a.b":1}}"#).await, 400);
    assert_eq!(patch(None, r#"{"tags":1}"#).await, 400);
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

#[tokio::test]
async fn twins_have_tags_and_are_replaced_as_a_whole() {
    let (hub, _) = TestHub::with_device().await;
    let path = format!("/twins/{DEVICE}");
    let call = async |method, if_match: Option<&str>, body: &Value| {
        let answer = hub.as_owner(method, &path, if_match, body).await;
        (answer.status.as_u16(), answer.body)
    };
    let patch =
        json!({"tags": {"site": "a", "floor": 1}, "properties": {"desired": {"x": {"y": 1, "z": 2}}}});
    let (status, twin) = call(Method::PATCH, None, &patch).await;
    assert_eq!((status, &twin["tags"]), (200, &patch["tags"]));
    let metadata = &twin["properties"]["desired"]["$metadata"];
    assert!(
        metadata["$lastUpdated"].is_string() && metadata["x"]["y"]["$lastUpdated"].is_string(),
        "{metadata}"
    );
    for field in
        ["etag", "deviceEtag", "status", "statusUpdateTime", "lastActivityTime", "authenticationType"]
    {
        assert!(twin[field].is_string(), "{field}");
    }
    assert_eq!((&twin["capabilities"]["iotEdge"], &twin["version"]), (&json!(true), &json!(4)));

    let etag = format!("\"{}\"", twin["etag"].as_str().unwrap());
    let replacement = json!({"tags": {"floor": 2}, "properties": {"desired": {"x": {"z": 2}}}});
    let (status, replaced) = call(Method::PUT, Some(&etag), &replacement).await;
    assert_eq!((status, &replaced["tags"]), (200, &replacement["tags"]));
    assert_eq!(replaced["properties"]["desired"]["x"], json!({"z": 2}));
    assert_eq!(call(Method::PUT, Some(&etag), &replacement).await.0, 412);
    // What was read is written back by some clients as it is.
    let (status, same) = call(Method::PUT, None, &replaced).await;
    assert_eq!((status, &same["tags"]), (200, &replaced["tags"]));
    let (status, refused) =
        call(Method::PATCH, None, &json!({"tags": {"a": 1}, "properties": {"desired": {"a.b": 1}}})).await;
    assert_eq!(status, 400, "{refused}");
    assert_eq!(call(Method::GET, None, &Value::Null).await.1["tags"], replaced["tags"], "both or neither");
}

#[tokio::test]
async fn devices_are_listed_in_part_and_found_by_queries() {
    let (hub, _) = TestHub::with_device().await;
    hub.put_device("leaf", &json!({})).await;
    let first = hub.as_owner(Method::GET, "/devices?top=1", None, &Value::Null).await;
    assert_eq!(first.body.as_array().map(Vec::len), Some(1));
    assert_eq!(hub.as_owner(Method::GET, "/devices?top=x", None, &Value::Null).await.status.as_u16(), 400);
    let query = async |text: &str| {
        let answer = hub.as_owner(Method::POST, "/devices/query", None, &json!({"query": text})).await;
        (answer.status.as_u16(), answer.body)
    };
    let (_, all) = query("SELECT * FROM devices").await;
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    let (_, one) = query("SELECT * FROM devices WHERE deviceId = 'leaf'").await;
    assert_eq!((one.as_array().map(Vec::len), &one[0]["deviceId"]), (Some(1), &json!("leaf")));
    let (_, modules) = query("SELECT * FROM devices.modules WHERE moduleId = '$edgeHub'").await;
    assert_eq!((modules.as_array().map(Vec::len), &modules[0]["deviceId"]), (Some(1), &json!(DEVICE)));
    let (status, refused) = query("SELECT * FROM devices WHERE tags.x = 1").await;
    assert_eq!(status, 400);
    assert!(refused["Message"].as_str().unwrap().contains("tags.x"));
}

#[tokio::test]
async fn each_policy_opens_what_it_opens_at_the_real_hub() {
    let (hub, _) = TestHub::with_device().await;
    let ask = async |policy: &str, method, path: &str| {
        let key = derived_policy_key(&hub.owner_key, policy).unwrap();
        let token = sign(HUB, &key, now() + 60, Some(policy));
        hub.rest(method, path, Some(&token), None, "{}").await.status.as_u16()
    };
    assert_eq!(ask("service", Method::GET, "/twins/kedge-device").await, 200);
    assert_eq!(ask("service", Method::GET, "/devices").await, 401);
    assert_eq!(ask("registryRead", Method::GET, "/devices/kedge-device/modules").await, 200);
    assert_eq!(ask("registryRead", Method::GET, "/twins/kedge-device").await, 401);
    assert_eq!(ask("registryRead", Method::PUT, "/devices/new").await, 401);
    assert_eq!(ask("registryReadWrite", Method::PUT, "/devices/new").await, 200);
    assert_eq!(ask("registryReadWrite", Method::DELETE, "/kedge/faults").await, 401);
    assert_eq!(ask("root", Method::GET, "/devices").await, 401);
    let messages = "/devices/kedge-device/messages";
    for policy in ["service", "registryRead", "registryReadWrite"] {
        for (method, of_device) in [
            (Method::POST, "/events"),
            (Method::GET, "/deviceBound"),
            (Method::DELETE, "/deviceBound/token"),
            (Method::POST, "/deviceBound/token/abandon"),
        ] {
            let path = format!("{messages}{of_device}");
            assert_eq!(ask(policy, method, &path).await, 401, "{policy} {path}");
        }
    }
    assert_eq!(ask("service", Method::POST, &format!("{messages}/deviceBound")).await, 204);
    let as_owner = hub.as_owner(Method::POST, &format!("{messages}/events"), None, &Value::Null).await;
    assert_eq!(as_owner.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_body_that_is_not_an_object_is_refused_and_changes_nothing() {
    let (hub, _) = TestHub::with_device().await;
    let (twin, module) = (format!("/twins/{DEVICE}"), format!("/devices/{DEVICE}/modules/m"));
    for (method, path, body) in [
        (Method::PUT, "/devices/arr", json!(["arr", null, "disabled", null, null, null, null])),
        (Method::PUT, "/devices/arr", json!({"capabilities": [true]})),
        (Method::PUT, &module, json!([])),
        (Method::PATCH, &twin, json!([])),
        (Method::PUT, &twin, json!([])),
        (Method::PUT, &twin, json!({"properties": []})),
        (Method::PUT, "/kedge/faults", json!([])),
        (Method::PUT, "/enrollments/arr", json!([])),
    ] {
        let answer = hub.as_owner(method, path, Some("*"), &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert!(answer.message().starts_with("ErrorCode:ArgumentInvalid;"), "{path}: {}", answer.body);
    }
    assert!(hub.service().device("arr").await.is_err(), "there is no such device");
}

#[tokio::test]
async fn a_request_without_a_version_of_the_interface_is_refused() {
    let (hub, _) = TestHub::with_device().await;
    for path in
        ["/devices?api-version=", "/twins/kedge-device?api-version=", "/devices/d/modules?api-version="]
    {
        let answer = hub.as_owner(Method::GET, path, None, &Value::Null).await;
        assert_eq!(answer.message(), "ErrorCode:InvalidProtocolVersion;BadRequest", "{path}");
    }
}
