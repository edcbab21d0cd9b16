//! The real daemon, killed while messages come in.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use kedge_sim::hub::{self, Listeners};
use kedge_sim::identity::Identity;
use kedge_sim::mqtt::packet::{Connect, ConnectReturnCode, Publish};
use kedge_sim::mqtt::{Connection, Packet, QoS};
use kedge_sim::pki::CertificateAuthority;
use kedge_sim::sas::{SharedAccessKey, sign, unix_seconds};
use kedge_sim::service::{ServiceClient, TelemetryFilter};
use kedge_sim::tls::{self, ClientStream, Endpoint, Trust, client_config, server_config};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::programs::EDGED;
use crate::world::{DEVICE, EDGE, with_modules, within_limit};

/// An address of the loopback that is this test's own, since the daemon knows the hub's usual port only.
const ADDRESS: &str = "127.83.19.7";
const GATEWAY: &str = "127.83.19.7:18883";
const LEAF: &str = "leaf";
const ROUNDS: u16 = 3;
/// Messages of a round, and how many of them are acknowledged before the kill.
const BURST: u16 = 300;
const ENOUGH: u16 = 100;

fn start(folder: &Path) -> Child {
    let mut command = Command::new(EDGED);
    command.env_clear().env("SSL_CERT_FILE", folder.join("hub-ca.pem"));
    command.arg("run").args(["--gateway", GATEWAY]).kill_on_drop(true);
    for (flag, name) in [("--config", "config.toml"), ("--state", "state"), ("--socket", "mgmt.sock")] {
        command.arg(flag).arg(folder.join(name));
    }
    command.stderr(std::process::Stdio::null()).spawn().unwrap()
}

/// Connects as the leaf, as soon as the daemon lets it in.
async fn connect(folder: &Path, hub_name: &str, key: &SharedAccessKey) -> Connection<ClientStream> {
    let leaf = Identity::device(LEAF).unwrap();
    let attempt = async || {
        let edge_ca = fs_err::read_to_string(folder.join("state/certd/aziot-edged-ca.pem")).ok()?;
        let config = client_config(Trust::Only(&edge_ca)).ok()?;
        let endpoint = Endpoint::at(EDGE, GATEWAY.parse().ok()?);
        let mut connection = Connection::new(tls::connect(&endpoint, config).await.ok()?, 1024 * 1024);
        let mut connect = Connect::new(LEAF);
        let expiry = unix_seconds(Timestamp::now()) + 600;
        connect.set_login(leaf.username(hub_name), sign(&leaf.resource(hub_name), key, expiry, None));
        connection.write(&Packet::Connect(connect)).await.ok()?;
        match connection.read().await {
            Ok(Some(Packet::ConnAck(answer))) if answer.code == ConnectReturnCode::Success => {
                Some(connection)
            }
            _ => None,
        }
    };
    let connected = async {
        loop {
            if let Some(connection) = attempt().await {
                return connection;
            }
            tokio::task::yield_now().await;
        }
    };
    within_limit(connected).await.expect("the daemon lets the leaf in")
}

/// Sends numbered messages, and gives the number after the last one that was acknowledged, when that were enough.
async fn burst(connection: &mut Connection<ClientStream>, first: u16) -> u16 {
    for number in first..first + BURST {
        let mut publish = Publish::new("devices/leaf/messages/events/", QoS::AtLeastOnce, number.to_string());
        publish.pkid = number + 1;
        connection.queue(&Packet::Publish(publish)).unwrap();
    }
    connection.flush().await.unwrap();
    let mut next = first;
    while next < first + ENOUGH {
        match within_limit(connection.read()).await.expect("acknowledgements").unwrap() {
            Some(Packet::PubAck(ack)) if ack.pkid == next + 1 => next += 1,
            other => panic!("{other:?}"),
        }
    }
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::generate("test hub CA").unwrap();
    fs_err::write(folder.path().join("hub-ca.pem"), authority.certificate_pem()).unwrap();
    let issued = authority.issue_server(&[ADDRESS], Duration::from_secs(3600)).unwrap();
    let listeners = Listeners {
        https: TcpListener::bind((ADDRESS, 0)).await.unwrap(),
        mqtt: TcpListener::bind((ADDRESS, 8883)).await.unwrap(),
    };
    let https = listeners.https.local_addr().unwrap();
    let (hub_name, owner_key) = (https.to_string(), SharedAccessKey::generate().unwrap());
    let config = hub::Config {
        host_name: hub_name.clone(),
        tls: server_config(&issued.chain_pem, &issued.key_pem).unwrap(),
        device_ca: None,
        id_scope: hub::DEFAULT_ID_SCOPE.to_owned(),
        owner_key: owner_key.clone(),
        retention: Default::default(),
        state_folder: folder.path().join("hub"),
    };
    let shutdown = CancellationToken::new();
    let _ends_with_the_test = shutdown.clone().drop_guard();
    tokio::spawn(hub::run(listeners, config, shutdown));
    let endpoint = Endpoint::at(ADDRESS, https);
    let service =
        ServiceClient::new(endpoint, &hub_name, owner_key, Some(authority.certificate_pem())).unwrap();
    let edge = service.register_edge_device(DEVICE).await.unwrap();
    let leaf = service.register_leaf_device(LEAF, DEVICE).await.unwrap();
    let key = leaf.expose().rsplit_once("SharedAccessKey=").unwrap().1;
    let key = SharedAccessKey::from_base64(key).unwrap();
    let mut content = with_modules(&json!({}));
    content["modulesContent"]["$edgeHub"]["properties.desired"]["routes"] =
        json!({"all": "FROM /* INTO $upstream"});
    service.apply_configuration_content(DEVICE, &content).await.unwrap();
    let config = format!(
        "hostname = \"{EDGE}\"\n[provisioning]\nsource = \"manual\"\nconnection_string = \"{}\"\n\
         [moby_runtime]\nuri = \"unix://{}\"\nnetwork = \"azure-iot-edge\"\n",
        edge.expose(),
        folder.path().join("docker.sock").display()
    );
    fs_err::write(folder.path().join("config.toml"), config).unwrap();

    let mut next = 0;
    let mut daemon = start(folder.path());
    for _ in 0..ROUNDS {
        let mut connection = connect(folder.path(), &hub_name, &key).await;
        next = burst(&mut connection, next).await;
        // SIGKILL, while the rest of the burst is on its way.
        daemon.kill().await.unwrap();
        daemon = start(folder.path());
    }
    let filter = TelemetryFilter { device_id: Some(LEAF.to_owned()), module_id: None };
    let arrived = async {
        let (mut numbers, mut after) = (Vec::new(), 0);
        while !(0..next).all(|number| numbers.contains(&number)) {
            let page = service.telemetry(&filter, after, Duration::from_secs(1)).await.unwrap();
            after = page.next;
            let bodies =
                page.messages.iter().filter_map(|message| message.body.as_ref()?.parse::<u16>().ok());
            numbers.extend(bodies);
        }
        numbers
    };
    let arrived = within_limit(arrived).await.expect("all that was acknowledged arrives");
    let mut last = 0;
    for number in arrived {
        assert!(number <= last + 1, "{number} came before {}", last + 1);
        last = last.max(number);
    }
    daemon.kill().await.unwrap();
}
