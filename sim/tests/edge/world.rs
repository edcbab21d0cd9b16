//! The real hub, the real daemon and the real sensor in one process, on free ports of the loopback.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kedge_sim::edge::board::{Board, RuntimeState};
use kedge_sim::edge::config::{Provisioning, Settings};
use kedge_sim::edge::daemon::{Daemon, HubAddress, Options};
use kedge_sim::edge::provisioning::{Network, provision};
use kedge_sim::edge::state::StateFolder;
use kedge_sim::http::{HttpClient, Method, Request, header};
use kedge_sim::hub::{self, Listeners};
use kedge_sim::identity::Identity;
use kedge_sim::pki::CertificateAuthority;
use kedge_sim::sas::{OWNER_POLICY, SharedAccessKey, sign, unix_seconds};
use kedge_sim::service::{ServiceClient, TelemetryFilter, TelemetryMessage};
use kedge_sim::tls::{Endpoint, Trust, client_config, server_config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::proxy::Proxy;
use crate::task_engine::TaskEngine;

pub(crate) const HUB: &str = "hub.kedge.test";
pub(crate) const EDGE: &str = "edge.kedge.test";
pub(crate) const DEVICE: &str = "kedge-device";
pub(crate) const SENSOR: &str = "tempSensor";
pub(crate) const IMAGE: &str = "registry.test/temperature-sensor:1";

/// No step of a test takes longer; a busy machine gets its time.
const LIMIT: Duration = Duration::from_secs(30);

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A hub with a registered device.
pub(crate) struct World {
    pub(crate) service: ServiceClient,
    /// Between the daemon and the hub.
    pub(crate) https: Proxy,
    pub(crate) mqtt: Proxy,
    pub(crate) folder: TempDir,
    authority: CertificateAuthority,
    connection_string: String,
    owner_key: SharedAccessKey,
    shutdown: CancellationToken,
}

/// A running daemon.
pub(crate) struct Edge {
    pub(crate) engine: Arc<TaskEngine>,
    pub(crate) board: Arc<Board>,
    pub(crate) gateway: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) folder: PathBuf,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let authority = CertificateAuthority::generate("test hub CA").unwrap();
        let issued = authority.issue_server(&[HUB], Duration::from_secs(3600)).unwrap();
        let owner_key = SharedAccessKey::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = hub::Config {
            host_name: HUB.to_owned(),
            tls: server_config(&issued.chain_pem, &issued.key_pem).unwrap(),
            device_ca: None,
            id_scope: hub::DEFAULT_ID_SCOPE.to_owned(),
            owner_key: owner_key.clone(),
            retention: Default::default(),
            state_folder: folder.path().join("hub"),
        };
        let bind = async || TcpListener::bind(LOOPBACK).await.unwrap();
        let listeners = Listeners { https: bind().await, mqtt: bind().await };
        let (https, mqtt) = (listeners.https.local_addr().unwrap(), listeners.mqtt.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(hub::run(listeners, config, shutdown.clone()));
        let service = ServiceClient::new(
            Endpoint::at(HUB, https),
            HUB,
            owner_key.clone(),
            Some(authority.certificate_pem()),
        )
        .unwrap();
        let connection_string = service.register_edge_device(DEVICE).await.unwrap().expose().to_owned();
        Self {
            service,
            https: Proxy::start(https).await,
            mqtt: Proxy::start(mqtt).await,
            folder,
            authority,
            connection_string,
            owner_key,
            shutdown,
        }
    }

    /// A hub, a deployment with a fast sensor, and a daemon.
    pub(crate) async fn with_sensor() -> (Self, Edge) {
        let world = Self::new().await;
        world.deploy(&deployment(&json!({}))).await;
        let edge = world.start_edge(TaskEngine::new(&[IMAGE])).await;
        (world, edge)
    }

    /// Makes the device anew, with the key that it had.
    pub(crate) async fn register_again(&self) {
        let key = self.connection_string.rsplit_once("SharedAccessKey=").unwrap().1;
        let body = json!({
            "deviceId": DEVICE,
            "capabilities": {"iotEdge": true},
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}},
        });
        let answer = self.ask_hub(Method::PUT, &format!("/devices/{DEVICE}"), &body).await;
        assert_eq!(answer.0, 200, "{}", answer.1);
    }

    /// Calls a method of a module of the device; the status and the payload that the module gave.
    pub(crate) async fn call(&self, module: &str, method: &str, payload: &Value) -> (i64, Value) {
        let body = json!({"methodName": method, "payload": payload, "connectTimeoutInSeconds": 20});
        let path = format!("/twins/{DEVICE}/modules/{}/methods", module.replace('$', "%24"));
        let (status, mut answer) = self.ask_hub(Method::POST, &path, &body).await;
        assert_eq!(status, 200, "{answer}");
        (answer["status"].as_i64().unwrap(), answer["payload"].take())
    }

    /// Asks the service side of the hub.
    pub(crate) async fn ask_hub(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let token = sign(HUB, &self.owner_key, unix_seconds(Timestamp::now()) + 60, Some(OWNER_POLICY));
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?api-version=2021-04-12"))
            .header(header::AUTHORIZATION, token)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into())
            .unwrap();
        let tls = client_config(Trust::Only(self.authority.certificate_pem())).unwrap();
        let client = HttpClient::new(Endpoint::at(HUB, self.https.address), tls);
        let answer = client.send(request).await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }

    pub(crate) async fn deploy(&self, content: &Value) {
        self.service.apply_configuration_content(DEVICE, content).await.unwrap();
    }

    /// Starts a daemon on this world's state folder.
    pub(crate) async fn start_edge(&self, engine: Arc<TaskEngine>) -> Edge {
        self.start_edge_with(&self.connection_string, engine).await
    }

    /// Starts a daemon with another credential.
    pub(crate) async fn start_edge_with(&self, connection_string: &str, engine: Arc<TaskEngine>) -> Edge {
        let provisioning = format!("source = \"manual\"\nconnection_string = \"{connection_string}\"\n");
        self.start_edge_provisioned(&provisioning, engine).await
    }

    /// Starts a daemon whose configuration has this besides.
    pub(crate) async fn start_edge_configured(&self, more: &str, engine: Arc<TaskEngine>) -> Edge {
        let connection_string = &self.connection_string;
        let table = format!("source = \"manual\"\nconnection_string = \"{connection_string}\"\n{more}");
        self.start_edge_provisioned(&table, engine).await
    }

    /// Starts a daemon with another table `[provisioning]`.
    pub(crate) async fn start_edge_provisioned(&self, table: &str, engine: Arc<TaskEngine>) -> Edge {
        let config = format!("hostname = \"{EDGE}\"\n[provisioning]\n{table}");
        let mut settings = Settings::parse(&config).unwrap();
        if let Provisioning::Dps(dps) = &mut settings.provisioning {
            dps.endpoint.address = Some(self.https.address);
        }
        let trust = Trust::Only(self.authority.certificate_pem());
        let state = StateFolder::new(self.folder.path());
        let https = |_: &str| Endpoint::at(HUB, self.https.address);
        let network = Network { trust, hub: &https, pause: Duration::from_millis(20) };
        let shutdown = CancellationToken::new();
        let provisioned = provision(&settings.provisioning, &network, &state, &shutdown);
        let device = within_limit(provisioned).await.expect("the device is provisioned").unwrap().unwrap();
        let hub = HubAddress {
            https: Endpoint::at(HUB, self.https.address),
            mqtt: Endpoint::at(HUB, self.mqtt.address),
            tls: client_config(trust).unwrap(),
        };
        let folder = self.folder.path().to_owned();
        let options = Options {
            settings,
            device,
            state,
            management_socket: folder.join("mgmt.sock"),
            gateway: LOOPBACK.into(),
            gateway_https: Some(LOOPBACK.into()),
            hub,
        };
        let daemon = Daemon::bind(options, shutdown.clone()).await.unwrap();
        let (gateway, board) = (daemon.gateway_address().unwrap(), daemon.board());
        let https = daemon.https_address().unwrap().unwrap();
        let towards_gateway = Proxy::start(gateway).await;
        engine.set_gateway(towards_gateway).await;
        let task = tokio::spawn(daemon.run(engine.clone()));
        Edge { engine, board, gateway, https, folder, shutdown, task }
    }

    /// Telemetry of the device from the beginning, when there is enough of it.
    pub(crate) async fn telemetry(
        &self,
        enough: impl Fn(&[TelemetryMessage]) -> bool,
    ) -> Vec<TelemetryMessage> {
        let filter = TelemetryFilter { device_id: Some(DEVICE.to_owned()), module_id: None };
        let (mut messages, mut after) = (Vec::new(), 0);
        let deadline = Instant::now() + LIMIT;
        while !enough(&messages) {
            assert!(Instant::now() < deadline, "only {} messages: {messages:#?}", messages.len());
            let page = self.service.telemetry(&filter, after, Duration::from_secs(1)).await.unwrap();
            after = page.next;
            messages.extend(page.messages);
        }
        messages
    }

    /// How many messages the hub has now.
    pub(crate) async fn count(&self) -> usize {
        let filter = TelemetryFilter { device_id: Some(DEVICE.to_owned()), module_id: None };
        self.service.telemetry(&filter, 0, Duration::ZERO).await.unwrap().messages.len()
    }

    /// Waits until what a module reports satisfies the condition.
    pub(crate) async fn reported(&self, module: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let seen = within_limit(async {
            loop {
                last =
                    self.service.module_twin(DEVICE, module).await.unwrap()["properties"]["reported"].take();
                if condition(&last) {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        let seen = seen.await;
        assert!(seen.is_some(), "{module} reports {last:#}");
        last
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Edge {
    /// Waits until the state of the runtime satisfies the condition.
    pub(crate) async fn state(&self, condition: impl Fn(&RuntimeState) -> bool) -> RuntimeState {
        let mut watch = self.board.watch();
        let seen =
            within_limit(async { watch.wait_for(|state| condition(state)).await.unwrap().clone() }).await;
        seen.unwrap_or_else(|| panic!("the state stays {:#?}", self.board.state()))
    }

    /// Waits until the module runs.
    pub(crate) async fn running(&self, module: &str) -> RuntimeState {
        self.state(|state| state.modules.get(module).is_some_and(|module| module.status == "running")).await
    }

    pub(crate) fn workload_socket(&self, module: &str) -> PathBuf {
        self.folder.join(format!("edged/mnt/{module}.sock"))
    }

    pub(crate) fn management_socket(&self) -> PathBuf {
        self.folder.join("mgmt.sock")
    }

    /// Ends the daemon as SIGKILL does: nothing is told to anybody, and the modules run on.
    pub(crate) async fn kill(self) -> Arc<TaskEngine> {
        self.task.abort();
        let ended = within_limit(self.task).await.expect("the daemon is gone");
        assert!(ended.unwrap_err().is_cancelled());
        self.engine
    }

    /// Stops the daemon as SIGTERM does.
    pub(crate) async fn stop(self) -> Arc<TaskEngine> {
        self.shutdown.cancel();
        within_limit(self.task).await.expect("the daemon stops").unwrap().unwrap();
        self.engine
    }
}

/// The sensor as a client.
pub(crate) fn sensor() -> Identity {
    Identity::module(DEVICE, SENSOR).unwrap()
}

/// The quickstart deployment with one sensor; `settings` are merged into the module.
pub(crate) fn deployment(module: &Value) -> Value {
    let mut sensor = json!({
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
        "env": {"MessageDelay": {"value": "00:00:00.05"}, "MessageCount": {"value": "-1"}},
        "settings": {"image": IMAGE, "createOptions": ""},
    });
    for (key, value) in module.as_object().unwrap() {
        sensor[key] = value.clone();
    }
    with_modules(&json!({SENSOR: sensor}))
}

pub(crate) fn with_modules(modules: &Value) -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {"registryCredentials": {
                "test": {"address": "registry.test", "username": "user", "password": "password"}}}},
            "systemModules": {
                "edgeAgent": {"type": "docker", "settings": {"image": "agent:1"}},
                "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "hub:1"}}},
            "modules": modules,
        }},
        "$edgeHub": {"properties.desired": {
            "schemaVersion": "1.1",
            "routes": {"upstream": {"route": "FROM /messages/modules/tempSensor/* INTO $upstream"}},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
        }},
    }})
}

