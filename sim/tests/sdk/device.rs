//! The SDK as a device of the hub.

use std::time::Duration;

use kedge_sim::http::Method;
use kedge_sim::hub::DEFAULT_ID_SCOPE;
use kedge_sim::pki::{CertificateAuthority, Validity, self_signed_client};
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::service::{CloudToDeviceMessage, MethodCall, TelemetryMessage};
use kedge_sim::x509::ClientCertificate;
use serde_json::{Value, json};

use crate::hub::Hub;
use crate::sdk::Sdk;

const DEVICE: &str = "press-1";
/// How the SDK tells what IoT Hub answers to credentials that it does not take.
const REFUSED: &str = "Connection Refused: not authorised";

async fn connected(hub: &Hub, more: Value) -> Sdk {
    let connection_string = hub.service().register_device(DEVICE).await.unwrap();
    let mut create = json!({"do": "create", "connection_string": connection_string.expose(), "ca": hub.ca()});
    create.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut sdk = Sdk::start().await;
    sdk.call(create).await;
    sdk.next("connected").await;
    sdk
}

pub(crate) fn method(name: &str, payload: Value) -> MethodCall {
    MethodCall {
        method_name: name.to_owned(),
        payload,
        response_timeout_in_seconds: None,
        connect_timeout_in_seconds: None,
    }
}

pub(crate) fn bodies(messages: &[TelemetryMessage]) -> Vec<&str> {
    messages.iter().map(|message| message.body.as_deref().unwrap()).collect()
}

#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn telemetry_arrives_with_its_properties() {
    let hub = Hub::start().await;
    let mut sdk = connected(&hub, json!({})).await;
    sdk.call(json!({
        "do": "send", "body": "{\"t\": 21.5}", "message_id": "m-1", "correlation_id": "c/1", "content_type": "application/json",
        "content_encoding": "utf-8", "properties": {"room": "küche 1&2", "a/b=c": "%2F"},
    }))
    .await;
    let message = hub.telemetry(1).await.remove(0);
    assert_eq!((message.device_id.as_str(), message.module_id.as_deref()), (DEVICE, None));
    assert_eq!(message.body.as_deref(), Some("{\"t\": 21.5}"));
    assert_eq!(message.properties["room"], "küche 1&2");
    assert_eq!(message.properties["a/b=c"], "%2F");
    let system: Vec<_> =
        message.system_properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    for expected in ["content-type=application/json", "content-encoding=utf-8", "correlation-id=c/1"] {
        assert!(system.iter().any(|property| property == expected), "{expected} is not among {system:?}");
    }
    sdk.call(json!({"do": "end"})).await;
}

#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn the_twin_is_read_reported_and_patched() {
    let hub = Hub::start().await;
    let mut sdk = connected(&hub, json!({})).await;
    let twin = sdk.call(json!({"do": "twin"})).await;
    assert_eq!(twin["desired"]["$version"], 1);
    sdk.call(json!({"do": "report", "patch": {"firmware": {"version": "2.1"}, "gone": null}})).await;
    let reported = hub.service().device_twin(DEVICE).await.unwrap()["properties"]["reported"].take();
    assert_eq!(reported["firmware"]["version"], "2.1");
    let service = hub.service();
    let patch = service.patch_device_desired(DEVICE, &json!({"interval": 5})).await.unwrap();
    assert_eq!(patch["properties"]["desired"]["$version"], 2);
    let desired = sdk.next("desired").await;
    assert_eq!(desired["patch"], json!({"interval": 5, "$version": 2}));
    let twin = sdk.call(json!({"do": "twin"})).await;
    assert_eq!(
        (&twin["desired"]["interval"], &twin["reported"]["firmware"]["version"]),
        (&json!(5), &json!("2.1"))
    );
    sdk.call(json!({"do": "end"})).await;
}

