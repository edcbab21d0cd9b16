//! The local IoT Hub as a program: configuration from a file, logs on stdout, SIGTERM ends it at once.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use kedge_sim::hub::{self, ConfigFile, Listeners};
use kedge_sim::process::{run_to_end, stop_on_signals};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// A local IoT Hub that verifies its clients.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The configuration
    #[arg(long, default_value = "/etc/kedge-hub/hub.toml")]
    config: PathBuf,
}

/// Each connection takes a file descriptor, and the system gives few unless it is asked.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of open files, fewer clients can connect: {error}");
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("KEDGE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_target(false).init();
    let runtime = Runtime::new().context("cannot start");
    match runtime.and_then(|runtime| run_to_end(runtime, run(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;
    raise_file_limit();
    let file = ConfigFile::read(&args.config)?;
    let config = file.load()?;
    let bind = async |address| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let listeners = Listeners { https: bind(file.https).await?, mqtt: bind(file.mqtt).await? };
    tracing::info!(
        host_name = %config.host_name,
        https = %listeners.https.local_addr()?,
        mqtt = %listeners.mqtt.local_addr()?,
        "listening"
    );
    hub::run(listeners, config, shutdown).await?;
    tracing::info!("stopped");
    Ok(())
}
