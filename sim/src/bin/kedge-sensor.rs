//! The simulated temperature sensor as a module container.

use std::io::Write as _;
use std::process::ExitCode;

use jiff::Timestamp;
use kedge_sim::process::stop_on_signals;
use kedge_sim::sensor::{self, EdgeEnvironment, Settings};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
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
