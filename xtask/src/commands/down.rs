//! `cargo xtask down`: remove everything that was made, whatever state an aborted run has left.

use anyhow::Result;

use crate::context::Context;
use crate::process::find_on_path;
use crate::session::Setup;
use crate::steps;

/// Removes everything.
///
/// # Errors
/// When something could not be removed; the rest is removed all the same.
pub async fn run(setup: Setup) -> Result<()> {
    if setup.connector().docker().await?.is_err() && find_on_path("podman").is_none() {
        eprintln!("there is no container engine here, so there is nothing to remove");
        return Ok(());
    }
    let context = setup.open().await?;
    let note = remove_everything(&context).await?;
    context.progress.say(&note);
    Ok(())
}

/// Removes cluster, containers, network, volumes and state, and tells in a few words what there was.
///
/// # Errors
/// The first thing that could not be removed.
pub async fn remove_everything(context: &Context) -> Result<String> {
    let (cluster, containers) = tokio::join!(steps::cluster::delete(context), remove_containers(context));
    let others = context.engine.remove_networks_and_volumes().await;
    let (cluster, containers, others) = (cluster?, containers?, others?);
    fs_err::remove_dir_all(&context.paths.state)?;
    if !cluster && containers + others == 0 {
        return Ok("nothing was there to remove".into());
    }
    let cluster = if cluster { "the cluster, " } else { "" };
    Ok(format!("removed {cluster}{containers} container(s), {others} network(s) and volume(s)"))
}

async fn remove_containers(context: &Context) -> Result<usize> {
    let containers = context.engine.own_containers().await?;
    for container in &containers {
        context.engine.remove_container(container).await?;
    }
    Ok(containers.len())
}
