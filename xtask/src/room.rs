//! Whether the disks have room for what a plan makes, asked before anything is changed: a full disk in the middle of a
//! build is told by whoever meets it first, and seldom in words that help.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::images::Image;
use crate::plan::{Action, Plan, Work};
use crate::steps::node_image;

const MB: u64 = 1_000_000;
/// Megabytes that a new edge takes, with its modules.
const EDGE: u64 = 800;

/// A disk has too little room; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("too little room on the disk:{}\nmake room, or move the folder to a larger disk", folders.iter().map(|folder| format!("\n  {folder}")).collect::<String>())]
pub struct NoRoom {
    /// One sentence for each disk.
    pub folders: Vec<String>,
}

/// Megabytes that a plan takes, by where they go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Room {
    /// In the engine's storage.
    engine: u64,
    /// In the workspace.
    project: u64,
    /// In the user's cache.
    cache: u64,
}

/// Refuses a plan for which there is no room.
///
/// # Errors
/// [`NoRoom`], with every disk that is too small; else when the engine cannot be asked.
pub async fn check(context: &Context, plan: &Plan) -> Result<()> {
    let needed = needed(plan, node_image::is_kept(context)?);
    let storage = context.engine.storage().await?;
    // The storage of an engine on another machine is not for us to judge.
    let in_engine = if storage.exists() { needed.engine } else { 0 };
    let places = [
        (storage, in_engine),
        (context.paths.project.clone(), needed.project),
        (context.paths.cache.clone(), needed.cache),
    ];
    // What goes to the same disk adds up.
    let mut disks: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
    for (folder, megabytes) in places.into_iter().filter(|(_, megabytes)| *megabytes > 0) {
        let there = nearest(&folder);
        let device = fs_err::metadata(there)?.dev();
        disks.entry(device).or_insert_with(|| (there.to_owned(), 0)).1 += megabytes;
    }
    let mut folders = Vec::new();
    for (folder, megabytes) in disks.into_values() {
        let free = free(&folder)?;
        if free < megabytes {
            folders.push(format!("`{}` has {free} MB free, and {megabytes} MB are needed", folder.display()));
        }
    }
    if folders.is_empty() { Ok(()) } else { Err(NoRoom { folders }.into()) }
}

/// What is to be made takes, as measured, with some reserve. An edge is counted with what it rests on: one that is
/// replaced leaves its room to the next, and must not be kept from repair by a disk that has no room for two. Of the steps
/// that are looked at again, only images count: they wait for nothing but what they are made from.
fn needed(plan: &Plan, node_image_is_kept: bool) -> Room {
    let has = |wanted: fn(Action) -> bool| plan.steps.iter().any(|step| wanted(step.action));
    let mut room = Room::default();
    for step in &plan.steps {
        let is_made = match step.work {
            Work::Due(_) => true,
            Work::Open(_) => matches!(step.action, Action::Image(_)),
            Work::Nothing(_) | Work::Blocked(_) => false,
        };
        match step.action {
            _ if !is_made => {}
            Action::Binaries => room.project += 700,
            Action::Image(Image::Base) => (room.engine, room.cache) = (room.engine + 200, room.cache + 300),
            // Compiling Kubernetes takes most of it, for a while.
            Action::NodeImage if !node_image_is_kept => {
                (room.engine, room.cache) = (room.engine + 5000, room.cache + 500);
            }
            Action::NodeImage | Action::Image(Image::Edge) => room.engine += 1000,
            Action::Cluster => room.engine += 400 + if has(|it| it == Action::Pod) { EDGE } else { 0 },
            Action::Registry => room.engine += 400,
            Action::Network if has(|it| matches!(it, Action::EdgeContainer)) => room.engine += EDGE,
            _ => {}
        }
    }
    room
}

/// The folder, or the nearest one above it that exists.
fn nearest(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder)
}

/// Megabytes that an ordinary user may still write below `folder`, or where it will be.
///
/// # Errors
/// When the disk cannot be looked at.
pub fn free(folder: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(nearest(folder))
        .with_context(|| format!("failed to look at the disk of `{}`", folder.display()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize) / MB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Condition, Observed, Shape};

    #[test]
    fn only_what_is_made_takes_room() {
        let goals = [Action::Pod];
        let all = Plan::new(&goals, Shape::SIMULATED, &Observed::new());
        assert!(needed(&all, false).engine > needed(&all, true).engine);
        assert!(needed(&all, true).project > 0);
        assert_eq!(needed(&Plan::new(&goals, Shape::SIMULATED, &all_there(&goals)), false), Room::default());
    }

    fn all_there(goals: &[Action]) -> Observed {
        Action::leading_to(goals, Shape::SIMULATED)
            .into_iter()
            .map(|it| (it, Condition::Holds(String::new())))
            .collect()
    }

    #[test]
    fn a_repair_takes_no_room_and_a_new_edge_does() {
        let differs = || Condition::Differs("otherwise".into());
        for (edge, spoiled, base) in [
            (Action::Pod, Action::Deploy, Action::Cluster),
            (Action::EdgeContainer, Action::Device, Action::Network),
        ] {
            let mut found = all_there(&[edge]);
            found.extend([(spoiled, differs()), (edge, differs())]);
            assert_eq!(
                needed(&Plan::new(&[edge], Shape::SIMULATED, &found), false),
                Room::default(),
                "{edge}"
            );
            found.insert(base, differs());
            assert!(needed(&Plan::new(&[edge], Shape::SIMULATED, &found), false).engine >= EDGE, "{edge}");
        }
    }

    #[test]
    fn an_image_whose_programs_are_not_compiled_yet_takes_room() {
        let goals = [Action::Image(Image::Edge)];
        let mut found = all_there(&goals);
        found.insert(Action::Binaries, Condition::Differs("there are none".into()));
        found.insert(goals[0], Condition::Unseen("they cannot be read".into()));
        assert!(needed(&Plan::new(&goals, Shape::SIMULATED, &found), false).engine > 0);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_on_the_disk_of_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&folder.path().join("not/yet")), folder.path());
        assert!(free(folder.path()).unwrap() > 0);
    }
}
