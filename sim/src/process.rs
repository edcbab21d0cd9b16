//! What every daemon of this crate does at its start and at its end.

use std::future::Future;
use std::io;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs a program to its result, and leaves behind what its threads still wait for.
///
/// A name that does not resolve holds a thread for seconds, which nothing can interrupt; a runtime that is dropped
/// would wait for it.
pub fn run_to_end<T>(runtime: Runtime, program: impl Future<Output = T>) -> T {
    let result = runtime.block_on(program);
    runtime.shutdown_background();
    result
}

/// Cancels the token on SIGTERM and SIGINT.
///
/// To be called first: as PID 1 of a container, a process ignores the signals that it does not catch.
pub fn stop_on_signals(shutdown: &CancellationToken) -> io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signal, shutdown) = (signal(kind)?, shutdown.clone());
        tokio::spawn(async move {
            signal.recv().await;
            shutdown.cancel();
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_does_not_wait_for_a_thread_that_cannot_be_interrupted() {
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let program = async move {
            tokio::task::spawn_blocking(move || {
                begin.send(()).unwrap();
                // Ends by itself, so that a regression fails instead of waiting for ever.
                let _ = released.recv_timeout(Duration::from_secs(10));
            });
            begun.await
        };
        assert_eq!(run_to_end(Runtime::new().unwrap(), program), Ok(()));
        assert!(release.send(()).is_ok(), "the thread was waited for");
    }
}
