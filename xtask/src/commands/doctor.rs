//! `cargo xtask doctor`: whether this machine can do the work. It changes nothing.

use anyhow::Result;

use crate::engine::{Choice, Engine};
use crate::preflight::{self, Missing};
use crate::process::find_on_path;
use crate::session::Setup;
use crate::steps::kind;

/// Tells what is there and what is missing.
///
/// # Errors
/// When something is missing or no engine can do the work, after everything was told.
pub async fn run(setup: Setup) -> Result<()> {
    crate::paths::private_folder(&setup.paths.state)?;
    let connector = setup.connector();
    let (docker, reason) = match connector.docker().await {
        Ok(Ok(engine)) => (Some(engine), String::new()),
        Ok(Err(reason)) => (None, reason),
        Err(error) => (None, format!("{error:#}")),
    };
    if !reason.is_empty() {
        println!("{:10} {reason}", "passed by");
    }
    let wants_podman = docker.is_none() && setup.settings.engine.choice != Choice::Docker;
    let missing = preflight::missing(wants_podman);
    for tool in &missing {
        println!("{:10} {}: {}", "missing", tool.package, tool.purpose);
    }
    let engine = match docker {
        Some(engine) => Ok(engine),
        None if find_on_path("podman").is_some() => connector.podman(&reason).await,
        None => Err(Missing::new(missing.clone()).into()),
    };
    describe(engine.as_ref());
    match kind::find(&setup.paths.cache) {
        Some(path) => println!("{:10} {}", "kind", path.display()),
        None => println!("{:10} not on PATH; it is fetched from Debian when it is needed", "kind"),
    }
    engine?;
    if missing.is_empty() { Ok(()) } else { Err(Missing::new(missing).into()) }
}

fn describe(engine: Result<&Engine, &anyhow::Error>) {
    match engine {
        Ok(engine) => println!("{:10} {}, runs privileged containers", "engine", engine.description()),
        Err(error) => println!("{:10} none: {error}", "engine"),
    }
}
