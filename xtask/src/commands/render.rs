//! `cargo xtask render`: the manifests exactly as `up` applies them, or as `deploy` does to a context.

use anyhow::Result;

use crate::cluster::render;
use crate::deploy::Request;
use crate::session::Setup;
use crate::steps::deploy;

/// Flags of `render`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the values of Secrets as well, for `kubectl apply --server-side`
    #[arg(long)]
    show_secrets: bool,
    #[command(flatten)]
    request: Request,
}

/// Prints the manifests.
///
/// # Errors
/// When nothing is up, or the sources are not valid.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let objects = match &args.request.context {
        Some(_) => crate::deploy::render(&setup, &args.request).await?,
        None => deploy::render(&*setup.attach().await?).await?,
    };
    if args.show_secrets {
        print!("{}", render::documents(&objects)?);
    } else {
        print!("{}", render::for_people(&objects)?);
        eprintln!("the values of Secrets are left out; `--show-secrets` prints them");
    }
    Ok(())
}
