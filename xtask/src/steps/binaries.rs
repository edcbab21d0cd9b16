//! The hub, the edge daemon and the sensor, compiled and linked statically, so that they run in an image of
//! nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::context::Context;
use crate::execute::Effect;
use crate::inputs::{Fingerprint, Source};
use crate::paths::Paths;
use crate::plan::Condition;
use crate::process::Process;

const LIMIT: Duration = Duration::from_secs(20 * 60);
const PROGRAMS: [&str; 4] = ["kedge-hub", "kedge-edged", "kedge-sensor", "kedge-load"];
const FLAGS: &str = "-C target-feature=+crt-static";

/// The target triple. Naming it keeps the static linking away from build scripts and procedural macros.
#[must_use]
pub fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Where the programs are. A target folder of their own keeps other flags from invalidating the user's builds.
#[must_use]
pub fn folder(paths: &Paths) -> PathBuf {
    paths.project.join("target/static").join(target()).join("release")
}

/// Whether the programs are those that were compiled from the present sources.
///
/// # Errors
/// When a source cannot be read.
pub fn observe(context: &Context) -> Result<Condition> {
    let folder = folder(&context.paths);
    if let Some(absent) = PROGRAMS.iter().find(|program| !folder.join(program).exists()) {
        return Ok(Condition::Differs(format!("`{absent}` has not been compiled")));
    }
    let kept = fs_err::read_to_string(stamp(&folder)).unwrap_or_default();
    Ok(if kept == record(&sources(context)?, &folder)? {
        Condition::Holds("compiled from the present sources".into())
    } else {
        Condition::Differs("the sources have changed since they were compiled".into())
    })
}

/// Compiles the programs; cargo decides whether there is anything to do.
///
/// # Errors
/// When the compiler fails.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let folder = folder(&context.paths);
    let before = compiled(&folder).ok();
    // What is edited while the compiler is at work may have come too late for it.
    let sources = sources(context)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let process = context.process("binaries", "compile KEdge's programs", cargo).limit(LIMIT);
    compilation(&context.paths, "kedge-sim", process).run().await?;
    fs_err::write(stamp(&folder), record(&sources, &folder)?)?;
    // What an image is made of may be known by the programs of before.
    context.forget_fingerprints();
    Ok(if before.as_ref() == Some(&compiled(&folder)?) {
        Effect::unchanged("compiled, with the same result")
    } else {
        Effect::changed("compiled")
    })
}

/// Makes a process of cargo one that compiles the programs of a package.
#[must_use]
pub fn compilation(paths: &Paths, package: &str, cargo: Process) -> Process {
    cargo
        .args(["build", "--release", "--locked", "--package", package, "--bins", "--target", &target()])
        .envs([
            ("CARGO_TARGET_DIR", paths.project.join("target/static").into_os_string()),
            ("RUSTFLAGS", FLAGS.into()),
        ])
        .dir(&paths.project)
}

/// Beside the programs: what they were compiled from, and what came of it.
fn stamp(folder: &Path) -> PathBuf {
    folder.join("kedge.stamp")
}

/// The hash of what the programs are compiled from; a new compiler is no reason to compile.
fn sources(context: &Context) -> Result<Fingerprint> {
    let project = &context.paths.project;
    let file = |name: &str| Source::file(project.join(name), name);
    let sources = [
        Source::folder_at(project.join("sim/src"), "sim/src"),
        file("sim/Cargo.toml"),
        file("Cargo.toml"),
        file("Cargo.lock"),
    ];
    Fingerprint::of(&sources, &[FLAGS, &target()])
}

/// The hashes of the sources and of the programs. Both count, so that a stamp cannot vouch for other programs.
fn record(sources: &Fingerprint, folder: &Path) -> Result<String> {
    Ok(format!("{sources} {}\n", compiled(folder)?))
}

fn compiled(folder: &Path) -> Result<Fingerprint> {
    let programs = PROGRAMS.map(|program| Source::file(folder.join(program), program));
    Fingerprint::of(&programs, &[])
}
