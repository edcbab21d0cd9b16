//! Desired against observed: the next step for every module.
//!
//! The plan is a pure function of the deployment, of what the engine shows, of the history of
//! attempts, and of the time. Each module gets at most one step; when it is done the supervisor
//! looks and plans again, so nothing is ever assumed to have worked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::deployment::{DesiredStatus, RestartPolicy};

/// The first restart is immediate; further ones wait, twice as long each time.
const FIRST_RESTART_DELAY: Duration = Duration::from_secs(10);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(300);
/// After so many restarts without a stable time a module has failed.
const MAX_RESTARTS: u32 = 20;
/// A module that ran this long is healthy again, and its restarts are forgotten.
const STABLE_AFTER: Duration = Duration::from_secs(600);
/// Failed steps (a pull, mostly) are tried again with growing delays.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(2);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// What the deployment wants of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredModule {
    /// Digest of everything that goes into the container; `None` until the module has an identity.
    pub digest: Option<String>,
    /// Whether it shall run.
    pub status: DesiredStatus,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
    /// Lower numbers start first.
    pub startup_order: u32,
}

/// What the engine shows of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedModule {
    /// Digest that the container was made from.
    pub digest: Option<String>,
    /// Image reference of the container.
    pub image: String,
    /// Id of the image.
    pub image_id: String,
    /// State of the container.
    pub state: ContainerState,
    /// When it was last started, in the engine's words.
    pub started_at: Option<String>,
    /// When it last ended, in the engine's words.
    pub finished_at: Option<String>,
    /// Status of the last exit.
    pub exit_code: Option<i64>,
}

/// State of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made and never started.
    Created,
    /// Running, or paused by somebody.
    Running,
    /// Running, and its health check fails.
    Unhealthy,
    /// Ended.
    Exited,
    /// The engine could not remove it.
    Dead,
}

/// The next step for a module, in the words of edgeAgent's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Get its identity from the hub.
    Provision,
    /// Pull the image and make the container.
    Create,
    /// The same in place of a container that is out of date; that one goes when the image is there.
    Replace,
    /// Start the container for the first time.
    Start,
    /// Start it again, by its restart policy.
    Restart,
    /// Stop it.
    Stop,
    /// Remove the container, because it is not wanted or is beyond repair.
    Remove,
}

/// Attempts for one module.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Restarts since the module was last stable.
    pub restarts: u32,
    /// When the last restart was.
    pub last_restart: Option<Instant>,
    /// The same on the wall's clock.
    pub last_restart_time: Option<Timestamp>,
    failures: u32,
    retry_at: Option<Instant>,
    error: Option<String>,
}

impl History {
    /// A step failed; the next attempt waits.
    pub fn failed(&mut self, error: String, now: Instant) {
        self.retry_at = Some(now + delay(FIRST_RETRY_DELAY, self.failures, MAX_RETRY_DELAY));
        self.failures = self.failures.saturating_add(1);
        self.error = Some(error);
    }

    /// A step was done.
    pub fn succeeded(&mut self, step: Step, now: Instant, time: Timestamp) {
        self.forget_failures();
        if step == Step::Restart {
            self.restarts = self.restarts.saturating_add(1);
            self.last_restart = Some(now);
            self.last_restart_time = Some(time);
        }
    }

    /// What failed may work now.
    pub fn forget_failures(&mut self) {
        self.failures = 0;
        self.retry_at = None;
        self.error = None;
    }

    /// The module runs. After a stable time its restarts are forgotten.
    pub fn is_running(&mut self, now: Instant) {
        if self.last_restart.is_some_and(|last| now.duration_since(last) >= STABLE_AFTER) {
            (self.restarts, self.last_restart, self.last_restart_time) = (0, None, None);
        }
    }

    /// Why the last attempt failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn may_retry(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| now >= at)
    }

    /// The moment from which the next restart is allowed; `None` when there were too many.
    fn restart_at(&self, now: Instant) -> Option<Instant> {
        match (self.restarts, self.last_restart) {
            (MAX_RESTARTS.., _) => None,
            (0, _) | (_, None) => Some(now),
            (restarts, Some(last)) => {
                Some(last + delay(FIRST_RESTART_DELAY, restarts - 1, MAX_RESTART_DELAY))
            }
        }
    }

    fn gave_up(&self) -> bool {
        self.restarts >= MAX_RESTARTS
    }
}

fn delay(first: Duration, doublings: u32, limit: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(doublings.min(16))).min(limit)
}

