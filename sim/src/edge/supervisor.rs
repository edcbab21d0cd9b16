//! Makes the modules what the deployment says, on the container engine.
//!
//! A loop that looks, plans and starts steps; steps of different modules run at the same time. It is
//! woken by a new deployment, by a finished step and by a short timer, and always looks again: the
//! engine is the only truth.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout};

use super::board::ModuleState;
use super::container::digest_of;
use super::deployment::Deployment;
use super::engine::{Engine, EngineError};
use super::planner::{self, ContainerState, DesiredModule, History, ObservedModule, Step};
use super::steps::Steps;
use crate::retry;

/// How soon the engine's socket is tried again while it is not there; it appears while systemd boots.
const ENGINE_POLL: Duration = Duration::from_millis(50);
/// After this long without an engine the log says so, again and again.
const ENGINE_PATIENCE: Duration = Duration::from_secs(30);
/// How soon a module that ended is noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Steps at the same time: pulls are heavy.
const MAX_STEPS: usize = 4;
/// All modules must have stopped by then; the engine kills each after five seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// Twins limit the length of strings.
const MAX_ERROR: usize = 400;

/// The supervisor of the modules.
pub struct Supervisor<E> {
    steps: Arc<Steps<E>>,
    deployments: watch::Receiver<Option<Arc<Deployment>>>,
    histories: BTreeMap<String, History>,
    running: JoinSet<Result<(), String>>,
    active: HashMap<Id, (String, Step)>,
    permits: Arc<Semaphore>,
}

impl<E: Engine> Supervisor<E> {
    /// A supervisor that works with `steps`.
    #[must_use]
    pub fn new(steps: Steps<E>, deployments: watch::Receiver<Option<Arc<Deployment>>>) -> Self {
        Self {
            steps: Arc::new(steps),
            deployments,
            histories: BTreeMap::new(),
            running: JoinSet::new(),
            active: HashMap::new(),
            permits: Arc::new(Semaphore::new(MAX_STEPS)),
        }
    }

    /// Runs until the shutdown, and then stops the modules.
    pub async fn run(mut self) {
        let shutdown = self.steps.upstream.shutdown.clone();
        let Some(gateway) = self.wait_for_engine().await else { return };
        // The sockets that running modules have mounted are those of a former process.
        shutdown.run_until_cancelled(self.stop_modules()).await;
        loop {
            if let Some(Err(error)) = shutdown.run_until_cancelled(self.round(gateway)).await {
                tracing::warn!("The container engine failed: {error}");
                self.steps.upstream.board.update(|state| state.engine_error = Some(error.to_string()));
            }
            tokio::select! {
                Ok(()) = self.deployments.changed() => self.begin_again().await,
                Some(done) = self.running.join_next_with_id() => self.record(done),
                _ = retry::pause(LOOK_AGAIN, &shutdown) => {}
            }
            if shutdown.is_cancelled() {
                break;
            }
        }
        self.running.shutdown().await;
        if timeout(STOP_TIMEOUT, self.stop_modules()).await.is_err() {
            tracing::warn!("Not all modules stopped in time");
        }
    }

    async fn wait_for_engine(&self) -> Option<IpAddr> {
        let Steps { engine, host, upstream, .. } = &*self.steps;
        loop {
            let deadline = Instant::now() + ENGINE_PATIENCE;
            let ready = retry::poll_until(ENGINE_POLL, deadline, &upstream.shutdown, || async {
                Ok::<_, EngineError>((engine.version().await?, engine.ensure_network(&host.network).await?))
            });
            match ready.await? {
                Ok((version, gateway)) => {
                    tracing::info!(
                        "The container engine {version} is ready; modules reach this host at {gateway}"
                    );
                    upstream.board.update(|state| state.engine_version = Some(version));
                    return Some(gateway);
                }
                Err(error) => {
                    tracing::warn!("Waiting for the container engine: {error}");
                    upstream.board.update(|state| state.engine_error = Some(error.message));
                }
            }
        }
    }

