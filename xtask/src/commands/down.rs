//! `cargo xtask down`: remove everything that was made, whatever state an aborted run has left.
//!
//! Removing needs an engine and nothing else: no secret, no settings of the cluster, no tool to be installed.

use anyhow::{Context as _, Result};

use crate::engine::{Engine, Inventory};
use crate::paths::Paths;
use crate::session::Setup;

const NO_ENGINE: &str = "there is no container engine here, so there is nothing to remove";

/// Removes everything.
///
/// # Errors
/// All that could not be removed; the rest is removed all the same.
pub async fn run(setup: Setup) -> Result<()> {
    if setup.dry_run {
        return part(&setup, |all| all).await;
    }
    let _lock = setup.lock()?;
    let engines = setup.holders().await?;
    if engines.is_empty() {
        remove_state(&setup.paths)?;
        eprintln!("{NO_ENGINE}");
    }
    for (at, (engine, inventory)) in engines.iter().enumerate() {
        if at == 0 || !inventory.is_empty() {
            eprintln!("removed: {}", remove_everything(engine, &setup.paths).await?);
        }
    }
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
    let _lock = if setup.dry_run { None } else { Some(setup.lock()?) };
    let engines = setup.holders().await?;
    if engines.is_empty() {
        eprintln!("{NO_ENGINE}");
    }
    for (at, (engine, inventory)) in engines.into_iter().enumerate() {
        let part = select(inventory);
        if at > 0 && part.is_empty() {
            continue;
        }
        if setup.dry_run {
            println!("would be removed: {part}");
            part.names().for_each(|name| println!("- {name}"));
        } else {
            engine.remove(&part).await?;
            eprintln!("removed: {part}");
        }
    }
    Ok(())
}

/// The container called `name`, if it is in the inventory.
#[must_use]
pub fn container(inventory: Inventory, name: &str) -> Inventory {
    let containers = inventory.containers.into_iter().filter(|other| other == name).collect();
    Inventory { containers, ..Inventory::default() }
}
