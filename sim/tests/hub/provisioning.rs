//! The provisioning service, asked as the identity service and Microsoft's SDKs ask it.

use kedge_sim::http::Method;
use kedge_sim::hub::{DEFAULT_ID_SCOPE, FaultSettings};
use kedge_sim::mqtt::packet::ConnectReturnCode;
use kedge_sim::mqtt::{Client, ClientError, Incoming};
use kedge_sim::pki::{IssuedCertificate, Validity, self_signed_client};
use kedge_sim::sas::{SharedAccessKey, sign};
use serde_json::{Value, json};

use crate::harness::{HUB, Proof, TestHub, now, within};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

pub(crate) fn valid() -> Validity {
    Validity::for_next(DAY)
}

/// A token in the form of the identity service: everything lower case.
fn token(registration: &str, key: &SharedAccessKey) -> String {
    let resource = format!("{DEFAULT_ID_SCOPE}/registrations/{registration}").to_lowercase();
    sign(&resource, key, now() + 30, Some("registration"))
}

fn key_of(answer: &Value) -> SharedAccessKey {
    let text = answer["attestation"]["symmetricKey"]["primaryKey"].as_str().expect("a key");
    SharedAccessKey::from_base64(text).unwrap()
}

fn derive(group: &SharedAccessKey, registration: &str) -> SharedAccessKey {
    SharedAccessKey::from_bytes(group.hmac(registration.as_bytes()).to_vec()).unwrap()
}

fn path(registration: &str) -> String {
    format!("/{DEFAULT_ID_SCOPE}/registrations/{registration}")
}

pub(crate) fn symmetric() -> Value {
    json!({"attestation": {"type": "symmetricKey"}})
}

/// Registers over HTTPS and polls until the operation is done.
async fn register(hub: &TestHub, registration: &str, proof: &Proof<'_>) -> Value {
    let body = json!({"registrationId": registration});
    let (status, answer, headers) =
        hub.dps(Method::PUT, &format!("{}/register", path(registration)), proof, &body).await;
    assert_eq!((status, &answer["status"]), (202, &json!("assigning")), "{answer}");
    assert_eq!(headers["retry-after"], "3");
    let operation = answer["operationId"].as_str().unwrap();
    let poll = format!("{}/operations/{operation}", path(registration));
    loop {
        let (status, answer, headers) = hub.dps(Method::GET, &poll, proof, &Value::Null).await;
        if answer["status"] != "assigning" {
            assert_eq!(status, 200, "{answer}");
            assert_eq!(answer["operationId"], operation);
            assert_eq!(answer["status"], answer["registrationState"]["status"]);
            return answer["registrationState"].clone();
        }
        assert_eq!((status, &headers["retry-after"]), (202, &"3".parse().unwrap()), "{answer}");
        assert_eq!(answer["registrationState"]["registrationId"], registration);
    }
}

/// A connection of the Python SDK to the provisioning service.
struct Mqtt {
    client: Client,
    incoming: Incoming,
}

fn username(registration: &str) -> String {
    format!(
        "{DEFAULT_ID_SCOPE}/registrations/{registration}/api-version=2019-03-31&ClientVersion=py%2F2.14.0"
    )
}

impl Mqtt {
    async fn connect(hub: &TestHub, registration: &str, proof: &Proof<'_>) -> Result<Self, ClientError> {
        let (client, incoming) = hub.connect_dps(registration, &username(registration), proof).await?;
        within(client.subscribe(vec!["$dps/registrations/res/#".into()])).await?;
        Ok(Self { client, incoming })
    }

    async fn ask(&mut self, topic: &str, body: &str) -> (String, Value) {
        within(self.client.publish(topic.to_owned(), body.to_owned().into())).await.unwrap();
        let answer = within(self.incoming.next()).await.expect("an answer");
        (answer.topic, serde_json::from_slice(&answer.payload).unwrap())
    }

