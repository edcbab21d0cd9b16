//! What a failed run comes down to: the layer that is broken, the cause and the next action in a sentence each, and
//! the exit code of its class.

use serde::Serialize;

use crate::exit::{self, Unproved};

/// Why a run has failed, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The broken layer, such as `agent`; none when the run failed before there was one to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// What is wrong.
    pub cause: String,
    /// What to do next.
    pub next: String,
    /// The exit code of its class; see [`crate::exit`].
    pub exit_code: u8,
}

impl Verdict {
    /// What an error comes down to.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        let exit_code = exit::code(error);
        match error.chain().find_map(|cause| cause.downcast_ref::<Unproved>()) {
            Some(broken) => Self {
                layer: Some(broken.layer.clone()),
                cause: broken.detail.clone(),
                next: broken.next.clone(),
                exit_code,
            },
            None => {
                Self { layer: None, cause: format!("{error:#}"), next: next(exit_code).into(), exit_code }
            }
        }
    }
}

/// What helps with a class of errors of which nothing more is known.
fn next(exit_code: u8) -> &'static str {
    match exit_code {
        exit::USAGE => "see `cargo xtask --help`",
        exit::SETTINGS => "correct what is named, and run the command again; nothing was changed",
        exit::MACHINE => "see `cargo xtask doctor` for what this machine lacks",
        exit::OBSTRUCTED => "remove or rename what is in the way, and run the command again",
        exit::NOT_PROVED => "say where arrival can be read: `--events`",
        exit::INTERRUPTED => "run the command again, or `cargo xtask down` to remove what is left",
        _ => "look at the logs of the run, and run the command again: what is done already stays done",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Error, anyhow};

    #[test]
    fn a_broken_layer_is_named_with_its_cause_and_what_to_do() {
        let broken = Unproved { layer: "agent".into(), detail: "no hub".into(), next: "start it".into() };
        let verdict = Verdict::of(&Error::from(broken).context("failed to get the pod ready"));
        let expected = Verdict {
            layer: Some("agent".into()),
            cause: "no hub".into(),
            next: "start it".into(),
            exit_code: exit::UNPROVED,
        };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn an_error_without_a_layer_is_told_whole() {
        let verdict = Verdict::of(&anyhow!("no such file").context("failed to push"));
        assert_eq!((verdict.layer, verdict.cause.as_str()), (None, "failed to push: no such file"));
        assert!(verdict.exit_code == exit::FAILURE && verdict.next.contains("logs"));
    }
}
