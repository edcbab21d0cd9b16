//! Makes the modules what the deployment says, on the container engine.
//!
//! A loop that looks, plans and starts steps; steps of different modules run at the same time. It is
//! woken by a new deployment, by a finished step and by a short timer, and always looks again: the
//! engine is the only truth.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout};

use super::board::ModuleState;
use super::container::digest_of;
use super::deployment::Deployment;
use super::engine::{Engine, EngineError, EngineVersion};
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
/// Orders of people and tools that wait for the supervisor; further ones wait for room.
const MAX_ORDERS: usize = 8;

/// What somebody wants done with a module, whatever the deployment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start its container.
    Start,
    /// Stop it.
    Stop,
    /// Stop it, and start it again.
    Restart,
}

#[derive(Debug)]
struct Order {
    module: String,
    action: Action,
    done: oneshot::Sender<Result<(), String>>,
}

/// Gives orders to the supervisor.
#[derive(Debug, Clone)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// Has the action done; an error is the engine's.
    pub async fn give(&self, module: &str, action: Action) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        let order = Order { module: module.to_owned(), action, done };
        let given = self.0.send(order).await.is_ok();
        let outcome = if given { outcome.await.ok() } else { None };
        outcome.unwrap_or_else(|| Err("the runtime was interrupted by a new deployment or stops".to_owned()))
    }

    /// Orders that are noted, and done at once.
    #[cfg(test)]
    pub(super) fn noted() -> (Self, mpsc::UnboundedReceiver<(String, Action)>) {
        let (orders, mut given) = mpsc::channel::<Order>(MAX_ORDERS);
        let (note, notes) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Order { module, action, done }) = given.recv().await {
                note.send((module, action)).unwrap();
                done.send(Ok(())).unwrap();
            }
        });
        (Self(orders), notes)
    }
}

/// The supervisor of the modules.
pub struct Supervisor<E> {
    steps: Arc<Steps<E>>,
    deployments: watch::Receiver<Option<Arc<Deployment>>>,
    orders: mpsc::Receiver<Order>,
    /// Orders for modules that are busy.
    waiting: VecDeque<Order>,
    /// The deployment of the last round.
    current: Option<Arc<Deployment>>,
    engine: Option<EngineVersion>,
    histories: BTreeMap<String, History>,
    running: JoinSet<Result<(), String>>,
    /// The tasks that run; an order is no step.
    active: HashMap<Id, (String, Option<Step>)>,
    permits: Arc<Semaphore>,
}

