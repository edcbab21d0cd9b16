//! What a container has written, and goes on to write.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::{Engine, is_missing};

/// What is done with each piece of a stream; an error ends the stream.
pub type Sink<'a> = dyn FnMut(&[u8]) -> std::io::Result<()> + Send + 'a;

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Go on with what is written from now on.
    pub follow: bool,
    /// So many lines from the end; all when none are named.
    pub tail: Option<u32>,
    /// Nothing older.
    pub since: Option<Duration>,
    /// Each line with its time.
    pub timestamps: bool,
    /// The run before the last restart.
    pub previous: bool,
}

impl Engine {
    /// Hands on what a container has written, and with [`LogRequest::follow`] what it writes until it ends.
    ///
    /// # Errors
    /// When there is no such container, the engine cannot be asked, or `out` refuses.
    pub async fn stream_log(&self, name: &str, wanted: &LogRequest, out: &mut Sink<'_>) -> Result<()> {
        let tail = wanted.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let mut options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .follow(wanted.follow)
            .timestamps(wanted.timestamps)
            .tail(&tail);
        if let Some(since) = wanted.since {
            options = options.since(before_now(since));
        }
        let mut chunks = self.docker.logs(name, Some(options.build()));
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => out(&chunk.into_bytes())?,
                Err(error) if is_missing(&error) => {
                    return Err(anyhow!(
                        "there is no container `{name}`; `cargo xtask status` shows what is up"
                    ));
                }
                Err(error) => {
                    return Err(self.told(error))
                        .with_context(|| format!("failed to read the log of the container `{name}`"));
                }
            }
        }
        Ok(())
    }
}

/// The second that was so long ago, as the engine counts it.
fn before_now(since: Duration) -> i32 {
    let since = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let second = Timestamp::now().as_second().saturating_sub(since).max(0);
    i32::try_from(second).unwrap_or(i32::MAX)
}
