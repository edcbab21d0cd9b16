//! `cargo xtask hub`: the local IoT Hub on its own.

use anyhow::Result;

use crate::commands::down;
use crate::plan::Action;
use crate::session::{Setup, carry_out};
use crate::steps::hub;

/// What to do with the hub.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start the hub, and print its addresses
    Up,
    /// Remove the hub with all that it knows
    Down,
}

/// Starts or removes the hub.
///
/// # Errors
/// When the engine refuses.
pub async fn run(setup: Setup, command: &Command) -> Result<()> {
    match command {
        Command::Up => {
            if let Some(context) = carry_out(setup, "hub up", &[Action::Hub]).await? {
                let ports = hub::published_ports(&context).await?;
                println!("https://127.0.0.1:{} (REST)", ports.https);
                println!("mqtts://127.0.0.1:{} (MQTT)", ports.mqtt);
            }
        }
        Command::Down => {
            let name = setup.settings.hub_container();
            down::part(&setup, |all| down::container(all, &name)).await?;
        }
    }
    Ok(())
}
