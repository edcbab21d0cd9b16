//! The one way to wait for something: a condition, a limit, the last status in the error, and an early end
//! when the thing that is waited for has died.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// What one look at the condition found.
#[derive(Debug)]
pub enum Observation<T> {
    /// The condition holds; waiting ends with this value.
    Ready(T),
    /// Not yet; the text says what is there now.
    NotYet(String),
    /// It will never hold; the text says why.
    Failed(String),
}

/// Why waiting ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The limit passed.
    #[error("waited {} s for {what}; last seen: {last}", limit.as_secs())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The last status.
        last: String,
    },
    /// The thing died meanwhile.
    #[error("{what} will not come: {reason}")]
    Died {
        /// What was waited for.
        what: String,
        /// Why it is hopeless.
        reason: String,
    },
}

/// How often to look: often enough that polling adds little to any step's time.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks at a condition until it is ready, has failed, or `limit` has passed.
///
/// # Errors
/// [`WaitError::TimedOut`] with the last status, or [`WaitError::Died`] as soon as the condition says so.
pub async fn wait_for<T, F, Fut>(what: &str, limit: Duration, mut look: F) -> Result<T, WaitError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Observation<T>>,
{
    let started = Instant::now();
    let mut last = "nothing yet".to_owned();
    while let Some(left) = limit.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        match tokio::time::timeout(left, look()).await {
            Ok(Observation::Ready(value)) => return Ok(value),
            Ok(Observation::Failed(reason)) => return Err(WaitError::Died { what: what.to_owned(), reason }),
            Ok(Observation::NotYet(status)) => last = status,
            Err(_) => break,
        }
        tokio::time::sleep(INTERVAL.min(left)).await;
    }
    Err(WaitError::TimedOut { what: what.to_owned(), limit, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_time_out_tells_the_last_status() {
        let error = wait_for::<(), _, _>("the pod", Duration::from_secs(1), || async {
            Observation::NotYet("Pending".into())
        })
        .await
        .unwrap_err();
        assert_eq!(error.to_string(), "waited 1 s for the pod; last seen: Pending");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_thing_ends_the_wait_at_once() {
        let started = Instant::now();
        let error = wait_for::<(), _, _>("the pod", Duration::from_secs(600), || async {
            Observation::Failed("ImagePullBackOff".into())
        })
        .await
        .unwrap_err();
        assert_eq!(error.to_string(), "the pod will not come: ImagePullBackOff");
        assert!(started.elapsed() < Duration::from_secs(600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_does_not_outlive_the_limit() {
        let error =
            wait_for::<(), _, _>("the API", Duration::from_secs(2), std::future::pending).await.unwrap_err();
        assert!(matches!(error, WaitError::TimedOut { .. }));
    }
}
