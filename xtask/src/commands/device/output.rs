//! What becomes of the credentials, and what is told of them.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cluster::manifests::{self, Pull, Values};
use crate::cluster::render;
use crate::credentials::Credentials;
use crate::edge_config::{self, Filling};
use crate::paths::write_private;
use crate::process::quote;
use crate::provisioning::{self, CONFIG, Delivery, HUB_CA, Kept, SecretFiles};
use crate::session::Setup;
use crate::settings::Hub;

/// The manifest of the Secret, for people.
const SECRET: &str = "kedge-credentials.yaml";

/// Keeps the credentials, or writes them into a folder of the user's, and tells what they are and what comes next.
pub(super) fn deliver(setup: &Setup, kept: &Kept, out: Option<&Path>) -> Result<()> {
    // What they are put into can be wrong as well, which is better told now than when the edge is to start.
    let files = files(setup, kept)?;
    print(kept);
    if kept.need_another_runtime(&setup.settings) {
        eprintln!("warning: the simulated runtime cannot use a TPM; Microsoft's can: `--runtime azure`");
    }
    match out {
        Some(folder) if setup.dry_run => {
            println!("would be written: config.toml and {SECRET} in {}", folder.display());
        }
        Some(folder) => write(setup, kept, &files, folder)?,
        None if setup.dry_run => {
            println!("would be kept in {}", provisioning::folder(&setup.paths).display());
        }
        None => {
            let _lock = setup.lock()?;
            kept.keep(&setup.paths)?;
            println!("kept in {} (readable by you alone)", provisioning::folder(&setup.paths).display());
            tell_where_they_lead(setup, kept);
        }
    }
    Ok(())
}

/// The Secret of these credentials, as it is delivered to the edge.
pub(super) fn files(setup: &Setup, kept: &Kept) -> Result<SecretFiles> {
    // Where they lead says which hub the edge is to use, whatever the settings say.
    let mut settings = setup.settings.clone();
    settings.hub.kind = if kept.are_for_local_hub(&settings) { Hub::Local } else { Hub::Azure };
    let settings = &settings;
    let read = |path: &str| fs_err::read_to_string(setup.paths.project.join(path));
    // Of the deployment only the agent matters here.
    let filling = Filling { sensor: None, supply: settings.supply(), shape: settings.shape() };
    let deployment = edge_config::deployment(&read(&settings.device.deployment)?, &filling)?;
    let config = read(&settings.device.config)?;
    let hub = Credentials::load(&setup.paths.state)?;
    let hub_ca = hub.as_ref().map(|hub| hub.hub_ca.as_str());
    Delivery { kept, settings, config: &config, deployment: &deployment, hub_ca }.files()
}

/// Prints the facts, none of which is a secret.
pub(super) fn print(kept: &Kept) {
    let mut facts = kept.provisioning.facts();
    if kept.trust_bundle.is_some() {
        facts.push(("trust bundle", "for modules, besides the Edge CA".into()));
    }
    for (name, value) in facts {
        println!("{name:<16} {value}");
    }
}

/// Which command uses them.
pub(super) fn tell_where_they_lead(setup: &Setup, kept: &Kept) {
    let provisioning = &kept.provisioning;
    let is_local = kept.are_for_local_hub(&setup.settings);
    let hub = match (is_local, setup.settings.hub.kind) {
        (true, Hub::Azure) => " --hub local",
        (false, Hub::Local) => " --hub azure",
        _ => "",
    };
    let runtime = if kept.need_another_runtime(&setup.settings) { " --runtime azure" } else { "" };
    let flags = format!("{hub}{runtime}");
    if is_local && !provisioning.is_manual() {
        eprintln!(
            "they are for the local hub, where the device has to be enrolled; then: cargo xtask up{flags}"
        );
    } else if is_local {
        eprintln!("they are for the local hub; next: cargo xtask up{flags}");
    } else {
        eprintln!(
            "they lead to {}; next: cargo xtask up{flags}, or `cargo xtask deploy --context NAME{flags}` for a cluster of yours",
            provisioning.host_name()
        );
    }
}

/// Writes what `kubectl` and `iotedge config apply` take.
fn write(setup: &Setup, kept: &Kept, files: &SecretFiles, folder: &Path) -> Result<()> {
    if kept.are_for_local_hub(&setup.settings) && !files.names().any(|name| name == HUB_CA) {
        eprintln!(
            "warning: the local hub is not up, so the authority of its certificate is not in the Secret"
        );
    }
    let namespace = &setup.settings.deploy.namespace;
    let source = fs_err::read_to_string(setup.paths.project.join("manifests/kedgedeployment.yaml"))?;
    let confinement = manifests::Confinement::NONE;
    let values = Values { namespace, image: "", pull: Pull::Without, files, tailoring: None, confinement };
    let objects = manifests::deployment(&source, &values)?;
    let mut secret =
        objects.into_iter().find(manifests::Object::is_secret).context("the manifest has no Secret")?;
    secret.mark_as_deploys();
    let (config, manifest) = (folder.join(CONFIG), folder.join(SECRET));
    let text = files.expose().find(|(name, _)| *name == CONFIG).map(|(_, text)| text).unwrap_or_default();
    write_private(&config, text)?;
    write_private(&manifest, render::documents(&[secret])?.as_bytes())?;
    println!(
        "{} (the runtime's configuration, as it is in the Secret; readable by you alone)",
        config.display()
    );
    println!("{} (the Secret; readable by you alone)", manifest.display());
    eprintln!(
        "next: kubectl apply --server-side --field-manager kedge -f {}, and start the pod anew where it runs already; a later \
         `cargo xtask deploy` takes the Secret up. Without `--server-side`, kubectl would keep a copy of the keys in an annotation",
        quote(manifest.as_os_str())
    );
    Ok(())
}
