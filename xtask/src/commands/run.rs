//! `cargo xtask run`: the edge as a container directly on the engine, without Kubernetes.

use anyhow::Result;

use crate::cli::Format;
use crate::place::Privilege;
use crate::plan::Action;
use crate::session::{Setup, carry_out};

/// Flags of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Give the container no more rights than it needs, instead of all
    #[arg(long)]
    unprivileged: bool,
    /// How the result is told.
    #[command(flatten)]
    pub format: Format,
}

/// Brings registry, hub, device and the edge's container up.
///
/// # Errors
/// When a step failed, or a pod of this deployment is in the way.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let privilege = if args.unprivileged { Privilege::Unprivileged } else { Privilege::Privileged };
    if let Some(context) = carry_out(setup, "run", &[Action::EdgeContainer(privilege)]).await? {
        context.progress.say("up; prove it with `cargo xtask verify`, remove it with `cargo xtask down`");
    }
    Ok(())
}
