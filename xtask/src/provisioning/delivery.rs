//! The Secret for one edge: the device's credentials, in the configuration of the runtime that is to use them.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{CONFIG, HUB_CA, Kept, SecretFiles, TRUST_BUNDLE};
use crate::edge_config::{self, Filled};
use crate::plan::Shape;
use crate::settings::{Hub, Runtime, Settings};

/// What the Secret is made of.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// The credentials, of whatever making.
    pub kept: &'a Kept,
    /// Which hub and which runtime.
    pub settings: &'a Settings,
    /// The runtime's configuration without credentials, as it is in the user's file.
    pub config: &'a str,
    /// The deployment manifest, filled in.
    pub deployment: &'a Filled,
    /// The authority of the local hub's certificate, when that is up.
    pub hub_ca: Option<&'a str>,
}

impl Delivery<'_> {
    /// The files of the Secret.
    ///
    /// # Errors
    /// When the runtime's configuration cannot be used.
    pub fn files(&self) -> Result<SecretFiles> {
        let (settings, shape) = (self.settings, self.settings.shape());
        let config = edge_config::with_agent(self.config, self.deployment, settings.supply(), shape)?;
        match self.hub_ca.filter(|_| shape.hub == Hub::Local) {
            Some(authority) => self.kept.files_for_local_hub(config.expose(), shape.runtime, authority),
            None => self.kept.files(config.expose()),
        }
    }
}

/// The names of the files that the Secret will have. Without credentials the local hub makes some, a connection string.
#[must_use]
pub fn delivered(kept: Option<&Kept>, shape: Shape) -> BTreeSet<String> {
    let files = kept.and_then(|kept| kept.files("").ok());
    let mut names: BTreeSet<String> = files.iter().flat_map(SecretFiles::names).map(str::to_owned).collect();
    names.insert(CONFIG.into());
    if shape.hub == Hub::Local {
        names.insert(HUB_CA.into());
    }
    if shape == (Shape { hub: Hub::Local, runtime: Runtime::Azure }) {
        names.insert(TRUST_BUNDLE.into());
    }
    names
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::edge_config::Filling;
    use crate::provisioning::{Draft, Given};

    #[test]
    fn only_what_needs_the_authority_of_the_local_hub_gets_it() {
        let text = "HostName=h;DeviceId=d;SharedAccessKey=QUJDREVGR0hJSktMTU5PUFFSU1RVVldY";
        let draft = Draft::ConnectionString(Given::new("test", text));
        let kept = draft.check(None, Timestamp::now()).usable().unwrap();
        for (hub, runtime, names) in [
            (Hub::Local, Runtime::Simulated, &["config.toml", HUB_CA][..]),
            (Hub::Local, Runtime::Azure, &["config.toml", HUB_CA, TRUST_BUNDLE]),
            (Hub::Azure, Runtime::Simulated, &["config.toml"]),
            (Hub::Azure, Runtime::Azure, &["config.toml"]),
        ] {
            let mut settings = Settings::default();
            (settings.hub.kind, settings.runtime.kind) = (hub, runtime);
            let filling = Filling { sensor: None, supply: settings.supply(), shape: settings.shape() };
            let deployment =
                edge_config::deployment(include_str!("../../../config/deployment.json"), &filling).unwrap();
            let config = include_str!("../../../config/config.toml");
            let delivery = Delivery {
                kept: &kept,
                settings: &settings,
                config,
                deployment: &deployment,
                hub_ca: Some("CA\n"),
            };
            let files = delivery.files().unwrap();
            assert_eq!(files.names().collect::<Vec<_>>(), names);
            assert!(delivered(Some(&kept), settings.shape()).iter().eq(names));
            assert!(delivered(None, settings.shape()).iter().eq(names));
        }
    }
}
