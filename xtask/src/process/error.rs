//! Why a child process did not do what it was started for.

use std::io;
use std::time::Duration;

/// A child process that did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("failed to {purpose}: `{program}` could not be started")]
    NotStarted {
        /// What it was to do.
        purpose: String,
        /// The program's name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The program ran and failed.
    #[error("failed to {purpose}: `{command}` ended with {status}{tail}")]
    Failed {
        /// What it was to do.
        purpose: String,
        /// The command line, ready to be pasted into a shell.
        command: String,
        /// The exit status in words.
        status: String,
        /// The last lines of its output.
        tail: String,
    },
    /// The program was ended because its time was over.
    #[error("failed to {purpose}: `{command}` did not end within {} s{tail}", limit.as_secs())]
    TimedOut {
        /// What it was to do.
        purpose: String,
        /// The command line.
        command: String,
        /// The limit.
        limit: Duration,
        /// The last lines of its output.
        tail: String,
    },
    /// The program was ended because the run was cancelled.
    #[error("stopped before it could {purpose}")]
    Cancelled {
        /// What it was to do.
        purpose: String,
    },
}
