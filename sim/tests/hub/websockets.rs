//! MQTT over WebSockets, on the port of HTTPS.

use kedge_sim::http::{Method, StatusCode};
use kedge_sim::identity::Identity;
use kedge_sim::mqtt::{Client, ClientError, Incoming};
use kedge_sim::pki::Validity;
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::topics::{ClientTopic, HubTopic, Subscription};
use kedge_sim::websocket;
use serde_json::json;

use crate::harness::{DEVICE, HUB, TestHub, options, token, within};

async fn connect(
    hub: &TestHub,
    client_id: &str,
    key: &SharedAccessKey,
) -> Result<(Client, Incoming), ClientError> {
    let identity = Identity::from_client_id(client_id).unwrap();
    let password = token(&identity.resource(HUB), key);
    connect_with(hub, client_id, &identity.username(HUB), &password).await
}

/// Connects with a password of one's own choice.
pub(crate) async fn connect_with(
    hub: &TestHub,
    client_id: &str,
    username: &str,
    password: &str,
) -> Result<(Client, Incoming), ClientError> {
    let (endpoint, tls) = hub.https();
    let stream = within(websocket::connect(&endpoint, tls)).await.unwrap();
    within(Client::connect(stream, &options(client_id, username, password))).await
}

#[tokio::test]
async fn telemetry_and_twins_go_over_websockets_as_over_tls() {
    let (hub, key) = TestHub::with_device().await;
    let (client, mut incoming) = connect(&hub, DEVICE, &key).await.unwrap();
    let large = vec![b'x'; 200 * 1024];
    for body in [b"small".to_vec(), large.clone()] {
        within(client.publish(format!("devices/{DEVICE}/messages/events/a=1"), body.into())).await.unwrap();
    }
    let messages = hub.telemetry_after(0).await;
    assert_eq!(messages[0].body.as_deref(), Some("small"));
    assert_eq!(messages[1].body.as_deref().map(str::len), Some(large.len()));
    client.subscribe(vec![Subscription::TwinResponses.to_string()]).await.unwrap();
    let get = ClientTopic::TwinGet { request_id: "1".into() };
    within(client.publish(get.to_string(), "".into())).await.unwrap();
    let answer = within(incoming.next()).await.unwrap();
    assert!(matches!(HubTopic::parse(&answer.topic), Ok(HubTopic::TwinResponse { status: 200, .. })));

    // One connection for each identity, whatever it goes over.
    let (_newer, _incoming) = hub.connect(DEVICE, &key).await.unwrap();
    assert!(within(incoming.next()).await.is_err());
}

#[tokio::test]
async fn a_certificate_counts_over_websockets_too() {
    let hub = TestHub::start().await;
    hub.put_device("d", &json!({"authentication": {"type": "certificateAuthority"}})).await;
    let validity = Validity::for_next(std::time::Duration::from_secs(3600));
    let certificate = hub.device_ca.issue_client("d", validity).unwrap();
    let (endpoint, _) = hub.https();
    let stream = within(websocket::connect(&endpoint, hub.tls_as(&certificate))).await.unwrap();
    let username = Identity::device("d").unwrap().username(HUB);
    assert!(within(Client::connect(stream, &options("d", &username, ""))).await.is_ok());
}

#[tokio::test]
async fn what_is_no_websocket_request_is_refused() {
    let hub = TestHub::start().await;
    let answer = hub.rest(Method::GET, websocket::PATH, None, None, "").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = hub.rest(Method::POST, websocket::PATH, None, None, "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}
