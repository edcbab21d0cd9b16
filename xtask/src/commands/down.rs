//! `cargo xtask down`: remove everything that was made, whatever state an aborted run has left.
//!
//! Removing needs an engine and nothing else: no secret, no settings of the cluster, no tool to be installed.

use anyhow::{Context as _, Result};

use crate::engine::{Engine, Inventory};
use crate::paths::Paths;
use crate::session::Setup;

/// Removes everything.
///
/// # Errors
/// All that could not be removed; the rest is removed all the same.
pub async fn run(setup: Setup) -> Result<()> {
    if setup.dry_run {
        return part(&setup, |all| all).await;
    }
    let _lock = setup.lock()?;
    let Some(engine) = setup.engine_as_is().await? else {
        remove_state(&setup.paths)?;
        eprintln!("there is no container engine here, so there is nothing to remove");
        return Ok(());
    };
    eprintln!("removed: {}", remove_everything(&engine, &setup.paths).await?);
    Ok(())
}

/// Removes all that the engine holds of the deployment, and its state; tells what there was.
///
/// # Errors
/// All that could not be removed; the state is kept then, so that `down` can be run again.
pub async fn remove_everything(engine: &Engine, paths: &Paths) -> Result<Inventory> {
    let inventory = engine.inventory().await?;
    engine
        .remove(&inventory)
        .await
        .context("something could not be removed; run `cargo xtask down` again")?;
    remove_state(paths)?;
    Ok(inventory)
}

/// Removes the secrets and the kubeconfig.
fn remove_state(paths: &Paths) -> std::io::Result<()> {
    if paths.state.exists() { fs_err::remove_dir_all(&paths.state) } else { Ok(()) }
}

/// Removes the part of the deployment that `select` takes from the inventory, and tells what there was.
///
/// # Errors
/// As [`run`].
pub async fn part(setup: &Setup, select: impl Fn(Inventory) -> Inventory) -> Result<()> {
    if setup.dry_run {
        let inventory = match setup.engine_as_is().await? {
            Some(engine) => select(engine.inventory().await?),
            None => Inventory::default(),
        };
        println!("would be removed: {inventory}");
        inventory.names().for_each(|name| println!("- {name}"));
        return Ok(());
    }
    let _lock = setup.lock()?;
    let removed = match setup.engine_as_is().await? {
        Some(engine) => {
            let part = select(engine.inventory().await?);
            engine.remove(&part).await?;
            part
        }
        None => Inventory::default(),
    };
    eprintln!("removed: {removed}");
    Ok(())
}

/// The container called `name`, if it is in the inventory.
#[must_use]
pub fn container(inventory: Inventory, name: &str) -> Inventory {
    let containers = inventory.containers.into_iter().filter(|other| other == name).collect();
    Inventory { containers, ..Inventory::default() }
}
