//! The exit codes, which are part of the interface, and how an error gets its code.

use crate::arrival::ConnectionStringError;
use crate::confirm::NotAgreed;
use crate::deploy::target::TargetError;
use crate::engine::{Foreign, NoEngine};
use crate::execute::Interrupted;
use crate::paths::NoHome;
use crate::plan::Obstructed;
use crate::preflight::Missing;
use crate::provisioning::{Unfit, UnusableCredentials};
use crate::room::NoRoom;
use crate::settings::SettingsError;
use crate::sources::SourcesError;
use crate::tier::Unobtainable;
use crate::verify::Layer;

/// The command did what it is for.
pub const SUCCESS: u8 = 0;
/// The work was begun and failed; the message says at which step.
pub const FAILURE: u8 = 1;
/// The command line cannot be understood.
pub const USAGE: u8 = 2;
/// The settings or other files of the user cannot be used; nothing was changed.
pub const SETTINGS: u8 = 3;
/// Nobody has agreed to what would be done; or the machine lacks something, and nobody agreed to install it: a program, an engine, room on a disk, a permission.
pub const MACHINE: u8 = 4;
/// A layer is broken: what is up does not deliver telemetry.
pub const UNPROVED: u8 = 5;
/// Something that is not ours is in the way: a name or a port is taken, or another invocation is at work; nothing was
/// changed.
pub const OBSTRUCTED: u8 = 6;
/// Nothing is broken as far as can be seen, but nobody could say whether telemetry arrives at the hub.
pub const NOT_PROVED: u8 = 7;
/// The user stopped the command; `e2e` has cleaned up, the others leave what they have made to `down`.
pub const INTERRUPTED: u8 = 130;

/// Flags that contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Another invocation is changing the deployment of this name; who it is stands after the name, where that is known.
#[derive(Debug, thiserror::Error)]
#[error("another `cargo xtask` is at work on {0}; wait for its end")]
pub struct Busy(pub String);

/// A layer between the machine and the hub is broken.
#[derive(Debug, thiserror::Error)]
#[error("the layer `{layer}` is broken: {detail}")]
pub struct Unproved {
    /// The first broken layer.
    pub layer: String,
    /// What is wrong with it.
    pub detail: String,
    /// What to do about it.
    pub next: String,
}

/// Nobody could say whether telemetry arrives; the text says what to give.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotProved(pub String);

/// Whether the machine's disk or permissions are at fault.
fn is_of_the_machine(cause: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind.is_some_and(|kind| {
        [PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull].contains(&kind)
    })
}

impl Unproved {
    /// The error for a broken layer.
    #[must_use]
    pub fn of(layer: &Layer) -> Self {
        Self {
            layer: layer.name.to_string(),
            detail: layer.detail.clone(),
            next: layer.next.clone().unwrap_or_else(|| layer.name.next().to_owned()),
        }
    }
}

/// The code of an error: that of the first cause that has one.
#[must_use]
pub fn code(error: &anyhow::Error) -> u8 {
    let known = error.chain().find_map(|cause| {
        if cause.is::<Usage>()
            || matches!(
                cause.downcast_ref(),
                Some(TargetError::NotNamed { .. } | TargetError::Unknown { .. })
            )
        {
            Some(USAGE)
        } else if cause.is::<SettingsError>()
            || cause.is::<SourcesError>()
            || cause.is::<TargetError>()
            || cause.is::<UnusableCredentials>()
            || cause.is::<Unfit>()
            || cause.is::<ConnectionStringError>()
        {
            Some(SETTINGS)
        } else if cause.is::<Missing>()
            || cause.is::<NoEngine>()
            || cause.is::<NoRoom>()
            || cause.is::<NoHome>()
            || cause.is::<NotAgreed>()
            || cause.is::<Unobtainable>()
            || is_of_the_machine(cause)
        {
            Some(MACHINE)
        } else if cause.is::<Unproved>() {
            Some(UNPROVED)
        } else if cause.is::<NotProved>() {
            Some(NOT_PROVED)
        } else if cause.is::<Obstructed>() || cause.is::<Foreign>() || cause.is::<Busy>() {
            Some(OBSTRUCTED)
        } else if cause.is::<Interrupted>() {
            Some(INTERRUPTED)
        } else {
            None
        }
    });
    known.unwrap_or(FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Error, anyhow};
    use std::io::ErrorKind;

    #[test]
    fn the_code_is_that_of_the_cause() {
        let unproved = Unproved { layer: "pod".into(), detail: "none".into(), next: "look".into() };
        let cases: [(Error, u8); 17] = [
            (anyhow!("no space left"), FAILURE),
            (std::io::Error::from(ErrorKind::NotFound).into(), FAILURE),
            (Usage("these flags contradict each other".into()).into(), USAGE),
            (UnusableCredentials { problems: Vec::new() }.into(), SETTINGS),
            (Unfit::Missing.into(), SETTINGS),
            (Missing::new(Vec::new()).into(), MACHINE),
            (NoRoom { folders: vec!["`/` has 1 MB free".into()] }.into(), MACHINE),
            (std::io::Error::from(ErrorKind::StorageFull).into(), MACHINE),
            (std::io::Error::from(ErrorKind::PermissionDenied).into(), MACHINE),
            (unproved.into(), UNPROVED),
            (NotProved("give it".into()).into(), NOT_PROVED),
            (ConnectionStringError::OtherKind("another").into(), SETTINGS),
            (Foreign::at("a network of that name exists").into(), OBSTRUCTED),
            (Busy("kedge".into()).into(), OBSTRUCTED),
            (Obstructed { obstacles: Vec::new() }.into(), OBSTRUCTED),
            (Interrupted.into(), INTERRUPTED),
            (anyhow!(Interrupted).context("cleaned up"), INTERRUPTED),
        ];
        for (error, expected) in cases {
            let wrapped = error.context("failed to prove");
            assert_eq!(code(&wrapped), expected, "{wrapped:#}");
        }
    }
}
