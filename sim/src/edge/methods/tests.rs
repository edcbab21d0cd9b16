use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::models::ContainerCreateBody;
use tokio::time::{sleep, timeout};

use super::*;
use crate::edge::deployment::RegistryCredential;
use crate::edge::engine::{EngineError, EngineVersion, LogFrame, LogRequest, LogStream};
use crate::edge::planner::{ContainerState, ObservedModule};
use crate::identity::Identity;
use crate::module_client::TwinError;
use crate::module_client::tests::Peer;

/// An engine with two modules that have logs, and nothing else. It takes its time to find them.
pub(in crate::edge) struct Logs {
    delay: Duration,
}

fn unused<T>() -> Result<T, EngineError> {
    Err(EngineError { message: "not asked for here".to_owned() })
}

impl crate::edge::engine::Engine for Logs {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        unused()
    }
    async fn ensure_network(&self, _: &str) -> Result<IpAddr, EngineError> {
        unused()
    }
    async fn modules(&self) -> Result<BTreeMap<String, ObservedModule>, EngineError> {
        sleep(self.delay).await;
        let module = ObservedModule {
            digest: None,
            image: String::new(),
            image_id: String::new(),
            state: ContainerState::Running,
            started_at: None,
            finished_at: None,
            exit_code: None,
        };
        Ok(["filter", "sensor"].map(|name| (name.to_owned(), module.clone())).into())
    }
    async fn has_pinned_image(&self, _: &str) -> bool {
        false
    }
    async fn pull(&self, _: &str, _: Option<&RegistryCredential>) -> Result<(), EngineError> {
        unused()
    }
    async fn create(&self, _: &str, _: ContainerCreateBody) -> Result<(), EngineError> {
        unused()
    }
    async fn start(&self, _: &str) -> Result<(), EngineError> {
        unused()
    }
    async fn stop(&self, _: &str) -> Result<(), EngineError> {
        unused()
    }
    async fn remove(&self, _: &str) -> Result<(), EngineError> {
        unused()
    }
    fn logs(&self, name: &str, request: LogRequest) -> Result<LogStream, EngineError> {
        let count = usize::try_from(request.tail.unwrap_or(40)).unwrap();
        let line = format!("<4> {name} {}\n", "x".repeat(4000));
        let frame = LogFrame { is_error: false, text: line.into() };
        Ok(futures_util::stream::iter(vec![Ok(frame); count]).boxed())
    }
}

/// Methods whose engine finds its modules after a delay.
pub(in crate::edge) fn methods(orders: Orders, delay: Duration) -> Methods<Logs> {
    Methods::new(Arc::new(Logs { delay }), orders, Arc::new(Upstream::of_nowhere()))
}

