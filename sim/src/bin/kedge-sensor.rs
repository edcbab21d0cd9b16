//! The simulated temperature sensor as a module container.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use kedge_sim::process::{run_to_end, stop_on_signals};
use kedge_sim::sensor::{self, EdgeEnvironment, Settings};
use tokio::runtime;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("cannot start");
    match runtime.and_then(|runtime| run_to_end(runtime, run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;
    let variable = |name: &str| std::env::var(name).ok();
    let settings = Settings::from_env(variable)?;
    let environment = EdgeEnvironment::from_env(variable)?;
    sensor::run(settings, environment, say, shutdown).await;
    Ok(())
}

/// The log is the standard output. A reader that has gone is no reason to stop.
fn say(text: &str) {
    let now = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S");
    let _ = writeln!(std::io::stdout(), "{now}> {text}");
}
