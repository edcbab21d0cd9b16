//! `cargo xtask down`: remove everything that was made, whatever state an aborted run has left.
//!
//! Removing needs an engine and nothing else: no secret, no settings of the cluster, no tool to be installed.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::engine::{Engine, Inventory};
use crate::engines::Search;
use crate::paths::Paths;
use crate::provisioning;
use crate::session::Setup;

const NO_ENGINE: &str = "there is no container engine here, so there is nothing to remove";
const AGAIN: &str = "something could not be removed; run `cargo xtask down` again";
const IN_DOUBT: &str = "found nothing to remove, and kept the secrets and the kubeconfig, which may be those of an engine \
                        that does not answer; start it, or name the other one with `--engine`, and run this again";

/// Removes everything.
///
/// # Errors
/// All that could not be removed; the rest is removed all the same, but for the state, so that `down` can be run again.
/// When nothing was found, and an engine that may hold it does not answer.
pub async fn run(setup: Setup) -> Result<()> {
    if setup.dry_run {
        return remove(&setup, |all| all).await;
    }
    let _lock = setup.lock()?;
    remove(&setup, |all| all).await?;
    remove_state(&setup.paths)?;
    if provisioning::folder(&setup.paths).exists() {
        eprintln!("kept: the credentials that you have given; `cargo xtask device remove` removes them");
    }
    Ok(())
}

/// Removes all that the engine holds of the deployment, and its state; tells what there was.
///
/// # Errors
/// All that could not be removed; the state is kept then, so that `down` can be run again.
pub async fn remove_everything(engine: &Engine, paths: &Paths) -> Result<Inventory> {
    let inventory = engine.inventory().await?;
    engine.remove(&inventory).await.context(AGAIN)?;
    remove_state(paths)?;
    Ok(inventory)
}

/// What has come of a run and of the clean-up after it. Both are told when both went wrong: what was to be proved, and what
/// is left behind.
///
/// # Errors
/// When either went wrong.
pub fn both(run: Result<()>, removed: Result<()>) -> Result<()> {
    match (run, removed) {
        (Err(error), Err(left)) => Err(error.context(format!("{left:#}"))),
        (run, removed) => run.and(removed),
    }
}

/// Removes the secrets that the tool has made, and the kubeconfig. What the user has given for the device stays: the tool
/// could not make it again.
fn remove_state(paths: &Paths) -> std::io::Result<()> {
    let kept = provisioning::folder(paths);
    for path in made_by_the_tool(paths)? {
        if path.is_dir() { fs_err::remove_dir_all(&path)? } else { fs_err::remove_file(&path)? }
    }
    if paths.state.exists() && !kept.exists() { fs_err::remove_dir_all(&paths.state) } else { Ok(()) }
}

/// What is in the state folder, but for what the user has given.
fn made_by_the_tool(paths: &Paths) -> std::io::Result<Vec<PathBuf>> {
    if !paths.state.exists() {
        return Ok(Vec::new());
    }
    let kept = provisioning::folder(paths);
    let entries = fs_err::read_dir(&paths.state)?.map(|entry| entry.map(|entry| entry.path()));
    entries.filter(|path| path.as_ref().map_or(true, |path| *path != kept)).collect()
}

/// Removes the part of the deployment that `select` takes from the inventory, and tells what there was.
///
/// # Errors
/// As [`run`].
pub async fn part(setup: &Setup, select: impl Fn(Inventory) -> Inventory) -> Result<()> {
    let _lock = if setup.dry_run { None } else { Some(setup.lock()?) };
    remove(setup, select).await
}

async fn remove(setup: &Setup, select: impl Fn(Inventory) -> Inventory) -> Result<()> {
    let nothing_to_lose = setup.dry_run || made_by_the_tool(&setup.paths).is_ok_and(|made| made.is_empty());
    let search = settled(setup.search().await?, nothing_to_lose)?;
    if search.engines.is_empty() {
        eprintln!("{NO_ENGINE}");
    }
    let mut problems = Vec::new();
    for (at, (engine, inventory)) in search.engines.into_iter().enumerate() {
        let part = select(inventory);
        if at > 0 && part.is_empty() {
            continue;
        }
        if setup.dry_run {
            println!("would be removed: {part}");
            part.names().for_each(|name| println!("- {name}"));
            continue;
        }
        match engine.remove(&part).await {
            Ok(()) => eprintln!("removed: {part}"),
            Err(problem) => problems.push(problem),
        }
    }
    let first = problems.into_iter().reduce(|all, next| all.context(format!("{next:#}")));
    first.map_or(Ok(()), |problem| Err(problem.context(AGAIN)))
}

/// Tells of engines that do not answer; refuses to go on where they may hold what there is to remove, unless nothing of
/// it would be lost.
fn settled(mut search: Search, nothing_to_lose: bool) -> Result<Search> {
    if search.is_in_doubt()
        && !nothing_to_lose
        && let Some(silent) = search.silent.pop()
    {
        return Err(silent.context(IN_DOUBT));
    }
    search.warn();
    Ok(search)
}

/// The container called `name`, if it is in the inventory.
#[must_use]
pub fn container(inventory: Inventory, name: &str) -> Inventory {
    let containers = inventory.containers.into_iter().filter(|other| other == name).collect();
    Inventory { containers, ..Inventory::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn what_the_user_has_given_is_kept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let paths = Paths { project: "p".into(), cache: "c".into(), state: state.clone() };
        remove_state(&paths).unwrap();
        for name in ["credentials.json", "docker/config.json", "device/credentials.json"] {
            crate::paths::write_private(&state.join(name), b"{}").unwrap();
        }
        remove_state(&paths).unwrap();
        let left: Vec<_> =
            fs_err::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["device"]);
        assert_eq!(made_by_the_tool(&paths).unwrap(), [""; 0].map(PathBuf::from));
        provisioning::forget(&paths).unwrap();
        remove_state(&paths).unwrap();
        assert!(!state.exists());
    }

    #[test]
    fn what_an_engine_that_does_not_answer_may_need_is_kept() {
        let silent = || Search { silent: vec![anyhow!("docker does not answer")], ..Search::default() };
        let told = format!("{:#}", settled(silent(), false).unwrap_err());
        assert!(told.contains("kept the secrets") && told.ends_with(": docker does not answer"), "{told}");
        assert!(settled(silent(), true).is_ok());
        assert!(settled(Search::default(), false).is_ok());
    }
}
