//! Waiting, in one place: exponential backoff with a limit, and polling with a deadline.
//!
//! Every wait of the edge runtime and of the sensor ends early when the shutdown token is
//! cancelled, so that a process stops at once whatever it was waiting for.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Delays that double from the first one up to a limit.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and never exceeds `limit`.
    #[must_use]
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, next: first }
    }

    /// Begins again at the first delay, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// The delay for the failure that just happened.
    pub fn advance(&mut self) -> Duration {
        let delay = self.next;
        self.next = self.next.saturating_mul(2).min(self.limit);
        delay
    }

    /// Waits for the next delay; `false` when the shutdown came first.
    pub async fn pause(&mut self, shutdown: &CancellationToken) -> bool {
        let delay = self.advance();
        pause(delay, shutdown).await
    }
}

/// Waits for `delay`; `false` when the shutdown came first.
pub async fn pause(delay: Duration, shutdown: &CancellationToken) -> bool {
    shutdown.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
}

/// Tries every `interval` until it works or the deadline passes; then the last error. `None` when the shutdown
/// came first.
pub async fn poll_until<T, E, F: Future<Output = Result<T, E>>>(
    interval: Duration,
    deadline: Instant,
    shutdown: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Option<Result<T, E>> {
    loop {
        match shutdown.run_until_cancelled(attempt()).await? {
            Err(_) if Instant::now() < deadline => {}
            outcome => return Some(outcome),
        }
        if !pause(interval, shutdown).await {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_limit_and_begin_again_after_a_reset() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND);
        let delays: Vec<u64> = (0..5).map(|_| backoff.advance().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.advance(), SECOND);
    }

    #[tokio::test]
    async fn a_shutdown_ends_every_wait() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert!(!Backoff::new(1000 * SECOND, 1000 * SECOND).pause(&shutdown).await);
        let far = Instant::now() + 1000 * SECOND;
        assert_eq!(poll_until(SECOND, far, &shutdown, async || Err::<(), ()>(())).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn polling_stops_at_the_answer_or_with_the_last_error_at_the_deadline() {
        let shutdown = CancellationToken::new();
        let mut attempts = 0;
        let deadline = Instant::now() + 10 * SECOND;
        let answer = poll_until(SECOND, deadline, &shutdown, || {
            attempts += 1;
            std::future::ready(if attempts == 3 { Ok(attempts) } else { Err("not yet") })
        });
        assert_eq!(answer.await, Some(Ok(3)));
        let deadline = Instant::now() + 3 * SECOND;
        let answer = poll_until(SECOND, deadline, &shutdown, async || Err::<(), _>("never")).await;
        assert_eq!(answer, Some(Err("never")));
    }
}
