//! `cargo xtask hub`: the local IoT Hub on its own.

mod watch;

use anyhow::{Context as _, Result};
use kedge_sim::identity::validate_id;

use crate::commands::down;
use crate::connections::{self, Files};
use crate::engine::Inventory;
use crate::plan::Action;
use crate::session::{Setup, carry_out};
use crate::settings::HubPorts;
use crate::steps::hub;

/// Flags of `hub`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do with the hub.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start the hub, and write how to connect to it into private files [default]
    Up,
    /// Register a device, and add its connection string to the file
    Device(Device),
    /// Print telemetry as it arrives, one line a message, until Ctrl-C
    Watch(watch::Args),
    /// Remove the hub with all that it knows
    Down,
}

/// A device to be registered.
#[derive(Debug, clap::Args)]
struct Device {
    /// Its id
    #[arg(value_parser = device_id)]
    id: String,
    /// Make it an edge device
    #[arg(long, conflicts_with = "parent")]
    edge: bool,
    /// Let it connect through the gateway of this edge device
    #[arg(long, value_name = "EDGE", value_parser = device_id)]
    parent: Option<String>,
}

fn device_id(text: &str) -> Result<String, String> {
    if text.contains(';') {
        return Err("`;` ends a part of a connection string".into());
    }
    validate_id(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

impl Args {
    /// Whether it removes and makes nothing.
    pub(super) fn removes(&self) -> bool {
        matches!(self.command, Some(Command::Down))
    }
}

/// Does with the hub what was asked for.
///
/// # Errors
/// When the engine or the hub refuses.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    match &args.command {
        None | Some(Command::Up) => up(setup).await,
        Some(Command::Device(device)) => register(setup, device).await,
        Some(Command::Watch(args)) => watch::run(setup, args).await,
        Some(Command::Down) => {
            let (name, volume) = (setup.settings.hub_container(), setup.settings.hub_volume());
            down::part(&setup, |all| with_state(all, &name, &volume)).await
        }
    }
}

async fn up(setup: Setup) -> Result<()> {
    let standard = setup.settings.hub.ports == HubPorts::Standard;
    let Some(context) = carry_out(setup, "hub up", &[Action::Hub]).await? else { return Ok(()) };
    let ports = hub::published_ports(&context).await?;
    println!("https://127.0.0.1:{} (REST)", ports.https);
    println!("mqtts://127.0.0.1:{} (MQTT)", ports.mqtt);
    show(&connections::write(&context).await?);
    if !standard {
        eprintln!(
            "Microsoft's SDKs know the ports 443 and 8883 only: `hub.ports = \"standard\"` in the settings gives them to the hub"
        );
    }
    Ok(())
}

async fn register(setup: Setup, device: &Device) -> Result<()> {
    let id = &device.id;
    if setup.dry_run {
        println!("would be registered: {id}");
        return Ok(());
    }
    let _lock = setup.lock()?;
    let context = setup.attach().await?;
    let service = hub::service(&context).await?;
    let registered = match &device.parent {
        Some(parent) => service.register_leaf_device(id, parent).await,
        None if device.edge => service.register_edge_device(id).await,
        None => service.register_device(id).await,
    };
    registered.with_context(|| format!("failed to register the device `{id}`"))?;
    show(&connections::write(&context).await?);
    Ok(())
}

fn show(files: &Files) {
    println!("{} (connection strings; readable by you alone)", files.connections.display());
    println!("{} (authority of the hub's certificate)", files.authority.display());
}

/// The hub's container and volume, where they are in the inventory.
fn with_state(inventory: Inventory, name: &str, volume: &str) -> Inventory {
    let container_volumes =
        inventory.container_volumes.iter().filter(|other| *other == volume).cloned().collect();
    Inventory { container_volumes, ..down::container(inventory, name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_is_removed_with_what_it_knows_and_nothing_else() {
        let all = Inventory {
            containers: vec!["kedge-hub".into(), "kedge-registry".into()],
            container_volumes: vec!["kedge-hub-state".into(), "kedge-edge-state".into()],
            networks: vec!["kedge".into()],
            ..Inventory::default()
        };
        let hub = with_state(all, "kedge-hub", "kedge-hub-state");
        assert_eq!(hub.names().collect::<Vec<_>>(), ["kedge-hub", "kedge-hub-state"]);
    }

    #[test]
    fn an_id_that_a_connection_string_cannot_hold_is_refused() {
        assert!(device_id("press-1").is_ok());
        for id in ["", "a b", "a;b", "a/b"] {
            assert!(device_id(id).is_err(), "{id:?}");
        }
    }
}
