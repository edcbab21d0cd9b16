//! The tiers of confinement on a machine that has cgroup v2, AppArmor and every capability: a virtual one. In each, the edge
//! comes up and is proved by KEdge's own tool, withstands attacks, and keeps its modules within its limits.
//! `cargo xtask test` runs this, with `--vm` nothing else; plain `cargo test` does the part that needs no machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod images;
mod judge;
mod machine;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::inputs::Source;
use xtask::process::Process;
use xtask::steps::binaries;

use crate::images::Images;
use crate::machine::Machine;

/// A machine that does much else emulates slowly.
const RUN_LIMIT: Duration = Duration::from_secs(45 * 60);
const COMPILE_LIMIT: Duration = Duration::from_secs(10 * 60);

#[test]
#[ignore = "needs a container engine, root, QEMU, and minutes"]
fn every_tier_works_and_withstands_what_it_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let results = runtime.block_on(run()).unwrap_or_else(|error| panic!("{error:#}"));
    judge::judge(&results);
}

/// Brings the results of the machine here; returns their folder.
async fn run() -> Result<PathBuf> {
    let images = Images::built().await?;
    let project = images.project().to_owned();
    let guest = project.join("tests/vm/guest");
    let machine = Machine::ready(&images, &images.cache(), &guest).await?;
    let attack = compile_attack(&images).await?;
    let mut input = vec![
        Source::file(guest.join("tiers"), "input/run"),
        Source::file(attack, "input/kedge-attack"),
        Source::file(env!("CARGO_BIN_EXE_xtask"), "input/xtask"),
        Source::text(project.display().to_string(), "input/project"),
    ];
    input
        .extend(judge::TIERS.map(|tier| {
            Source::text(format!("[security]\ntier = {tier:?}\n"), format!("input/{tier}.toml"))
        }));
    // The tool finds its sources where it was compiled.
    let root = project.strip_prefix("/").context("the workspace has no absolute path")?;
    let programs = images.binaries();
    let programs = programs.strip_prefix(&project).context("the programs are not in the workspace")?;
    let parts = [
        "Cargo.toml",
        "Cargo.lock",
        "image",
        "kind-cluster",
        "manifests",
        "config",
        "sim/src",
        "sim/Cargo.toml",
    ];
    let names = ["kedge-hub", "kedge-edged", "kedge-sensor", "kedge-load", "kedge.stamp"];
    let parts = parts.map(PathBuf::from).into_iter().chain(names.map(|name| programs.join(name)));
    input.extend(parts.map(|part| Source::folder_at(project.join(&part), root.join(&part))));
    let results = project.join("target/kedge/vm");
    machine.run(&input, &results, RUN_LIMIT).await?;
    Ok(results)
}

/// Compiles the attacks as the programs of the images are.
async fn compile_attack(images: &Images) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let process = Process::new("compile the attacks", cargo).limit(COMPILE_LIMIT);
    binaries::compilation(images.paths(), "kedge-attack", process).run().await?;
    Ok(images.binaries().join("kedge-attack"))
}