    async fn register(&mut self, registration: &str) -> Value {
        let body = json!({"registrationId": registration}).to_string();
        let (topic, answer) = self.ask("$dps/registrations/PUT/iotdps-register/?$rid=r1", &body).await;
        assert_eq!(topic, "$dps/registrations/res/202/?$rid=r1&retry-after=3");
        assert_eq!(answer["status"], "assigning");
        let id = answer["operationId"].as_str().unwrap();
        let query = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId={id}");
        loop {
            let (topic, answer) = self.ask(&query, " ").await;
            if answer["status"] != "assigning" {
                assert_eq!(topic, "$dps/registrations/res/200/?$rid=r2");
                return answer["registrationState"].clone();
            }
            assert_eq!(topic, "$dps/registrations/res/202/?$rid=r2&retry-after=3");
        }
    }
}

async fn register_everywhere(hub: &TestHub, registration: &str, proof: &Proof<'_>) -> Value {
    let over_https = register(hub, registration, proof).await;
    let mut mqtt = Mqtt::connect(hub, registration, proof).await.unwrap();
    let over_mqtt = mqtt.register(registration).await;
    for field in ["status", "assignedHub", "deviceId", "registrationId", "substatus"] {
        assert_eq!(over_https[field], over_mqtt[field], "{field}");
    }
    over_https
}

async fn expect_refused(hub: &TestHub, registration: &str, proof: &Proof<'_>, case: &str) {
    let request = format!("{}/register", path(registration));
    let (status, answer, _) = hub.dps(Method::PUT, &request, proof, &json!({})).await;
    assert_eq!((status, &answer["errorCode"]), (401, &json!(401_002)), "{case}: {answer}");
    assert_eq!(answer["message"], "Unauthorized");
    assert!(answer["trackingId"].is_string() && answer["timestampUtc"].is_string());
    let refused = Mqtt::connect(hub, registration, proof).await.err();
    assert!(matches!(refused, Some(ClientError::Refused(ConnectReturnCode::NotAuthorized))), "{case}");
}

#[tokio::test]
async fn a_device_registers_with_the_key_of_its_enrollment_and_connects_with_it() {
    let hub = TestHub::start().await;
    let mut enrollment = symmetric();
    enrollment["deviceId"] = json!("device-7");
    enrollment["capabilities"] = json!({"iotEdge": true});
    enrollment["initialTwin"] = json!({"tags": {"site": "a"}, "properties": {"desired": {"rate": 5}}});
    let key = key_of(&hub.service().put_enrollment("Reg-1", &enrollment).await.unwrap());
    let token = token("Reg-1", &key);
    let state = register_everywhere(&hub, "Reg-1", &Proof::Token(&token)).await;
    assert_eq!(
        (&state["status"], &state["assignedHub"], &state["deviceId"], &state["registrationId"]),
        (&json!("assigned"), &json!(HUB), &json!("device-7"), &json!("Reg-1"))
    );
    assert_eq!((&state["substatus"], &state["symmetricKey"]), (&json!("initialAssignment"), &json!({})));
    assert!(hub.connect("device-7", &key).await.is_ok());
    let modules = hub.service().modules("device-7").await.unwrap();
    assert_eq!(modules.len(), 2, "an edge device has its system modules");
    let twin = hub.service().device_twin("device-7").await.unwrap();
    assert_eq!((&twin["properties"]["desired"]["rate"], &twin["tags"]), (&json!(5), &json!({"site": "a"})));

    // Registering again keeps the device.
    let before = hub.get_device("device-7").await;
    let without_policy = sign(&format!("{DEFAULT_ID_SCOPE}/registrations/reg-1"), &key, now() + 30, None);
    for token in [token, without_policy] {
        assert_eq!(register(&hub, "reg-1", &Proof::Token(&token)).await["status"], "assigned");
    }
    let after = hub.get_device("device-7").await;
    assert_eq!((&before["generationId"], &before["etag"]), (&after["generationId"], &after["etag"]));
}

