//! The workload API of a module, and the management API.

use std::time::Duration;

use jiff::Timestamp;
use kedge_sim::edge::health::Health;
use kedge_sim::edge::management::ask_health;
use kedge_sim::secret::Secret;
use kedge_sim::tls::{Endpoint, Trust, client_config, connect, serve, server_config};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use crate::world::{DEVICE, Edge, HUB, IMAGE, SENSOR, World, ask, ask_raw, deployment, sensor, with_modules};

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
        "/modules/other/genid/x/encrypt",
        "/modules/other/certificate/identity",
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
    let encrypt = format!("/modules/{SENSOR}/genid/x/encrypt?{VERSION}");
    let decrypt = format!("/modules/{SENSOR}/genid/x/decrypt?{VERSION}");
    let foreign = json!({"ciphertext": "AAAA", "initializationVector": "AAAA"}).to_string();
    for (method, path, body, status, message) in [
        ("GET", "/trust-bundle", "", 400, "api-version not specified"),
        ("GET", "/trust-bundle?api-version=1999-01-01", "", 400, "invalid api-version \"1999-01-01\""),
        ("POST", &format!("/trust-bundle?{VERSION}"), "{}", 400, "method not allowed"),
        ("GET", &format!("/nothing?{VERSION}"), "", 404, "not found"),
        ("GET", &sign, "", 400, "method not allowed"),
        ("POST", &sign, "", 400, "missing request body"),
        ("POST", &sign, "not json", 422, "expected"),
        ("POST", &sign, "{}", 422, "missing field `data`"),
        ("POST", &sign, r#"["ZGF0YQ=="]"#, 422, "expected an object"),
        ("POST", &sign, r#"{"data":"!"}"#, 400, "invalid parameter: "),
        ("POST", &encrypt, "{}", 422, "missing field `plaintext`"),
        ("POST", &decrypt, &foreign, 500, "could not decrypt"),
    ] {
        let (answered, answer) = ask(&socket, method, path, body).await;
        assert_eq!(answered, status, "{path}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(message), "{path}: {answer}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_has_its_data_encrypted_and_gets_it_back_after_a_restart() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let call = async |edge: &Edge, operation: &str, body: Value| {
        let path = format!("/modules/{SENSOR}/genid/any/{operation}?{VERSION}");
        let (status, answer) = ask(&edge.workload_socket(SENSOR), "POST", &path, &body.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let vector = "bXkgdmVjdG9y";
    let sealed =
        call(&edge, "encrypt", json!({"plaintext": "c2VjcmV0", "initializationVector": vector})).await;
    assert!(!sealed["ciphertext"].as_str().unwrap().contains("c2VjcmV0"));
    let edge = world.start_edge(edge.stop().await).await;
    edge.running(SENSOR).await;
    let body = json!({"ciphertext": sealed["ciphertext"], "initializationVector": vector});
    assert_eq!(call(&edge, "decrypt", body).await, json!({"plaintext": "c2VjcmV0"}));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_module_has_encrypted_no_other_module_and_generation_gets_back() {
    let world = World::new().await;
    let module = deployment(&json!({}))["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
        [SENSOR]
        .take();
    world.deploy(&with_modules(&json!({"m": module, "m1": module}))).await;
    let edge = world.start_edge(crate::task_engine::TaskEngine::new(&[IMAGE])).await;
    let call = async |module: &str, path: &str, body: &Value| {
        edge.running(module).await;
        let path = format!("/modules/{module}/genid/{path}?{VERSION}");
        ask(&edge.workload_socket(module), "POST", &path, &body.to_string()).await
    };
    let body = json!({"plaintext": "c2VjcmV0", "initializationVector": "AAAA"});
    let (status, sealed) = call("m1", "X/encrypt", &body).await;
    assert_eq!(status, 200, "{sealed}");
    let body = json!({"ciphertext": sealed["ciphertext"], "initializationVector": "AAAA"});
    for (module, path, expected) in
        [("m1", "X/decrypt", 200), ("m", "1X/decrypt", 500), ("m", "1%2FX/decrypt", 500)]
    {
        let (status, answer) = call(module, path, &body).await;
        assert_eq!(status, expected, "{module} {path}: {answer}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_gets_an_identity_certificate_of_the_edge_ca() {
    let (_world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let path = format!("/modules/{SENSOR}/certificate/identity?{VERSION}");
    let (status, answer) = ask(&edge.workload_socket(SENSOR), "POST", &path, "").await;
    assert_eq!((status, &answer["privateKey"]["type"]), (201, &json!("key")));
    let key = Secret::new(answer["privateKey"]["bytes"].as_str().unwrap());
    server_config(answer["certificate"].as_str().unwrap(), &key).expect("the key is that of the certificate");
    let (_, pem) = parse_x509_pem(answer["certificate"].as_str().unwrap().as_bytes()).unwrap();
    let leaf = pem.parse_x509().unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    let expected = format!("azureiot://{HUB}/devices/{DEVICE}/modules/{SENSOR}");
    assert_eq!(names.general_names, [GeneralName::URI(&expected)]);
    let thirty_days = Timestamp::now() + Duration::from_secs(30 * 24 * 3600);
    let expiration: Timestamp = answer["expiration"].as_str().unwrap().parse().unwrap();
    assert!((thirty_days - expiration).get_seconds().abs() < 60, "{expiration}");
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
    edge.state(|state| state.clients.contains_key(&sensor()) && Health::from(state).problem().is_none())
        .await;
    let socket = edge.management_socket();
    let (status, modules) = ask(&socket, "GET", &format!("/modules?{VERSION}"), "").await;
    assert_eq!((status, &modules["modules"][0]["name"]), (200, &json!(SENSOR)));
    assert_eq!(modules["modules"][0]["status"]["runtimeStatus"]["status"], "running");
    assert_eq!(ask(&socket, "GET", "/modules", "").await.0, 400);
    let health = ask_health(&socket).await.unwrap();
    assert_eq!((health.problem(), health.gateway.clients.as_slice()), (None, [SENSOR.to_owned()].as_slice()));
    edge.stop().await;
    assert!(ask_health(&socket).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_api_serves_the_tools() {
    let (_world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let socket = edge.management_socket();
    let call = async |method: &str, path: &str| {
        let separator = if path.contains('?') { '&' } else { '?' };
        ask(&socket, method, &format!("{path}{separator}{VERSION}"), "").await
    };
    assert_eq!(call("POST", &format!("/modules/{SENSOR}/restart")).await.0, 204);
    assert_eq!(edge.engine.starts(SENSOR), 2);
    let (status, module) = call("GET", &format!("/modules/{SENSOR}")).await;
    assert_eq!((status, &module["config"]["settings"]["image"]), (200, &json!(IMAGE)));
    edge.engine.write_log(SENSOR, "hello");
    let (status, log) = ask_raw(&socket, &format!("/modules/{SENSOR}/logs?tail=1&{VERSION}")).await;
    assert_eq!((status, log.as_ref()), (200, b"\x01\0\0\0\0\0\0\x06hello\n".as_slice()));
    let (_, identities) = call("GET", "/identities/").await;
    let mut names: Vec<_> =
        identities["identities"].as_array().unwrap().iter().map(|one| one["moduleId"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["$edgeAgent", "$edgeHub", SENSOR]);
    assert_eq!(identities["identities"][0]["authType"], "sas");
    let (status, info) = call("GET", "/systeminfo").await;
    assert_eq!((status, &info["osType"], &info["server_version"]), (200, &json!("Linux"), &json!("test")));
    for (method, path, status, message) in [
        ("GET", "/modules/unknown", 404, "No such module: unknown"),
        ("POST", "/modules/unknown/restart", 404, "No such module: unknown"),
        ("GET", "/modules/unknown/logs", 404, "No such module: unknown"),
        ("GET", "/modules/tempSensor/logs?tail=some", 400, "invalid parameter: tail"),
        ("POST", "/modules/tempSensor/dance", 404, "not found"),
        ("DELETE", "/modules/tempSensor", 403, "forbidden"),
        ("POST", "/device/reprovision", 403, "forbidden"),
        ("DELETE", "/identities/tempSensor", 403, "forbidden"),
        ("DELETE", "/systeminfo", 400, "method not allowed"),
    ] {
        assert_eq!(call(method, path).await, (status, json!({"message": message})), "{method} {path}");
    }
    edge.stop().await;
}
