//! `cargo xtask bundle`: what is known of what is up, in one file without secrets, to be handed on.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::evidence;
use crate::session::Setup;

/// Flags of `bundle`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write [default: in a folder of its own below target/kedge/runs]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Collects from whatever is up, and packs it.
///
/// # Errors
/// When nothing is up, or the file cannot be written.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let context = setup.attach().await?;
    let bundle = args.out.clone().unwrap_or_else(|| evidence::bundle(&context));
    if bundle.is_dir() {
        bail!("`{}` is a folder; `--out` takes the name of the file", bundle.display());
    }
    evidence::collect(&context).await;
    evidence::pack_to(&context, &bundle).await
}
