//! The ways in which the device comes to its identity.

use std::time::Duration;

use kedge_sim::edge::board::LinkState;
use kedge_sim::http::Method;
use kedge_sim::hub::DEFAULT_ID_SCOPE;
use kedge_sim::pki::{IssuedCertificate, Validity, self_signed_client};
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::x509::ClientCertificate;
use serde_json::{Value, json};

use crate::task_engine::TaskEngine;
use crate::world::{Edge, HUB, IMAGE, World};

const SYMMETRIC: &str = "symmetricKey";

fn certificate(common_name: &str) -> IssuedCertificate {
    self_signed_client(common_name, Validity::for_next(Duration::from_secs(3600))).unwrap()
}

/// Writes the certificate; the lines of the configuration that name it.
fn files(world: &World, certificate: &IssuedCertificate) -> String {
    let [cert, key] = ["device.pem", "device-key.pem"].map(|name| world.folder.path().join(name));
    fs_err::write(&cert, &certificate.chain_pem).unwrap();
    fs_err::write(&key, certificate.key_pem.expose()).unwrap();
    format!(
        "method = \"x509\"\nidentity_cert = \"file://{}\"\nidentity_pk = \"file://{}\"\n",
        cert.display(),
        key.display()
    )
}

fn dps(attestation: &str) -> String {
    format!(
        "source = \"dps\"\nglobal_endpoint = \"https://{HUB}\"\nid_scope = \"{DEFAULT_ID_SCOPE}\"\n\
         [provisioning.attestation]\n{attestation}"
    )
}

fn symmetric_key(registration: &str, key: &SharedAccessKey) -> String {
    let key = key.to_base64();
    format!(
        "method = \"symmetric_key\"\nregistration_id = \"{registration}\"\nsymmetric_key = {{ value = \"{}\" }}\n",
        key.expose()
    )
}

fn enrollment(attestation: &Value) -> Value {
    json!({"attestation": attestation, "capabilities": {"iotEdge": true}})
}

async fn enroll(world: &World, registration: &str) -> SharedAccessKey {
    let enrollment = enrollment(&json!({"type": SYMMETRIC}));
    let written = world.service.put_enrollment(registration, &enrollment).await.unwrap();
    SharedAccessKey::from_base64(written["attestation"][SYMMETRIC]["primaryKey"].as_str().unwrap()).unwrap()
}

/// Its identities are in the hub, with the keys that were derived here.
async fn works(edge: &Edge) {
    let connected = LinkState::Connected;
    edge.state(|state| state.agent == connected && state.edge_hub == connected).await;
}

async fn start(world: &World, table: &str) -> Edge {
    world.start_edge_provisioned(table, TaskEngine::new(&[IMAGE])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_proves_a_device_that_was_registered_by_hand() {
    let world = World::new().await;
    let certificate = certificate("x509-edge");
    let thumbprint = ClientCertificate::from_pem(&certificate.chain_pem).unwrap().thumbprint();
    let body = json!({
        "deviceId": "x509-edge",
        "capabilities": {"iotEdge": true},
        "authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}},
    });
    let (status, answer) = world.ask_hub(Method::PUT, "/devices/x509-edge", &body).await;
    assert_eq!(status, 200, "{answer}");
    let table = format!(
        "source = \"manual\"\niothub_hostname = \"{HUB}\"\ndevice_id = \"x509-edge\"\n\
         [provisioning.authentication]\n{}",
        files(&world, &certificate)
    );
    let edge = start(&world, &table).await;
    works(&edge).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provisioning_service_assigns_by_key_by_derived_key_and_by_certificate() {
    let world = World::new().await;
    let own = enroll(&world, "Reg-1").await;
    let group = enrollment(&json!({"type": SYMMETRIC}));
    let group = world.service.put_enrollment_group("factory", &group).await.unwrap();
    let group = group["attestation"][SYMMETRIC]["primaryKey"].as_str().unwrap();
    let group = SharedAccessKey::from_base64(group).unwrap();
    let derived = SharedAccessKey::from_bytes(group.hmac(b"reg-2").to_vec()).unwrap();
    let certificate = certificate("reg-3");
    let chain = json!({"clientCertificates": {"primary": {"certificate": certificate.chain_pem}}});
    let by_certificate = enrollment(&json!({"type": "x509", "x509": chain}));
    world.service.put_enrollment("reg-3", &by_certificate).await.unwrap();
    for attestation in
        [symmetric_key("Reg-1", &own), symmetric_key("reg-2", &derived), files(&world, &certificate)]
    {
        let edge = start(&world, &dps(&attestation)).await;
        works(&edge).await;
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_is_good_while_everything_is_away() {
    let world = World::new().await;
    let table = dps(&symmetric_key("reg-1", &enroll(&world, "reg-1").await));
    let edge = start(&world, &table).await;
    works(&edge).await;
    edge.stop().await;
    world.https.cut();
    world.mqtt.cut();
    let edge = start(&world, &table).await;
    world.mqtt.mend();
    works(&edge).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_its_hub_refuses_is_registered_anew() {
    let world = World::new().await;
    let table = dps(&symmetric_key("reg-1", &enroll(&world, "reg-1").await));
    let edge = start(&world, &table).await;
    works(&edge).await;
    edge.stop().await;
    world.service.delete_device("reg-1").await.unwrap();
    let edge = start(&world, &table).await;
    works(&edge).await;
    edge.stop().await;
}
