//! A container engine whose containers are tasks that run the sensor.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bollard::models::ContainerCreateBody;
use futures_util::StreamExt as _;
use kedge_sim::edge::container::digest_of;
use kedge_sim::edge::deployment::RegistryCredential;
use kedge_sim::edge::engine::{Engine, EngineError, EngineVersion, LogFrame, LogRequest, LogStream};
use kedge_sim::edge::planner::{ContainerState, ObservedModule};
use kedge_sim::sensor::{self, EdgeEnvironment, Settings};
use kedge_sim::tls::Endpoint;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use crate::proxy::Proxy;

pub(crate) struct TaskEngine {
    images: Vec<String>,
    containers: Mutex<BTreeMap<String, Container>>,
    /// Names of the containers in the order in which they were made, and started.
    created: Mutex<Vec<String>>,
    started: Mutex<Vec<String>>,
    pulls: Mutex<Vec<(String, Option<String>)>>,
    gateway: AsyncMutex<Option<Arc<Proxy>>>,
    /// How often the engine does not answer before it is ready.
    pub(crate) refusals: AtomicU32,
}

struct Container {
    body: ContainerCreateBody,
    state: ContainerState,
    exit_code: Option<i64>,
    stop: CancellationToken,
    starts: u32,
    log: Vec<String>,
}

impl TaskEngine {
    /// An engine whose registry has these images.
    pub(crate) fn new(images: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            images: images.iter().map(|&image| image.to_owned()).collect(),
            containers: Mutex::default(),
            created: Mutex::default(),
            started: Mutex::default(),
            pulls: Mutex::default(),
            gateway: AsyncMutex::default(),
            refusals: AtomicU32::new(0),
        })
    }

    /// Tells the modules where the gateway is.
    pub(crate) async fn set_gateway(&self, gateway: Proxy) {
        *self.gateway.lock().await = Some(Arc::new(gateway));
    }

    /// The network between the modules and the gateway.
    pub(crate) async fn gateway(&self) -> Arc<Proxy> {
        self.gateway.lock().await.clone().expect("a gateway")
    }

    /// The module ends by itself.
    pub(crate) fn crash(&self, name: &str, exit_code: i64) {
        let mut containers = self.containers.lock().unwrap();
        let container = containers.get_mut(name).unwrap();
        container.stop.cancel();
        container.state = ContainerState::Exited;
        container.exit_code = Some(exit_code);
    }

    /// The module writes a line to its log.
    pub(crate) fn write_log(&self, name: &str, line: &str) {
        self.containers.lock().unwrap().get_mut(name).unwrap().log.push(line.to_owned());
    }

    pub(crate) fn starts(&self, name: &str) -> u32 {
        self.containers.lock().unwrap().get(name).map_or(0, |container| container.starts)
    }

    /// How many containers were made under the name.
    pub(crate) fn created(&self, name: &str) -> u32 {
        let created = self.created.lock().unwrap();
        u32::try_from(created.iter().filter(|created| *created == name).count()).unwrap()
    }

    /// Names in the order of their starts.
    pub(crate) fn started(&self) -> Vec<String> {
        self.started.lock().unwrap().clone()
    }

    /// Waits for a condition of this engine.
    pub(crate) async fn until(&self, condition: impl Fn() -> bool) {
        let reached = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        crate::world::within_limit(reached).await.expect("the condition is reached");
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.containers.lock().unwrap().keys().cloned().collect()
    }

    pub(crate) fn state(&self, name: &str) -> Option<ContainerState> {
        self.containers.lock().unwrap().get(name).map(|container| container.state)
    }

    pub(crate) fn env(&self, name: &str) -> HashMap<String, String> {
        variables(&self.containers.lock().unwrap()[name].body)
    }

    /// Images that were pulled, with the user that pulled them.
    pub(crate) fn pulls(&self) -> Vec<(String, Option<String>)> {
        self.pulls.lock().unwrap().clone()
    }
}

