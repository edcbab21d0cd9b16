//! Devices and modules that prove who they are by a certificate, over MQTT and HTTPS.

use std::time::{Duration, SystemTime};

use kedge_sim::http::{Method, StatusCode};
use kedge_sim::mqtt::ClientError;
use kedge_sim::mqtt::packet::ConnectReturnCode;
use kedge_sim::pki::{CertificateAuthority, IssuedCertificate, Validity, self_signed_client};
use kedge_sim::x509::ClientCertificate;
use serde_json::{Value, json};

use crate::harness::{DEVICE, HUB, TestHub, token, within};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn valid() -> Validity {
    Validity::for_next(DAY)
}

/// Not valid yet, and no longer valid.
fn invalid() -> [Validity; 2] {
    let now = SystemTime::now();
    [
        Validity { not_before: now + DAY, not_after: now + 2 * DAY },
        Validity { not_before: now - 2 * DAY, not_after: now - DAY },
    ]
}

fn thumbprint(certificate: &IssuedCertificate) -> String {
    ClientCertificate::from_pem(&certificate.chain_pem).unwrap().thumbprint().to_string()
}

fn self_signed(primary: &str, secondary: Option<&str>) -> Value {
    let thumbprints = json!({"primaryThumbprint": primary, "secondaryThumbprint": secondary});
    json!({"authentication": {"type": "selfSigned", "x509Thumbprint": thumbprints}})
}

fn by_authority() -> Value {
    json!({"authentication": {"type": "certificateAuthority"}})
}

/// What the hub says over both ways in.
async fn let_in(hub: &TestHub, client_id: &str, certificate: &IssuedCertificate) -> bool {
    let device = client_id.split('/').next().unwrap();
    let mqtt = match hub.connect_as(client_id, certificate).await {
        Ok(_) => true,
        Err(ClientError::Refused(code)) => {
            assert_eq!(code, ConnectReturnCode::NotAuthorized);
            false
        }
        Err(error) => panic!("{error}"),
    };
    if client_id == device {
        let answer = hub.get_as(certificate, &format!("/devices/{device}/modules")).await;
        assert_eq!(answer.status == StatusCode::OK, mqtt, "{}", answer.body);
        if !mqtt {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            assert!(answer.message().starts_with("ErrorCode:IotHubUnauthorizedAccess;Unauthorized"));
        }
    }
    mqtt
}

#[tokio::test]
async fn a_registered_thumbprint_lets_in_and_any_other_certificate_does_not() {
    let hub = TestHub::start().await;
    let make = |validity| self_signed_client("any name", validity).unwrap();
    let (one, two, other) = (make(valid()), make(valid()), make(valid()));
    let sha1 = ClientCertificate::from_pem(&two.chain_pem).unwrap().thumbprint_sha1().to_string();
    let created = hub.put_device("d", &self_signed(&thumbprint(&one).to_lowercase(), Some(&sha1))).await;
    assert_eq!(
        created.body["authentication"],
        json!({
            "type": "selfSigned",
            "symmetricKey": {"primaryKey": null, "secondaryKey": null},
            "x509Thumbprint": {"primaryThumbprint": thumbprint(&one), "secondaryThumbprint": sha1},
        })
    );
    assert!(let_in(&hub, "d", &one).await);
    assert!(let_in(&hub, "d", &two).await);
    assert!(!let_in(&hub, "d", &other).await);
    hub.put_device("e", &self_signed(&thumbprint(&other), None)).await;
    assert!(!let_in(&hub, "e", &one).await, "another device's certificate");
    for (device, validity) in ["early", "late"].into_iter().zip(invalid()) {
        let certificate = make(validity);
        hub.put_device(device, &self_signed(&thumbprint(&certificate), None)).await;
        assert!(!let_in(&hub, device, &certificate).await, "{device}");
    }
    hub.service().set_device_enabled("d", false).await.unwrap();
    assert!(!let_in(&hub, "d", &one).await, "disabled");
}

#[tokio::test]
async fn a_certificate_of_a_registered_authority_lets_in_the_device_that_it_names() {
    let hub = TestHub::start().await;
    let created = hub.put_device("d", &by_authority()).await;
    assert_eq!(created.body["authentication"]["type"], "certificateAuthority");
    hub.put_device("e", &by_authority()).await;
    let issue = |authority: &CertificateAuthority, name: &str, validity| {
        authority.issue_client(name, validity).unwrap()
    };
    let good = issue(&hub.device_ca, "d", valid());
    assert!(let_in(&hub, "d", &good).await);
    let below = hub.device_ca.issue_authority("below", valid()).unwrap();
    assert!(let_in(&hub, "d", &issue(&below, "d", valid())).await, "through another authority");
    assert!(!let_in(&hub, "e", &good).await, "another device's certificate");
    for name in ["D", "d ", "other", "d/m"] {
        assert!(!let_in(&hub, "d", &issue(&hub.device_ca, name, valid())).await, "{name:?}");
    }
    for validity in invalid() {
        assert!(!let_in(&hub, "d", &issue(&hub.device_ca, "d", validity)).await, "{validity:?}");
        let below = hub.device_ca.issue_authority("below", validity).unwrap();
        assert!(!let_in(&hub, "d", &issue(&below, "d", valid())).await, "an authority with {validity:?}");
    }
    assert!(!let_in(&hub, "d", &self_signed_client("d", valid()).unwrap()).await);

    let stranger = CertificateAuthority::generate("stranger").unwrap();
    let foreign = issue(&stranger, "d", valid());
    assert!(!let_in(&hub, "d", &foreign).await, "an unknown authority");
    let path = "/kedge/certificates/stranger";
    let body = json!({"certificate": stranger.certificate_pem()});
    assert_eq!(hub.as_owner(Method::PUT, path, None, &body).await.status, StatusCode::OK);
    assert!(let_in(&hub, "d", &foreign).await, "an authority that a service has added");
    assert!(let_in(&hub, "d", &good).await);
    let listed = hub.as_owner(Method::GET, "/kedge/certificates", None, &Value::Null).await;
    assert_eq!(listed.body["stranger"]["certificate"], body["certificate"]);
    assert_eq!(hub.as_owner(Method::DELETE, path, None, &Value::Null).await.status, StatusCode::NO_CONTENT);
    assert!(!let_in(&hub, "d", &foreign).await);
    assert_eq!(hub.as_owner(Method::DELETE, path, None, &Value::Null).await.status, StatusCode::NOT_FOUND);
    for text in ["", "no PEM", good.chain_pem.as_str()] {
        let answer = hub.as_owner(Method::PUT, path, None, &json!({"certificate": text})).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{text:?}");
    }
}