    /// Looks, plans, and starts the steps that are due.
    async fn round(&mut self, gateway: IpAddr) -> Result<(), EngineError> {
        let (is_new, deployment) = {
            let current = self.deployments.borrow_and_update();
            (current.has_changed(), current.clone())
        };
        // It came while another event was handled.
        if is_new {
            self.begin_again().await;
        }
        let Some(deployment) = deployment else { return Ok(()) };
        let observed = self.steps.engine.modules().await?;
        let desired = self.desired(&deployment, gateway);
        let busy: Vec<&str> = self.active.values().map(|(name, _)| name.as_str()).collect();
        let plan = planner::plan(&desired, &observed, &self.histories, Instant::now());
        let due: Vec<_> = plan.into_iter().filter(|(name, _)| !busy.contains(&name.as_str())).collect();
        for (name, step) in due {
            let unhealthy =
                observed.get(&name).is_some_and(|module| module.state == ContainerState::Unhealthy);
            self.start(name, step, &deployment, unhealthy, gateway);
        }
        self.show(&deployment, &desired, observed);
        Ok(())
    }

    fn desired(&self, deployment: &Deployment, gateway: IpAddr) -> BTreeMap<String, DesiredModule> {
        let modules = deployment.modules.iter().map(|(name, spec)| {
            let digest = self.steps.upstream.identities.get(name).map(|identity| {
                // Options that cannot be described match no container, and fail when one is made.
                let body = self.steps.describe(name, spec, &identity, gateway);
                body.ok().as_ref().and_then(digest_of).unwrap_or_default()
            });
            let module = DesiredModule {
                digest,
                status: spec.status,
                restart_policy: spec.restart_policy,
                startup_order: spec.startup_order,
            };
            (name.clone(), module)
        });
        modules.collect()
    }

    fn start(
        &mut self,
        name: String,
        step: Step,
        deployment: &Arc<Deployment>,
        unhealthy: bool,
        gateway: IpAddr,
    ) {
        let (steps, permits, deployment) = (self.steps.clone(), self.permits.clone(), deployment.clone());
        let module = name.clone();
        let handle = self.running.spawn(async move {
            let _permit = permits.acquire().await;
            steps
                .execute(&module, step, &deployment, unhealthy, gateway)
                .await
                .map_err(|error| format!("{error:#}"))
        });
        self.active.insert(handle.id(), (name, step));
    }

    /// A step ended; the outcome decides when the next one is tried.
    fn record(&mut self, done: Result<(Id, Result<(), String>), tokio::task::JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let Some((name, step)) = self.active.remove(&id) else { return };
        let history = self.histories.entry(name.clone()).or_default();
        match outcome {
            Ok(()) => history.succeeded(step, Instant::now()),
            Err(error) => {
                tracing::warn!("Module {name}: {error}");
                let error = error.chars().take(MAX_ERROR).collect();
                history.failed(error, Instant::now());
            }
        }
    }

    /// A new deployment: what was under way may be out of date, and what failed may work now.
    async fn begin_again(&mut self) {
        self.running.shutdown().await;
        self.active.clear();
        self.histories.clear();
    }

    fn show(
        &self,
        deployment: &Deployment,
        desired: &BTreeMap<String, DesiredModule>,
        mut observed: BTreeMap<String, ObservedModule>,
    ) {
        let modules = deployment.modules.iter().filter_map(|(name, spec)| {
            let (observed, history) = (observed.remove(name), self.histories.get(name));
            let (status, description) =
                planner::runtime_status(desired.get(name)?, observed.as_ref(), history);
            let state = ModuleState {
                spec: spec.clone(),
                status,
                description,
                error: history.and_then(History::error).map(ToOwned::to_owned),
                observed,
                restarts: history.map_or(0, |history| history.restarts),
            };
            Some((name.clone(), state))
        });
        let modules = modules.collect();
        self.steps.upstream.board.update(|state| {
            state.modules = modules;
            state.modules_version = deployment.version;
            state.engine_error = None;
        });
    }

    /// Stops every module that runs, all at the same time.
    async fn stop_modules(&self) {
        let engine = &self.steps.engine;
        let modules = match engine.modules().await {
            Ok(modules) => modules,
            Err(error) => return tracing::warn!("Cannot list the modules to stop them: {error}"),
        };
        let running = modules.into_iter().filter(|(_, module)| {
            matches!(module.state, ContainerState::Running | ContainerState::Unhealthy)
        });
        let stops = running.map(|(name, _)| async move {
            tracing::info!("Stopping module {name}...");
            if let Err(error) = engine.stop(&name).await {
                tracing::warn!("Could not stop module {name}: {error}");
            }
        });
        futures_util::future::join_all(stops).await;
    }
}