#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn a_direct_method_is_called_and_answered() {
    let hub = Hub::start().await;
    let mut sdk = connected(&hub, json!({})).await;
    let restart = method("restart", json!({"delay": 3}));
    let answer = hub.service().invoke_method(DEVICE, None, &restart).await.unwrap();
    assert_eq!((answer.status, answer.payload), (201, json!({"echo": {"delay": 3}})));
    let call = sdk.next("method").await;
    assert_eq!((&call["name"], &call["payload"]), (&json!("restart"), &json!({"delay": 3})));
    sdk.call(json!({"do": "end"})).await;
    let refused = hub.service().invoke_method(DEVICE, None, &restart).await.unwrap_err();
    assert_eq!(refused.status().map(|status| status.as_u16()), Some(404), "{refused}");
}

/// The SDK sends again what was not acknowledged, so nothing that it was told is sent may be missing.
#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn a_device_connects_again_when_the_hub_was_killed_and_loses_nothing() {
    let mut hub = Hub::start().await;
    let mut sdk = connected(&hub, json!({})).await;
    for number in 0..3 {
        sdk.call(json!({"do": "send", "body": number.to_string()})).await;
    }
    sdk.call(json!({"do": "report", "patch": {"a": 1}})).await;
    hub.kill().await;
    sdk.next("away").await;
    hub.start_again().await;
    sdk.next("connected").await;
    sdk.call(json!({"do": "send", "body": "3"})).await;
    let messages = hub.telemetry(4).await;
    assert_eq!(bodies(&messages), ["0", "1", "2", "3"]);
    assert_eq!(sdk.call(json!({"do": "twin"})).await["reported"]["a"], 1);
    let service = hub.service();
    service.patch_device_desired(DEVICE, &json!({"after": "the kill"})).await.unwrap();
    // When it connects again, the SDK looks as well whether it has missed a patch.
    while sdk.next("desired").await["patch"]["after"] != "the kill" {}
    sdk.call(json!({"do": "end"})).await;
}

#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn a_disabled_device_and_a_wrong_key_are_refused() {
    let hub = Hub::start().await;
    let right = hub.service().register_device(DEVICE).await.unwrap();
    let wrong = right.expose().replace("SharedAccessKey=", "SharedAccessKey=AAAA");
    let mut sdk = Sdk::start().await;
    let create = json!({"do": "create", "connection_string": wrong, "ca": hub.ca()});
    let error = sdk.attempt(&create).await.unwrap_err();
    assert!(error.contains(REFUSED), "{error}");
    hub.service().set_device_enabled(DEVICE, false).await.unwrap();
    let create = json!({"do": "create", "connection_string": right.expose(), "ca": hub.ca()});
    let error = sdk.attempt(&create).await.unwrap_err();
    assert!(error.contains(REFUSED), "{error}");
}

#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn a_device_proves_itself_by_a_certificate() {
    let hub = Hub::start().await;
    let validity = Validity::for_next(Duration::from_secs(3600));
    let authority = CertificateAuthority::generate("factory").unwrap();
    let by_authority = authority.issue_client("press-2", validity).unwrap();
    let self_signed = self_signed_client(DEVICE, validity).unwrap();
    let thumbprint = ClientCertificate::from_pem(&self_signed.chain_pem).unwrap().thumbprint().to_string();
    let thumbprints = json!({"primaryThumbprint": thumbprint, "secondaryThumbprint": thumbprint});
    let certificate = json!({"certificate": authority.certificate_pem()});
    hub.ask(Method::PUT, "/kedge/certificates/factory", &certificate).await;
    let cases = [
        (DEVICE, self_signed, json!({"type": "selfSigned", "x509Thumbprint": thumbprints})),
        ("press-2", by_authority, json!({"type": "certificateAuthority"})),
    ];
    for (device, issued, authentication) in cases {
        let body = json!({"deviceId": device, "authentication": authentication});
        hub.ask(Method::PUT, &format!("/devices/{device}"), &body).await;
        let file = |kind: &str, text: &str| {
            let path = hub.folder.path().join(format!("{device}.{kind}"));
            fs_err::write(&path, text).unwrap();
            path
        };
        let (chain, key) = (file("pem", &issued.chain_pem), file("key", issued.key_pem.expose()));
        let mut sdk = Sdk::start().await;
        let create = json!({
            "do": "create", "certificate": chain, "key": key, "hostname": hub.host, "device": device, "ca": hub.ca(),
        });
        sdk.call(create).await;
        sdk.call(json!({"do": "send", "body": device})).await;
        sdk.call(json!({"do": "end"})).await;
    }
    assert_eq!(bodies(&hub.telemetry(2).await), [DEVICE, "press-2"]);
}

