//! `cargo xtask test`: every test there is, with all set-up that they need.

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::commands::fuzz;
use crate::plan::Action;
use crate::preflight;
use crate::session::Setup;

/// How long each reader of what clients send is fuzzed.
const FUZZ_SECONDS: u32 = 60;

/// Flags of `test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave out the end-to-end tests, which need a container engine
    #[arg(long)]
    quick: bool,
    /// Cause every way to fail for real, and nothing else; this takes long and is no part of the other tests
    #[arg(long, conflicts_with = "quick")]
    faults: bool,
}

/// Runs the tests in this program's terminal.
///
/// # Errors
/// When the machine lacks something, or a test failed.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    if !args.quick && !setup.dry_run {
        // The tests start the tool themselves; whatever has to be installed is installed here.
        drop(setup.engine(Action::demand(&[Action::Pod], setup.settings.security.tier)).await?);
        let tools: [&[_]; 4] =
            [&preflight::FUZZING, &preflight::PYTHON_SDK, &preflight::QPID, &preflight::SIGNING];
        let more = tools.concat();
        preflight::ensure_tools(preflight::absent(&more), setup.yes).await?;
    }
    let shell = Shell::new()?;
    shell.change_dir(&setup.paths.project);
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // One after the other: they share the machine's engine and the names of the deployment.
    let flags = ["--include-ignored", "--test-threads=1", "--nocapture"];
    let mut commands = Vec::new();
    if args.faults {
        commands.push(cmd!(shell, "{cargo} test --locked --package xtask --test faults -- {flags...}"));
    } else {
        commands.push(cmd!(shell, "{cargo} test --workspace --locked --no-fail-fast"));
    }
    if !args.quick && !args.faults {
        let sdk = ["--package", "kedge-sim", "--test", "sdk"];
        commands.push(cmd!(shell, "{cargo} test --locked {sdk...} -- --include-ignored --nocapture"));
        let arrival = ["--package", "xtask", "--test", "arrival"];
        commands.push(cmd!(shell, "{cargo} test --locked {arrival...} -- --include-ignored"));
        commands.push(cmd!(shell, "{cargo} test --locked --package xtask --test e2e -- {flags...}"));
    }
    for command in commands {
        if setup.dry_run {
            println!("{command}");
        } else {
            command.run()?;
        }
    }
    if !args.quick && !args.faults {
        fuzz::run(&setup, &fuzz::Args::everything(FUZZ_SECONDS)).await?;
    }
    Ok(())
}