async fn handle(name: &str, body: &str) -> (i32, Value) {
    let (orders, _notes) = Orders::noted();
    let (status, body) = methods(orders, Duration::ZERO).handle(name, body.as_bytes()).await;
    (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
}

#[tokio::test]
async fn methods_are_answered_over_the_connection() {
    let identity = Identity::module("d", "$edgeAgent").unwrap();
    let (mut peer, client, _notices) = Peer::with_client(&identity).await;
    let (orders, mut notes) = Orders::noted();
    let calls = client.method_calls().await.unwrap();
    let methods = methods(orders, Duration::ZERO);
    let serving = tokio::spawn(async move { methods.serve(calls, pending()).await });
    assert_eq!(peer.call("ping", "null").await, (200, Bytes::new()));
    let body = r#"{"schemaVersion":"1.0","id":"sensor"}"#;
    assert_eq!(peer.call("RestartModule", body).await, (200, Bytes::new()));
    assert_eq!(notes.recv().await.unwrap(), ("sensor".to_owned(), Action::Restart));
    drop(client);
    let end = serving.await.unwrap();
    assert!(matches!(end, SessionEnd::Lost(TwinError::Client(ClientError::Closed))), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn more_calls_than_are_worked_on_at_once_are_answered_also_when_the_renewal_comes_before() {
    let identity = Identity::module("d", "$edgeAgent").unwrap();
    let (mut peer, client, _notices) = Peer::with_client(&identity).await;
    let (orders, _notes) = Orders::noted();
    let calls = client.method_calls().await.unwrap();
    let methods = methods(orders, Duration::from_secs(5));
    for _ in 0..=MAX_CALLS {
        peer.send("$iothub/methods/POST/RestartModule/?$rid=7", r#"{"schemaVersion":"1.0","id":"sensor"}"#);
    }
    let renewal = async {
        sleep(Duration::from_secs(1)).await;
        client.end_method_calls().await
    };
    let end = timeout(Duration::from_secs(60), methods.serve(calls, renewal)).await;
    assert!(matches!(end, Ok(SessionEnd::Renewal)), "{end:?}");
    drop(client);
    for _ in 0..=MAX_CALLS {
        assert_eq!(peer.published().await.topic, "$iothub/methods/res/200/?$rid=7");
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_told_with_the_status_of_the_real_agent() {
    for (name, body, status, message) in [
        (
            "reboot",
            "",
            400,
            "Command 'reboot' not found. The supported commands are - ping,RestartModule,GetModuleLogs",
        ),
        ("RestartModule", "", 400, "Request payload not found"),
        ("RestartModule", "null", 400, "Request payload not found"),
        ("RestartModule", "{", 400, "Error parsing command payload because of error - "),
        ("RestartModule", "[]", 400, "Error parsing command payload because of error - "),
        ("RestartModule", r#"{"schemaVersion":"1.0"}"#, 400, "Error parsing command payload"),
        ("RestartModule", r#"{"schemaVersion":"1.0","id":" "}"#, 400, "Error parsing command payload"),
        ("RestartModule", r#"{"id":"sensor"}"#, 400, "schemaVersion is missing"),
        (
            "RestartModule",
            r#"{"schemaVersion":"x","id":"sensor"}"#,
            500,
            "Invalid restart module request schema version x",
        ),
        (
            "RestartModule",
            r#"{"schemaVersion":"2.0","id":"sensor"}"#,
            500,
            "The restart module request schema version 2.0 is not compatible with the expected version 1.0",
        ),
        (
            "restartmodule",
            r#"{"SchemaVersion":"1.0","ID":"other"}"#,
            500,
            "Module other not found in the current environment",
        ),
        ("RestartModule", r#"{"schemaVersion":"1.0","id":"edgeHub"}"#, 500, "edgeHub is a part of"),
        ("GetModuleLogs", r#"{"schemaVersion":"1.0"}"#, 400, "items is missing"),
        ("GetModuleLogs", r#"{"schemaVersion":"1.0","items":{"id":"("}}"#, 400, "regex parse error"),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"1.0","items":[{"id":"all","filter":{"regex":"("}}]}"#,
            400,
            "Error parsing",
        ),
        ("GetModuleLogs", r#"{"schemaVersion":"1.0","items":[{"filter":{}}]}"#, 400, "Error parsing"),
        ("GetModuleLogs", r#"{"schemaVersion":"1.0","items":[],"encoding":"zip"}"#, 400, "encoding"),
        ("GetModuleLogs", r#"{"schemaVersion":"1.0","items":[],"contentType":"xml"}"#, 400, "contentType"),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"3.1","items":[]}"#,
            500,
            "logs upload request schema version 3.1",
        ),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"1.0","items":[{"id":"all","filter":{"since":"soon"}}]}"#,
            500,
            "invalid parameter: since",
        ),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"1.0","items":[{"id":"all","filter":{"tail":-1}}]}"#,
            500,
            "tail",
        ),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"1.0","items":[{"id":"sensor"}]}"#,
            400,
            "supports up to 127000 bytes",
        ),
    ] {
        let (answered, answer) = handle(name, body).await;
        assert_eq!(answered, status, "{name} {body}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(message), "{name} {body}: {answer}");
    }
}

#[tokio::test]
async fn logs_are_given_for_the_modules_that_match() {
    let logs = |items: Value, encoding: &str| {
        json!({"schemaVersion": "1.1", "items": items, "encoding": encoding, "contentType": "text"})
            .to_string()
    };
    let (status, answer) =
        handle("GetModuleLogs", &logs(json!([{"id": "^SEN", "filter": {"tail": 2}}]), "none")).await;
    assert_eq!((status, answer.as_array().unwrap().len()), (200, 1), "{answer}");
    assert_eq!((&answer[0]["id"], &answer[0]["payloadBytes"]), (&json!("sensor"), &Value::Null));
    let text = answer[0]["payload"].as_str().unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("<4> sensor xxx")).count(), 2);

    let both = json!([{"id": "sensor", "filter": {"loglevel": 6}}, {"id": "all"}]);
    let (status, answer) = handle("GetModuleLogs", &logs(both, "gzip")).await;
    assert_eq!(status, 200, "what is too large may be small when compressed: {answer}");
    let sizes = answer.as_array().unwrap().iter().map(|log| {
        assert_eq!(log["payload"], Value::Null);
        let bytes = STANDARD.decode(log["payloadBytes"].as_str().unwrap()).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(bytes.as_slice()), &mut text)
            .unwrap();
        text.lines().count()
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [40, 0], "the first item that matches decides");
    let (status, answer) = handle("GetModuleLogs", &logs(json!({"id": "nobody"}), "none")).await;
    assert_eq!((status, answer), (200, json!([])));
}
