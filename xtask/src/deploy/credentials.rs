//! The device's credentials for a cluster of somebody else: those that the user has given.

use anyhow::{Context as _, Result};

use crate::credentials::Credentials;
use crate::edge_config::{self, Filling};
use crate::exit::Usage;
use crate::provisioning::{self, Delivery, SecretFiles};
use crate::session::Setup;
use crate::settings::Hub;

/// The files of the Secret.
///
/// # Errors
/// When no credentials are kept, they cannot be used, or the runtime's configuration cannot.
pub fn files(setup: &Setup) -> Result<SecretFiles> {
    let (paths, settings) = (&setup.paths, &setup.settings);
    let kept = provisioning::wanted(paths, settings)?.ok_or_else(|| {
        Usage(
            "there are no credentials of a device to deploy; give them with `cargo xtask device`, and name the hub with \
             `--hub azure` or `use` in [hub] of the settings"
                .into(),
        )
    })?;
    let read = |path: &str| fs_err::read_to_string(paths.project.join(path));
    let filling = Filling { sensor: None, supply: settings.supply(), shape: settings.shape() };
    let deployment = edge_config::deployment(&read(&settings.device.deployment)?, &filling)?;
    let config = read(&settings.device.config)?;
    let local = match settings.hub.kind {
        Hub::Azure => None,
        Hub::Local => Some(
            Credentials::load(&paths.state)?
                .context("the local hub is not up; run `cargo xtask hub` first")?,
        ),
    };
    let hub_ca = local.as_ref().map(|local| local.hub_ca.as_str());
    Delivery { kept: &kept, settings, config: &config, deployment: &deployment, hub_ca }.files()
}