impl<E: Engine> Supervisor<E> {
    /// A supervisor that works with `steps`, and the way to give it orders.
    #[must_use]
    pub fn new(steps: Steps<E>, deployments: watch::Receiver<Option<Arc<Deployment>>>) -> (Self, Orders) {
        let (orders, given) = mpsc::channel(MAX_ORDERS);
        let supervisor = Self {
            steps: Arc::new(steps),
            deployments,
            orders: given,
            waiting: VecDeque::new(),
            current: None,
            engine: None,
            histories: BTreeMap::new(),
            running: JoinSet::new(),
            active: HashMap::new(),
            permits: Arc::new(Semaphore::new(MAX_STEPS)),
        };
        (supervisor, Orders(orders))
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
                Ok(()) = self.deployments.changed() => {}
                Some(order) = self.orders.recv(), if self.waiting.len() < MAX_ORDERS => {
                    self.waiting.push_back(order);
                }
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

    async fn wait_for_engine(&mut self) -> Option<IpAddr> {
        let Steps { engine, host, upstream, .. } = &*self.steps;
        loop {
            let deadline = Instant::now() + ENGINE_PATIENCE;
            let ready = retry::poll_until(ENGINE_POLL, deadline, &upstream.shutdown, || async {
                Ok::<_, EngineError>((engine.version().await?, engine.ensure_network(&host.network).await?))
            });
            match ready.await? {
                Ok((version, gateway)) => {
                    tracing::info!(
                        "The container engine {} is ready; modules reach this host at {gateway}",
                        version.engine
                    );
                    upstream.board.update(|state| state.engine_version = Some(version.engine.clone()));
                    self.engine = Some(version);
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
        let deployment = self.deployments.borrow_and_update().clone();
        if deployment != self.current {
            self.begin_again(deployment).await;
        }
        self.begin_orders();
        let Some(deployment) = self.current.clone() else { return Ok(()) };
        let unmet = self.unmet(&deployment);
        let is_unmet = unmet.is_some();
        self.steps.upstream.board.update(|state| state.unmet = unmet);
        if is_unmet {
            return Ok(());
        }
        let observed = self.steps.engine.modules().await?;
        let desired = self.desired(&deployment, gateway);
        self.note_running(&observed);
        let due = planner::plan(&desired, &observed, &self.histories, &self.busy(), Instant::now());
        for (name, step) in due {
            let unhealthy =
                observed.get(&name).is_some_and(|module| module.state == ContainerState::Unhealthy);
            self.start(name, step, &deployment, unhealthy, gateway);
        }
        self.show(&deployment, &desired, observed);
        Ok(())
    }

    fn busy(&self) -> BTreeSet<String> {
        self.active.values().map(|(name, _)| name.clone()).collect()
    }

    fn note_running(&mut self, observed: &BTreeMap<String, ObservedModule>) {
        for (name, history) in &mut self.histories {
            if observed.get(name).is_some_and(|module| module.state == ContainerState::Running) {
                history.is_running(Instant::now());
            }
        }
    }

    /// Why the engine is not the one that the deployment needs.
    fn unmet(&self, deployment: &Deployment) -> Option<String> {
        let wanted = &deployment.runtime.min_docker_version;
        let has = self.engine.as_ref()?.api.as_str();
        (api_version(has)? < api_version(wanted)?).then(|| {
            format!("the container engine has version {has} of its API, and the deployment needs {wanted}")
        })
    }

    /// Begins the orders for modules that nothing else is done with.
    fn begin_orders(&mut self) {
        for order in std::mem::take(&mut self.waiting) {
            if self.busy().contains(&order.module) {
                self.waiting.push_back(order);
                continue;
            }
            let (steps, permits) = (self.steps.clone(), self.permits.clone());
            let module = order.module.clone();
            let handle = self.running.spawn(async move {
                let _permit = permits.acquire().await;
                let outcome = steps.obey(&order.module, order.action).await;
                let outcome = outcome.map_err(|error| format!("{error:#}"));
                // Who gave the order may have gone.
                let _ = order.done.send(outcome.clone());
                outcome
            });
            self.active.insert(handle.id(), (module, None));
        }
    }

    fn desired(&self, deployment: &Deployment, gateway: IpAddr) -> BTreeMap<String, DesiredModule> {
        let modules = deployment.modules.iter().map(|(name, spec)| {
            let digest = self.steps.upstream.identities.get(name).map(|identity| {
                // Options that cannot be described match no container, and fail when one is made.
                let body = self.steps.describe(name, spec, deployment, &identity, gateway);
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
        self.active.insert(handle.id(), (name, Some(step)));
    }

    /// A step ended; the outcome decides when the next one is tried.
    fn record(&mut self, done: Result<(Id, Result<(), String>), tokio::task::JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let Some((name, step)) = self.active.remove(&id) else { return };
        if let Err(error) = &outcome {
            tracing::warn!("Module {name}: {error}");
        }
        let Some(step) = step else { return };
        let history = self.histories.entry(name).or_default();
        match outcome {
            Ok(()) => history.succeeded(step, Instant::now(), Timestamp::now()),
            Err(error) => history.failed(error.chars().take(MAX_ERROR).collect(), Instant::now()),
        }
    }

    /// A new deployment: what was under way may be out of date, and what failed may work now. Restarts count on for
    /// modules that stay as they are.
    async fn begin_again(&mut self, deployment: Option<Arc<Deployment>>) {
        self.running.shutdown().await;
        self.active.clear();
        let module = |deployment: &Option<Arc<Deployment>>, name: &str| {
            deployment.as_ref().and_then(|deployment| deployment.modules.get(name).cloned())
        };
        self.histories.retain(|name, history| {
            history.forget_failures();
            module(&deployment, name).is_some_and(|new| module(&self.current, name) == Some(new))
        });
        self.current = deployment;
    }

    fn show(
        &self,
        deployment: &Deployment,
        desired: &BTreeMap<String, DesiredModule>,
        mut observed: BTreeMap<String, ObservedModule>,
    ) {
        // What waits for its next attempt is not waited for.
        let is_done = self.active.is_empty();
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
                last_restart: history.and_then(|history| history.last_restart_time),
            };
            Some((name.clone(), state))
        });
        let modules = modules.collect();
        self.steps.upstream.board.update(|state| {
            state.modules = modules;
            if is_done {
                state.modules_version = deployment.version;
                state.last_version = deployment.version;
            }
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

/// `v1.25` and `1.25` are the same version; anything else is none, and is not compared.
fn api_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().trim_start_matches(['v', 'V']).split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_api_are_compared_by_number() {
        assert!(api_version("v1.9") < api_version("1.41"));
        assert_eq!(api_version(" V1.25 "), Some((1, 25)));
        for text in ["", "v1", "latest", "1.x"] {
            assert_eq!(api_version(text), None, "{text}");
        }
    }
}
