use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use kedge_sim::http::{HttpClient, Request};
use kedge_sim::hub::{self, Config, DEFAULT_ID_SCOPE, Listeners};
use kedge_sim::pki::{CertificateAuthority, IssuedCertificate};
use kedge_sim::sas::{OWNER_POLICY, SharedAccessKey, sign, unix_seconds};
use kedge_sim::tls::{self, Endpoint, Trust};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

const HUB: &str = "hub.test";
const DEVICE: &str = "d";

fn message(body: &str) -> TelemetryMessage {
    serde_json::from_value(json!({
        "offset": 1, "enqueuedTimeUtc": "2026-01-01T10:20:30.5Z", "deviceId": "d", "moduleId": "m",
        "systemProperties": { "iothub-output-name": "out" }, "properties": { "a": "1" },
        "body": body, "bodyBase64": null,
    }))
    .unwrap()
}

#[test]
fn a_message_is_one_line_and_cannot_act_on_a_terminal() {
    assert_eq!(line(&message("{\"t\": 1}")), "10:20:30.500 d/m out {\"t\": 1} a=1");
    assert_eq!(line(&message("a\n\u{1b}[2Jü")), "10:20:30.500 d/m out a\\n\\u{1b}[2Jü a=1");
}

fn watch(left: Option<u64>, json: bool) -> Watch {
    Watch { filter: TelemetryFilter::default(), since: Timestamp::UNIX_EPOCH, left, json, after: 0 }
}

#[test]
fn as_many_are_shown_as_were_asked_for() {
    let mut watch = watch(Some(3), true);
    let page = TelemetryPage { messages: vec![message("a"), message("b")], next: 2 };
    assert!(watch.show(&page, &mut Vec::new()).unwrap());
    assert_eq!((watch.left, watch.after), (Some(1), 2));
    assert!(!watch.show(&page, &mut Vec::new()).unwrap(), "the last one ends it");
    watch.since = Timestamp::MAX;
    watch.left = None;
    assert!(watch.show(&page, &mut Vec::new()).unwrap());
}

/// What stays when a hub is started again.
struct World {
    authority: CertificateAuthority,
    certificate: IssuedCertificate,
    owner_key: SharedAccessKey,
    address: Cell<Option<SocketAddr>>,
}

/// A hub in this process.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl World {
    fn new() -> Self {
        let authority = CertificateAuthority::generate("CA").unwrap();
        let certificate = authority.issue_server(&[HUB], Duration::from_secs(3600)).unwrap();
        let owner_key = SharedAccessKey::generate().unwrap();
        Self { authority, certificate, owner_key, address: Cell::new(None) }
    }

    async fn start(&self, state_folder: &Path) -> Running {
        let bind = async || TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let listeners = Listeners { https: bind().await, mqtt: bind().await };
        self.address.set(Some(listeners.https.local_addr().unwrap()));
        let config = Config {
            host_name: HUB.to_owned(),
            tls: tls::server_config(&self.certificate.chain_pem, &self.certificate.key_pem).unwrap(),
            owner_key: self.owner_key.clone(),
            retention: Default::default(),
            state_folder: state_folder.to_owned(),
            id_scope: DEFAULT_ID_SCOPE.to_owned(),
            device_ca: None,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(hub::run(listeners, config, stop.clone()));
        Running { stop, task }
    }

    async fn stop(&self, hub: Running) {
        hub.stop.cancel();
        hub.task.await.unwrap().unwrap();
        self.address.set(None);
    }

    fn endpoint(&self) -> Result<Endpoint> {
        Ok(Endpoint::at(HUB, self.address.get().context("there is no hub")?))
    }

    fn service(&self) -> Result<ServiceClient> {
        let ca_pem = self.authority.certificate_pem();
        Ok(ServiceClient::new(self.endpoint()?, HUB, self.owner_key.clone(), Some(ca_pem))?)
    }

    async fn send(&self, body: &'static str) {
        let tls = tls::client_config(Trust::Only(self.authority.certificate_pem())).unwrap();
        let expiry = unix_seconds(Timestamp::now()) + 60;
        let request = Request::post(format!("/devices/{DEVICE}/messages/events?api-version=2021-04-12"))
            .header("authorization", sign(HUB, &self.owner_key, expiry, Some(OWNER_POLICY)))
            .body(Bytes::from_static(body.as_bytes()))
            .unwrap();
        let answer = HttpClient::new(self.endpoint().unwrap(), tls).send(request).await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_sent_to_a_hub_is_printed_once_also_when_the_hub_is_away_in_between() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let hub = world.start(folder.path()).await;
    world.service().unwrap().register_device(DEVICE).await.unwrap();
    world.send("one").await;
    let (mut watch, mut out) = (watch(Some(3), false), Vec::new());
    let find = async || {
        pause(Duration::from_millis(20), &CancellationToken::new()).await;
        world.service()
    };
    let script = async {
        world.send("two").await;
        world.stop(hub).await;
        let hub = world.start(folder.path()).await;
        world.send("three").await;
        hub
    };
    let follow = watch.follow(world.service().unwrap(), find, &mut out);
    let both = async { tokio::join!(follow, script) };
    let (followed, hub) = tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
    followed.unwrap();
    world.stop(hub).await;
    let text = String::from_utf8(out).unwrap();
    let bodies: Vec<_> = text.lines().filter_map(|line| line.split(" d ").nth(1)).collect();
    assert_eq!(bodies, ["one", "two", "three"], "{text}");
}
