//! The workload API of a module, and the management API.

use std::time::Duration;

use kedge_sim::edge::health::Health;
use kedge_sim::edge::management::ask_health;
use kedge_sim::secret::Secret;
use kedge_sim::tls::{Endpoint, Trust, client_config, connect, serve, server_config};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::world::{IMAGE, SENSOR, World, ask, deployment, with_modules};

const VERSION: &str = "api-version=2022-08-03";

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_serves_its_own_module_only() {
    let world = World::new().await;
    let mut modules =
        deployment(&json!({}))["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"].clone();
    modules["other"] = modules[SENSOR].clone();
    world.deploy(&with_modules(&modules)).await;
    let edge = world.start_edge(crate::task_engine::TaskEngine::new(&[IMAGE])).await;
    edge.running(SENSOR).await;
    edge.running("other").await;
    let body = json!({"keyId": "primary", "algo": "HMACSHA256", "data": "ZGF0YQ=="}).to_string();
    let socket = edge.workload_socket(SENSOR);
    let own = ask(&socket, "POST", &format!("/modules/{SENSOR}/genid/x/sign?{VERSION}"), &body).await;
    assert_eq!(own.0, 200, "{}", own.1);
    let other = edge.workload_socket("other");
    let signed_by_other =
        ask(&other, "POST", &format!("/modules/other/genid/x/sign?{VERSION}"), &body).await.1;
    assert_ne!(own.1["digest"], signed_by_other["digest"], "each module has its own key");
    for path in [
        "/modules/other/genid/x/sign",
        "/modules/%24edgeHub/genid/x/sign",
        "/modules/other/genid/x/certificate/server",
    ] {
        let refused = ask(&socket, "POST", &format!("{path}?{VERSION}"), &body).await;
        assert_eq!(refused, (403, json!({"message": "forbidden"})), "{path}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_answered_are_refused_with_a_reason() {
    let (_world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let socket = edge.workload_socket(SENSOR);
    let sign = format!("/modules/{SENSOR}/genid/x/sign?{VERSION}");
    let request =
        |key: &str, algo: &str, data: &str| json!({"keyId": key, "algo": algo, "data": data}).to_string();
    for (path, body, status, message) in [
        ("/trust-bundle", String::new(), 400, "api-version not specified"),
        ("/trust-bundle?api-version=1999-01-01", String::new(), 400, "invalid api-version: 1999-01-01"),
        (sign.as_str(), "not json".to_owned(), 400, "malformed request body"),
        (&sign, request("primary", "MD5", ""), 400, "algo is not HMACSHA256"),
        (&sign, request("third", "HMACSHA256", ""), 400, "keyId is neither"),
        (&sign, request("primary", "HMACSHA256", "!"), 400, "data is not base64"),
        (
            &format!("/modules/{SENSOR}/genid/x/encrypt?{VERSION}"),
            String::new(),
            404,
            "not supported by the simulated",
        ),
    ] {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let (answered, answer) = ask(&socket, method, path, &body).await;
        assert_eq!(answered, status, "{path}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(message), "{path}: {answer}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_certificate_is_trusted_by_the_trust_bundle() {
    let (_world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let socket = edge.workload_socket(SENSOR);
    let path = format!("/modules/{SENSOR}/genid/x/certificate/server?{VERSION}");
    let body = json!({"commonName": "server.test", "expiration": "2030-01-01T00:00:00Z"}).to_string();
    let (status, certificate) = ask(&socket, "POST", &path, &body).await;
    assert_eq!((status, &certificate["privateKey"]["type"]), (201, &json!("key")));
    let key = Secret::new(certificate["privateKey"]["bytes"].as_str().unwrap());
    let config = server_config(certificate["certificate"].as_str().unwrap(), &key);
    let bundle = ask(&socket, "GET", &format!("/trust-bundle?{VERSION}"), "").await.1;
    let trust = client_config(Trust::Only(bundle["certificate"].as_str().unwrap())).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    tokio::spawn(serve(listener, config.unwrap(), 1, shutdown, |mut stream, _| async move {
        let _ = stream.write_all(b"x").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }));
    connect(&Endpoint::at("server.test", address), trust).await.unwrap();
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_api_lists_modules_and_tells_the_health() {
    let (_world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    edge.state(|state| state.clients.contains_key(SENSOR) && Health::from(state).problem().is_none()).await;
    let socket = edge.management_socket();
    let (status, modules) = ask(&socket, "GET", &format!("/modules?{VERSION}"), "").await;
    assert_eq!((status, &modules["modules"][0]["name"]), (200, &json!(SENSOR)));
    assert_eq!(modules["modules"][0]["status"]["runtimeStatus"]["status"], "running");
    assert_eq!(ask(&socket, "GET", "/modules", "").await.0, 400);
    assert_eq!(ask(&socket, "POST", &format!("/modules/{SENSOR}/restart?{VERSION}"), "").await.0, 404);
    let health = ask_health(&socket).await.unwrap();
    assert_eq!((health.problem(), health.gateway.clients.as_slice()), (None, [SENSOR.to_owned()].as_slice()));
    edge.stop().await;
    assert!(ask_health(&socket).await.is_err());
}
