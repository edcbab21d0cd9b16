//! `cargo xtask up`: bring everything up; what is there already stays as it is.

use anyhow::Result;

use crate::plan::Action;
use crate::session::{Setup, carry_out};

/// Brings everything up.
///
/// # Errors
/// When a step failed.
pub async fn run(setup: Setup) -> Result<()> {
    if let Some(context) = carry_out(setup, "up", &[Action::Pod]).await? {
        context.progress.say("up; prove it with `cargo xtask verify`, remove it with `cargo xtask down`");
    }
    Ok(())
}
