//! `cargo xtask image`: build and push the images on their own.

use anyhow::Result;

use crate::images::Image;
use crate::plan::Action;
use crate::session::{Setup, carry_out};

/// What to do with the images.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Build all images
    Build,
    /// Push the edge and the sensor to the local registry
    Push,
}

/// Builds or pushes, and prints the references.
///
/// # Errors
/// When a build or a push fails.
pub async fn run(setup: Setup, command: &Command) -> Result<()> {
    match command {
        Command::Build => {
            let mut goals = vec![Action::NodeImage];
            goals.extend(
                [Image::Registry, Image::Hub, Image::Edge, Image::TemperatureSensor].map(Action::Image),
            );
            let Some(context) = carry_out(setup, "image build", &goals).await? else { return Ok(()) };
            for image in [Image::Base, Image::Registry, Image::Hub, Image::Edge, Image::TemperatureSensor] {
                println!("{}", context.reference(image)?);
            }
        }
        Command::Push => {
            let images = [Image::Edge, Image::TemperatureSensor];
            let goals = images.map(Action::Push);
            let Some(context) = carry_out(setup, "image push", &goals).await? else { return Ok(()) };
            for image in images {
                let digest = crate::steps::registry::pushed_digest(&context, image).await?;
                println!(
                    "{}/{}@{digest}",
                    crate::steps::registry::published_host(&context),
                    image.repository()
                );
            }
        }
    }
    Ok(())
}
