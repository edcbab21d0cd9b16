//! `cargo xtask cluster`: the kind cluster on its own.

use anyhow::Result;

use crate::plan::Action;
use crate::session::{Setup, reach_and_report};
use crate::steps;

/// What to do with the cluster.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make the cluster, and print the path of its kubeconfig
    Up,
    /// Remove the cluster
    Down,
}

/// Makes or removes the cluster.
///
/// # Errors
/// When kind fails.
pub async fn run(setup: Setup, command: &Command) -> Result<()> {
    let context = setup.open().await?;
    match command {
        Command::Up => {
            reach_and_report(&context, "cluster up", &[Action::Cluster]).await?;
            println!("{}", context.paths.kubeconfig().display());
        }
        Command::Down => {
            let removed = steps::cluster::delete(&context).await?;
            context.progress.say(if removed { "removed the cluster" } else { "there was no cluster" });
        }
    }
    Ok(())
}