#[tokio::test]
async fn devices_of_a_group_register_with_derived_keys() {
    let hub = TestHub::start().await;
    let group_key = key_of(&hub.service().put_enrollment_group("factory", &symmetric()).await.unwrap());
    hub.service().put_enrollment_group("other", &symmetric()).await.unwrap();
    for registration in ["Reg-1", "reg-2"] {
        let key = derive(&group_key, registration);
        let state = register_everywhere(&hub, registration, &Proof::Token(&token(registration, &key))).await;
        assert_eq!((&state["status"], &state["deviceId"]), (&json!("assigned"), &json!(registration)));
        assert_eq!(state["symmetricKey"]["enrollmentGroupId"], "factory");
        assert!(hub.connect(registration, &key).await.is_ok());
    }
    let lower = token("Reg-3", &derive(&group_key, "reg-3"));
    assert_eq!(register(&hub, "Reg-3", &Proof::Token(&lower)).await["status"], "assigned");
    let foreign = token("reg-4", &derive(&group_key, "reg-2"));
    expect_refused(&hub, "reg-4", &Proof::Token(&foreign), "another device's key").await;
}

#[tokio::test]
async fn certificates_prove_devices_by_enrollment_and_by_group() {
    let hub = TestHub::start().await;
    let own = self_signed_client("reg-1", valid()).unwrap();
    let x509 = json!({"clientCertificates": {"primary": {"certificate": own.chain_pem}, "secondary": null}});
    let enrollment = json!({"attestation": {"type": "x509", "x509": x509}});
    let written = hub.service().put_enrollment("reg-1", &enrollment).await.unwrap();
    let info = &written["attestation"]["x509"]["clientCertificates"]["primary"]["info"];
    assert_eq!(
        (&info["subjectName"], info["sha1Thumbprint"].as_str().map(str::len)),
        (&json!("CN=reg-1"), Some(40))
    );
    let state = register_everywhere(&hub, "reg-1", &Proof::Certificate(&own)).await;
    assert_eq!((&state["status"], &state["x509"]), (&json!("assigned"), &json!({})));
    assert!(hub.connect_as("reg-1", &own).await.is_ok());

    let ca = json!({"signingCertificates": {"primary": {"certificate": hub.device_ca.certificate_pem()}}});
    let group = json!({"attestation": {"type": "x509", "x509": ca}});
    hub.service().put_enrollment_group("factory", &group).await.unwrap();
    let issue = |name: &str| hub.device_ca.issue_client(name, valid()).unwrap();
    let state = register_everywhere(&hub, "reg-2", &Proof::Certificate(&issue("reg-2"))).await;
    assert_eq!(
        (&state["deviceId"], &state["x509"]["enrollmentGroupId"]),
        (&json!("reg-2"), &json!("factory"))
    );

    let late = std::time::SystemTime::now() - DAY;
    let late = Validity { not_before: late - DAY, not_after: late };
    let refused: [(&str, &str, IssuedCertificate); 5] = [
        ("reg-1", "another certificate", self_signed_client("reg-1", valid()).unwrap()),
        ("reg-1", "one of the group", issue("reg-1")),
        ("reg-3", "another name", issue("reg-2")),
        ("reg-3", "self-signed", self_signed_client("reg-3", valid()).unwrap()),
        ("reg-3", "expired", hub.device_ca.issue_client("reg-3", late).unwrap()),
    ];
    for (registration, case, certificate) in &refused {
        expect_refused(&hub, registration, &Proof::Certificate(certificate), case).await;
    }

    hub.service().put_device_authority("known", hub.device_ca.certificate_pem()).await.unwrap();
    let by_name = json!({"attestation": {"type": "x509", "x509": {"caReferences": {"primary": "known"}}}});
    hub.service().put_enrollment_group("factory", &by_name).await.unwrap();
    assert_eq!(register(&hub, "reg-5", &Proof::Certificate(&issue("reg-5"))).await["status"], "assigned");
}

