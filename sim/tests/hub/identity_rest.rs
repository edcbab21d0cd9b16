//! The identity interface, asked as the identity service of IoT Edge asks.

use kedge_sim::http::{Method, StatusCode};
use kedge_sim::sas::{SharedAccessKey, sign};
use serde_json::{Value, json};

use crate::harness::{DEVICE, HUB, TestHub, module_with_key, now, token};

const MODULES: &str = "/devices/kedge-device/modules";

struct Caller {
    hub: TestHub,
    token: String,
}

impl Caller {
    async fn new() -> Self {
        let (hub, key) = TestHub::with_device().await;
        let token = token(&format!("{HUB}/devices/{DEVICE}"), &key);
        Self { hub, token }
    }

    async fn call(&self, method: Method, path: &str, if_match: Option<&str>, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.hub.rest(method, path, Some(&self.token), if_match, body).await;
        (answer.status.as_u16(), answer.body)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None, &Value::Null).await
    }
}

#[tokio::test]
async fn a_registered_edge_device_lists_its_two_system_modules() {
    let caller = Caller::new().await;
    let (status, modules) = caller.get(MODULES).await;
    assert_eq!(status, 200);
    let ids: Vec<_> = modules.as_array().unwrap().iter().map(|module| module["moduleId"].clone()).collect();
    assert_eq!(ids, ["$edgeAgent", "$edgeHub"]);
    for module in modules.as_array().unwrap() {
        assert_eq!((&module["deviceId"], &module["managedBy"]), (&json!(DEVICE), &json!("iotEdge")));
        assert!(module["generationId"].as_str().is_some_and(|id| id.parse::<u64>().is_ok()));
        assert_eq!(module["authentication"]["type"], "sas");
    }
    let plain = caller.get(&format!("{MODULES}/$edgeAgent")).await;
    assert_eq!(plain, caller.get(&format!("{MODULES}/%24edgeAgent")).await);
    assert_eq!(plain, (200, modules[0].clone()));
}

#[tokio::test]
async fn a_module_is_created_updated_with_keys_and_deleted() {
    let caller = Caller::new().await;
    let path = format!("{MODULES}/m1");
    let create = json!({"moduleId": "m1", "deviceId": DEVICE});
    let (status, created) = caller.call(Method::PUT, &path, None, &create).await;
    assert_eq!(status, 200);
    let (status, message) = caller.call(Method::PUT, &path, None, &create).await;
    assert_eq!(status, 409);
    assert!(message["Message"].as_str().unwrap().starts_with("ErrorCode:ModuleAlreadyExistsOnDevice;"));

    let key = SharedAccessKey::generate().unwrap();
    let update = module_with_key("m1", &key);
    let (status, updated) = caller.call(Method::PUT, &path, Some("*"), &update).await;
    assert_eq!(status, 200);
    assert_eq!(updated["generationId"], created["generationId"]);
    assert_eq!(updated["authentication"]["symmetricKey"]["primaryKey"], key.to_base64().expose());
    let stale = created["etag"].as_str().unwrap();
    let (status, message) = caller.call(Method::PUT, &path, Some(&format!("\"{stale}\"")), &update).await;
    assert_eq!(status, 412);
    assert!(message["Message"].as_str().unwrap().starts_with("ErrorCode:PreconditionFailed;"));
    caller.hub.connect(&format!("{DEVICE}/m1"), &key).await.unwrap();

    assert_eq!(caller.call(Method::DELETE, &path, Some("*"), &Value::Null).await, (204, Value::Null));
    let (status, message) = caller.get(&path).await;
    assert_eq!(status, 404);
    assert!(message["Message"].as_str().unwrap().starts_with("ErrorCode:ModuleNotFound;"));
    for (method, if_match) in [(Method::DELETE, "*"), (Method::PUT, "*")] {
        assert_eq!(caller.call(method, &path, Some(if_match), &create).await.0, 404);
    }
}

