//! `cargo xtask cluster`: the kind cluster on its own.

use anyhow::Result;

use crate::commands::down;
use crate::engine::Inventory;
use crate::plan::Action;
use crate::session::{Setup, carry_out};

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
    match command {
        Command::Up => {
            if let Some(context) = carry_out(setup, "cluster up", &[Action::Cluster]).await? {
                println!("{}", context.paths.kubeconfig().display());
            }
        }
        Command::Down => {
            // The kubeconfig names a cluster that is gone then.
            let (kubeconfig, dry_run) = (setup.paths.kubeconfig(), setup.dry_run);
            down::part(&setup, Inventory::of_cluster).await?;
            if !dry_run && kubeconfig.exists() {
                fs_err::remove_file(kubeconfig)?;
            }
        }
    }
    Ok(())
}
