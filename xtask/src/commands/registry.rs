//! `cargo xtask registry`: the registry on its own.

use anyhow::Result;

use crate::plan::Action;
use crate::session::{Setup, reach_and_report};
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
    let context = setup.open().await?;
    match command {
        Command::Up => {
            reach_and_report(&context, "registry up", &[Action::Registry]).await?;
            println!("{}", registry::published_host(&context));
        }
        Command::Down => {
            let name = context.registry_container();
            let there = context.engine.container(&name).await?.is_some();
            context.engine.remove_container(&name).await?;
            context.progress.say(if there { "removed the registry" } else { "there was no registry" });
        }
    }
    Ok(())
}
