//! Whether the engine is still there while a run goes on. Steps that wait for something else than the engine would
//! not notice that it has gone, and wait for as long as they may.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Engine;

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(1);
/// An engine under load answers late, so one that is there gets this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// One that is restarted is away for a moment: so many looks in a row have to fail.
const MOST_MISSED: u32 = 3;

impl Engine {
    /// Whether the engine is there.
    ///
    /// # Errors
    /// When its service has ended, or it does not answer.
    pub async fn is_there(&self) -> Result<()> {
        self.has_not_ended()?;
        timeout(PATIENCE, self.ping()).await.with_context(|| {
            format!("the container engine does not answer within {} s", PATIENCE.as_secs())
        })?
    }

    /// Waits until the engine has gone, and tells how.
    pub async fn gone(&self) -> Error {
        lost(|| self.has_not_ended(), || self.is_there()).await
    }

    /// A service of ours that has ended does not come back; nobody else starts it.
    fn has_not_ended(&self) -> Result<()> {
        self.service.as_ref().map_or(Ok(()), super::podman::Service::has_not_ended)
    }
}

/// Waits until the first look, which is believed at once, or several of the second in a row have failed.
async fn lost<Fut: Future<Output = Result<()>>>(
    ended: impl Fn() -> Result<()>,
    answers: impl Fn() -> Fut,
) -> Error {
    let mut looks = interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missed = 0;
    loop {
        looks.tick().await;
        if let Err(error) = ended() {
            return error;
        }
        match answers().await {
            Ok(()) => missed = 0,
            Err(error) => {
                missed += 1;
                if missed >= MOST_MISSED {
                    return error;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use std::cell::Cell;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_away_for_a_moment_is_not_given_up() {
        let (looks, began) = (Cell::new(0), Instant::now());
        // Away for two looks, there again for one, then away for good.
        let answers = || {
            looks.set(looks.get() + 1);
            let away = looks.get() != 3;
            async move { if away { Err(anyhow!("connection refused")) } else { Ok(()) } }
        };
        let error = lost(|| Ok(()), answers).await;
        assert_eq!((error.to_string().as_str(), looks.get()), ("connection refused", 6));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_has_ended_is_told_at_once() {
        let (looks, began) = (Cell::new(0), Instant::now());
        let ended = || {
            looks.set(looks.get() + 1);
            if looks.get() > 2 { Err(anyhow!("it has ended")) } else { Ok(()) }
        };
        let error = lost(ended, || async { Ok(()) }).await;
        assert_eq!(error.to_string(), "it has ended");
        assert!(began.elapsed() <= INTERVAL * 2, "{:?}", began.elapsed());
    }
}