#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn mqtt_over_web_sockets_does_the_same() {
    let hub = Hub::start().await;
    if !hub.has_web_sockets() {
        eprintln!("NOT TRIED: the SDK's WebSockets want port 443, which this user may not have; root may");
        return;
    }
    let mut sdk = connected(&hub, json!({"websockets": true})).await;
    sdk.call(json!({"do": "send", "body": "over a web socket", "properties": {"a": "1"}})).await;
    let message = hub.telemetry(1).await.remove(0);
    assert_eq!((message.body.as_deref(), message.properties["a"].as_str()), (Some("over a web socket"), "1"));
    let ping = method("ping", json!("x".repeat(70_000)));
    let answer = hub.service().invoke_method(DEVICE, None, &ping).await.unwrap();
    assert_eq!(answer.payload["echo"].as_str().map(str::len), Some(70_000));
    sdk.call(json!({"do": "end"})).await;
}

#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn messages_of_the_cloud_arrive_also_those_that_were_sent_while_the_device_was_away() {
    let hub = Hub::start().await;
    let mut sdk = connected(&hub, json!({})).await;
    let service = hub.service();
    let message = |id: &str, body: &str| CloudToDeviceMessage {
        body: body.to_owned().into(),
        message_id: Some(id.to_owned()),
        properties: [("room".to_owned(), "kitchen 1".to_owned())].into(),
        ..CloudToDeviceMessage::default()
    };
    service.send_cloud_to_device(DEVICE, &message("m-1", "{\"on\": true}")).await.unwrap();
    let arrived = sdk.next("message").await;
    assert_eq!((&arrived["body"], &arrived["id"]), (&json!("{\"on\": true}"), &json!("m-1")));
    assert_eq!(arrived["properties"]["room"], "kitchen 1");
    sdk.call(json!({"do": "end"})).await;
    service.send_cloud_to_device(DEVICE, &message("m-2", "later")).await.unwrap();
    let mut sdk = connected(&hub, json!({})).await;
    assert_eq!(sdk.next("message").await["id"], "m-2");
    sdk.call(json!({"do": "end"})).await;
}

#[tokio::test]
#[ignore = "installs Microsoft's SDK"]
async fn a_device_is_provisioned_and_connects_to_the_hub_that_it_is_told() {
    let hub = Hub::start().await;
    let enrollment = json!({"attestation": {"type": "symmetricKey"}});
    let group = hub.service().put_enrollment_group("factory", &enrollment).await.unwrap();
    let group_key = group["attestation"]["symmetricKey"]["primaryKey"].as_str().unwrap();
    let group_key = SharedAccessKey::from_base64(group_key).unwrap();
    let key = SharedAccessKey::from_bytes(group_key.hmac(b"press-9").to_vec()).unwrap().to_base64();
    let mut sdk = Sdk::start().await;
    let register = json!({
        "do": "register", "hostname": hub.host, "id_scope": DEFAULT_ID_SCOPE, "registration_id": "press-9",
        "symmetric_key": key.expose(), "ca": hub.ca(),
    });
    let told = sdk.call(register.clone()).await;
    assert_eq!(told, json!({"status": "assigned", "hub": hub.host, "device": "press-9"}));
    let create = json!({
        "do": "create", "symmetric_key": key.expose(), "hostname": told["hub"], "device": told["device"], "ca": hub.ca(),
    });
    sdk.call(create).await;
    sdk.call(json!({"do": "send", "body": "provisioned"})).await;
    assert_eq!(hub.telemetry(1).await[0].device_id, "press-9");
    sdk.call(json!({"do": "end"})).await;
    let mut foreign = register;
    foreign["registration_id"] = json!("press-10");
    let error = sdk.attempt(&foreign).await.unwrap_err();
    assert!(error.contains(REFUSED), "the key of another registration: {error}");
}
