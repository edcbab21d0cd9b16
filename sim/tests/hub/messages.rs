//! Method calls and messages to devices, over REST, MQTT and HTTPS.

use std::time::Duration;

use bytes::Bytes;
use kedge_sim::http::{HttpClient, Method, Request, StatusCode};
use kedge_sim::mqtt::packet::{self, PubAck, Subscribe};
use kedge_sim::mqtt::{Client, Connection, Incoming, Packet, QoS};
use kedge_sim::sas::{SharedAccessKey, sign};
use kedge_sim::service::{CloudToDeviceMessage, MethodCall, ServiceError};
use kedge_sim::tls::ClientStream;
use kedge_sim::topics::{ClientTopic, HubTopic, Subscription};
use serde_json::{Value, json};

use crate::harness::{DEVICE, HUB, TestHub, now, token, within};

fn call(method_name: &str) -> MethodCall {
    let payload = json!({"text": "hello"});
    MethodCall { method_name: method_name.to_owned(), payload, ..MethodCall::default() }
}

/// Answers the calls of a client until it is dropped.
async fn answer(client: Client, mut incoming: Incoming, status: i32) {
    while let Ok(publish) = incoming.next().await {
        let Ok(HubTopic::MethodCall { name, request_id }) = HubTopic::parse(&publish.topic) else { continue };
        let payload: Value = serde_json::from_slice(&publish.payload).unwrap();
        let topic = ClientTopic::MethodResponse { status, request_id };
        let body = json!({"name": name, "payload": payload}).to_string();
        client.publish(topic.to_string(), body.into()).await.unwrap();
    }
}

/// The inner error of a refused call, which is JSON in a string.
fn refusal(error: &ServiceError) -> (u16, Value) {
    let ServiceError::Refused { status, message } = error else { panic!("{error}") };
    (status.as_u16(), serde_json::from_str(message).unwrap())
}

#[tokio::test]
async fn a_method_is_called_and_answered() {
    let (hub, key) = TestHub::with_device().await;
    let (client, incoming) = hub.connect(DEVICE, &key).await.unwrap();
    client.subscribe(vec![Subscription::MethodCalls.to_string()]).await.unwrap();
    tokio::spawn(answer(client, incoming, 207));
    let result = within(hub.service().invoke_method(DEVICE, None, &call("ping"))).await.unwrap();
    assert_eq!(result.status, 207);
    assert_eq!(result.payload, json!({"name": "ping", "payload": {"text": "hello"}}));
}

