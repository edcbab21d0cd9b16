//! What a failed run comes down to: the layer that is broken, the cause and the next action in a sentence each, and
//! the exit code of its class.

mod remedy;

use serde::Serialize;

use crate::confirm::NotAgreed;
use crate::engine::NoEngine;
use crate::execute::FailedStep;
use crate::exit::{self, Busy, Unproved};
use crate::images::Image;
use crate::plan::Action;
use crate::preflight::Missing;
use crate::room::NoRoom;
use crate::session::NothingUp;
use crate::tier::Unobtainable;
use crate::verify::Name;

/// Why a run has failed, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The broken layer, such as `agent`, or the one that the failed step brings about; none when the run failed before that.
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
                // An error that was foreseen knows more than the words in which it is told.
                let next = of_its_own(error).or_else(|| step_remedy(error));
                let next = next.unwrap_or_else(|| of_its_class(exit_code).to_owned());
                let layer = failed_step(error).and_then(layer_of).map(|name| name.to_string());
                Self { layer, cause: format!("{error:#}"), next, exit_code }
            }
        }
    }

    /// What to do next, where that follows from the layer that is broken, from the tier that cannot be had, or from the step and how
    /// it has failed.
    #[must_use]
    pub fn particular_next(error: &anyhow::Error) -> Option<String> {
        let broken = error.chain().find_map(|cause| cause.downcast_ref::<Unproved>());
        broken.map(|broken| broken.next.clone()).or_else(|| of_its_tier(error)).or_else(|| step_remedy(error))
    }
}

fn failed_step(error: &anyhow::Error) -> Option<Action> {
    error.downcast_ref::<FailedStep>().map(|FailedStep(action)| *action)
}

/// The layer that a step brings about.
fn layer_of(action: Action) -> Option<Name> {
    match action {
        Action::Network | Action::Registry | Action::Image(_) => Some(Name::Engine),
        Action::Kind | Action::NodeImage | Action::Cluster | Action::Wiring => Some(Name::Node),
        Action::Push(Image::TemperatureSensor) => Some(Name::Module),
        Action::Push(_) | Action::Deploy | Action::Pod => Some(Name::Pod),
        Action::EdgeContainer => Some(Name::Container),
        Action::Hub | Action::Device | Action::Telemetry(_) => Some(Name::Hub),
        // Compiling is of this machine alone.
        Action::Binaries => None,
    }
}

/// What helps with the step that has failed.
fn step_remedy(error: &anyhow::Error) -> Option<String> {
    remedy::of(failed_step(error)?, &format!("{error:#}"))
}

/// What helps where the tier cannot be had.
fn of_its_tier(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| cause.downcast_ref::<Unobtainable>()).map(Unobtainable::next)
}

/// What helps with an error that was foreseen, and has no layer.
fn of_its_own(error: &anyhow::Error) -> Option<String> {
    of_its_tier(error).or_else(|| of_its_kind(error).map(str::to_owned))
}

fn of_its_kind(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if cause.is::<Missing>() {
            Some("run the command again with `--yes`, which installs what is missing")
        } else if cause.is::<NotAgreed>() {
            Some("run the command again with `--yes`, which agrees beforehand")
        } else if cause.is::<NoEngine>() {
            Some("do what is told of one of the engines; `cargo xtask doctor` tells what each of them can do here")
        } else if cause.is::<NoRoom>() {
            Some("make room on the disk that is named, or move the folder to a larger one, and run the command again")
        } else if cause.is::<Busy>() {
            Some("wait for the end of the other one, and run the command again")
        } else if cause.is::<NothingUp>() {
            Some("run `cargo xtask up` first")
        } else {
            None
        }
    })
}

/// What helps with a class of errors of which nothing more is known.
fn of_its_class(exit_code: u8) -> &'static str {
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
    use crate::tier::Tier;
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

    #[test]
    fn what_is_known_of_a_failure_goes_before_what_is_said_of_its_class() {
        let push = FailedStep(Action::Push(Image::Edge));
        let failed = || anyhow!("podman: unauthorized").context(push);
        // What the clean-up adds hides nothing.
        for error in [failed(), failed().context("something could not be removed")] {
            let next = Verdict::of(&error).next;
            assert!(next.contains("`cargo xtask registry down`"), "{next}");
            assert_eq!(Verdict::particular_next(&error), Some(next));
            assert_eq!(Verdict::of(&error).layer.as_deref(), Some("pod"));
        }
        let step = anyhow!("podman answered 409").context(FailedStep(Action::Network));
        assert!(Verdict::of(&step).next.contains("logs"));
        assert_eq!(Verdict::particular_next(&step), None);
        // A remedy for any step fits these words, and does not help.
        let reason = "its file system says: no space left on device".to_owned();
        let unobtainable = Unobtainable::Asked { tier: Tier::Userns, reason };
        let step = Error::from(unobtainable.clone()).context(FailedStep(Action::EdgeContainer));
        let verdict = Verdict::of(&step);
        assert_eq!((verdict.exit_code, verdict.next), (exit::MACHINE, unobtainable.next()));
        assert_eq!(Verdict::particular_next(&step), Some(unobtainable.next()));
        for (error, part) in [
            (Error::from(Missing::new(Vec::new())), "`--yes`, which installs"),
            (NotAgreed(String::new()).into(), "`--yes`, which agrees"),
            (NoRoom { folders: Vec::new() }.into(), "make room"),
            (Busy("kedge".into()).into(), "wait"),
        ] {
            let next = Verdict::of(&error.context("failed to begin")).next;
            assert!(next.contains(part), "{next}");
        }
    }
}