/// The identity service escapes everything in a module's id but `$` and `%`.
#[tokio::test]
async fn a_percent_sign_in_a_path_stands_for_itself() {
    let caller = Caller::new().await;
    let path = format!("{MODULES}/a%x");
    let create = json!({"moduleId": "a%x", "deviceId": DEVICE});
    assert_eq!(caller.call(Method::PUT, &path, None, &create).await.0, 200);
    let (status, module) = caller.get(&format!("{MODULES}/a%25x")).await;
    assert_eq!((status, &module["moduleId"]), (200, &json!("a%x")));
    assert_eq!(caller.call(Method::DELETE, &path, Some("*"), &Value::Null).await.0, 204);
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_message() {
    let caller = Caller::new().await;
    let path = format!("{MODULES}/m1");
    for body in [
        json!({"moduleId": "m2", "deviceId": DEVICE}),
        json!({"moduleId": "m1", "deviceId": "other"}),
        json!({"authentication": {"type": "selfSigned"}}),
        json!({"authentication": {"symmetricKey": {"primaryKey": "not base64!"}}}),
        json!([]),
    ] {
        let (status, answer) = caller.call(Method::PUT, &path, None, &body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["Message"].as_str().is_some_and(|message| !message.contains("base64!")), "{answer}");
    }
    for (method, path, expected) in [
        (Method::PUT, format!("{MODULES}/a%20b"), 400),
        (Method::PUT, path, 400),
        (Method::POST, MODULES.to_owned(), 405),
        (Method::DELETE, format!("{MODULES}/$edgeHub"), 403),
        (Method::GET, format!("{MODULES}/%ff"), 400),
        (Method::GET, "/devices/kedge-device/nothing".to_owned(), 404),
    ] {
        let (status, answer) = caller.call(method, &path, None, &Value::Null).await;
        assert_eq!(status, expected, "{path} {answer}");
        assert!(answer["Message"].is_string(), "{path} {answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let caller = Caller::new().await;
    let body = json!({"managedBy": "x".repeat(2 * 1024 * 1024)}).to_string();
    let answer =
        caller.hub.try_rest(Method::PUT, &format!("{MODULES}/m1"), Some(&caller.token), None, body).await;
    // The hub closes without reading the rest, so the answer may be lost while the body is still sent.
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == StatusCode::PAYLOAD_TOO_LARGE));
    assert_eq!(caller.get(&format!("{MODULES}/m1")).await.0, 404);
}

#[tokio::test]
async fn whoever_is_not_the_device_is_refused_with_401() {
    let (hub, key) = TestHub::with_device().await;
    let other_key = hub.register("other-device").await;
    let resource = format!("{HUB}/devices/{DEVICE}");
    let wrong_key = SharedAccessKey::generate().unwrap();
    let cases = [
        ("no token", None),
        ("not a token", Some("Bearer x".to_owned())),
        ("malformed", Some("SharedAccessSignature sr=a&se=1".to_owned())),
        ("expired", Some(sign(&resource, &key, now() - 3600, None))),
        ("wrong key", Some(token(&resource, &wrong_key))),
        ("wrong audience", Some(token("hub.elsewhere.test/devices/kedge-device", &key))),
        ("other device", Some(token(&format!("{HUB}/devices/other-device"), &other_key))),
        ("other device's key", Some(token(&resource, &other_key))),
        ("owner's name without the key", Some(sign(HUB, &key, now() + 60, Some("iothubowner")))),
        ("unknown policy", Some(sign(HUB, &hub.owner_key, now() + 60, Some("root")))),
    ];
    let expected = "ErrorCode:IotHubUnauthorizedAccess;Unauthorized";
    for (case, token) in &cases {
        let answer = hub.rest(Method::GET, MODULES, token.as_deref(), None, "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{case}");
        assert_eq!(answer.message(), expected, "{case}");
        let exception = answer.body["ExceptionMessage"].as_str().unwrap();
        assert!(exception.starts_with("Tracking ID:") && exception.contains("-TimeStamp:"), "{exception}");
    }
    let unknown = token(&format!("{HUB}/devices/unknown"), &key);
    let answer = hub.rest(Method::GET, "/devices/unknown/modules", Some(&unknown), None, "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.message(), "ErrorCode:DeviceNotFound;Device unknown not registered");
    let good = token(&resource, &key);
    assert_eq!(hub.rest(Method::GET, MODULES, Some(&good), None, "").await.status, StatusCode::OK);
    hub.service().set_device_enabled(DEVICE, false).await.unwrap();
    let answer = hub.rest(Method::GET, MODULES, Some(&good), None, "").await;
    assert_eq!((answer.status, answer.message()), (StatusCode::UNAUTHORIZED, expected));
}

#[tokio::test]
async fn a_device_may_not_use_the_service_interface() {
    let caller = Caller::new().await;
    let device = format!("/devices/{DEVICE}");
    let twin = format!("/twins/{DEVICE}");
    for (method, path) in [
        (Method::GET, "/devices"),
        (Method::GET, device.as_str()),
        (Method::PUT, device.as_str()),
        (Method::DELETE, device.as_str()),
        (Method::POST, "/devices/kedge-device/applyConfigurationContent"),
        (Method::GET, twin.as_str()),
        (Method::PATCH, twin.as_str()),
        (Method::GET, "/twins/kedge-device/modules/$edgeHub"),
        (Method::GET, "/kedge/telemetry"),
    ] {
        assert_eq!(caller.call(method, path, None, &json!({})).await.0, 401, "{path}");
    }
}
