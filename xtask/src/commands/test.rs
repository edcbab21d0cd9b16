//! `cargo xtask test`: every test there is, with all set-up that they need.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
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
/// The test bounds each of its parts itself; together they stay below this.
const MACHINE_LIMIT: Duration = Duration::from_secs(120 * 60);
/// What a machine of 8 GiB says that it has, of which the kernel keeps a part to itself.
const MACHINE_MEMORY: u64 = 7 << 30;
/// Always of the whole workspace, also for one test: of one package, dependencies have other features, and are compiled again.
const EVERYTHING: [&str; 3] = ["--workspace", "--locked", "--no-fail-fast"];
/// One after the other: the tests share the machine's engine and the names of the deployment.
const FLAGS: [&str; 3] = ["--include-ignored", "--test-threads=1", "--nocapture"];

/// Flags of `test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave out all that needs an engine, a virtual machine, a browser or other implementations, and fuzzing
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
    let no_machine = no_virtual_machine(std::env::consts::ARCH, preflight::is_root(), memory());
    if let (true, Some(reason)) = (args.vm, no_machine) {
        bail!("the tests in a virtual machine cannot run here: {reason}");
    }
    let has_machine = args.vm || (whole && no_machine.is_none());
    if !args.quick && !setup.dry_run {
        prepare(&setup, args, has_machine).await?;
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
    let one = |test: &str| cmd!(shell, "{cargo} test {EVERYTHING...} --test {test} -- {FLAGS...}");
    if args.faults || args.vm {
        return show_or_run(one(if args.faults { "faults" } else { "vm" }));
    }
    show_or_run(cmd!(shell, "{cargo} test {EVERYTHING...}"))?;
    if !whole {
        return Ok(());
    }
    let machine = match no_machine {
        None => Some(MachineTest::start(&setup, &cargo)?),
        Some(reason) => {
            println!("left out, the tests in a virtual machine: {reason}");
            None
        }
    };
    let beside = async {
        show_or_run(cmd!(shell, "{cargo} test {EVERYTHING...} --test sdk -- --include-ignored --nocapture"))?;
        let others = ["--test", "arrival", "--test", "report"];
        show_or_run(cmd!(shell, "{cargo} test {EVERYTHING...} {others...} -- --include-ignored"))?;
        fuzz::run(&setup, &fuzz::Args::everything(FUZZ_SECONDS)).await
    };
    let done = beside.await;
    if let Some(machine) = machine {
        machine.end(done.is_ok()).await?;
    }
    done?;
    show_or_run(one("e2e"))
}

/// The tests start the tool themselves; whatever has to be installed is installed here.
async fn prepare(setup: &Setup, args: &Args, has_machine: bool) -> Result<()> {
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
    preflight::ensure_tools(preflight::absent(&tools), setup.yes).await.map(drop)
}

/// The test in the virtual machine, beside those that need no engine and measure no time: emulation keeps one processor busy for ten
/// minutes.
struct MachineTest {
    log: PathBuf,
    /// Ends it; Ctrl-C cancels it as well.
    cancel: CancellationToken,
    /// None where it is only told what would be run.
    running: Option<JoinHandle<Result<(), ProcessError>>>,
}

impl MachineTest {
    fn start(setup: &Setup, cargo: &str) -> Result<Self> {
        let log = setup.paths.project.join("target/kedge/test-vm.log");
        let cancel = setup.cancel.child_token();
        let test = Process::new("test the tiers in a virtual machine", cargo)
            .args(["test"])
            .args(EVERYTHING)
            .args(["--test", "vm", "--"])
            .args(FLAGS)
            .dir(&setup.paths.project)
            .log(&log)
            .limit(MACHINE_LIMIT)
            .cancelled_by(&cancel);
        if setup.dry_run {
            println!("{}", test.command_line());
            return Ok(Self { log, cancel, running: None });
        }
        fs_err::create_dir_all(log.parent().context("the log has no folder")?)?;
        // It is appended to, and the one of an earlier run says nothing of this one.
        fs_err::write(&log, "")?;
        println!(
            "beside the next tests, those in a virtual machine: `{}`",
            shown(&log, &setup.paths.project)
        );
        Ok(Self { log, cancel, running: Some(tokio::spawn(test.run())) })
    }

    /// Waits for its end, or where nobody wants to know any longer, ends it; shows what it has written.
    async fn end(self, is_wanted: bool) -> Result<()> {
        let Some(running) = self.running else { return Ok(()) };
        if !is_wanted {
            self.cancel.cancel();
            // What failed beside it is what is told.
            drop(running.await?);
            return Ok(());
        }
        let ended = running.await?;
        print!("{}", fs_err::read_to_string(&self.log)?);
        Ok(ended?)
    }
}

/// Why the virtual machine cannot be made here, if it cannot.
fn no_virtual_machine(architecture: &str, root: bool, memory: Option<u64>) -> Option<&'static str> {
    match (architecture, root) {
        ("x86_64", true) if memory.is_some_and(|bytes| bytes < MACHINE_MEMORY) => {
            Some("it takes 6 GiB of memory, so this machine should have 8")
        }
        ("x86_64", true) => None,
        ("x86_64", false) => Some("its disk is made of files of many owners, so that needs root"),
        _ => Some("it runs this machine's programs, and is made for x86_64 alone"),
    }
}

/// The memory of this machine in bytes.
fn memory() -> Option<u64> {
    let told = fs_err::read_to_string("/proc/meminfo").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_virtual_machine_is_made_where_it_can_be() {
        let reason = |architecture, root, memory| {
            no_virtual_machine(architecture, root, Some(memory)).unwrap_or_default()
        };
        assert_eq!(reason("x86_64", true, 8 << 30), "");
        assert!(reason("x86_64", false, 8 << 30).contains("root"));
        assert!(reason("aarch64", true, 8 << 30).contains("x86_64"));
        assert!(reason("x86_64", true, 4 << 30).contains("memory"));
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
