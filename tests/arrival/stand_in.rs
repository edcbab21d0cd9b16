//! The program that plays the Event Hub, with certificates of its own.

#![allow(dead_code, reason = "each test that has it uses another part")]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use kedge_sim::pki::CertificateAuthority;
use kedge_sim::secret::Secret;
use kedge_sim::tls::{Trust, client_config};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use xtask::arrival::{EventHub, ReadError, Reader, Sender};

pub(crate) const ENTITY: &str = "plant";
pub(crate) const KEY: &str = "c2VjcmV0LWtleS1vZi10aGUtcG9saWN5";
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct StandIn {
    child: Child,
    hub: EventHub,
    authority: String,
    folder: tempfile::TempDir,
    /// What opens it.
    pub(crate) connection_string: String,
}

/// A moment, by its number.
pub(crate) fn at(number: i64) -> i64 {
    1_700_000_000_000 + number
}

/// A message of the sensor in a partition, with this number and time of arrival.
pub(crate) fn message(partition: &str, number: i64, enqueued: i64) -> Value {
    json!({
        "partition": partition, "number": number, "enqueued": enqueued, "device": "device", "module": "tempSensor",
        "properties": {"sequenceNumber": number.to_string()}, "body": json!({"number": number}).to_string(),
    })
}

impl StandIn {
    /// Starts it; `changes` differ from what lets everybody in who has the key.
    pub(crate) async fn start(changes: Value) -> Self {
        let authority = CertificateAuthority::generate("Event Hub").unwrap();
        let server = authority.issue_server(&["127.0.0.1"], Duration::from_secs(3600)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        fs_err::write(&chain, &server.chain_pem).unwrap();
        fs_err::write(&key, server.key_pem.expose()).unwrap();
        let mut setting = json!({
            "chain": chain, "key": key, "policy": "service", "key_text": KEY, "entity": ENTITY,
            "groups": ["$Default"], "partitions": ["0", "1", "2", "3"], "messages": [],
        });
        setting.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/arrival/event_hub.py");
        // Debian's own Python: it has Debian's packages.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(program).arg(setting.to_string()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap();
        let port =
            port.unwrap_or_else(|| panic!("the stand-in has ended; is python3-qpid-proton installed?"));
        let text = format!(
            "Endpoint=sb://127.0.0.1:{port}/;SharedAccessKeyName=service;SharedAccessKey={KEY};EntityPath={ENTITY}"
        );
        let hub = EventHub::parse(&Secret::new(text.as_str())).unwrap();
        let authority = authority.certificate_pem().to_owned();
        Self { child, hub, authority, folder, connection_string: text }
    }

    /// Writes a file beside those of the stand-in.
    pub(crate) fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs_err::write(&path, contents).unwrap();
        path
    }

    /// The file with the authority of its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.write("authority.pem", &self.authority)
    }

    pub(crate) async fn open(&self) -> Result<Reader, ReadError> {
        self.open_since(0).await
    }

    pub(crate) async fn open_since(&self, since: i64) -> Result<Reader, ReadError> {
        self.open_trusting(Trust::Only(&self.authority), since).await
    }

    pub(crate) async fn open_as_a_stranger(&self) -> Result<Reader, ReadError> {
        let other = CertificateAuthority::generate("Other").unwrap();
        self.open_trusting(Trust::Only(other.certificate_pem()), 0).await
    }

    async fn open_trusting(&self, trust: Trust<'_>, since: i64) -> Result<Reader, ReadError> {
        let sender = Sender { device: "device".into(), module: "tempSensor".into() };
        let since = Timestamp::from_millisecond(since).unwrap();
        Reader::open(&self.hub, "$Default", &sender, since, client_config(trust).unwrap()).await
    }

    pub(crate) async fn stop(&mut self) {
        self.child.kill().await.unwrap();
    }
}
