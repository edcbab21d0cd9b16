//! A hub of its own for each test, and the clients to talk to it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use kedge_sim::http::header::HeaderMap;
use kedge_sim::http::{HttpClient, HttpError, Method, Request, StatusCode};
use kedge_sim::hub::{self, Config, Listeners};
use kedge_sim::identity::Identity;
use kedge_sim::mqtt::{Client, ClientError, Connection, Incoming, Options, Packet, packet};
use kedge_sim::pki::{CertificateAuthority, IssuedCertificate};
use kedge_sim::sas::{OWNER_POLICY, SharedAccessKey, sign};
use kedge_sim::secret::Secret;
use kedge_sim::service::{ServiceClient, TelemetryFilter, TelemetryMessage};
use kedge_sim::tls::{self, ClientStream, Endpoint, Trust};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const HUB: &str = "hub.kedge.test";
pub(crate) const DEVICE: &str = "kedge-device";
const API: &str = "api-version=2017-11-08-preview";
/// Nothing here takes long; a test that waits this long has failed.
const LIMIT: Duration = Duration::from_secs(20);
const MAX_PACKET: usize = 1024 * 1024;

pub(crate) struct TestHub {
    https: SocketAddr,
    mqtt: SocketAddr,
    ca_pem: String,
    tls: Arc<ClientConfig>,
    /// May issue the certificates of devices.
    pub(crate) device_ca: CertificateAuthority,
    pub(crate) owner_key: SharedAccessKey,
    config: Config,
    stop: DropGuard,
    task: JoinHandle<anyhow::Result<()>>,
    _state: tempfile::TempDir,
}

/// By what a device registers.
pub(crate) enum Proof<'a> {
    Token(&'a str),
    Certificate(&'a IssuedCertificate),
}

/// What a request was answered with.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn message(&self) -> &str {
        self.body["Message"].as_str().unwrap_or_default()
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.expect("it takes too long")
}

pub(crate) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap()
}

/// A token for the next ten minutes.
pub(crate) fn token(resource: &str, key: &SharedAccessKey) -> String {
    sign(resource, key, now() + 600, None)
}

