//! Enrolments, as services see them.

use kedge_sim::http::{Method, StatusCode};
use kedge_sim::pki::self_signed_client;
use serde_json::{Value, json};

use crate::harness::TestHub;
use crate::provisioning::{symmetric, valid};

#[tokio::test]
async fn services_write_read_and_delete_enrollments_in_the_form_of_the_real_service() {
    let hub = TestHub::start().await;
    let call = async |method, path: &str, if_match: Option<&str>, body: &Value| {
        let answer = hub.as_owner(method, path, if_match, body).await;
        (answer.status.as_u16(), answer.body)
    };
    for (kind, id_name, id) in
        [("enrollments", "registrationId", "reg-1"), ("enrollmentGroups", "enrollmentGroupId", "Factory_1")]
    {
        let path = format!("/{kind}/{id}");
        let mut body = symmetric();
        body[id_name] = json!(id);
        body["reprovisionPolicy"] = json!({"updateHubAssignment": true, "migrateDeviceData": true});
        let (status, created) = call(Method::PUT, &path, None, &body).await;
        assert_eq!((status, &created[id_name]), (200, &json!(id)));
        assert_eq!(created["provisioningStatus"], "enabled");
        assert_eq!(created["reprovisionPolicy"], body["reprovisionPolicy"]);
        assert_eq!(call(Method::PUT, &path, None, &body).await.0, 409);
        let (status, read) = call(Method::GET, &path, None, &Value::Null).await;
        assert_eq!((status, &read["attestation"]), (200, &json!({"type": "symmetricKey"})));
        assert_eq!((&read["etag"], read["createdDateTimeUtc"].is_string()), (&created["etag"], true));
        let mechanism = format!("{path}/attestationmechanism");
        let (_, attestation) = call(Method::POST, &mechanism, None, &Value::Null).await;
        assert_eq!(attestation, created["attestation"]);

        // What was read with its keys can be written back.
        let etag = created["etag"].as_str().unwrap();
        let (status, updated) = call(Method::PUT, &path, Some(etag), &created).await;
        assert_eq!((status, &updated["attestation"]), (200, &created["attestation"]));
        assert_eq!(call(Method::PUT, &path, Some(etag), &created).await.0, 412);
        assert_eq!(call(Method::DELETE, &path, Some(etag), &Value::Null).await.0, 412);
        let (_, listed) = call(Method::POST, &format!("/{kind}/query"), None, &json!({"query": "*"})).await;
        assert_eq!(listed.as_array().map(Vec::len), Some(1));
        assert_eq!(call(Method::DELETE, &path, None, &Value::Null).await.0, 204);
        for (method, path) in [(Method::GET, &path), (Method::DELETE, &path), (Method::POST, &mechanism)] {
            assert_eq!(call(method, path, None, &Value::Null).await.0, 404);
        }
        assert_eq!(call(Method::PUT, &path, Some("*"), &body).await.0, 404);
    }
    let client =
        json!({"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": "AAAA"}}}});
    let leaf = hub.device_ca.issue_client("x", valid()).unwrap().chain_pem;
    let not_ca = json!({"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": leaf}}}});
    for (path, body) in [
        ("/enrollments/reg-1", json!({})),
        ("/enrollments/reg-1", json!({"attestation": {"type": "tpm", "tpm": {"endorsementKey": "AA=="}}})),
        ("/enrollments/reg-1", json!({"attestation": {"type": "x509", "x509": {}}})),
        ("/enrollments/reg-1", json!({"attestation": client})),
        ("/enrollmentGroups/g", json!({"attestation": not_ca})),
        (
            "/enrollments/reg-1",
            json!({"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "!"}}}),
        ),
        ("/enrollments/reg-1", json!({"attestation": {"type": "symmetricKey"}, "registrationId": "reg-2"})),
        ("/enrollments/reg-1", json!({"attestation": {"type": "symmetricKey"}, "deviceId": "a/b"})),
        ("/enrollmentGroups/g", json!({"attestation": {"type": "symmetricKey"}, "deviceId": "d"})),
        ("/enrollments/-reg", symmetric()),
    ] {
        assert_eq!(call(Method::PUT, path, None, &body).await.0, 400, "{path} {body}");
    }
    let answer = hub.rest(Method::GET, "/enrollments/reg-1", None, None, "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_array_is_nowhere_taken_for_an_object() {
    let hub = TestHub::start().await;
    let pem = self_signed_client("reg-1", valid()).unwrap().chain_pem;
    let with_x509 = |x509: Value| json!({"attestation": {"type": "x509", "x509": x509}});
    let with = |field: &str, value: Value| {
        let mut body = symmetric();
        body[field] = value;
        body
    };
    for body in [
        with("attestation", json!(["symmetricKey", {}])),
        with("attestation", json!({"type": "symmetricKey", "symmetricKey": [null, null]})),
        with("capabilities", json!([true])),
        with("initialTwin", json!([{}, {}])),
        with("initialTwin", json!({"properties": [{}]})),
        with_x509(json!([{"primary": {"certificate": pem}}, null, null])),
        with_x509(json!({"clientCertificates": [{"certificate": pem}, null]})),
        with_x509(json!({"clientCertificates": {"primary": [pem]}})),
        with_x509(json!({"caReferences": ["known", null]})),
    ] {
        let answer = hub.as_owner(Method::PUT, "/enrollments/reg-1", None, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(message.contains("invalid type: sequence"), "{body}: {message}");
    }
    let proper = with_x509(json!({"clientCertificates": {"primary": {"certificate": pem}}}));
    let answer = hub.as_owner(Method::PUT, "/enrollments/reg-1", None, &proper).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
}
