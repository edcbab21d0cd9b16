//! `cargo xtask undeploy`: take away what `deploy` has made, and nothing else.

use std::time::Instant;

use anyhow::Result;

use super::deploy::{ask, show};
use crate::confirm::agreed;
use crate::deploy::remove::Removal;
use crate::deploy::target::Target;
use crate::progress::{Mark, Progress};
use crate::session::Setup;

/// Flags of `undeploy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Context of your kubeconfig that names the cluster [default: that of the settings, never the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Remove the volumes as well, with messages that the hub does not have yet, and the namespace; otherwise this is asked,
    /// and they stay if there is nobody to ask or `--yes` is given
    #[arg(long, conflicts_with = "keep_state")]
    delete_state: bool,
    /// Leave the volumes, and do not ask
    #[arg(long)]
    keep_state: bool,
}

/// Removes what `deploy` has made in the namespace.
///
/// # Errors
/// When the cluster cannot be asked, nobody agrees, or something does not go.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let settings = &setup.settings.deploy;
    let target = Target::open(&setup.paths.project, settings, args.context.as_deref()).await?;
    // What is wrong with the connection or the login is told once, with the cluster.
    target.version().await?;
    let _lock = if setup.dry_run { None } else { Some(setup.lock()?) };
    let found = Removal::look(&target.client, &settings.namespace).await?;
    show(&setup, &format!("context        {} ({})\n{found}", target.context, target.server));
    if setup.dry_run {
        return Ok(());
    }
    if !found.is_nothing(args.delete_state) {
        ask(&setup, &format!("remove this from the cluster of the context `{}`?", target.context))?;
    }
    let may_ask = found.has_state() && !args.keep_state && !setup.yes;
    let delete_state = args.delete_state || (may_ask && asked_for_state()?);
    if found.is_nothing(delete_state) {
        let but = if found.has_state() { " but the volumes, which are kept" } else { "" };
        eprintln!("nothing to do: `deploy` has nothing in the namespace `{}`{but}", settings.namespace);
        return Ok(());
    }
    let (progress, started) = (Progress::default(), Instant::now());
    progress.begin("undeploy", "remove what was deployed");
    let removed =
        found.carry_out(&target.client, delete_state, |left| progress.detail("undeploy", left)).await;
    let (mark, note) = match &removed {
        Ok(removed) => (Mark::Done, format!("removed {}", removed.join(", "))),
        Err(_) => (Mark::Failed, String::new()),
    };
    progress.end("undeploy", mark, started.elapsed(), &note);
    removed?;
    if found.has_state() && !delete_state {
        progress.say("the volumes are kept, and `deploy` takes them up again; `cargo xtask undeploy --delete-state` removes them");
    }
    Ok(())
}

fn asked_for_state() -> Result<bool> {
    agreed(
        "remove the volumes as well? Messages that the hub does not have yet, and the device's keys and certificates, are lost",
    )
}
