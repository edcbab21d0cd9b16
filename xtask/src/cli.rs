//! The command line: what can be typed. What it means is in [`crate::commands`].

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::engine::Choice;
use crate::settings::{Hub, Runtime, word};
use crate::tier;

/// Run Azure IoT Edge as a pod on Kubernetes, and prove it end to end.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 a step failed, 2 wrong usage, 3 unusable settings, 4 something is missing on this machine, or nobody has agreed,
5 a layer is broken, 6 something else is in the way, 7 nothing is broken but arrival was not proved, 130 stopped.
Results go to standard output, progress to standard error.

On a fresh machine, begin with: cargo xtask e2e --yes";

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Agree beforehand: install what is missing, and do what would be asked for
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Tell what would be done and why, and change nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Container engine to use [default: that of the settings]
    #[arg(long, global = true, value_enum)]
    pub engine: Option<Choice>,
    /// Settings file [default: config/kedge.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Hub that the edge connects to [default: that of the settings]
    #[arg(long, global = true, value_enum)]
    pub hub: Option<Hub>,
    /// Runtime in the edge's image [default: that of the settings]
    #[arg(long, global = true, value_enum)]
    pub runtime: Option<Runtime>,
    /// How the edge is confined [default: that of the settings]
    #[arg(long, global = true, value_enum)]
    pub tier: Option<tier::Choice>,
    /// Folder of `.deb` files with Microsoft's runtime, in the place of their repository
    #[arg(long, global = true, value_name = "DIR")]
    pub packages: Option<PathBuf>,
    /// Image of a module to be part of the edge's image; may be given several times
    #[arg(long, global = true, value_name = "IMAGE")]
    pub preload: Vec<String>,
}

impl Global {
    /// The flags that say on what to work, for another invocation.
    #[must_use]
    pub fn selection(&self) -> Vec<OsString> {
        let one = |flag: &str, value: Option<OsString>| value.map(|value| [flag.into(), value]);
        let flags = [
            one("--engine", self.engine.as_ref().map(|it| word(it).into())),
            one("--profile", self.profile.clone().map(Into::into)),
            one("--hub", self.hub.as_ref().map(|it| word(it).into())),
            one("--runtime", self.runtime.as_ref().map(|it| word(it).into())),
            one("--tier", self.tier.as_ref().map(|it| word(it).into())),
            one("--packages", self.packages.clone().map(Into::into)),
        ];
        let preload = self.preload.iter().map(|image| ["--preload".into(), image.into()]);
        flags.into_iter().flatten().chain(preload).flatten().collect()
    }
}

/// How a command that leaves a report tells its result.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Format {
    /// Print the report as one JSON document to standard output, also when the run fails, and nothing else there
    #[arg(long)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring everything up, prove that telemetry arrives at the hub, and remove everything
    E2e(commands::e2e::Args),
    /// Bring everything up: cluster, registry, images, hub, device, pod
    Up(Format),
    /// Run the edge as a container directly on the engine, without Kubernetes, with registry, hub and device
    Run(Format),
    /// Remove everything that `up`, `run` and `e2e` have made
    Down,
    /// Show what `up` would do and why, and change nothing
    Plan(commands::plan::Args),
    /// Show every setting, its value, and where that comes from
    Config(commands::config::Args),
    /// Show what is up: the cluster, the pod, what is in the edge, and whether the device is connected
    Status(commands::status::Args),
    /// Show what the edge, its modules, the hub, the registry or the node have written, and follow it
    Logs(commands::logs::Args),
    /// Collect logs and facts of what is up, without secrets, in one file to be handed on
    Bundle(commands::bundle::Args),
    /// Print what points kubectl, Skaffold and Tilt at the cluster and the registry: eval "$(cargo xtask env)"
    Env,
    /// Walk the layers of what is up, and prove that telemetry arrives at the hub
    Verify(commands::verify::Args),
    /// Tell whether this machine can do the work, and what is missing
    Doctor,
    /// Deploy to a cluster of yours, such as AKS: look at it, show what would change, ask, apply, and wait
    Deploy(commands::deploy::Args),
    /// Remove what `deploy` has made from a cluster of yours, and nothing else
    Undeploy(commands::undeploy::Args),
    /// Print the manifests exactly as `up` applies them, or with `--context` as `deploy` does
    Render(commands::render::Args),
    /// Give, show, check or remove the credentials of the edge device
    Device(commands::device::Args),
    /// Build and push the images
    #[command(subcommand)]
    Image(commands::image::Command),
    /// Make or remove the kind cluster
    #[command(subcommand)]
    Cluster(commands::cluster::Command),
    /// Start or remove the registry
    #[command(subcommand)]
    Registry(commands::registry::Command),
    /// Start, watch or remove the local IoT Hub
    Hub(commands::hub::Args),
    /// Measure how long things take and how large they are
    Bench(commands::bench::Args),
    /// Send telemetry for minutes while the hub, the edge and the pod fail, and prove that none is lost
    Soak(commands::soak::Args),
    /// Let faults happen to what is up, one after the other, and measure how soon it is well again
    Chaos(commands::chaos::Args),
    /// Try bytes that a client may send, guided by what code they reach
    Fuzz(commands::fuzz::Args),
    /// Run every test: unit and golden tests, tests of the command line, end-to-end tests
    Test(commands::test::Args),
    /// Print a script that lets bash, zsh or fish complete `cargo xtask`
    Completions(commands::completions::Args),
    /// Print the manual page, or write one for each command
    Man(commands::man::Args),
}

impl Command {
    /// The name of the command, if it was asked for its report as JSON.
    #[must_use]
    pub fn with_json_report(&self) -> Option<&'static str> {
        let (name, format) = match self {
            Self::E2e(args) => ("e2e", args.format),
            Self::Up(format) => ("up", *format),
            Self::Run(format) => ("run", *format),
            Self::Verify(args) => ("verify", args.format),
            _ => return None,
        };
        format.json.then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
