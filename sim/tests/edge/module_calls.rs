//! Methods that modules call through the gateway.

use bytes::Bytes;
use jiff::Timestamp;
use kedge_sim::http::{HttpClient, Request, Response, header};
use kedge_sim::identity::Identity;
use kedge_sim::sas::{SharedAccessKey, sign, unix_seconds};
use kedge_sim::tls::{Endpoint, Trust, client_config};
use kedge_sim::topics::HubTopic;
use kedge_sim::websocket;
use serde_json::{Value, json};

use crate::gateway::signed;
use crate::relay::as_sensor;
use crate::world::{DEVICE, EDGE, Edge, HUB, SENSOR, World};

const VERSION: &str = "api-version=2018-06-30";

struct Call<'a> {
    path: &'a str,
    caller: Option<&'a str>,
    token: &'a str,
    body: Value,
}

/// Asks the gateway over HTTPS; the status and the JSON.
async fn ask(edge: &Edge, request: Request<Bytes>) -> (u16, Value) {
    let answer = exchange(edge, request).await;
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

async fn exchange(edge: &Edge, request: Request<Bytes>) -> Response<Bytes> {
    let edge_ca = fs_err::read_to_string(edge.folder.join("certd/aziot-edged-ca.pem")).unwrap();
    let tls = client_config(Trust::Only(&edge_ca)).unwrap();
    HttpClient::new(Endpoint::at(EDGE, edge.https), tls).send(request).await.unwrap()
}

impl Call<'_> {
    async fn send(&self, edge: &Edge) -> (u16, Value) {
        self.send_with(edge, VERSION).await
    }

    async fn send_with(&self, edge: &Edge, query: &str) -> (u16, Value) {
        let mut request = Request::post(format!("{}/methods?{query}", self.path))
            .header(header::AUTHORIZATION, self.token)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(caller) = self.caller {
            request = request.header("x-ms-edge-moduleId", caller);
        }
        let request = request.body(self.body.to_string().into()).unwrap();
        ask(edge, request).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_calls_a_method_of_another_without_the_hub() {
    let (world, edge) = World::with_sensor().await;
    let mut callee = as_sensor(&edge).await;
    world.mqtt.cut();
    let resource = Identity::module(DEVICE, SENSOR).unwrap().resource(HUB);
    let token = signed(&edge, &resource, unix_seconds(Timestamp::now()) + 600).await;
    let path = format!("/twins/{DEVICE}/modules/{SENSOR}");
    let caller = format!("{DEVICE}/{SENSOR}");
    let body = json!({"methodName": "echo", "payload": {"a": [1, null]}, "connectTimeoutInSeconds": 20});
    let call = Call { path: &path, caller: Some(&caller), token: &token, body };
    let answer = async {
        callee.subscribe("$iothub/methods/POST/#").await;
        let publish = callee.next().await;
        let Ok(HubTopic::MethodCall { name, request_id }) = HubTopic::parse(&publish.topic) else { panic!() };
        assert_eq!(name, "echo");
        let body = String::from_utf8(publish.payload.to_vec()).unwrap();
        callee.publish(&format!("$iothub/methods/res/418/?$rid={request_id}"), &body).await;
    };
    let (answer, ()) = tokio::join!(call.send(&edge), answer);
    assert_eq!(answer, (200, json!({"status": 418, "payload": {"a": [1, null]}})));

    let ping = || json!({"methodName": "ping"});
    for (case, call, expected) in [
        ("no caller", Call { path: &path, caller: None, token: &token, body: ping() }, 400),
        ("half a caller", Call { path: &path, caller: Some(DEVICE), token: &token, body: ping() }, 400),
        ("no method", Call { path: &path, caller: Some(&caller), token: &token, body: json!({}) }, 400),
        (
            "nobody there",
            Call { path: "/twins/other", caller: Some(&caller), token: &token, body: ping() },
            404,
        ),
    ] {
        let (status, answer) = call.send(&edge).await;
        assert_eq!(status, expected, "{case}: {answer}");
        assert!(answer["message"].is_string(), "{case}: {answer}");
    }
    let body = json!({"methodName": "slow", "responseTimeoutInSeconds": 5});
    let slow = Call { path: &path, caller: Some(&caller), token: &token, body }.send(&edge).await;
    let message = "Timed out waiting for device to respond to method request slow";
    assert_eq!(slow, (504, json!({"message": message})));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_call_is_not_told_why() {
    let (_world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let resource = Identity::module(DEVICE, SENSOR).unwrap().resource(HUB);
    let now = unix_seconds(Timestamp::now());
    let (token, expired) =
        (signed(&edge, &resource, now + 600).await, signed(&edge, &resource, now - 3600).await);
    let forged = sign(&resource, &SharedAccessKey::generate().unwrap(), now + 600, None);
    let (caller, unknown) = (format!("{DEVICE}/{SENSOR}"), format!("{DEVICE}/unknown"));
    for (case, caller, token, query) in [
        ("of another device", "other/m", &token, VERSION),
        ("not in the deployment", &unknown, &token, VERSION),
        ("an expired token", &caller, &expired, VERSION),
        ("another key", &caller, &forged, VERSION),
        ("no token", &caller, &String::new(), VERSION),
        ("no version", &caller, &token, "a=b"),
    ] {
        let call = Call { path: "/twins/other", caller: Some(caller), token, body: json!({}) };
        let answer = call.send_with(&edge, query).await;
        assert_eq!(answer, (401, json!({"message": "Unauthorized"})), "{case}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_refused_in_json() {
    let (_world, edge) = World::with_sensor().await;
    let path = format!("/twins/{DEVICE}/methods?{VERSION}");
    let large = Bytes::from(vec![b' '; 256 * 1024 + 1]);
    for (request, status, message) in [
        (Request::get("/nothing").body(Bytes::new()), 404, "Not Found"),
        (Request::get(&path).body(Bytes::new()), 405, "Method Not Allowed"),
        (Request::post(&path).body(large), 413, "Payload Too Large"),
    ] {
        assert_eq!(ask(&edge, request.unwrap()).await, (status, json!({"message": message})));
    }
    let wrong_method = exchange(&edge, Request::get(&path).body(Bytes::new()).unwrap()).await;
    assert_eq!(wrong_method.headers()[header::ALLOW], "POST");
    let no_websocket = Request::get(websocket::PATH).body(Bytes::new()).unwrap();
    let no_websocket = exchange(&edge, no_websocket).await;
    assert_eq!(no_websocket.headers()[header::SEC_WEBSOCKET_VERSION], "13");
    edge.stop().await;
}
