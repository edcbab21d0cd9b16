//! The parts of the runtime, put together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::agent::AgentSession;
use super::board::Board;
use super::config::Settings;
use super::engine::Engine;
use super::forwarder::{self, EdgeHubSession};
use super::gateway::Gateway;
use super::identity::IdentityService;
use super::link::Upstream;
use super::management;
use super::methods::Methods;
use super::provisioning::Device;
use super::scope::Scope;
use super::spool::{self, Spool};
use super::state::StateFolder;
use super::steps::{Host, Steps};
use super::supervisor::Supervisor;
use super::workload::{Services, Workloads};
use crate::http::HttpClient;
use crate::identity::{EDGE_HUB, Identity};
use crate::module_client::{Link, Transport};
use crate::pki::CertificateAuthority;
use crate::tls::{self, Endpoint};
use crate::unix_http;
use crate::x509::Authorities;

/// HTTPS, at the hub and at the gateway.
pub const HTTPS_PORT: u16 = 443;
/// MQTT over TLS, at the hub and at the gateway.
pub const MQTT_PORT: u16 = 8883;
/// The certificate is issued anew at every start of the daemon.
const GATEWAY_VALIDITY: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

/// Where the hub is, and whom to trust there.
#[derive(Debug, Clone)]
pub struct HubAddress {
    /// Identity REST.
    pub https: Endpoint,
    /// MQTT over TLS.
    pub mqtt: Endpoint,
    /// Trust and versions of both.
    pub tls: Arc<ClientConfig>,
}

impl HubAddress {
    /// The usual ports of a hub; its name may carry another port for HTTPS.
    #[must_use]
    pub fn of(hub_hostname: &str, tls: Arc<ClientConfig>) -> Self {
        let (host, port) = hub_hostname
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .unwrap_or((hub_hostname, HTTPS_PORT));
        Self { https: Endpoint::new(host, port), mqtt: Endpoint::new(host, MQTT_PORT), tls }
    }
}

/// What the daemon works with.
pub struct Options {
    /// From `config.toml`.
    pub settings: Settings,
    /// The device, and whose it is.
    pub device: Device,
    /// Keys and sockets.
    pub state: StateFolder,
    /// The management socket.
    pub management_socket: PathBuf,
    /// Where the gateway listens for MQTT.
    pub gateway: SocketAddr,
    /// Where it listens for HTTPS, if at all.
    pub gateway_https: Option<SocketAddr>,
    /// The hub.
    pub hub: HubAddress,
}

/// The daemon with its sockets open: clients can connect, and will be answered when it runs.
pub struct Daemon {
    options: Options,
    edge_ca: Arc<CertificateAuthority>,
    gateway: TcpListener,
    gateway_https: Option<TcpListener>,
    gateway_tls: Arc<ServerConfig>,
    management: UnixListener,
    spool: Spool,
    upstream: Arc<Upstream>,
}

impl Daemon {
    /// Prepares keys and sockets.
    pub async fn bind(options: Options, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let hostname = &options.settings.hostname;
        let Device { hub_hostname, device_id, credential, tls } = &options.device;
        let edge_ca = Arc::new(options.state.edge_ca(device_id)?);
        let certificate = edge_ca
            .issue_server(&[hostname], GATEWAY_VALIDITY)
            .with_context(|| format!("no certificate can be issued for the hostname \"{hostname}\""))?;
        let gateway_tls = tls::server_config(&certificate.chain_pem, &certificate.key_pem)?;
        let gateway = listen(options.gateway).await?;
        let gateway_https = match options.gateway_https {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let management = unix_http::listen(&options.management_socket, management::SOCKET_MODE).await?;
        let http = HttpClient::new(options.hub.https.clone(), tls.clone());
        let identities = IdentityService::new(
            http,
            hub_hostname.clone(),
            device_id.clone(),
            credential.clone(),
            options.state.master_key()?,
            options.state.backup(hub_hostname, device_id),
        );
        let transport = options.settings.upstream;
        let endpoint = match transport {
            Transport::Tls => &options.hub.mqtt,
            Transport::WebSocket => &options.hub.https,
        };
        let link = Link {
            endpoint: endpoint.clone(),
            transport,
            tls: options.hub.tls.clone(),
            hub_name: hub_hostname.clone(),
        };
        let upstream = Arc::new(Upstream { link, identities, board: Arc::default(), shutdown });
        let spool = Spool::open(&options.state.message_store(hub_hostname, device_id))?;
        Ok(Self { options, edge_ca, spool, gateway, gateway_https, gateway_tls, management, upstream })
    }

    /// Where the gateway listens.
    pub fn gateway_address(&self) -> std::io::Result<SocketAddr> {
        self.gateway.local_addr()
    }

    /// Where it listens for HTTPS.
    pub fn https_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.gateway_https.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// The state of the runtime.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        self.upstream.board.clone()
    }