/// The result, or `None` when it takes too long.
pub(crate) async fn within_limit<F: Future>(future: F) -> Option<F::Output> {
    timeout(LIMIT, future).await.ok()
}

/// Number and batch of a sensor's message.
pub(crate) fn number(message: &TelemetryMessage) -> (u64, &str) {
    (message.properties["sequenceNumber"].parse().unwrap(), &message.properties["batchId"])
}

/// Asserts that every batch begins at 1 and has no gap; the highest number of the last batch. A message may
/// come twice, when its acknowledgement was lost.
pub(crate) fn assert_continuous(messages: &[TelemetryMessage]) -> u64 {
    let (mut batch, mut last) = ("", 0);
    for message in messages {
        let (number, this_batch) = number(message);
        if this_batch != batch {
            (batch, last) = (this_batch, 0);
        }
        assert!(number == last + 1 || (number <= last && number > 0), "{number} follows {last}");
        last = last.max(number);
    }
    last
}

/// Asks a local API; the status and the JSON.
pub(crate) async fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, Value) {
    let method = method.parse().unwrap();
    let answer = kedge_sim::unix_http::request(socket, method, path, body.to_owned().into()).await.unwrap();
    let json = match answer.body().as_ref() {
        [] => Value::Null,
        body => serde_json::from_slice(body).unwrap(),
    };
    (answer.status().as_u16(), json)
}

/// Asks a local API for something else than JSON.
pub(crate) async fn ask_raw(socket: &Path, path: &str) -> (u16, bytes::Bytes) {
    let answer = kedge_sim::unix_http::request(socket, Method::GET, path, "".into()).await.unwrap();
    (answer.status().as_u16(), answer.into_body())
}
