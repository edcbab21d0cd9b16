//! The program around the hub: its configuration, its log, its signals.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use kedge_sim::pki::CertificateAuthority;
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::service::ServiceClient;
use kedge_sim::tls::Endpoint;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::{DEVICE, HUB, within};

/// Writes a configuration for free ports; gives the authority's certificate and the owner's key.
pub(crate) fn configure(folder: &Path) -> (String, SharedAccessKey) {
    let authority = CertificateAuthority::generate("KEdge test CA").unwrap();
    let issued = authority.issue_server(&[HUB], Duration::from_secs(3600)).unwrap();
    let owner_key = SharedAccessKey::generate().unwrap();
    let write = |name: &str, text: &str| fs_err::write(folder.join(name), text).unwrap();
    write("server.pem", &issued.chain_pem);
    write("server.key", issued.key_pem.expose());
    write("owner.key", owner_key.to_base64().expose());
    let file = |name: &str| folder.join(name);
    write(
        "hub.toml",
        &format!(
            "host_name = {HUB:?}\nhttps = \"127.0.0.1:0\"\nmqtt = \"127.0.0.1:0\"\ncertificate_file = {:?}\n\
             key_file = {:?}\nowner_key_file = {:?}\nstate_folder = {:?}\n",
            file("server.pem"),
            file("server.key"),
            file("owner.key"),
            file("state")
        ),
    );
    (authority.certificate_pem().to_owned(), owner_key)
}

pub(crate) fn start(folder: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kedge-hub"))
        .arg("--config")
        .arg(folder.join("hub.toml"))
        .env_remove("KEDGE_LOG")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

#[tokio::test]
async fn it_serves_until_sigterm_and_logs_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (ca_pem, owner_key) = configure(folder.path());
    let (mut child, mut lines) = start(folder.path());
    let mut log = within(lines.next_line()).await.unwrap().expect("a first line");
    let address =
        log.split("https=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
    let endpoint = Endpoint::at(HUB, address.parse().unwrap());
    let service = ServiceClient::new(endpoint, HUB, owner_key.clone(), Some(&ca_pem)).unwrap();
    assert_eq!(within(service.health()).await.unwrap().status, "running");
    let connection_string = within(service.register_edge_device(DEVICE)).await.unwrap();

    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(0));
    while let Some(line) = lines.next_line().await.unwrap() {
        log.push_str(&line);
    }
    assert!(log.contains("PUT") && log.contains("stopped"), "{log}");
    let device_key = connection_string.expose().rsplit_once("SharedAccessKey=").unwrap().1;
    for secret in [owner_key.to_base64().expose(), device_key, "SharedAccessSignature", "PRIVATE KEY"] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[tokio::test]
async fn a_bad_configuration_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    fs_err::remove_file(folder.path().join("owner.key")).unwrap();
    let (mut child, mut lines) = start(folder.path());
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(1));
    let line = lines.next_line().await.unwrap().expect("a line");
    assert!(line.contains("ERROR") && line.contains("owner.key"), "{line}");
    assert_eq!(lines.next_line().await.unwrap(), None);
}
