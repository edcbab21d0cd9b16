//! The questions about single clients: no two about the same one are under way, so that their answers come in the order
//! in which they were asked, and a stranger who comes many times does not take the room of others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::ScopeError;
use crate::identity::Identity;

/// The hub is asked for the same client again, at the earliest.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Strangers of whom it is known that the hub was asked for them.
const MAX_STRANGERS: usize = 1000;
/// Clients for which the hub is asked at the same time.
const MAX_QUESTIONS: usize = 32;

type Outcome = OnceCell<Result<(), Arc<ScopeError>>>;

pub(super) struct Questions {
    /// When the hub last answered the question for somebody.
    answered: Mutex<HashMap<Identity, Instant>>,
    /// Those under way, as long as somebody waits for them.
    open: Mutex<HashMap<Identity, Weak<Outcome>>>,
    permits: Semaphore,
}

impl Questions {
    pub(super) fn new() -> Self {
        let (answered, open) = Default::default();
        Self { answered, open, permits: Semaphore::new(MAX_QUESTIONS) }
    }

    /// Asks for a client with `ask`, which completes when the answer is taken up. Whoever comes while it is asked for
    /// shares the outcome, and asks in the place of one who gives up. The hub is not asked when it has just answered.
    pub(super) async fn put(
        &self,
        identity: &Identity,
        ask: impl Future<Output = Result<(), ScopeError>>,
    ) -> Result<(), Arc<ScopeError>> {
        let outcome = self.outcome(identity);
        outcome.get_or_init(async || self.put_alone(identity, ask).await.map_err(Arc::new)).await.clone()
    }

    async fn put_alone(
        &self,
        identity: &Identity,
        ask: impl Future<Output = Result<(), ScopeError>>,
    ) -> Result<(), ScopeError> {
        if self.answered().get(identity).is_some_and(|when| when.elapsed() < ASK_AGAIN) {
            return Ok(());
        }
        let _permit = self.may_ask().ok_or(ScopeError::Busy)?;
        ask.await?;
        // Entered only with an answer: whoever gives up while waiting for one must not stand for the hub's no.
        self.answered().insert(identity.clone(), Instant::now());
        Ok(())
    }

    /// The outcome of the question about a client that is under way, or of a new one.
    fn outcome(&self, identity: &Identity) -> Arc<Outcome> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = open.get(identity).and_then(Weak::upgrade);
        // Those who waited for an outcome may still hold it when it has come.
        if let Some(outcome) = shared.filter(|outcome| !outcome.initialized()) {
            return outcome;
        }
        open.retain(|_, outcome| outcome.strong_count() > 0);
        let outcome = Arc::default();
        open.insert(identity.clone(), Arc::downgrade(&outcome));
        outcome
    }

    /// Leave to ask the hub for one more client. Nobody waits for it, because questions may take long.
    fn may_ask(&self) -> Option<SemaphorePermit<'_>> {
        let mut answered = self.answered();
        if answered.len() >= MAX_STRANGERS {
            answered.retain(|_, when| when.elapsed() < ASK_AGAIN);
        }
        if answered.len() < MAX_STRANGERS { self.permits.try_acquire().ok() } else { None }
    }

    fn answered(&self) -> MutexGuard<'_, HashMap<Identity, Instant>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        MAX_QUESTIONS - self.permits.available_permits()
    }
}
