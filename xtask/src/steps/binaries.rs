//! The hub, the edge daemon and the sensor, compiled and linked statically, so that they run in an image of
//! nothing else.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::context::Context;
use crate::paths::Paths;

const LIMIT: Duration = Duration::from_secs(20 * 60);

/// The target triple. Naming it keeps the static linking away from build scripts and procedural macros.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Where the programs are. A target folder of their own keeps other flags from invalidating the user's builds.
#[must_use]
pub fn folder(paths: &Paths) -> PathBuf {
    paths.project.join("target/static").join(target()).join("release")
}

/// Compiles the programs; cargo decides whether there is anything to do.
///
/// # Errors
/// When the compiler fails.
pub async fn ensure(context: &Context) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    context
        .process("binaries", "compile KEdge's programs", cargo)
        .args(["build", "--release", "--locked", "--package", "kedge-sim", "--bins", "--target", &target()])
        .envs([
            ("CARGO_TARGET_DIR", context.paths.project.join("target/static").into_os_string()),
            ("RUSTFLAGS", "-C target-feature=+crt-static".into()),
        ])
        .dir(&context.paths.project)
        .limit(LIMIT)
        .run()
        .await?;
    Ok("compiled".into())
}