#[tokio::test]
async fn who_cannot_prove_it_is_not_authorised() {
    let hub = TestHub::start().await;
    let key = key_of(&hub.service().put_enrollment("reg-1", &symmetric()).await.unwrap());
    let resource = format!("{DEFAULT_ID_SCOPE}/registrations/reg-1");
    let policy = Some("registration");
    for (case, text) in [
        ("wrong key", token("reg-1", &SharedAccessKey::generate().unwrap())),
        ("expired", sign(&resource, &key, now() - 600, policy)),
        ("another policy", sign(&resource, &key, now() + 30, Some("iothubowner"))),
        (
            "wrong audience",
            sign(&format!("{DEFAULT_ID_SCOPE}/registrations/reg-2"), &key, now() + 30, policy),
        ),
        ("another scope", sign("0neOTHER/registrations/reg-1", &key, now() + 30, policy)),
        ("malformed", "SharedAccessSignature sr=a".to_owned()),
    ] {
        expect_refused(&hub, "reg-1", &Proof::Token(&text), case).await;
    }
    expect_refused(&hub, "unknown", &Proof::Token(&token("unknown", &key)), "not enrolled").await;
    let certificate = self_signed_client("reg-1", valid()).unwrap();
    expect_refused(&hub, "reg-1", &Proof::Certificate(&certificate), "another kind of proof").await;

    let good = token("reg-1", &key);
    let other_scope = sign("0neOTHER/registrations/reg-1", &key, now() + 30, policy);
    let (status, ..) = hub
        .dps(Method::PUT, "/0neOTHER/registrations/reg-1/register", &Proof::Token(&other_scope), &json!({}))
        .await;
    assert_eq!(status, 401, "unknown id scope");
    let username = username("reg-1").replace(DEFAULT_ID_SCOPE, "0neOTHER");
    let refused = hub.connect_with("reg-1", &username, &other_scope).await.err();
    assert!(matches!(refused, Some(ClientError::Refused(ConnectReturnCode::NotAuthorized))));
    let refused = hub.connect_with("reg-2", &self::username("reg-1"), &good).await.err();
    assert!(matches!(refused, Some(ClientError::Refused(ConnectReturnCode::BadClientId))));
    for (method, path, body, expected) in [
        (Method::PUT, format!("{}/register", path("reg-1")), json!({"registrationId": "reg-2"}), 400),
        (Method::PUT, format!("{}/register", path("-x")), json!({}), 400),
        (Method::PUT, format!("{}/register", path("reg-1")), json!([]), 400),
        (Method::GET, format!("{}/operations/5.0.x", path("reg-1")), Value::Null, 404),
        (Method::POST, path("reg-1"), json!({}), 404),
    ] {
        let (status, answer, _) = hub.dps(method, &path, &Proof::Token(&good), &body).await;
        assert_eq!(status, expected, "{path} {answer}");
    }
    let request = format!("{}/register", path("reg-1"));
    let (status, answer, headers) = hub.dps(Method::POST, &request, &Proof::Token(&good), &json!({})).await;
    assert_eq!((status, &headers["allow"]), (405, &"PUT".parse().unwrap()), "{answer}");
    assert!(answer["Message"].is_string(), "{answer}");
    let mut mqtt = Mqtt::connect(&hub, "reg-1", &Proof::Token(&good)).await.unwrap();
    let query = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId=x";
    let (topic, answer) = mqtt.ask(query, " ").await;
    assert_eq!(
        (topic.as_str(), &answer["errorCode"]),
        ("$dps/registrations/res/404/?$rid=1", &json!(404_204))
    );
    let (topic, _) = mqtt.ask("$dps/registrations/PUT/iotdps-register/?$rid=2", "[]").await;
    assert_eq!(topic, "$dps/registrations/res/400/?$rid=2");
    let refused = within(mqtt.client.subscribe(vec!["#".into()])).await;
    assert!(matches!(refused, Err(ClientError::SubscriptionRefused)));
    let refused = within(mqtt.client.publish("devices/reg-1/messages/events/".into(), "x".into())).await;
    assert!(refused.is_err(), "it is no connection to the hub");
    assert_eq!(register(&hub, "reg-1", &Proof::Token(&good)).await["status"], "assigned");
}

#[tokio::test]
async fn a_registration_without_a_body_is_one_that_says_nothing() {
    let hub = TestHub::start().await;
    let key = key_of(&hub.service().put_enrollment("reg-1", &symmetric()).await.unwrap());
    let token = token("reg-1", &key);
    let proof = Proof::Token(&token);
    let request = format!("{}/register", path("reg-1"));
    let (status, answer, _) = hub.dps(Method::PUT, &request, &proof, &Value::Null).await;
    assert_eq!((status, &answer["status"]), (202, &json!("assigning")), "{answer}");
    let mut mqtt = Mqtt::connect(&hub, "reg-1", &proof).await.unwrap();
    let (topic, answer) = mqtt.ask("$dps/registrations/PUT/iotdps-register/?$rid=1", "").await;
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=1&retry-after=3", "{answer}");
}