/// The next step of every module that needs one now and is not `busy`: removals, and the modules of the lowest
/// startup order. Those of the next order have their turn when nothing is left to do for these; what has to be
/// tried again later does not hold them up.
#[must_use]
pub fn plan(
    desired: &BTreeMap<String, DesiredModule>,
    observed: &BTreeMap<String, ObservedModule>,
    histories: &BTreeMap<String, History>,
    busy: &BTreeSet<String>,
    now: Instant,
) -> Vec<(String, Step)> {
    let idle = History::default();
    let may_begin =
        |name: &String| !busy.contains(name) && histories.get(name).unwrap_or(&idle).may_retry(now);
    let unwanted = observed.keys().filter(|name| !desired.contains_key(*name) && may_begin(name));
    let wanted: Vec<_> = desired
        .iter()
        .filter(|(name, _)| may_begin(name))
        .filter_map(|(name, module)| {
            let history = histories.get(name).unwrap_or(&idle);
            let step = next_step(module, observed.get(name), history, now)?;
            Some((module.startup_order, name, step))
        })
        .collect();
    let under_way =
        desired.iter().filter(|(name, _)| busy.contains(*name)).map(|(_, module)| module.startup_order);
    let turn = wanted.iter().map(|(order, ..)| *order).chain(under_way).min();
    unwanted
        .map(|name| (name.clone(), Step::Remove))
        .chain(
            wanted
                .into_iter()
                .filter(|(order, ..)| Some(*order) == turn)
                .map(|(_, name, step)| (name.clone(), step)),
        )
        .collect()
}

fn next_step(
    desired: &DesiredModule,
    observed: Option<&ObservedModule>,
    history: &History,
    now: Instant,
) -> Option<Step> {
    let Some(digest) = &desired.digest else { return Some(Step::Provision) };
    let Some(observed) = observed else { return Some(Step::Create) };
    if observed.state == ContainerState::Dead {
        return Some(Step::Remove);
    }
    if observed.digest.as_ref() != Some(digest) {
        return Some(Step::Replace);
    }
    match (desired.status, observed.state) {
        (DesiredStatus::Stopped, ContainerState::Running | ContainerState::Unhealthy) => Some(Step::Stop),
        (DesiredStatus::Stopped, _) | (DesiredStatus::Running, ContainerState::Running) => None,
        (DesiredStatus::Running, ContainerState::Created) => Some(Step::Start),
        (DesiredStatus::Running, _) => {
            let due = history.restart_at(now).is_some_and(|at| now >= at);
            (due && restarts(desired.restart_policy, observed)).then_some(Step::Restart)
        }
    }
}

/// Whether the policy starts a module in this state again.
fn restarts(policy: RestartPolicy, observed: &ObservedModule) -> bool {
    let failed = observed.exit_code.is_some_and(|code| code != 0);
    match (policy, observed.state) {
        (RestartPolicy::Never, _) => false,
        (RestartPolicy::Always | RestartPolicy::OnUnhealthy, ContainerState::Unhealthy) => true,
        (RestartPolicy::OnFailure, ContainerState::Unhealthy) => false,
        (RestartPolicy::Always, _) => true,
        (RestartPolicy::OnFailure | RestartPolicy::OnUnhealthy, _) => failed,
    }
}

/// `runtimeStatus` and `statusDescription` of a module, in the words of the real agent.
#[must_use]
pub fn runtime_status(
    desired: &DesiredModule,
    observed: Option<&ObservedModule>,
    history: Option<&History>,
) -> (&'static str, String) {
    let error = history.and_then(History::error);
    let Some(observed) = observed else {
        return match error {
            Some(error) => ("backoff", error.to_owned()),
            None => ("unknown", "the container is being created".to_owned()),
        };
    };
    let up_to_date = desired.digest.is_none() || observed.digest == desired.digest;
    if !up_to_date && error.is_none() {
        return ("unknown", "the container is being replaced".to_owned());
    }
    let (status, description) = state_of(desired, observed, history);
    // A failed replacement leaves the container that was there.
    (status, error.map_or(description, ToOwned::to_owned))
}

fn state_of(
    desired: &DesiredModule,
    observed: &ObservedModule,
    history: Option<&History>,
) -> (&'static str, String) {
    let exited = || format!("exited with status {}", observed.exit_code.unwrap_or_default());
    let gave_up = history.is_some_and(History::gave_up);
    let comes_back = desired.status == DesiredStatus::Running && restarts(desired.restart_policy, observed);
    match observed.state {
        ContainerState::Running => ("running", "running".to_owned()),
        ContainerState::Unhealthy if comes_back && gave_up => {
            ("failed", format!("the health check fails, also after {MAX_RESTARTS} restarts"))
        }
        ContainerState::Unhealthy => ("unhealthy", "the health check fails".to_owned()),
        ContainerState::Dead => ("dead", exited()),
        ContainerState::Created if history.is_some_and(|history| history.error.is_some()) => {
            ("backoff", "created".to_owned())
        }
        ContainerState::Created => ("stopped", "created".to_owned()),
        ContainerState::Exited if desired.status == DesiredStatus::Stopped => ("stopped", exited()),
        ContainerState::Exited if comes_back && gave_up => {
            ("failed", format!("{}, also after {MAX_RESTARTS} restarts", exited()))
        }
        ContainerState::Exited if comes_back => ("backoff", exited()),
        ContainerState::Exited if observed.exit_code.is_some_and(|code| code != 0) => ("failed", exited()),
        ContainerState::Exited => ("stopped", exited()),
    }
}

#[cfg(test)]
mod tests;