/// The smallest deployment with these modules.
pub(crate) fn manifest(modules: &Value) -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": modules}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {"up": "FROM /* INTO $upstream"}}},
    }})
}

/// Runs a hub on free ports.
async fn run(config: &Config) -> (SocketAddr, SocketAddr, DropGuard, JoinHandle<anyhow::Result<()>>) {
    let bind = async || TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let listeners = Listeners { https: bind().await, mqtt: bind().await };
    let (https, mqtt) = (listeners.https.local_addr().unwrap(), listeners.mqtt.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(hub::run(listeners, config.clone(), shutdown.clone()));
    (https, mqtt, shutdown.drop_guard(), task)
}

impl TestHub {
    pub(crate) async fn start() -> Self {
        let authority = CertificateAuthority::generate("KEdge test CA").unwrap();
        let issued = authority.issue_server(&[HUB], Duration::from_secs(3600)).unwrap();
        let owner_key = SharedAccessKey::generate().unwrap();
        let state = tempfile::tempdir().unwrap();
        let device_ca = CertificateAuthority::generate("KEdge test device CA").unwrap();
        let config = Config {
            host_name: HUB.to_owned(),
            tls: tls::server_config(&issued.chain_pem, &issued.key_pem).unwrap(),
            owner_key: owner_key.clone(),
            retention: Default::default(),
            state_folder: state.path().to_owned(),
            id_scope: hub::DEFAULT_ID_SCOPE.to_owned(),
            device_ca: Some(device_ca.certificate_pem().to_owned()),
        };
        let (https, mqtt, stop, task) = run(&config).await;
        let ca_pem = authority.certificate_pem().to_owned();
        let tls = tls::client_config(Trust::Only(&ca_pem)).unwrap();
        Self { https, mqtt, ca_pem, tls, device_ca, owner_key, config, stop, task, _state: state }
    }

    pub(crate) fn state_folder(&self) -> &Path {
        &self.config.state_folder
    }

    /// Ends the hub, and starts it again with the same state.
    pub(crate) async fn restart(self) -> Self {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
        let (https, mqtt, stop, task) = run(&self.config).await;
        Self { https, mqtt, stop, task, ..self }
    }

    /// A hub with the edge device, and the device's key.
    pub(crate) async fn with_device() -> (Self, SharedAccessKey) {
        let hub = Self::start().await;
        let key = hub.register(DEVICE).await;
        (hub, key)
    }

    /// Registers an edge device and reads its key from the connection string.
    pub(crate) async fn register(&self, device: &str) -> SharedAccessKey {
        let connection_string = self.service().register_edge_device(device).await.unwrap();
        let prefix = format!("HostName={HUB};DeviceId={device};SharedAccessKey=");
        let key = connection_string.expose().strip_prefix(&prefix).expect("a connection string");
        SharedAccessKey::from_base64(key).unwrap()
    }

    pub(crate) fn service(&self) -> ServiceClient {
        let endpoint = Endpoint::at(HUB, self.https);
        ServiceClient::new(endpoint, HUB, self.owner_key.clone(), Some(&self.ca_pem)).unwrap()
    }

    /// Sends a request as the identity service does: with a token, and `If-Match` for an update.
    pub(crate) async fn rest(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        if_match: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_rest(method, path, authorization, if_match, body).await.unwrap()
    }

    pub(crate) async fn try_rest(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        if_match: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Result<Answer, HttpError> {
        let uri = match (path.contains("api-version="), path.contains('?')) {
            (true, _) => path.to_owned(),
            (false, true) => format!("{path}&{API}"),
            (false, false) => format!("{path}?{API}"),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(token) = authorization {
            request = request.header("authorization", token);
        }
        if let Some(etag) = if_match {
            request = request.header("if-match", etag);
        }
        self.send(self.tls.clone(), request.body(body.into())?).await
    }

    async fn send(&self, tls: Arc<ClientConfig>, request: Request<Bytes>) -> Result<Answer, HttpError> {
        let client = HttpClient::new(Endpoint::at(HUB, self.https), tls);
        let response = within(client.send(request)).await?;
        let status = response.status();
        let body = response.into_body();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
        Ok(Answer { status, body })
    }

    /// Uploads a key for a module, as the edge device does for those that it derives.
    pub(crate) async fn upload_key(&self, device_key: &SharedAccessKey, module: &str) -> SharedAccessKey {
        let key = SharedAccessKey::generate().unwrap();
        let body = module_with_key(module, &key).to_string();
        let path = format!("/devices/{DEVICE}/modules/{module}");
        let token = token(&format!("{HUB}/devices/{DEVICE}"), device_key);
        let answer = self.rest(Method::PUT, &path, Some(&token), Some("*"), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        key
    }

    /// The HTTPS endpoint, and whom its clients trust.
    pub(crate) fn https(&self) -> (Endpoint, Arc<ClientConfig>) {
        (Endpoint::at(HUB, self.https), self.tls.clone())
    }

    pub(crate) async fn tls_to_mqtt(&self) -> ClientStream {
        within(tls::connect(&Endpoint::at(HUB, self.mqtt), self.tls.clone())).await.unwrap()
    }

    /// The configuration of a client that shows a certificate.
    pub(crate) fn tls_as(&self, certificate: &IssuedCertificate) -> Arc<ClientConfig> {
        tls::client_config_as(Trust::Only(&self.ca_pem), Some(certificate)).unwrap()
    }

    /// Sends a request as a device does that registers: with a token of its own, or a certificate.
    pub(crate) async fn dps(
        &self,
        method: Method,
        path: &str,
        proof: &Proof<'_>,
        body: &Value,
    ) -> (u16, Value, HeaderMap) {
        let mut request = Request::builder().method(method).uri(format!("{path}?api-version=2021-06-01"));
        let tls = match proof {
            Proof::Token(token) => {
                request = request.header("authorization", *token);
                self.tls.clone()
            }
            Proof::Certificate(certificate) => self.tls_as(certificate),
        };
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let client = HttpClient::new(Endpoint::at(HUB, self.https), tls);
        let (head, body) = within(client.send(request.body(body).unwrap())).await.unwrap().into_parts();
        (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default(), head.headers)
    }

    /// Connects a client that may have a certificate, with a user name of one's own choice.
    pub(crate) async fn connect_dps(
        &self,
        registration: &str,
        username: &str,
        proof: &Proof<'_>,
    ) -> Result<(Client, Incoming), ClientError> {
        match proof {
            Proof::Token(token) => self.connect_with(registration, username, token).await,
            Proof::Certificate(certificate) => {
                self.connect_with_both(registration, username, "", certificate).await
            }
        }
    }

    /// Sends a request without a token on a connection with a client certificate.
    pub(crate) async fn get_as(&self, certificate: &IssuedCertificate, path: &str) -> Answer {
        let request = Request::get(format!("{path}?{API}")).body(Bytes::new()).unwrap();
        self.send(self.tls_as(certificate), request).await.unwrap()
    }

    /// Connects a client that has a certificate and an empty password.
    pub(crate) async fn connect_as(
        &self,
        client_id: &str,
        certificate: &IssuedCertificate,
    ) -> Result<(Client, Incoming), ClientError> {
        let username = Identity::from_client_id(client_id).unwrap().username(HUB);
        self.connect_with_both(client_id, &username, "", certificate).await
    }

    pub(crate) async fn connect_with_both(
        &self,
        client_id: &str,
        username: &str,
        password: &str,
        certificate: &IssuedCertificate,
    ) -> Result<(Client, Incoming), ClientError> {
        let options = options(client_id, username, password);
        let endpoint = Endpoint::at(HUB, self.mqtt);
        let stream = within(tls::connect(&endpoint, self.tls_as(certificate))).await.unwrap();
        within(Client::connect(stream, &options)).await
    }

    /// Connects a client with a password of one's own choice.
    pub(crate) async fn connect_with(
        &self,
        client_id: &str,
        username: &str,
        password: &str,
    ) -> Result<(Client, Incoming), ClientError> {
        within(Client::connect(self.tls_to_mqtt().await, &options(client_id, username, password))).await
    }

    /// Connects a client in the regular way.
    pub(crate) async fn connect(
        &self,
        client_id: &str,
        key: &SharedAccessKey,
    ) -> Result<(Client, Incoming), ClientError> {
        let identity = Identity::from_client_id(client_id).unwrap();
        let password = token(&identity.resource(HUB), key);
        self.connect_with(client_id, &identity.username(HUB), &password).await
    }

    /// A connection of packets, for clients that break the rules.
    pub(crate) async fn raw(&self, client_id: &str, key: &SharedAccessKey) -> Connection<ClientStream> {
        let identity = Identity::from_client_id(client_id).unwrap();
        let mut connect = packet::Connect::new(client_id);
        connect.keep_alive = 60;
        connect.set_login(identity.username(HUB), token(&identity.resource(HUB), key));
        self.raw_with(connect).await
    }

    pub(crate) async fn raw_with(&self, connect: packet::Connect) -> Connection<ClientStream> {
        let mut connection = Connection::new(self.tls_to_mqtt().await, MAX_PACKET);
        connection.write(&Packet::Connect(connect)).await.unwrap();
        let answer = within(connection.read()).await.unwrap();
        assert!(matches!(answer, Some(Packet::ConnAck(ref ack)) if ack.code as u8 == 0), "{answer:?}");
        connection
    }

    /// Sends a request as a service with all permissions.
    pub(crate) async fn as_owner(
        &self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: &Value,
    ) -> Answer {
        let owner = sign(HUB, &self.owner_key, now() + 60, Some(OWNER_POLICY));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.rest(method, path, Some(&owner), if_match, body).await
    }

    pub(crate) async fn put_device(&self, device: &str, body: &Value) -> Answer {
        self.as_owner(Method::PUT, &format!("/devices/{device}"), None, body).await
    }

    pub(crate) async fn update_device(&self, device: &str, body: &Value) -> Answer {
        self.as_owner(Method::PUT, &format!("/devices/{device}"), Some("*"), body).await
    }

    pub(crate) async fn get_device(&self, device: &str) -> Value {
        self.as_owner(Method::GET, &format!("/devices/{device}"), None, &Value::Null).await.body
    }

    /// The telemetry of a device, when there is some.
    pub(crate) async fn telemetry_of(&self, device: &str) -> Vec<TelemetryMessage> {
        let filter = TelemetryFilter { device_id: Some(device.to_owned()), module_id: None };
        within(self.service().telemetry(&filter, 0, LIMIT)).await.unwrap().messages
    }

    /// The telemetry after an offset that is there now, or the next that arrives.
    pub(crate) async fn telemetry_after(&self, after: u64) -> Vec<TelemetryMessage> {
        let filter = TelemetryFilter { device_id: Some(DEVICE.to_owned()), module_id: None };
        within(self.service().telemetry(&filter, after, LIMIT)).await.unwrap().messages
    }

    pub(crate) async fn assert_no_telemetry(&self) {
        let page = self.service().telemetry(&TelemetryFilter::default(), 0, Duration::ZERO).await.unwrap();
        assert_eq!(page.messages, []);
    }
}

pub(crate) fn options(client_id: &str, username: &str, password: &str) -> Options {
    Options {
        client_id: client_id.to_owned(),
        username: username.to_owned(),
        password: Secret::new(password),
        keep_alive: Duration::from_secs(60),
        max_packet: MAX_PACKET,
        clean_session: false,
        manual_acknowledgements: false,
    }
}

pub(crate) fn module_with_key(module: &str, key: &SharedAccessKey) -> Value {
    let text = key.to_base64();
    json!({
        "moduleId": module,
        "deviceId": DEVICE,
        "authentication": {
            "symmetricKey": {"primaryKey": text.expose(), "secondaryKey": text.expose()},
            "type": "sas",
        },
    })
}