#[tokio::test]
async fn an_operation_takes_as_many_polls_as_it_is_told() {
    let hub = TestHub::start().await;
    let key = key_of(&hub.service().put_enrollment("reg-1", &symmetric()).await.unwrap());
    hub.service()
        .set_faults(&FaultSettings { provisioning_delay_polls: 2, ..FaultSettings::default() })
        .await
        .unwrap();
    let token = token("reg-1", &key);
    let (_, answer, _) =
        hub.dps(Method::PUT, &format!("{}/register", path("reg-1")), &Proof::Token(&token), &json!({})).await;
    let poll = format!("{}/operations/{}", path("reg-1"), answer["operationId"].as_str().unwrap());
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(hub.dps(Method::GET, &poll, &Proof::Token(&token), &Value::Null).await.0);
    }
    assert_eq!(statuses, [202, 202, 200, 200]);
    let mut mqtt = Mqtt::connect(&hub, "reg-1", &Proof::Token(&token)).await.unwrap();
    assert_eq!(mqtt.register("reg-1").await["status"], "assigned");
    let looked_up = hub.dps(Method::POST, &path("reg-1"), &Proof::Token(&token), &json!({})).await;
    assert_eq!((looked_up.0, &looked_up.1["status"]), (200, &json!("assigned")));
}

/// The identity service makes one token for 30 seconds, and polls with it every five seconds for as long as it takes.
#[tokio::test]
async fn a_poll_goes_on_for_a_while_after_the_token_has_expired() {
    let hub = TestHub::start().await;
    let key = key_of(&hub.service().put_enrollment("reg-1", &symmetric()).await.unwrap());
    let after = async |clock_skew_secs| {
        let settings = FaultSettings { provisioning_delay_polls: 2, clock_skew_secs, ..Default::default() };
        hub.service().set_faults(&settings).await.unwrap();
    };
    after(0).await;
    let token = token("reg-1", &key);
    let proof = Proof::Token(&token);
    let mut mqtt = Mqtt::connect(&hub, "reg-1", &proof).await.unwrap();
    let (_, answer, _) =
        hub.dps(Method::PUT, &format!("{}/register", path("reg-1")), &proof, &json!({})).await;
    let operation = answer["operationId"].as_str().unwrap();
    let poll = format!("{}/operations/{operation}", path("reg-1"));
    let query = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r1&operationId={operation}");
    for (secs, over_https, over_mqtt) in [(20, 202, 202), (45, 200, 200), (80, 200, 200), (95, 401, 401)] {
        after(secs).await;
        let (status, ..) = hub.dps(Method::GET, &poll, &proof, &Value::Null).await;
        let (topic, _) = mqtt.ask(&query, " ").await;
        let topic = topic.contains(&format!("/res/{over_mqtt}/"));
        assert_eq!((status, topic), (over_https, true), "{secs} s after the token was made");
    }
}

#[tokio::test]
async fn enrollments_that_are_disabled_or_cannot_be_carried_out_say_so() {
    let hub = TestHub::start().await;
    let service = hub.service();
    let mut enrollment = symmetric();
    enrollment["provisioningStatus"] = json!("disabled");
    let key = key_of(&service.put_enrollment("reg-1", &enrollment).await.unwrap());
    let state = register_everywhere(&hub, "reg-1", &Proof::Token(&token("reg-1", &key))).await;
    assert_eq!(state["status"], "disabled");
    assert!(service.device("reg-1").await.is_err());

    let mut enrollment = symmetric();
    enrollment["iotHubs"] = json!(["elsewhere.azure-devices.net"]);
    let key = key_of(&service.put_enrollment("reg-2", &enrollment).await.unwrap());
    let state = register_everywhere(&hub, "reg-2", &Proof::Token(&token("reg-2", &key))).await;
    assert_eq!((&state["status"], &state["errorCode"]), (&json!("failed"), &json!(400_004)));
    assert!(state["errorMessage"].as_str().unwrap().contains(HUB));
}
