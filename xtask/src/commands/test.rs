//! `cargo xtask test`: every test there is, with all set-up that they need.

use std::time::Duration;

use anyhow::Result;

use crate::process::Process;
use crate::session::Setup;

const LIMIT: Duration = Duration::from_secs(80 * 60);

/// Flags of `test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave out the end-to-end tests, which need a container engine
    #[arg(long)]
    quick: bool,
}

/// Runs the tests.
///
/// # Errors
/// When the machine lacks something, or a test failed.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    if !args.quick {
        // The tests start the tool themselves; whatever has to be installed is installed here.
        drop(setup.engine().await?);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let base = ["test", "--workspace", "--locked"];
    let everything = ["--", "--include-ignored", "--test-threads=1"];
    cargo_test(&setup, &cargo, &base)?;
    if !args.quick {
        let end_to_end = ["test", "--locked", "--package", "xtask", "--test", "e2e"];
        cargo_test(&setup, &cargo, &[&end_to_end[..], &everything[..]].concat())?;
    }
    Ok(())
}

fn cargo_test(setup: &Setup, cargo: &std::ffi::OsStr, args: &[&str]) -> Result<()> {
    Process::new("run the tests", cargo)
        .args(args)
        .dir(&setup.paths.project)
        .limit(LIMIT)
        .cancelled_by(&setup.cancel)
        .run_in_terminal()?;
    Ok(())
}
