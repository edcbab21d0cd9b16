//! What an engine says when it refuses, with its name: the client library calls every engine Docker.

use bollard::errors::Error;

use super::{Engine, EngineKind};

/// An engine's refusal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It answered, and would not.
    #[error("{kind} answered {status}: {message}")]
    Answered {
        /// Which engine.
        kind: EngineKind,
        /// Its status code.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It did not answer, or not in the way that it should.
    #[error("{kind}")]
    Other {
        /// Which engine.
        kind: EngineKind,
        /// What the client library says.
        source: Error,
    },
}

impl Refusal {
    pub(super) fn of(kind: EngineKind, error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code: status, message } => {
                Self::Answered { kind, status, message }
            }
            source => Self::Other { kind, source },
        }
    }
}

impl Engine {
    /// The error of the client library, in the name of this engine.
    pub(super) fn told(&self, error: Error) -> Refusal {
        Refusal::of(self.kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_name_of_the_engine_that_refused() {
        let error = || Error::DockerResponseServerError { status_code: 409, message: "in use".into() };
        assert_eq!(Refusal::of(EngineKind::Podman, error()).to_string(), "podman answered 409: in use");
        assert_eq!(Refusal::of(EngineKind::Docker, error()).to_string(), "docker answered 409: in use");
    }
}
