//! `cargo xtask doctor`: whether this machine can do the work. It installs nothing; whether an engine can run a
//! privileged container it finds out by running one.

use anyhow::Result;

use crate::preflight::{self, Missing};
use crate::session::Setup;
use crate::steps::kind;

/// Tells what is there and what is missing.
///
/// # Errors
/// When something is missing or no engine can do the work, after everything was told.
pub async fn run(setup: Setup) -> Result<()> {
    let connector = setup.connector();
    let docker = match connector.docker().await {
        Ok(docker) => docker,
        // Docker was asked for, so nothing else counts.
        Err(error) => {
            println!("{:10} none", "engine");
            return Err(error);
        }
    };
    if let Err(reason) = &docker {
        println!("{:10} {reason}", "passed by");
    }
    let missing = preflight::missing(docker.is_err());
    for tool in &missing {
        println!("{:10} {}: {}", "missing", tool.package, tool.purpose);
    }
    match kind::find(&setup.paths.cache) {
        Some(path) => println!("{:10} {}", "kind", path.display()),
        None => println!("{:10} not on PATH; it is fetched from Debian when it is needed", "kind"),
    }
    if !missing.is_empty() {
        return Err(Missing::new(missing).into());
    }
    let engine = match docker {
        Ok(engine) => engine,
        Err(reason) => connector.podman(&reason).await?,
    };
    println!("{:10} {}, runs privileged containers", "engine", engine.description());
    Ok(())
}
