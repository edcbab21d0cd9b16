//! Faults that are switched on and off.

use kedge_sim::http::{HttpClient, Method, Request, StatusCode, header};
use kedge_sim::hub::FaultSettings;
use kedge_sim::topics::{ClientTopic, HubTopic, Subscription};
use serde_json::{Value, json};

use crate::harness::{DEVICE, HUB, TestHub, token, within};

const PATH: &str = "/devices/kedge-device/modules";

async fn status(hub: &TestHub, key: &kedge_sim::sas::SharedAccessKey) -> Option<u16> {
    let token = token(&format!("{HUB}/devices/{DEVICE}"), key);
    let answer = hub.try_rest(Method::GET, PATH, Some(&token), None, "").await;
    answer.ok().map(|answer| answer.status.as_u16())
}

#[tokio::test]
async fn a_hub_that_is_offline_closes_connections_and_comes_back() {
    let (hub, key) = TestHub::with_device().await;
    let (client, mut incoming) = hub.connect(DEVICE, &key).await.unwrap();
    hub.service().set_faults(&FaultSettings { offline: true, ..FaultSettings::default() }).await.unwrap();
    assert!(within(incoming.next()).await.is_err(), "who is connected is cut off");
    drop(client);
    assert_eq!(status(&hub, &key).await, None);
    assert!(hub.connect(DEVICE, &key).await.is_err());
    hub.service().clear_faults().await.unwrap();
    assert_eq!(status(&hub, &key).await, Some(200));
    assert!(hub.connect(DEVICE, &key).await.is_ok());
}

#[tokio::test]
async fn all_connections_are_closed_once() {
    let (hub, key) = TestHub::with_device().await;
    let (_client, mut incoming) = hub.connect(DEVICE, &key).await.unwrap();
    hub.service().close_connections().await.unwrap();
    assert!(within(incoming.next()).await.is_err());
    assert!(hub.connect(DEVICE, &key).await.is_ok());
}

#[tokio::test]
async fn throttling_is_told_over_https_and_for_twins_over_mqtt() {
    let (hub, key) = TestHub::with_device().await;
    let (client, mut incoming) = hub.connect(DEVICE, &key).await.unwrap();
    client.subscribe(vec![Subscription::TwinResponses.to_string()]).await.unwrap();
    hub.service().set_faults(&FaultSettings { throttle: true, ..FaultSettings::default() }).await.unwrap();
    let answer = hub.as_owner(Method::GET, "/devices", None, &Value::Null).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.message().starts_with("ErrorCode:ThrottlingBacklogTimeout;"), "{}", answer.body);
    let mut ask = async |topic: ClientTopic, body: &'static str| {
        within(client.publish(topic.to_string(), body.into())).await.unwrap();
        match HubTopic::parse(&within(incoming.next()).await.unwrap().topic) {
            Ok(HubTopic::TwinResponse { status, .. }) => status,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(ClientTopic::TwinGet { request_id: "1".into() }, "").await, 429);
    assert_eq!(ask(ClientTopic::ReportedPatch { request_id: "2".into() }, "{}").await, 429);
    hub.service().clear_faults().await.unwrap();
    assert_eq!(ask(ClientTopic::TwinGet { request_id: "3".into() }, "").await, 200);
}

#[tokio::test]
async fn requests_are_rejected_with_the_status_that_is_wished() {
    let (hub, key) = TestHub::with_device().await;
    for wish in [500, 503, 400, 429] {
        let settings = FaultSettings { reject_status: Some(wish), ..FaultSettings::default() };
        hub.service().set_faults(&settings).await.unwrap();
        let token = token(&format!("{HUB}/devices/{DEVICE}"), &key);
        let answer = hub.rest(Method::GET, PATH, Some(&token), None, "").await;
        assert_eq!(answer.status.as_u16(), wish);
        assert_eq!(answer.body.is_null(), wish == 503, "{wish} {}", answer.body);
        assert!(wish == 503 || answer.message().starts_with("ErrorCode:"), "{}", answer.body);
    }
    let shown = hub.as_owner(Method::GET, "/kedge/faults", None, &Value::Null).await;
    assert_eq!(shown.body["rejectStatus"], 429);
    for body in [json!({"rejectStatus": 200}), json!({"typo": true}), json!({"clockSkewSecs": i64::MIN / 2})]
    {
        let answer = hub.as_owner(Method::PUT, "/kedge/faults", None, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_makes_tokens_expire() {
    let (hub, key) = TestHub::with_device().await;
    let skew = |secs| FaultSettings { clock_skew_secs: secs, ..FaultSettings::default() };
    for (secs, expected) in [(300, 200), (900, 401), (-900, 200)] {
        hub.service().set_faults(&skew(secs)).await.unwrap();
        assert_eq!(status(&hub, &key).await, Some(expected), "{secs}");
        assert_eq!(hub.connect(DEVICE, &key).await.is_ok(), expected == 200, "{secs}");
    }
    // Who wonders why, can compare the clocks.
    let (endpoint, tls) = hub.https();
    let request = Request::builder().uri("/").body(Default::default()).unwrap();
    let answer = HttpClient::new(endpoint, tls).send(request).await.unwrap();
    let date = answer.headers().get(header::DATE).unwrap().to_str().unwrap().to_owned();
    let date = jiff::fmt::rfc2822::parse(&date).unwrap().timestamp();
    assert!(jiff::Timestamp::now().duration_since(date).as_secs() > 800, "{date}");
}

#[tokio::test]
async fn modules_are_told_to_be_of_another_generation() {
    let (hub, key) = TestHub::with_device().await;
    let token = token(&format!("{HUB}/devices/{DEVICE}"), &key);
    let ask = async |method: Method, module: &str| {
        let body = if method == Method::PUT { "{}" } else { "" };
        let if_match = (method == Method::PUT).then_some("*");
        let path = format!("{PATH}{module}");
        hub.rest(method, &path, Some(&token), if_match, body).await.body
    };
    let asked = async || {
        let listed = ask(Method::GET, "").await;
        let listed = listed.as_array().unwrap().iter().find(|one| one["moduleId"] == "$edgeHub").cloned();
        let answers =
            [listed.unwrap(), ask(Method::GET, "/$edgeHub").await, ask(Method::PUT, "/$edgeHub").await];
        answers.map(|module| module["generationId"].as_str().unwrap().to_owned())
    };
    let before = asked().await;
    let settings = FaultSettings { wrong_generation_ids: true, ..FaultSettings::default() };
    hub.service().set_faults(&settings).await.unwrap();
    let during = asked().await;
    hub.service().clear_faults().await.unwrap();
    assert_eq!(asked().await, before);
    let [true_id, false_id] = [&before[0], &during[0]];
    assert_ne!(true_id, false_id);
    assert!(before.iter().all(|id| id == true_id) && during.iter().all(|id| id == false_id), "{during:?}");
}
