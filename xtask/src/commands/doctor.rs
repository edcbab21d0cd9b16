//! `cargo xtask doctor`: whether this machine can do the work. It installs nothing; what an engine can do it finds out
//! by running containers that only exit.

use anyhow::Result;

use crate::engine::{Demand, Engine};
use crate::engines;
use crate::preflight::{self, Missing};
use crate::session::Setup;
use crate::steps::kind;
use crate::tier::nodes::{self, Inside};
use crate::tier::{self, judge};
use crate::verdict::Verdict;

/// Tells what each engine can do, and what is missing.
///
/// # Errors
/// When something is missing or no engine can do the work, after everything was told.
pub async fn run(setup: Setup) -> Result<()> {
    for kind in setup.settings.engine.choice.kinds() {
        match setup.connector().reach(*kind).await {
            Ok(engine) => tell(&engine, setup.settings.security.tier).await,
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
async fn tell(engine: &Engine, tier: tier::Choice) {
    let abilities = engine.abilities().await;
    println!("{:10} answers", engine.description());
    for (ability, found) in
        [("privileged containers", &abilities.privileged), ("cluster", &abilities.cluster)]
    {
        match found {
            Ok(()) => println!("{:10} {ability}: yes", ""),
            Err(error) => println!("{:10} {ability}: no, {error:#}", ""),
        }
    }
    let decided = engine.tried_facts(tier).await.and_then(|facts| Ok(judge::decide(&facts, tier)?));
    match decided {
        Ok(decision) => {
            let mut lines = decision.lines().into_iter();
            println!("{:10} edge without Kubernetes: {}", "", lines.next().unwrap_or_default());
            lines.for_each(|line| println!("{:10} {line}", ""));
        }
        Err(error) => {
            println!("{:10} edge without Kubernetes: no, {error:#}", "");
            if let Some(next) = Verdict::particular_next(&error) {
                println!("{:10} {next}", "");
            }
        }
    }
    for node in engine.nodes().await.unwrap_or_default() {
        match look_into(engine, &node).await {
            Ok(found) => println!("{:10} node {node}: {found}", ""),
            Err(error) => println!("{:10} node {node}: not seen, {error:#}", ""),
        }
    }
}

/// What decides about tiers in a node of the deployment's own cluster.
async fn look_into(engine: &Engine, node: &str) -> Result<String> {
    let inside = engine.exec(node, &["sh", "-c", nodes::SCRIPT]).await?;
    let handlers = engine.exec(node, &["sh", "-c", nodes::HANDLERS]).await?;
    let (inside, handlers) = (Inside::read(&inside.stdout), nodes::runtime_handlers(&handlers.stdout));
    Ok(format!("{}, {handlers}", inside.words()))
}