#[tokio::test]
async fn modules_prove_themselves_by_certificates_of_their_own() {
    let hub = TestHub::start().await;
    hub.put_device("d", &by_authority()).await;
    let put = async |module: &str, body: &Value| {
        hub.as_owner(Method::PUT, &format!("/devices/d/modules/{module}"), None, body).await
    };
    let own = self_signed_client("m", valid()).unwrap();
    assert_eq!(put("m", &self_signed(&thumbprint(&own), None)).await.status, StatusCode::OK);
    assert_eq!(put("n", &by_authority()).await.status, StatusCode::OK);
    let issue = |name: &str| hub.device_ca.issue_client(name, valid()).unwrap();
    assert!(let_in(&hub, "d/m", &own).await);
    assert!(let_in(&hub, "d/n", &issue("d/n")).await);
    assert!(!let_in(&hub, "d/m", &issue("d/m")).await);
    for name in ["d", "n", "d/m", "e/n"] {
        assert!(!let_in(&hub, "d/n", &issue(name)).await, "{name}");
    }
}

#[tokio::test]
async fn a_token_counts_more_than_a_certificate_and_neither_stands_for_the_other() {
    let (hub, key) = TestHub::with_device().await;
    let certificate = hub.device_ca.issue_client(DEVICE, valid()).unwrap();
    assert!(!let_in(&hub, DEVICE, &certificate).await, "the device has keys");
    hub.put_device("d", &by_authority()).await;
    assert!(hub.connect("d", &key).await.is_err(), "the device has no keys");
    let path = "/devices/d/modules";
    let wrong = token(&format!("{HUB}/devices/d"), &key);
    let answer = hub.rest(Method::GET, path, Some(&wrong), None, "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    // A connection with a certificate can still be that of a device with a key.
    let resource = format!("{HUB}/devices/{DEVICE}");
    let username = format!("{HUB}/{DEVICE}/?api-version=2021-04-12");
    let connected = hub.connect_with_both(DEVICE, &username, &token(&resource, &key), &certificate).await;
    assert!(connected.is_ok());
    hub.put_device("nobody", &json!({"authentication": {"type": "none"}})).await;
    assert!(!let_in(&hub, "nobody", &hub.device_ca.issue_client("nobody", valid()).unwrap()).await);
}

#[tokio::test]
async fn thumbprints_that_are_none_are_refused() {
    let hub = TestHub::start().await;
    for body in [
        json!({"authentication": {"type": "selfSigned"}}),
        self_signed("", None),
        self_signed("AB", None),
        self_signed(&"Z".repeat(40), None),
        json!({"authentication": {"type": "password"}}),
    ] {
        assert_eq!(hub.put_device("d", &body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn the_gateway_connects_for_identities_in_its_scope_and_for_no_other() {
    let (hub, device_key) = TestHub::with_device().await;
    let gateway_key = hub.upload_key(&device_key, "$edgeHub").await;
    hub.service().register_leaf_device("leaf", DEVICE).await.unwrap();
    let stray_key = hub.register("stray").await;
    let gateway = format!("{HUB}/devices/{DEVICE}/modules/$edgeHub");
    let connect = async |client_id: &str, chain: &str, password: &str| {
        let username = format!("{HUB}/{client_id}/?api-version=2021-04-12&auth-chain={chain}");
        within(hub.connect_with(client_id, &username, password)).await
    };
    let good = token(&gateway, &gateway_key);
    assert!(connect("leaf", "leaf%3Bkedge-device", &good).await.is_ok());
    assert!(connect("kedge-device/$edgeAgent", "kedge-device/$edgeAgent;kedge-device", &good).await.is_ok());
    for (client_id, chain, password) in [
        ("stray", "stray;kedge-device", good.clone()),
        ("stray", "stray;stray", good.clone()),
        ("leaf", "leaf;stray", token(&format!("{HUB}/devices/stray/modules/$edgeHub"), &stray_key)),
        ("leaf", "leaf;kedge-device", token(&gateway, &device_key)),
        ("leaf", "leaf;unknown", good.clone()),
        ("unknown", "unknown;kedge-device", good),
    ] {
        let refused = connect(client_id, chain, &password).await;
        assert!(
            matches!(refused, Err(ClientError::Refused(ConnectReturnCode::NotAuthorized))),
            "{client_id} {chain}"
        );
    }
}
