//! `cargo xtask env`: what points other tools at the cluster and at the registry.
//!
//! kubectl, Skaffold and Tilt read the cluster from `KUBECONFIG`, and the registry's login from `DOCKER_CONFIG` or, with
//! Podman, from `REGISTRY_AUTH_FILE`. The user's own files stay as they are.

use anyhow::Result;

use crate::cluster::manifests;
use crate::paths::write_private;
use crate::session::Setup;
use crate::steps::registry;

/// Prints shell commands that set the variables, and writes the file with the login that they name.
///
/// # Errors
/// When nothing is up, or the file cannot be written.
pub async fn run(setup: Setup) -> Result<()> {
    let dry_run = setup.dry_run;
    let context = setup.attach().await?;
    let folder = context.paths.state.join("docker");
    let login = folder.join("config.json");
    let config =
        manifests::docker_config(&registry::published_host(&context), &context.credentials.registry_login());
    if !dry_run {
        write_private(&login, config.expose().as_bytes())?;
    }
    let kubeconfig = context.paths.kubeconfig();
    for (name, path) in [("KUBECONFIG", kubeconfig), ("DOCKER_CONFIG", folder), ("REGISTRY_AUTH_FILE", login)]
    {
        println!("export {name}={}", crate::process::quote(path.as_os_str()));
    }
    eprintln!("# to use them: eval \"$(cargo xtask env)\"");
    Ok(())
}
