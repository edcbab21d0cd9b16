//! The simulated edge daemon: `run` is the service, `health` and `list` ask the running one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kedge_sim::edge::config::{self, EXIT_BAD_SETTINGS, Settings};
use kedge_sim::edge::daemon::{Daemon, HTTPS_PORT, HubAddress, MQTT_PORT, Options};
use kedge_sim::edge::docker::DockerEngine;
use kedge_sim::edge::health::Health;
use kedge_sim::edge::provisioning::{self, Network};
use kedge_sim::edge::state::{self, StateFolder};
use kedge_sim::edge::{logging, management, notify};
use kedge_sim::process::{run_to_end, stop_on_signals};
use kedge_sim::tls::{Trust, client_config};
use tokio::runtime;
use tokio_util::sync::CancellationToken;

/// The simulated IoT Edge runtime.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    Run(RunArgs),
    /// Say whether the device does its work; exit status 1 and one line of why when it does not
    Health {
        /// The daemon's management socket
        #[arg(long, default_value = management::DEFAULT_SOCKET)]
        socket: PathBuf,
        /// Print the whole answer of the daemon
        #[arg(long)]
        json: bool,
    },
    /// List the modules
    List {
        /// The daemon's management socket
        #[arg(long, default_value = management::DEFAULT_SOCKET)]
        socket: PathBuf,
    },
}

#[derive(Args)]
struct RunArgs {
    /// The configuration of the runtime
    #[arg(long, default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Folder of keys and workload sockets
    #[arg(long, default_value = state::DEFAULT_FOLDER)]
    state: PathBuf,
    /// The management socket
    #[arg(long, default_value = management::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Where the MQTT gateway listens
    #[arg(long, default_value_t = SocketAddr::from(([0, 0, 0, 0], MQTT_PORT)))]
    gateway: SocketAddr,
    /// Where the gateway listens for HTTPS [default: port 443 beside port 8883, else nowhere]
    #[arg(long)]
    gateway_https: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unhealthy(&format!("cannot start: {error}")),
    };
    run_to_end(runtime, async {
        match command {
            Command::Run(args) => run(args).await,
            Command::Health { socket, json } => health(&socket, json).await,
            Command::List { socket } => list(&socket).await,
        }
    })
}

async fn run(args: RunArgs) -> ExitCode {
    logging::init();
    tracing::info!("Starting Azure IoT Edge Daemon (simulated by KEdge {})", env!("CARGO_PKG_VERSION"));
    let settings = match Settings::load(&args.config) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!("Failed to load settings: {error}");
            return ExitCode::from(EXIT_BAD_SETTINGS);
        }
    };
    match serve(args, settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: RunArgs, settings: Settings) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;
    if !settings.ignored.is_empty() {
        tracing::info!(
            "Settings without a meaning for the simulated runtime: {}",
            settings.ignored.join(", ")
        );
    }
    let tls = client_config(Trust::SystemAnd(None)).context("the hub cannot be verified")?;
    // The engine mounts the sockets below, by absolute paths only.
    let state = StateFolder::new(std::path::absolute(args.state)?);
    let https = |hub: &str| HubAddress::of(hub, tls.clone()).https;
    let network = Network { trust: Trust::SystemAnd(None), hub: &https, pause: provisioning::PAUSE };
    tracing::info!("Obtaining Edge device provisioning data...");
    let provisioned = provisioning::provision(&settings.provisioning, &network, &state, &shutdown).await?;
    let Some(device) = provisioned else { return Ok(()) };
    tracing::info!("Device is {} on {}", device.device_id, device.hub_hostname);
    let engine = Arc::new(DockerEngine::new(settings.engine_socket.clone()));
    let options = Options {
        hub: HubAddress::of(&device.hub_hostname, tls.clone()),
        settings,
        device,
        state,
        management_socket: args.socket,
        gateway: args.gateway,
        gateway_https: args.gateway_https.or_else(|| {
            (args.gateway.port() == MQTT_PORT).then(|| SocketAddr::new(args.gateway.ip(), HTTPS_PORT))
        }),
    };
    let daemon = Daemon::bind(options, shutdown).await?;
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        notify::ready(&socket).context("cannot tell systemd that the daemon is ready")?;
    }
    tracing::info!("Edge runtime is running");
    daemon.run(engine).await?;
    tracing::info!("Edge runtime has stopped");
    Ok(())
}

async fn health(socket: &Path, json: bool) -> ExitCode {
    let health = match management::ask_health(socket).await {
        Ok(health) => health,
        Err(error) => return unhealthy(&error.to_string()),
    };
    if json {
        match serde_json::to_string_pretty(&health) {
            Ok(text) => println!("{text}"),
            Err(error) => return unhealthy(&error.to_string()),
        }
    }
    match health.problem() {
        None => ExitCode::SUCCESS,
        Some(problem) => unhealthy(&problem),
    }
}

fn unhealthy(problem: &str) -> ExitCode {
    eprintln!("{problem}");
    ExitCode::FAILURE
}

async fn list(socket: &Path) -> ExitCode {
    match management::ask_health(socket).await {
        Ok(health) => {
            print!("{}", table(&health));
            ExitCode::SUCCESS
        }
        Err(error) => unhealthy(&error.to_string()),
    }
}

/// The table of `iotedge list`.
fn table(health: &Health) -> String {
    let header = ["NAME", "STATUS", "DESCRIPTION", "Config"].map(str::to_owned);
    let rows = health.modules.iter().map(|module| {
        [&module.name, &module.status, &module.description, &module.image].map(|cell| cell.replace('\n', " "))
    });
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (name, status, description) = (width(0), width(1), width(2));
    let line = |row: &[String; 4]| {
        format!("{:<name$}  {:<status$}  {:<description$}  {}\n", row[0], row[1], row[2], row[3])
    };
    rows.iter().map(line).collect()
}
