//! Puts load on an MQTT server, or is a module whose messages prove that none is lost. For measurements and tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use kedge_sim::load::{Clients, Producer, Target};
use kedge_sim::process::{run_to_end, stop_on_signals};
use kedge_sim::sensor::EdgeEnvironment;
use kedge_sim::tls::{Endpoint, Trust, client_config};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Load on an MQTT server.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish with QoS 1 as fast as the server acknowledges, and print what was measured as JSON
    Publish {
        #[command(flatten)]
        server: Server,
        /// For how long
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Messages of a client that may wait for their acknowledgement
        #[arg(long, default_value_t = 16)]
        window: usize,
        /// Bytes of a message
        #[arg(long, default_value_t = 256)]
        size: usize,
    },
    /// Connect, say so, and stay until SIGTERM
    Hold {
        #[command(flatten)]
        server: Server,
    },
    /// As a module of the edge runtime: send numbers, and keep those that were acknowledged
    Produce {
        /// Messages a second
        #[arg(long)]
        rate: u32,
        /// How many
        #[arg(long)]
        count: u64,
        /// File with the numbers that were acknowledged
        #[arg(long)]
        ledger: PathBuf,
    },
}

#[derive(clap::Args)]
struct Server {
    /// Address and port
    #[arg(long)]
    address: SocketAddr,
    /// Name of its certificate; without it the connection is plain
    #[arg(long, requires = "ca")]
    name: Option<String>,
    /// PEM file with the authority of its certificate
    #[arg(long)]
    ca: Option<PathBuf>,
    /// JSON file with a list of clients: clientId, username, password, topic
    #[arg(long)]
    clients: PathBuf,
}

impl Server {
    async fn connect(&self) -> anyhow::Result<Clients> {
        let (name, tls) = match (&self.name, &self.ca) {
            (Some(name), Some(ca)) => {
                (name.as_str(), Some(client_config(Trust::Only(&fs_err::read_to_string(ca)?))?))
            }
            _ => ("", None),
        };
        let target = Target { endpoint: Endpoint::at(name, self.address), tls };
        let accounts = serde_json::from_slice(&fs_err::read(&self.clients)?)
            .with_context(|| format!("`{}` is not a list of clients", self.clients.display()))?;
        Clients::connect(&target, accounts).await
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = Runtime::new().context("cannot start");
    match runtime.and_then(|runtime| run_to_end(runtime, run(&args.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: &Command) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;
    match command {
        Command::Publish { server, seconds, window, size } => {
            let clients = server.connect().await?;
            let figures = clients.publish(Duration::from_secs(*seconds), *window, *size).await?;
            println!("{}", serde_json::to_string(&figures)?);
        }
        Command::Hold { server } => {
            let clients = server.connect().await?;
            println!("connected {}", clients.count());
            shutdown.cancelled().await;
        }
        Command::Produce { rate, count, ledger } => {
            let environment = EdgeEnvironment::from_env(|name| std::env::var(name).ok())?;
            let producer = Producer { rate: *rate, count: *count, ledger: ledger.clone() };
            producer.run(&environment, &shutdown).await?;
        }
    }
    Ok(())
}
