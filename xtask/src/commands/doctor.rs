//! `cargo xtask doctor`: whether this machine can do the work. It installs nothing; what an engine can do it finds out
//! by running containers that only exit.

use anyhow::Result;

use crate::engine::{Demand, Engine};
use crate::engines;
use crate::place::Privilege;
use crate::preflight::{self, Missing};
use crate::session::Setup;
use crate::steps::{edge_container, kind};

/// Tells what each engine can do, and what is missing.
///
/// # Errors
/// When something is missing or no engine can do the work, after everything was told.
pub async fn run(setup: Setup) -> Result<()> {
    for kind in setup.settings.engine.choice.kinds() {
        match setup.connector().reach(*kind).await {
            Ok(engine) => tell(&engine).await,
            Err(error) => println!("{:10} {error:#}", kind.to_string()),
        }
    }
    match kind::find(&setup.paths.cache) {
        Some(path) => println!("{:10} {}", "kind", path.display()),
        None => println!("{:10} not on PATH; it is fetched from Debian when it is needed", "kind"),
    }
    let chosen = setup.connector().choose(Demand { privileged: true, cluster: true }).await;
    let lacking = match &chosen {
        Ok(engine) => preflight::missing(engines::installed_here(engine)),
        Err(_) => setup.installable().map(|kind| preflight::missing(Some(kind))).unwrap_or_default(),
    };
    for tool in &lacking {
        println!("{:10} {}: {}", "missing", tool.package, tool.purpose);
    }
    if !lacking.is_empty() {
        return Err(Missing::new(lacking).into());
    }
    println!("{:10} {}", "engine", chosen?.description());
    Ok(())
}

/// Tells what an engine can do here.
async fn tell(engine: &Engine) {
    let abilities = engine.abilities(edge_container::rights(Privilege::Unprivileged)).await;
    println!("{:10} answers", engine.description());
    for (ability, found) in [
        ("privileged containers", &abilities.privileged),
        ("cluster", &abilities.cluster),
        ("unprivileged edge", &abilities.unprivileged),
    ] {
        match found {
            Ok(()) => println!("{:10} {ability}: yes", ""),
            Err(error) => println!("{:10} {ability}: no, {error:#}", ""),
        }
    }
}
