//! `cargo xtask run`: the edge as a container directly on the engine, without Kubernetes.

use anyhow::Result;

use crate::plan::Action;
use crate::session::{Setup, carry_out};

/// Brings registry, hub, device and the edge's container up.
///
/// # Errors
/// When a step failed, or a pod of this deployment is in the way.
pub async fn run(setup: Setup) -> Result<()> {
    if let Some(context) = carry_out(setup, "run", &[Action::EdgeContainer]).await? {
        context.progress.say("up; prove it with `cargo xtask verify`, remove it with `cargo xtask down`");
    }
    Ok(())
}
