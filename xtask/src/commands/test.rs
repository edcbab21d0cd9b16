//! `cargo xtask test`: every test there is, with all set-up that they need.

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::commands::fuzz;
use crate::images::Image;
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
    /// Try the tiers of confinement in a virtual machine with cgroup v2 and AppArmor, and how they withstand attacks, and
    /// nothing else; this takes long and is no part of the other tests
    #[arg(long, conflicts_with_all = ["quick", "faults"])]
    vm: bool,
}

/// Runs the tests in this program's terminal.
///
/// # Errors
/// When the machine lacks something, or a test failed.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let whole = !(args.quick || args.faults || args.vm);
    if args.vm
        && let Some(reason) = no_virtual_machine(std::env::consts::ARCH, preflight::is_root())
    {
        bail!("the tests in a virtual machine cannot run here: {reason}");
    }
    if !args.quick && !setup.dry_run {
        // The tests start the tool themselves; whatever has to be installed is installed here.
        let goal = if args.vm { Action::Image(Image::Edge) } else { Action::Pod };
        drop(setup.engine(Action::demand(&[goal], setup.settings.security.tier)).await?);
        let tools: &[&[_]] = if args.vm {
            &[&preflight::VIRTUAL_MACHINE]
        } else {
            &[
                &preflight::BROWSER,
                &preflight::FUZZING,
                &preflight::PYTHON_SDK,
                &preflight::QPID,
                &preflight::SIGNING,
            ]
        };
        let tools = tools.concat();
        preflight::ensure_tools(preflight::absent(&tools), setup.yes).await?;
    }
    let shell = Shell::new()?;
    shell.change_dir(&setup.paths.project);
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // One after the other: they share the machine's engine and the names of the deployment.
    let flags = ["--include-ignored", "--test-threads=1", "--nocapture"];
    let of_xtask =
        |test: &str| cmd!(shell, "{cargo} test --locked --package xtask --test {test} -- {flags...}");
    let mut commands = Vec::new();
    if args.faults {
        commands.push(of_xtask("faults"));
    } else if args.vm {
        commands.push(of_xtask("vm"));
    } else {
        commands.push(cmd!(shell, "{cargo} test --workspace --locked --no-fail-fast"));
    }
    if whole {
        let sdk = ["--package", "kedge-sim", "--test", "sdk"];
        commands.push(cmd!(shell, "{cargo} test --locked {sdk...} -- --include-ignored --nocapture"));
        let others = ["--package", "xtask", "--test", "arrival", "--test", "report"];
        commands.push(cmd!(shell, "{cargo} test --locked {others...} -- --include-ignored"));
        commands.push(of_xtask("e2e"));
    }
    for command in commands {
        if setup.dry_run {
            println!("{command}");
        } else {
            command.run()?;
        }
    }
    if whole {
        fuzz::run(&setup, &fuzz::Args::everything(FUZZ_SECONDS)).await?;
    }
    Ok(())
}

/// Why the virtual machine cannot be made here, if it cannot.
fn no_virtual_machine(architecture: &str, root: bool) -> Option<&'static str> {
    match (architecture, root) {
        ("x86_64", true) => None,
        ("x86_64", false) => Some("its disk is made of files of many owners, so that needs root"),
        _ => Some("it runs this machine's programs, and is made for x86_64 alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_virtual_machine_is_made_where_it_can_be() {
        assert_eq!(no_virtual_machine("x86_64", true), None);
        assert!(no_virtual_machine("x86_64", false).is_some_and(|reason| reason.contains("root")));
        assert!(no_virtual_machine("aarch64", true).is_some_and(|reason| reason.contains("x86_64")));
    }
}
