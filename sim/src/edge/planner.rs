//! Desired against observed: the next step for every module.
//!
//! The plan is a pure function of the deployment, of what the engine shows, of the history of
//! attempts, and of the time. Each module gets at most one step; when it is done the supervisor
//! looks and plans again, so nothing is ever assumed to have worked.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::deployment::{DesiredStatus, RestartPolicy};

/// The first restart is immediate; further ones wait, twice as long each time.
const FIRST_RESTART_DELAY: Duration = Duration::from_secs(10);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(300);
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
    /// Start the container for the first time.
    Start,
    /// Start it again, by its restart policy.
    Restart,
    /// Stop it.
    Stop,
    /// Remove the container, because it is not wanted or is out of date.
    Remove,
}

/// Attempts for one module.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Restarts since the module was last stable.
    pub restarts: u32,
    /// When the last restart was.
    pub last_restart: Option<Instant>,
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
    pub fn succeeded(&mut self, step: Step, now: Instant) {
        self.failures = 0;
        self.retry_at = None;
        self.error = None;
        if step == Step::Restart {
            self.restarts = self.restarts.saturating_add(1);
            self.last_restart = Some(now);
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

    /// The moment from which the restart policy allows the next restart.
    fn restart_at(&self, now: Instant) -> Instant {
        match (self.restarts, self.last_restart) {
            (0, _) | (_, None) => now,
            (restarts, Some(last)) if now.duration_since(last) < STABLE_AFTER => {
                last + delay(FIRST_RESTART_DELAY, restarts - 1, MAX_RESTART_DELAY)
            }
            _ => now,
        }
    }
}

fn delay(first: Duration, doublings: u32, limit: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(doublings.min(16))).min(limit)
}

/// The next step of every module that needs one now: removals first, then in startup order.
#[must_use]
pub fn plan(
    desired: &BTreeMap<String, DesiredModule>,
    observed: &BTreeMap<String, ObservedModule>,
    histories: &BTreeMap<String, History>,
    now: Instant,
) -> Vec<(String, Step)> {
    let idle = History::default();
    let unwanted = observed
        .keys()
        .filter(|name| !desired.contains_key(*name))
        .map(|name| (None, name, Some(Step::Remove)));
    let wanted = desired.iter().map(|(name, module)| {
        let history = histories.get(name).unwrap_or(&idle);
        (Some(module.startup_order), name, next_step(module, observed.get(name), history, now))
    });
    let mut steps: Vec<_> = unwanted
        .chain(wanted)
        .filter(|(_, name, _)| histories.get(*name).unwrap_or(&idle).may_retry(now))
        .filter_map(|(order, name, step)| Some((order, name.clone(), step?)))
        .collect();
    steps.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    steps.into_iter().map(|(_, name, step)| (name, step)).collect()
}

fn next_step(
    desired: &DesiredModule,
    observed: Option<&ObservedModule>,
    history: &History,
    now: Instant,
) -> Option<Step> {
    let Some(digest) = &desired.digest else { return Some(Step::Provision) };
    let Some(observed) = observed else { return Some(Step::Create) };
    if observed.digest.as_ref() != Some(digest) || observed.state == ContainerState::Dead {
        return Some(Step::Remove);
    }
    match (desired.status, observed.state) {
        (DesiredStatus::Stopped, ContainerState::Running | ContainerState::Unhealthy) => Some(Step::Stop),
        (DesiredStatus::Stopped, _) | (DesiredStatus::Running, ContainerState::Running) => None,
        (DesiredStatus::Running, ContainerState::Created) => Some(Step::Start),
        (DesiredStatus::Running, _) => {
            let due = restarts(desired.restart_policy, observed) && now >= history.restart_at(now);
            due.then_some(Step::Restart)
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
    let up_to_date =
        |observed: &&ObservedModule| desired.digest.is_none() || observed.digest == desired.digest;
    let Some(observed) = observed.filter(up_to_date) else {
        return match error {
            Some(error) => ("backoff", error.to_owned()),
            None => ("unknown", "the container is being created".to_owned()),
        };
    };
    let exited = || format!("exited with status {}", observed.exit_code.unwrap_or_default());
    match observed.state {
        ContainerState::Running => ("running", "running".to_owned()),
        ContainerState::Unhealthy => ("unhealthy", "the health check fails".to_owned()),
        ContainerState::Dead => ("dead", exited()),
        ContainerState::Created => match error {
            Some(error) => ("backoff", error.to_owned()),
            None => ("stopped", "created".to_owned()),
        },
        ContainerState::Exited if desired.status == DesiredStatus::Stopped => ("stopped", exited()),
        ContainerState::Exited if restarts(desired.restart_policy, observed) => {
            ("backoff", error.map_or_else(exited, ToOwned::to_owned))
        }
        ContainerState::Exited if observed.exit_code.is_some_and(|code| code != 0) => ("failed", exited()),
        ContainerState::Exited => ("stopped", exited()),
    }
}

#[cfg(test)]
mod tests;
