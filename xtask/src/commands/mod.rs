//! The commands, one file each.

pub mod bench;
pub mod bundle;
pub mod chaos;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod deploy;
pub mod device;
pub mod doctor;
pub mod down;
pub mod e2e;
pub mod env;
pub mod fuzz;
pub mod hub;
pub mod image;
pub mod logs;
pub mod man;
pub mod plan;
pub mod registry;
pub mod render;
pub mod run;
pub mod soak;
pub mod status;
pub mod test;
pub mod undeploy;
pub mod up;
pub mod verify;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, Command};
use crate::execute::Interrupted;
use crate::report::Results;
use crate::session::Setup;

/// Runs the command that was typed.
///
/// # Errors
/// What [`crate::exit::code`] turns into an exit code.
pub async fn run(cli: Cli) -> Result<()> {
    // What is said of the program itself needs no settings.
    match &cli.command {
        Command::Completions(args) => return completions::run(args),
        Command::Man(args) => return man::run(args),
        _ => {}
    }
    let results = Results::of(cli.command.with_json_report());
    let result = carry_out(cli, &results).await;
    if let Err(error) = &result {
        results.fail(error);
    }
    result
}

async fn carry_out(cli: Cli, results: &Results) -> Result<()> {
    let setup =
        if removes(&cli.command) { Setup::for_removal(&cli.global)? } else { Setup::new(&cli.global)? };
    let setup = setup.telling(results.clone());
    let stopped = setup.cancel.clone();
    match cli.command {
        Command::E2e(args) => Box::pin(e2e::run(setup, &args)).await,
        Command::Up(_) => Box::pin(up::run(setup)).await,
        Command::Run(_) => Box::pin(run::run(setup)).await,
        Command::Down => down::run(setup).await,
        Command::Image(command) => Box::pin(image::run(setup, &command)).await,
        Command::Cluster(command) => Box::pin(cluster::run(setup, &command)).await,
        Command::Registry(command) => Box::pin(registry::run(setup, &command)).await,
        Command::Hub(args) => Box::pin(hub::run(setup, &args)).await,
        Command::Bench(args) => Box::pin(bench::run(setup, cli.global.selection(), &args)).await,
        Command::Soak(args) => Box::pin(soak::run(setup, &args)).await,
        // What a fault has done, the edge mends by itself.
        Command::Chaos(args) => until(&stopped, chaos::run(setup, &args)).await,
        Command::Fuzz(args) => fuzz::run(&setup, &args).await,
        Command::Test(args) => test::run(setup, &args).await,
        // What they have begun in the cluster, the next invocation goes on with.
        Command::Deploy(args) => until(&stopped, deploy::run(setup, &args)).await,
        Command::Undeploy(args) => until(&stopped, undeploy::run(setup, &args)).await,
        // These make nothing that would have to be put in order, so Ctrl-C ends them where they are.
        looking => until(&stopped, look(setup, looking)).await,
    }
}

/// Does the work until the user stops it.
async fn until(stopped: &CancellationToken, work: impl Future<Output = Result<()>>) -> Result<()> {
    // Boxed, for the compiler looks only so far into futures within futures.
    stopped.run_until_cancelled(Box::pin(work)).await.unwrap_or(Err(Interrupted.into()))
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
        Command::Bundle(args) => bundle::run(setup, &args).await,
        Command::Verify(args) => verify::run(setup, &args).await,
        Command::Plan(args) => plan::run(setup, &args).await,
        Command::Env => env::run(setup).await,
        Command::Render(args) => render::run(setup, &args).await,
        Command::Device(args) => device::run(setup, args).await,
        _ => doctor::run(setup).await,
    }
}
