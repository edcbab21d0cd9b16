//! The commands, one file each.

pub mod bench;
pub mod cluster;
pub mod config;
pub mod device;
pub mod doctor;
pub mod down;
pub mod e2e;
pub mod env;
pub mod fuzz;
pub mod hub;
pub mod image;
pub mod logs;
pub mod plan;
pub mod registry;
pub mod render;
pub mod run;
pub mod soak;
pub mod status;
pub mod test;
pub mod up;
pub mod verify;

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::execute::Interrupted;
use crate::session::Setup;

/// Runs the command that was typed.
///
/// # Errors
/// What [`crate::exit::code`] turns into an exit code.
pub async fn run(cli: Cli) -> Result<()> {
    let setup =
        if removes(&cli.command) { Setup::for_removal(&cli.global)? } else { Setup::new(&cli.global)? };
    let stopped = setup.cancel.clone();
    match cli.command {
        Command::E2e(args) => e2e::run(setup, &args).await,
        Command::Up => up::run(setup).await,
        Command::Run(args) => run::run(setup, &args).await,
        Command::Down => down::run(setup).await,
        Command::Image(command) => image::run(setup, &command).await,
        Command::Cluster(command) => cluster::run(setup, &command).await,
        Command::Registry(command) => registry::run(setup, &command).await,
        Command::Hub(args) => hub::run(setup, &args).await,
        Command::Bench(args) => bench::run(setup, cli.global.selection(), &args).await,
        Command::Soak(args) => soak::run(setup, &args).await,
        Command::Fuzz(args) => fuzz::run(&setup, &args).await,
        Command::Test(args) => test::run(setup, &args).await,
        // These make nothing that would have to be put in order, so Ctrl-C ends them where they are.
        looking => stopped.run_until_cancelled(look(setup, looking)).await.unwrap_or(Err(Interrupted.into())),
    }
}

/// Whether the command removes and makes nothing.
fn removes(command: &Command) -> bool {
    match command {
        Command::Down
        | Command::Cluster(cluster::Command::Down)
        | Command::Registry(registry::Command::Down) => true,
        Command::Hub(args) => args.removes(),
        _ => false,
    }
}

/// Runs a command that changes nothing of what is up.
async fn look(setup: Setup, command: Command) -> Result<()> {
    match command {
        Command::Config(args) => config::run(&setup, &args),
        Command::Status(args) => status::run(setup, &args).await,
        Command::Logs(args) => logs::run(setup, &args).await,
        Command::Verify(args) => verify::run(setup, &args).await,
        Command::Plan(args) => plan::run(setup, &args).await,
        Command::Env => env::run(setup).await,
        Command::Render(args) => render::run(setup, &args).await,
        Command::Device(args) => device::run(setup, args).await,
        _ => doctor::run(setup).await,
    }
}
