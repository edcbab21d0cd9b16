//! `cargo xtask registry`: the registry on its own.

use anyhow::Result;

use crate::commands::down;
use crate::plan::Action;
use crate::session::{Setup, carry_out};
use crate::steps::registry;

/// What to do with the registry.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start the registry, and print its address
    Up,
    /// Remove the registry with its images
    Down,
}

/// Starts or removes the registry.
///
/// # Errors
/// When the engine refuses.
pub async fn run(setup: Setup, command: &Command) -> Result<()> {
    match command {
        Command::Up => {
            if let Some(context) = carry_out(setup, "registry up", &[Action::Registry]).await? {
                println!("{}", registry::published_host(&context));
            }
        }
        Command::Down => {
            let name = setup.settings.registry_container();
            down::part(&setup, |all| down::container(all, &name)).await?;
        }
    }
    Ok(())
}