fn variables(body: &ContainerCreateBody) -> HashMap<String, String> {
    let variables = body.env.iter().flatten().filter_map(|variable| variable.split_once('='));
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What a container sees at the workload socket's usual place.
fn workload_uri(body: &ContainerCreateBody) -> String {
    let binds = body.host_config.as_ref().and_then(|host| host.binds.as_ref()).unwrap();
    let socket = binds.iter().find_map(|bind| bind.strip_suffix(":/var/run/iotedge/workload.sock")).unwrap();
    assert!(Path::new(socket).exists(), "the engine would make a folder of {socket}");
    format!("unix://{socket}")
}

fn error(message: &str) -> EngineError {
    EngineError { message: message.to_owned() }
}

impl Engine for TaskEngine {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        match self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(error("no such file or directory")),
            Err(_) => Ok(EngineVersion { engine: "test".to_owned(), api: "1.41".to_owned() }),
        }
    }

    async fn ensure_network(&self, _: &str) -> Result<IpAddr, EngineError> {
        Ok(Ipv4Addr::LOCALHOST.into())
    }

    async fn modules(&self) -> Result<BTreeMap<String, ObservedModule>, EngineError> {
        let containers = self.containers.lock().unwrap();
        let observed = containers.iter().map(|(name, container)| {
            let module = ObservedModule {
                digest: digest_of(&container.body),
                image: container.body.image.clone().unwrap(),
                image_id: "sha256:0".to_owned(),
                state: container.state,
                started_at: None,
                finished_at: None,
                exit_code: container.exit_code,
            };
            (name.clone(), module)
        });
        Ok(observed.collect())
    }

    async fn has_pinned_image(&self, _: &str) -> bool {
        false
    }

    async fn pull(&self, image: &str, credential: Option<&RegistryCredential>) -> Result<(), EngineError> {
        let user = credential.map(|credential| credential.username.clone());
        self.pulls.lock().unwrap().push((image.to_owned(), user));
        match self.images.iter().any(|known| known == image) {
            true => Ok(()),
            false => Err(error(&format!("manifest for {image} not found: manifest unknown"))),
        }
    }

    async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let mut containers = self.containers.lock().unwrap();
        if containers.contains_key(name) {
            return Err(error("Conflict"));
        }
        self.created.lock().unwrap().push(name.to_owned());
        let (state, stop) = (ContainerState::Created, CancellationToken::new());
        containers.insert(
            name.to_owned(),
            Container { body, state, exit_code: None, stop, starts: 0, log: Vec::new() },
        );
        Ok(())
    }

    async fn start(&self, name: &str) -> Result<(), EngineError> {
        let gateway = self.gateway().await.address;
        let mut containers = self.containers.lock().unwrap();
        let container = containers.get_mut(name).ok_or_else(|| error("No such container"))?;
        let mut env = variables(&container.body);
        env.insert("IOTEDGE_WORKLOADURI".to_owned(), workload_uri(&container.body));
        let settings = Settings::from_env(|name| env.get(name).cloned()).unwrap();
        let mut environment = EdgeEnvironment::from_env(|name| env.get(name).cloned()).unwrap();
        environment.gateway = Endpoint::at(environment.gateway.host, gateway);
        container.stop = CancellationToken::new();
        container.state = ContainerState::Running;
        container.exit_code = None;
        container.starts += 1;
        self.started.lock().unwrap().push(name.to_owned());
        tokio::spawn(sensor::run(settings, environment, |_| {}, container.stop.clone()));
        Ok(())
    }

    async fn stop(&self, name: &str) -> Result<(), EngineError> {
        self.crash(name, 0);
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        if let Some(container) = self.containers.lock().unwrap().remove(name) {
            container.stop.cancel();
        }
        Ok(())
    }

    fn logs(&self, name: &str, request: LogRequest) -> Result<LogStream, EngineError> {
        let containers = self.containers.lock().unwrap();
        let container = containers.get(name).ok_or_else(|| error("No such container"))?;
        let skipped = match request.tail {
            Some(tail) => container.log.len().saturating_sub(usize::try_from(tail).unwrap()),
            None => 0,
        };
        let time = if request.timestamps { "2026-01-02T03:04:05.000000001Z " } else { "" };
        let frames = container
            .log
            .iter()
            .skip(skipped)
            .map(|line| Ok(LogFrame { is_error: false, text: format!("{time}{line}\n").into() }));
        Ok(futures_util::stream::iter(frames.collect::<Vec<_>>()).boxed())
    }
}
