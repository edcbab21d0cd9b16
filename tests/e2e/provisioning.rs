//! Every kind of credentials, carried through a pod to the hub; a new key; a part that is missing; and no secret anywhere
//! but where it belongs.

mod leaks;
mod world;

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kedge_sim::pki::{CertificateAuthority, Validity, self_signed_client};
use kedge_sim::sas::SharedAccessKey;
use serde_json::{Value, json};

use self::leaks::Marked;
use self::world::World;
use crate::bundle::{Bundle, secrets_of};
use crate::harness::newest_run;

const SCOPE: &str = "0neKEDGE";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Found wherever it is: its base64 has all the characters that others escape.
const MARKED: &[u8] = b"MARKED>>>???-kedge-device-key-42";

fn symmetric(key: &str) -> Value {
    json!({ "type": "sas", "symmetricKey": { "primaryKey": key, "secondaryKey": key } })
}

fn enrollment(attestation: &Value, device: Option<&str>) -> Value {
    json!({ "attestation": attestation, "deviceId": device, "capabilities": { "iotEdge": true } })
}

fn year() -> Validity {
    Validity { not_before: SystemTime::now() - YEAR, not_after: SystemTime::now() + YEAR }
}

#[test]
#[ignore = "needs a container engine"]
fn every_kind_of_credentials_leads_the_pod_to_the_hub() {
    let world = World::up();
    let marked = Marked::new(MARKED);
    connection_string(&world, &marked);
    sas_with_a_new_key(&world, &marked);
    x509(&world);
    dps_symmetric_key(&world);
    dps_symmetric_key_of_a_group(&world);
    dps_x509(&world);
    a_missing_part(&world);
    a_run_that_proves_nothing(&world, &marked);
}

fn connection_string(world: &World, marked: &Marked) {
    let key = STANDARD.encode(MARKED);
    world.create("press-cs", &symmetric(&key));
    let text = format!("HostName={};DeviceId=press-cs;SharedAccessKey={key}", world.hub());
    let told = world.device("connection-string --from -", &text);
    marked.is_not_in("what `device` prints", told.as_bytes());
    marked.is_in_no_process_during(|| world.up_again());
    world.is_at_the_hub("press-cs");
    world.has_files(&[]);
    world.holds_marked_key_only_in_memory(marked, &["/etc/aziot/config.toml"]);
}

fn sas_with_a_new_key(world: &World, marked: &Marked) {
    let first = SharedAccessKey::generate().unwrap();
    world.create("press-sas", &symmetric(first.to_base64().expose()));
    let command = format!("sas --host-name {} --device-id press-sas --from -", world.hub());
    world.device(&command, first.to_base64().expose());
    world.up_again();
    let pod = world.is_at_the_hub("press-sas");
    world.has_files(&[("device-key", "aziotks", first.expose())]);

    // The hub gets another key, and takes the old one no longer.
    world.delete("press-sas");
    world.create("press-sas", &symmetric(&STANDARD.encode(MARKED)));
    let file = world.write("key", &STANDARD.encode(MARKED));
    world.device(&format!("{} {file}", command.trim_end_matches(" -")), "");
    world.up_again();
    assert_ne!(world.is_at_the_hub("press-sas"), pod, "a new key rolls the pod");
    world.has_files(&[("device-key", "aziotks", MARKED)]);
    world.holds_marked_key_only_in_memory(marked, &["/var/secrets/kedge/device-key"]);
    marked.is_not_in("what Kubernetes shows", world.objects().as_bytes());
    marked.is_not_in("the pod's log", world.pod_log().as_bytes());
    marked.is_not_in_folder("the run", &newest_run());
    marked.is_in_no_file_but("the state", &world.state(), &["device/credentials.json"]);
    marked.is_not_in_image(&world.edge_image());
}

/// The hub does not know this device: `up` makes it there.
fn x509(world: &World) {
    let authority = CertificateAuthority::generate("Factory CA").unwrap();
    let issued = authority.issue_client("press-x509", year()).unwrap();
    let (chain, key) =
        (world.write("c.pem", &issued.chain_pem), world.write("k.pem", issued.key_pem.expose()));
    let hub = world.hub();
    let command = format!("x509 --host-name {hub} --device-id press-x509 --certificate {chain} --from {key}");
    world.device(&command, "");
    world.up_again();
    world.is_at_the_hub("press-x509");
    world.has_files(&[
        ("identity-certificate.pem", "aziotcs", issued.chain_pem.as_bytes()),
        ("identity-key.pem", "aziotks", issued.key_pem.expose().as_bytes()),
    ]);
}