    /// Works until the shutdown, and then stops the modules.
    pub async fn run<E: Engine>(self, engine: Arc<E>) -> anyhow::Result<()> {
        let Self { options, edge_ca, spool, gateway, gateway_https, gateway_tls, management, upstream } =
            self;
        let shutdown = upstream.shutdown.clone();
        let (deployments, _) = watch::channel(None);
        let (routes, _) = watch::channel(None);
        forwarder::restore_routes(&routes, &spool).await;
        let services = Services {
            upstream: upstream.clone(),
            trust_bundle: trust_bundle(&edge_ca, options.settings.trust_bundle.as_deref()),
            sealer: Arc::new(options.state.sealer()?),
            edge_ca,
        };
        let steps = Steps {
            engine: engine.clone(),
            upstream: upstream.clone(),
            workloads: Workloads::new(options.state.workload_sockets(), services),
            host: Host { hostname: options.settings.hostname, network: options.settings.network },
        };
        let (supervisor, orders) = Supervisor::new(steps, deployments.subscribe());
        let edge_hub = Identity::module(&options.device.device_id, EDGE_HUB)?;
        let http = HttpClient::new(options.hub.https, options.hub.tls);
        let scope = Arc::new(Scope::open(http, upstream.clone(), spool.clone()).await);
        let edge_hub_session = EdgeHubSession::new(
            upstream.clone(),
            edge_hub.clone(),
            routes.clone(),
            spool.clone(),
            scope.clone(),
        );
        let (routes, known) = (routes.subscribe(), deployments.subscribe());
        let authorities = leaf_authorities(options.settings.trust_bundle.as_deref());
        let gateway_service = Gateway::new(
            upstream.clone(),
            edge_hub,
            spool.clone(),
            routes,
            known,
            scope.clone(),
            authorities,
        );
        let gateway_service = Arc::new(gateway_service);
        let management_api = management::router(engine.clone(), orders.clone(), upstream.clone());
        let https = async {
            if let Some(listener) = gateway_https {
                gateway_service.clone().serve_https(listener, gateway_tls.clone()).await;
            }
        };
        let methods = Methods::new(engine, orders, upstream.clone());
        let backup = options.state.backup(&upstream.link.hub_name, upstream.identities.device_id());
        let agent = AgentSession::new(upstream.clone(), methods, deployments, backup);
        agent.restore();

        // Everything runs in one task tree: the supervisor is waited for, the others end with the shutdown.
        tokio::join!(
            supervisor.run(),
            upstream.keep_connected(agent),
            upstream.keep_connected(edge_hub_session),
            gateway_service.clone().serve(gateway, gateway_tls.clone()),
            https,
            scope.follow(),
            spool::look_after(&spool, &upstream.board, &shutdown),
            unix_http::serve(management, management_api, shutdown.clone()),
        );
        Ok(())
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("the gateway cannot listen on {address}"))
}

/// What modules trust: the Edge CA, and what the user added.
fn trust_bundle(edge_ca: &CertificateAuthority, added: Option<&str>) -> String {
    format!("{}{}", edge_ca.certificate_pem(), added.unwrap_or_default())
}

/// Who may issue the certificates of leaf devices: the authorities that the user added. The Edge CA is none of them, since
/// modules get certificates of it in any name.
fn leaf_authorities(added: Option<&str>) -> Authorities {
    let Some(added) = added else { return Authorities::default() };
    Authorities::from_pem([added]).unwrap_or_else(|error| {
        tracing::warn!("trust_bundle_cert lets no leaf devices in by certificate: {error}");
        Authorities::default()
    })
}
