//! The runtime's whole configuration, as `iotedge config apply` reads it: the user's file, and the table
//! `[provisioning]` of the device.

use anyhow::{Context as _, Result, bail};
use kedge_sim::secret::Secret;
use toml::{Table, Value};

use super::files::{DEVICE_KEY, HUB_CA, IDENTITY_CERTIFICATE, IDENTITY_KEY, SecretFiles, TRUST_BUNDLE};
use super::{Device, Identity, Kept, Origin, Provisioning, Registration};
use crate::settings::Runtime;

/// Where the image puts the files of the Secret, for the users of the runtime's services. It is in memory.
pub(crate) const FOLDER: &str = "file:///var/secrets/kedge";

impl Kept {
    /// The files of the Secret, for a device whose configuration without its credentials is `base`.
    ///
    /// # Errors
    /// When `base` is not TOML, or brings credentials of its own.
    pub fn files(&self, base: &str) -> Result<SecretFiles> {
        let provisioning = &self.provisioning;
        let mut config = without_credentials(base)?;
        config.insert("provisioning".into(), provisioning.table().into());
        if self.trust_bundle.is_some() && config.insert(TRUST.into(), uri(TRUST_BUNDLE)).is_some() {
            bail!(
                "both the runtime's configuration and the kept credentials have a trust bundle; leave out one"
            );
        }
        let text = toml::to_string(&config).context("failed to write the runtime's configuration")?;
        let mut files = SecretFiles::new(&Secret::new(text));
        if let (Some(key), false) = (provisioning.key(), provisioning.is_in_the_text()) {
            files = files.with(DEVICE_KEY, key.expose());
        }
        if let Some(Identity { chain_pem, key_pem, .. }) = provisioning.identity() {
            files = files.with(IDENTITY_CERTIFICATE, chain_pem.as_str()).with(IDENTITY_KEY, key_pem.expose());
        }
        Ok(match &self.trust_bundle {
            Some(bundle) => files.with(TRUST_BUNDLE, bundle.as_str()),
            None => files,
        })
    }
}

impl Kept {
    /// The files of the Secret for the local hub, whose certificate is from `authority`. Microsoft's agent, its gateway and
    /// modules do not look for that in the system's store, but in the trust bundle.
    ///
    /// # Errors
    /// As [`Kept::files`].
    pub fn files_for_local_hub(&self, base: &str, runtime: Runtime, authority: &str) -> Result<SecretFiles> {
        let mut kept = self.clone();
        if runtime == Runtime::Azure {
            let own = kept.trust_bundle.as_deref().unwrap_or_default().trim_end();
            let separator = if own.is_empty() { "" } else { "\n" };
            kept.trust_bundle = Some(format!("{own}{separator}{authority}"));
        }
        Ok(kept.files(base)?.with(HUB_CA, authority))
    }
}

const TRUST: &str = "trust_bundle_cert";

fn without_credentials(base: &str) -> Result<Table> {
    // The reader's own message shows the line.
    let config: Table = base.parse().ok().context("the runtime's configuration is not TOML")?;
    if config.contains_key("provisioning") {
        bail!(
            "the runtime's configuration has a [provisioning] table; KEdge makes it, so that no credential is in the \
             project"
        );
    }
    Ok(config)
}

impl Provisioning {
    /// Whether the key stands in the configuration itself.
    fn is_in_the_text(&self) -> bool {
        matches!(self, Self::ConnectionString { .. })
    }

    /// The connection string, for the one kind that has it.
    pub(super) fn connection_string(&self) -> Option<Secret> {
        let Self::ConnectionString { device: Device { host_name, device_id }, key } = self else {
            return None;
        };
        let key = key.to_base64();
        Some(Secret::new(format!(
            "HostName={host_name};DeviceId={device_id};SharedAccessKey={}",
            key.expose()
        )))
    }

    fn table(&self) -> Table {
        if let Some(text) = self.connection_string() {
            return table([("source", "manual".into()), ("connection_string", text.expose().into())]);
        }
        match self.origin() {
            Origin::Manual(Device { host_name, device_id }) => table([
                ("source", "manual".into()),
                ("iothub_hostname", host_name.as_str().into()),
                ("device_id", device_id.as_str().into()),
                ("authentication", self.proof("sas", "device_id_pk").into()),
            ]),
            Origin::Dps(Registration { global_endpoint, id_scope, registration_id, .. }) => {
                let mut attestation = self.proof("symmetric_key", "symmetric_key");
                attestation.insert("registration_id".into(), registration_id.as_str().into());
                table([
                    ("source", "dps".into()),
                    ("global_endpoint", global_endpoint.as_str().into()),
                    ("id_scope", id_scope.as_str().into()),
                    ("attestation", attestation.into()),
                ])
            }
        }
    }

    /// What the device proves itself by. How a symmetric key is called differs.
    fn proof(&self, method: &str, key: &str) -> Table {
        if self.key().is_some() {
            table([("method", method.into()), (key, table([("uri", uri(DEVICE_KEY))]).into())])
        } else if self.identity().is_some() {
            table([
                ("method", "x509".into()),
                ("identity_cert", uri(IDENTITY_CERTIFICATE)),
                ("identity_pk", uri(IDENTITY_KEY)),
            ])
        } else {
            table([("method", "tpm".into())])
        }
    }
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn uri(name: &str) -> Value {
    format!("{FOLDER}/{name}").into()
}
