//! Methods that modules call through the gateway.

use jiff::Timestamp;
use kedge_sim::http::{HttpClient, Request, header};
use kedge_sim::identity::Identity;
use kedge_sim::sas::unix_seconds;
use kedge_sim::tls::{Endpoint, Trust, client_config};
use kedge_sim::topics::HubTopic;
use serde_json::{Value, json};

use crate::gateway::signed;
use crate::relay::as_sensor;
use crate::world::{DEVICE, EDGE, Edge, HUB, SENSOR, World};

struct Call<'a> {
    path: &'a str,
    caller: Option<&'a str>,
    token: &'a str,
    body: Value,
}

impl Call<'_> {
    async fn send(&self, edge: &Edge) -> (u16, Value) {
        let edge_ca = fs_err::read_to_string(edge.folder.join("certd/aziot-edged-ca.pem")).unwrap();
        let tls = client_config(Trust::Only(&edge_ca)).unwrap();
        let mut request = Request::post(format!("{}/methods?api-version=2018-06-30", self.path))
            .header(header::AUTHORIZATION, self.token)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(caller) = self.caller {
            request = request.header("x-ms-edge-moduleId", caller);
        }
        let request = request.body(self.body.to_string().into()).unwrap();
        let answer = HttpClient::new(Endpoint::at(EDGE, edge.https), tls).send(request).await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
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
        ("a foreign caller", Call { path: &path, caller: Some("other/m"), token: &token, body: ping() }, 401),
        (
            "another caller",
            Call { path: &path, caller: Some("kedge-device/other"), token: &token, body: ping() },
            401,
        ),
        ("no token", Call { path: &path, caller: Some(&caller), token: "none", body: ping() }, 401),
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
