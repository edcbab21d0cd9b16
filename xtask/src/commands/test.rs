//! `cargo xtask test`: every test there is, with all set-up that they need.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinHandle;
use xshell::{Shell, cmd};

use crate::commands::fuzz;
use crate::images::Image;
use crate::paths::shown;
use crate::plan::Action;
use crate::preflight;
use crate::process::{Process, ProcessError};
use crate::session::Setup;

/// How long each reader of what clients send is fuzzed.
const FUZZ_SECONDS: u32 = 60;
/// A little more than what the test in the virtual machine gives that.
const MACHINE_LIMIT: Duration = Duration::from_secs(70 * 60);
/// One after the other: the tests share the machine's engine and the names of the deployment.
const FLAGS: [&str; 3] = ["--include-ignored", "--test-threads=1", "--nocapture"];

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
    /// nothing else
    #[arg(long, conflicts_with_all = ["quick", "faults"])]
    vm: bool,
}

/// Runs the tests in this program's terminal.
///
/// # Errors
/// When the machine lacks something, or a test failed.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let whole = !(args.quick || args.faults || args.vm);
    let no_machine = no_virtual_machine(std::env::consts::ARCH, preflight::is_root());
    if let (true, Some(reason)) = (args.vm, no_machine) {
        bail!("the tests in a virtual machine cannot run here: {reason}");
    }
    let has_machine = args.vm || (whole && no_machine.is_none());
    if !args.quick && !setup.dry_run {
        // The tests start the tool themselves; whatever has to be installed is installed here.
        let goal = if args.vm { Action::Image(Image::Edge) } else { Action::Pod };
        drop(setup.engine(Action::demand(&[goal], setup.settings.security.tier)).await?);
        let mut tools = Vec::new();
        if has_machine {
            tools.extend(preflight::VIRTUAL_MACHINE);
        }
        if !args.vm {
            tools.extend(preflight::BROWSER);
            tools.extend(preflight::FUZZING);
            tools.extend(preflight::PYTHON_SDK);
            tools.extend(preflight::QPID);
            tools.extend(preflight::SIGNING);
        }
        preflight::ensure_tools(preflight::absent(&tools), setup.yes).await?;
    }
    let shell = Shell::new()?;
    shell.change_dir(&setup.paths.project);
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let show_or_run = |command: xshell::Cmd<'_>| -> Result<()> {
        if setup.dry_run {
            println!("{command}");
            return Ok(());
        }
        Ok(command.run()?)
    };
    let of_xtask =
        |test: &str| cmd!(shell, "{cargo} test --locked --package xtask --test {test} -- {FLAGS...}");
    if args.faults || args.vm {
        return show_or_run(of_xtask(if args.faults { "faults" } else { "vm" }));
    }
    let everything = ["--workspace", "--locked", "--no-fail-fast"];
    if !whole {
        return show_or_run(cmd!(shell, "{cargo} test {everything...}"));
    }
    // Compiled before anything runs beside it: whoever compiles keeps others from it.
    show_or_run(cmd!(shell, "{cargo} test {everything...} --no-run"))?;
    let machine = match no_machine {
        None => Some(MachineTest::start(&setup, &cargo)?),
        Some(reason) => {
            println!("left out, the tests in a virtual machine: {reason}");
            None
        }
    };
    show_or_run(cmd!(shell, "{cargo} test {everything...}"))?;
    let sdk = ["--package", "kedge-sim", "--test", "sdk"];
    show_or_run(cmd!(shell, "{cargo} test --locked {sdk...} -- --include-ignored --nocapture"))?;
    let others = ["--package", "xtask", "--test", "arrival", "--test", "report"];
    show_or_run(cmd!(shell, "{cargo} test --locked {others...} -- --include-ignored"))?;
    fuzz::run(&setup, &fuzz::Args::everything(FUZZ_SECONDS)).await?;
    if let Some(machine) = machine {
        machine.ended().await?;
    }
    show_or_run(of_xtask("e2e"))
}

/// The test in the virtual machine, beside those that need no engine: emulation keeps one processor busy for ten minutes.
struct MachineTest {
    log: PathBuf,
    /// None where it is only told what would be run.
    running: Option<JoinHandle<Result<(), ProcessError>>>,
}

impl MachineTest {
    fn start(setup: &Setup, cargo: &str) -> Result<Self> {
        let log = setup.paths.project.join("target/kedge/test-vm.log");
        let words = ["test", "--locked", "--package", "xtask", "--test", "vm", "--"];
        let test = Process::new("test the tiers in a virtual machine", cargo)
            .args(words)
            .args(FLAGS)
            .dir(&setup.paths.project)
            .log(&log)
            .limit(MACHINE_LIMIT);
        if setup.dry_run {
            println!("{}", test.command_line());
            return Ok(Self { log, running: None });
        }
        fs_err::create_dir_all(log.parent().context("the log has no folder")?)?;
        println!(
            "beside the next tests, those in a virtual machine: `{}`",
            shown(&log, &setup.paths.project)
        );
        Ok(Self { log, running: Some(tokio::spawn(test.run())) })
    }

    /// Waits for its end, and shows what it has written.
    async fn ended(self) -> Result<()> {
        let Some(running) = self.running else { return Ok(()) };
        let ended = running.await?;
        print!("{}", fs_err::read_to_string(&self.log)?);
        Ok(ended?)
    }
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