fn dps_symmetric_key(world: &World) {
    let key = SharedAccessKey::generate().unwrap();
    let text = key.to_base64();
    let keys = json!({ "primaryKey": text.expose(), "secondaryKey": text.expose() });
    world.enroll("press-dps", &enrollment(&json!({ "type": "symmetricKey", "symmetricKey": keys }), None));
    world.register("dps-symmetric-key", "--registration-id press-dps", text.expose());
    world.is_at_the_hub("press-dps");
    world.has_files(&[("device-key", "aziotks", key.expose())]);
}

fn dps_symmetric_key_of_a_group(world: &World) {
    let group = SharedAccessKey::generate().unwrap();
    let text = group.to_base64();
    let keys = json!({ "primaryKey": text.expose(), "secondaryKey": text.expose() });
    world
        .enroll_group("presses", &enrollment(&json!({ "type": "symmetricKey", "symmetricKey": keys }), None));
    world.register("dps-symmetric-key", "--registration-id press-group --group", text.expose());
    world.is_at_the_hub("press-group");
    world.has_files(&[("device-key", "aziotks", group.derive("press-group").unwrap().expose())]);
}

/// The enrolment names another device id than the registration id, which is the common name of the certificate.
fn dps_x509(world: &World) {
    let issued = self_signed_client("press-reg", year()).unwrap();
    let certificates = json!({ "primary": { "certificate": issued.chain_pem } });
    let attestation = json!({ "type": "x509", "x509": { "clientCertificates": certificates } });
    world.enroll("press-reg", &enrollment(&attestation, Some("press-named")));
    let bundle = CertificateAuthority::generate("Modules' CA").unwrap();
    let bundle_file = world.write("b.pem", bundle.certificate_pem());
    let certificate = world.write("c.pem", &issued.chain_pem);
    let flags = format!("--device-id press-named --certificate {certificate} --trust-bundle {bundle_file}");
    world.register("dps-x509", &flags, issued.key_pem.expose());
    world.is_at_the_hub("press-named");
    world.has_files(&[
        ("identity-certificate.pem", "aziotcs", issued.chain_pem.as_bytes()),
        ("identity-key.pem", "aziotks", issued.key_pem.expose().as_bytes()),
        ("trust-bundle.pem", "aziotcs", bundle.certificate_pem().as_bytes()),
    ]);
}

/// A Secret that lacks what its config.toml refers to is told in the pod's log, in one line.
fn a_missing_part(world: &World) {
    world.take_from_the_secret("identity-key.pem");
    let log = world.log_of_a_failed_pod();
    let lines: Vec<_> = log.lines().filter(|line| line.starts_with("kedge: ")).collect();
    assert!(lines.len() == 1 && lines[0].contains("identity-key.pem"), "{log}");
}

/// What is kept of a failed run has no secret in it; `e2e` removes all but what was given.
fn a_run_that_proves_nothing(world: &World, marked: &Marked) {
    let command = format!("sas --host-name {} --device-id press-sas --from -", world.hub());
    world.device(&command, &STANDARD.encode(MARKED));
    let mut secrets = secrets_of(&world.state());
    secrets.extend([STANDARD.encode(MARKED), String::from_utf8(MARKED.to_vec()).unwrap()]);
    let told = world.fail_to_prove();
    marked.is_not_in("what `e2e` prints", told.as_bytes());
    let run = newest_run();
    marked.is_not_in_folder("the evidence", &run);
    let bundle = Bundle::of(&run);
    bundle.has(&[
        "report.json",
        "evidence/machine.json",
        "evidence/cluster/events.yaml",
        "evidence/cluster/pods.yaml",
        "evidence/cluster/deployments.yaml",
        "evidence/cluster/nodes.yaml",
        "evidence/cluster/claims.yaml",
        "evidence/nodes/kedge-device-control-plane/kubelet.log",
        "evidence/nodes/kedge-device-control-plane/containerd.log",
        "evidence/edge/console.log",
        "evidence/edge/journal.log",
        "evidence/edge/docker-ps.txt",
        "evidence/edge/docker-inspect.json",
        "evidence/edge/modules/tempSensor.log",
        "evidence/engine/containers.json",
        "evidence/hub/hub.log",
        "evidence/hub/messages.jsonl",
        "evidence/registry/registry.log",
    ]);
    assert!(bundle.text("evidence/cluster/secrets.yaml").contains("config.toml: "), "their names are told");
    bundle.has_none_of(&secrets);
    world.nothing_is_left_but_what_was_given();
}