#[tokio::test]
async fn a_call_waits_for_the_client_to_connect_when_it_is_told_to() {
    let (hub, _) = TestHub::with_device().await;
    let gateway_key = {
        let device_key = hub.register(DEVICE).await;
        hub.upload_key(&device_key, "$edgeHub").await
    };
    let service = hub.service();
    let waiting = tokio::spawn(async move {
        let call = MethodCall { connect_timeout_in_seconds: Some(20), ..call("ping") };
        service.invoke_method(DEVICE, Some("$edgeHub"), &call).await
    });
    let (client, incoming) = hub.connect(&format!("{DEVICE}/$edgeHub"), &gateway_key).await.unwrap();
    client.subscribe(vec![Subscription::MethodCalls.to_string()]).await.unwrap();
    tokio::spawn(answer(client, incoming, 200));
    assert_eq!(within(waiting).await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_call_to_a_client_that_is_not_there_is_refused_in_the_form_of_iot_hub() {
    let (hub, key) = TestHub::with_device().await;
    let invoke = async || hub.service().invoke_method(DEVICE, None, &call("ping")).await.unwrap_err();
    let (status, error) = refusal(&invoke().await);
    assert_eq!(
        (status, &error["errorCode"], &error["info"]),
        (404, &json!(404_103), &json!({"timeout": "00:00:00"}))
    );
    assert_eq!(error["message"], "Timed out waiting for device to connect.");
    assert!(error["trackingId"].as_str().unwrap().contains("-TimeStamp:"));
    let (_client, _incoming) = hub.connect(DEVICE, &key).await.unwrap();
    assert_eq!(refusal(&invoke().await).0, 404, "it has not subscribed");
    let unknown = hub.service().invoke_method("nobody", None, &call("ping")).await.unwrap_err();
    assert!(unknown.to_string().contains("DeviceNotFound"), "{unknown}");
    let invalid = MethodCall { response_timeout_in_seconds: Some(1), ..call("ping") };
    let invalid = hub.service().invoke_method(DEVICE, None, &invalid).await.unwrap_err();
    assert_eq!(invalid.status(), Some(StatusCode::BAD_REQUEST));
}

#[tokio::test]
async fn a_call_ends_when_the_client_does_not_answer_or_goes() {
    let (hub, key) = TestHub::with_device().await;
    let (client, mut incoming) = hub.connect(DEVICE, &key).await.unwrap();
    client.subscribe(vec![Subscription::MethodCalls.to_string()]).await.unwrap();
    let invoke = || {
        let service = hub.service();
        let call = MethodCall { response_timeout_in_seconds: Some(5), ..call("ping") };
        tokio::spawn(async move { service.invoke_method(DEVICE, None, &call).await.unwrap_err() })
    };
    let (status, error) = refusal(&within(invoke()).await.unwrap());
    assert_eq!((status, &error["errorCode"]), (504, &json!(504_101)));
    within(incoming.next()).await.unwrap();
    let waiting = invoke();
    within(incoming.next()).await.unwrap();
    drop((client, incoming));
    let (status, error) = refusal(&within(waiting).await.unwrap());
    assert_eq!((status, &error["message"]), (404, &json!("Device unavailable")));
}

fn message(id: &str) -> CloudToDeviceMessage {
    CloudToDeviceMessage {
        body: "hello".into(),
        message_id: Some(id.to_owned()),
        ack: Some("full".to_owned()),
        expiry: None,
        properties: [("color".to_owned(), "red".to_owned())].into(),
    }
}

/// A packet connection of the device, which acknowledges nothing by itself.
async fn raw(hub: &TestHub, key: &SharedAccessKey, clean: bool) -> (Connection<ClientStream>, bool) {
    let mut connect = packet::Connect::new(DEVICE);
    connect.keep_alive = 60;
    connect.clean_session = clean;
    connect.set_login(format!("{HUB}/{DEVICE}/"), token(&format!("{HUB}/devices/{DEVICE}"), key));
    let mut connection = Connection::new(hub.tls_to_mqtt().await, 1024 * 1024);
    connection.write(&Packet::Connect(connect)).await.unwrap();
    match within(connection.read()).await.unwrap() {
        Some(Packet::ConnAck(ack)) => (connection, ack.session_present),
        other => panic!("{other:?}"),
    }
}

async fn next_publish(connection: &mut Connection<ClientStream>) -> packet::Publish {
    loop {
        match within(connection.read()).await.unwrap() {
            Some(Packet::Publish(publish)) => return publish,
            Some(_) => {}
            None => panic!("the hub closed the connection"),
        }
    }
}

async fn subscribe(connection: &mut Connection<ClientStream>) {
    let mut subscribe = Subscribe::new(format!("devices/{DEVICE}/messages/devicebound/#"), QoS::AtLeastOnce);
    subscribe.pkid = 1;
    connection.write(&Packet::Subscribe(subscribe)).await.unwrap();
}

#[tokio::test]
async fn a_message_reaches_the_device_with_its_properties_and_its_sender_hears_of_it() {
    let (hub, key) = TestHub::with_device().await;
    let service = hub.service();
    let (client, mut incoming) = hub.connect(DEVICE, &key).await.unwrap();
    let filter = format!("devices/{DEVICE}/messages/devicebound/#");
    client.subscribe(vec![filter]).await.unwrap();
    service.send_cloud_to_device(DEVICE, &message("m1")).await.unwrap();
    let publish = within(incoming.next()).await.unwrap();
    let Ok(HubTopic::CloudToDevice { properties, .. }) = HubTopic::parse(&publish.topic) else {
        panic!("{}", publish.topic)
    };
    let to = format!("/devices/{DEVICE}/messages/devicebound");
    let expected = [("$.mid", "m1"), ("color", "red"), ("$.to", &to), ("iothub-ack", "full")];
    assert_eq!(properties.iter().collect::<Vec<_>>(), expected);
    assert_eq!(publish.payload, "hello");
    // The acknowledgement goes before this on the same connection.
    client.publish(format!("devices/{DEVICE}/messages/events/"), "x".into()).await.unwrap();
    let batch = service.feedback().await.unwrap().expect("feedback");
    let record = &batch.records[0];
    assert_eq!((record.original_message_id.as_deref(), record.status_code.as_str()), (Some("m1"), "Success"));
    assert_eq!(service.feedback().await.unwrap(), None, "it is given out to one at a time");
    service.complete_feedback(&batch).await.unwrap();
    assert!(service.complete_feedback(&batch).await.is_err());
}

#[tokio::test]
async fn a_kept_session_goes_on_with_what_was_not_acknowledged() {
    let (hub, key) = TestHub::with_device().await;
    let service = hub.service();
    let (mut connection, present) = raw(&hub, &key, false).await;
    assert!(!present);
    subscribe(&mut connection).await;
    service.send_cloud_to_device(DEVICE, &message("1")).await.unwrap();
    let first = next_publish(&mut connection).await;
    drop(connection);
    service.send_cloud_to_device(DEVICE, &message("2")).await.unwrap();

    let (mut connection, present) = raw(&hub, &key, false).await;
    assert!(present);
    let again = next_publish(&mut connection).await;
    assert_eq!((again.pkid, again.dup, &again.topic), (first.pkid, true, &first.topic));
    let second = next_publish(&mut connection).await;
    assert!(!second.dup && second.topic.contains("mid=2"), "{second:?}");
    for pkid in [again.pkid, second.pkid] {
        connection.write(&Packet::PubAck(PubAck::new(pkid))).await.unwrap();
    }
    connection.write(&Packet::Disconnect).await.unwrap();
    while within(connection.read()).await.unwrap().is_some() {}

    let (_connection, present) = raw(&hub, &key, true).await;
    assert!(!present);
    let (_connection, present) = raw(&hub, &key, false).await;
    assert!(!present, "the clean one ended it");
}

#[tokio::test]
async fn a_full_queue_refuses_and_the_device_shows_its_length() {
    let (hub, key) = TestHub::with_device().await;
    let service = hub.service();
    for number in 0..50 {
        service.send_cloud_to_device(DEVICE, &message(&number.to_string())).await.unwrap();
    }
    let refused = service.send_cloud_to_device(DEVICE, &message("more")).await.unwrap_err();
    assert_eq!(refused.status(), Some(StatusCode::FORBIDDEN));
    assert!(refused.to_string().contains("DeviceMaximumQueueDepthExceeded"), "{refused}");
    let owner = sign(HUB, &hub.owner_key, now() + 600, Some("iothubowner"));
    let path = format!("/devices/{DEVICE}");
    let device = hub.rest(Method::GET, &path, Some(&owner), None, "").await.body;
    assert_eq!(device["cloudToDeviceMessageCount"], 50);
    let purged = hub.rest(Method::DELETE, &format!("{path}/commands"), Some(&owner), None, "").await;
    assert_eq!(purged.body["totalMessagesPurged"], 50);
    let own = token(&format!("{HUB}/devices/{DEVICE}"), &key);
    let fetched = hub.rest(Method::GET, &format!("{path}/messages/deviceBound"), Some(&own), None, "").await;
    assert_eq!(fetched.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_device_sends_and_fetches_over_https() {
    let (hub, key) = TestHub::with_device().await;
    let own = token(&format!("{HUB}/devices/{DEVICE}"), &key);
    let path = format!("/devices/{DEVICE}/messages");
    let sent = hub.rest(Method::POST, &format!("{path}/events"), Some(&own), None, "over https").await;
    assert_eq!(sent.status, StatusCode::NO_CONTENT);
    let telemetry = hub.telemetry_after(0).await.remove(0);
    assert_eq!((telemetry.body.as_deref(), telemetry.device_id.as_str()), (Some("over https"), DEVICE));
    let large = vec![b'x'; 256 * 1024 + 1];
    let refused = hub.rest(Method::POST, &format!("{path}/events"), Some(&own), None, large).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);

    let text = CloudToDeviceMessage { body: "\"for the device\"".into(), ..message("m1") };
    hub.service().send_cloud_to_device(DEVICE, &text).await.unwrap();
    let bound = format!("{path}/deviceBound");
    let fetched = hub.rest(Method::GET, &bound, Some(&own), None, "").await;
    assert_eq!((fetched.status, &fetched.body), (StatusCode::OK, &json!("for the device")));
    let nothing = hub.rest(Method::GET, &bound, Some(&own), None, "").await;
    assert_eq!(nothing.status, StatusCode::NO_CONTENT, "it is locked");
    let lost = hub.rest(Method::DELETE, &format!("{bound}/none"), Some(&own), None, "").await;
    assert_eq!(lost.status, StatusCode::PRECONDITION_FAILED);
    assert!(lost.message().contains("DeviceMessageLockLost"), "{}", lost.message());

    let stranger = SharedAccessKey::generate().unwrap();
    let foreign = token(&format!("{HUB}/devices/{DEVICE}"), &stranger);
    for (method, path) in [(Method::POST, format!("{path}/events")), (Method::GET, bound)] {
        let refused = hub.rest(method, &path, Some(&foreign), None, "x").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn what_waits_for_a_device_is_there_after_a_restart() {
    let (hub, key) = TestHub::with_device().await;
    let (mut connection, _) = raw(&hub, &key, false).await;
    subscribe(&mut connection).await;
    hub.service().send_cloud_to_device(DEVICE, &message("1")).await.unwrap();
    let first = next_publish(&mut connection).await;
    let hub = within(hub.restart()).await;
    let (mut connection, present) = raw(&hub, &key, false).await;
    let again = next_publish(&mut connection).await;
    assert_eq!((present, again.pkid, again.dup), (true, first.pkid, true));
    connection.write(&Packet::PubAck(PubAck::new(again.pkid))).await.unwrap();
    connection.write(&Packet::PingReq).await.unwrap();
    assert_eq!(within(connection.read()).await.unwrap(), Some(Packet::PingResp));
    let batch = hub.service().feedback().await.unwrap().expect("feedback");
    assert_eq!(batch.records[0].status_code, "Success");
    let hub = within(hub.restart()).await;
    assert!(hub.service().feedback().await.unwrap().is_some(), "it was not confirmed");
    let page = hub.service().telemetry(&Default::default(), 0, Duration::ZERO).await.unwrap();
    assert_eq!(page.messages, []);
}

#[tokio::test]
async fn telemetry_over_https_is_taken_one_by_one_and_in_batches() {
    let (hub, key) = TestHub::with_device().await;
    let (endpoint, tls) = hub.https();
    let client = HttpClient::new(endpoint, tls);
    let send = async |headers: &[(&str, &str)], body: &'static str| {
        let path = format!("/devices/{DEVICE}/messages/events?api-version=2021-04-12");
        let mut request = Request::builder().method(Method::POST).uri(path);
        request = request.header("authorization", token(&format!("{HUB}/devices/{DEVICE}"), &key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        within(client.send(request.body(Bytes::from_static(body.as_bytes())).unwrap()))
            .await
            .unwrap()
            .status()
    };
    let single = [("iothub-app-color", "red"), ("iothub-messageid", "m1"), ("iothub-app-$.cdid", "other")];
    assert_eq!(send(&single, "one").await, StatusCode::NO_CONTENT);
    let batch = [("content-type", "application/vnd.microsoft.iothub.json")];
    let body = r#"[{"body":"dHdv","properties":{"iothub-app-color":"blue"}},{"body":"three","base64Encoded":false}]"#;
    assert_eq!(send(&batch, body).await, StatusCode::NO_CONTENT);
    assert_eq!(send(&batch, r#"[{"body":"dHdv"},{"body":"?"}]"#).await, StatusCode::BAD_REQUEST);

    let messages = hub.telemetry_after(0).await;
    let bodies: Vec<_> = messages.iter().map(|message| message.body.as_deref().unwrap()).collect();
    assert_eq!(bodies, ["one", "two", "three"]);
    assert_eq!(messages[0].system_properties["message-id"], "m1");
    assert_eq!(messages[0].properties.len(), 1, "only the hub says who sent a message");
    let colors = [0, 1].map(|place: usize| messages[place].properties["color"].as_str());
    assert_eq!(colors, ["red", "blue"]);
}

#[tokio::test]
async fn a_message_over_https_has_up_to_a_hundred_properties() {
    let (hub, key) = TestHub::with_device().await;
    let (endpoint, tls) = hub.https();
    let client = HttpClient::new(endpoint, tls);
    let send = async |count: usize| {
        let path = format!("/devices/{DEVICE}/messages/events?api-version=2021-04-12");
        let mut request = Request::post(path);
        request = request.header("authorization", token(&format!("{HUB}/devices/{DEVICE}"), &key));
        for number in 0..count {
            request = request.header(format!("iothub-app-Name{number}"), number.to_string());
        }
        within(client.send(request.body(Bytes::new()).unwrap())).await.unwrap()
    };
    assert_eq!(send(100).await.status(), StatusCode::NO_CONTENT);
    let refused = send(101).await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let refused: Value = serde_json::from_slice(refused.body()).unwrap();
    assert!(refused["Message"].as_str().unwrap().contains("at most 100 properties"), "{refused}");
    let messages = hub.telemetry_after(0).await;
    assert_eq!((messages.len(), messages[0].properties.len()), (1, 100));
    assert_eq!(messages[0].properties["name7"], "7");
}
