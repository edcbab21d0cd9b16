//! `cargo xtask logs`: what the parts have written.

use anyhow::Result;

use crate::edge;
use crate::session::Setup;

/// Flags of `logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose log
    #[arg(value_enum, default_value_t = Part::Edge)]
    part: Part,
    /// How many lines from the end
    #[arg(long, default_value_t = 100)]
    tail: u16,
}

/// Something that writes a log.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Part {
    /// The edge, as a pod or as a container: systemd, the inner engine, the edge runtime.
    #[value(alias = "pod")]
    Edge,
    /// The local hub.
    Hub,
    /// The registry.
    Registry,
}

/// Prints a log.
///
/// # Errors
/// When the part is not up.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let context = setup.attach().await?;
    let lines = usize::from(args.tail);
    let text = match args.part {
        Part::Edge => edge::log(&context, edge::place(&context).await?, args.tail).await?,
        Part::Hub => context.engine.container_log(&context.settings.hub_container(), lines).await?,
        Part::Registry => context.engine.container_log(&context.settings.registry_container(), lines).await?,
    };
    print!("{text}");
    Ok(())
}
