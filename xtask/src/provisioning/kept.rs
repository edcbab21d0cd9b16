//! The credentials that a user has given, kept in one private file of the state folder until they are removed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use kedge_sim::secret::{Secret, without_quoted_text};
use serde::Deserialize;
use serde_json::{Value, json};

use super::check::{Checked, DeviceDraft, Draft, Given, IdentityDraft, RegistrationDraft};
use super::{Device, Origin, Provisioning, Registration};
use crate::paths::{Paths, write_private};
use crate::settings::{Hub, Runtime, Settings};

/// Credentials of the device, with what goes with them.
#[derive(Debug, Clone)]
pub struct Kept {
    /// How the device comes to its identity.
    pub provisioning: Provisioning,
    /// Certificates that modules are to trust besides the Edge CA, PEM.
    pub trust_bundle: Option<String>,
}

/// The kept credentials are not those that are needed; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// They lead to another hub than the local one.
    #[error(
        "the kept credentials are for {0}, and the edge is to connect to the local hub {1}; use `--hub azure`, or \
         `cargo xtask device remove`"
    )]
    Elsewhere(String, String),
    /// They lead to the local hub.
    #[error(
        "the kept credentials are for the local hub {0}, and the edge is to connect to yours; use `--hub local`, or give \
         other ones: `cargo xtask device --help`"
    )]
    Local(String),
    /// The key is in a security chip, which the simulated runtime does not use.
    #[error(
        "the kept credentials are in a TPM (dps-tpm), which the simulated runtime cannot use; use `--runtime azure`, or give \
         other ones: `cargo xtask device --help`"
    )]
    WithoutTpm,
    /// There are none.
    #[error(
        "there are no credentials of a device in your hub; give them, for example by `cargo xtask device \
         connection-string --from FILE`; `cargo xtask device --help` has the other kinds"
    )]
    Missing,
}

/// The folder of the kept credentials.
#[must_use]
pub fn folder(paths: &Paths) -> PathBuf {
    paths.state.join("device")
}

fn file(paths: &Paths) -> PathBuf {
    folder(paths).join("credentials.json")
}

/// Reads the kept credentials, and checks them as they are now.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn kept(paths: &Paths) -> Result<Option<Checked>> {
    let path = file(paths);
    match fs_err::read(&path) {
        Ok(bytes) => read(&path, &bytes).map(Some),
        // Where no folder can be, nothing is kept; what needs the folder tells of it.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes the kept credentials; tells whether there were some.
///
/// # Errors
/// When they cannot be removed.
pub fn forget(paths: &Paths) -> std::io::Result<bool> {
    match fs_err::remove_dir_all(folder(paths)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read(path: &Path, bytes: &[u8]) -> Result<Checked> {
    let place = path.display().to_string();
    let damaged = || format!("`{place}` is damaged; give the credentials anew: `cargo xtask device --help`");
    // What the reader quotes may be a secret in a wrong place.
    let read: Result<File> =
        serde_json::from_slice(bytes).map_err(|error| anyhow!("{}", without_quoted_text(&error.to_string())));
    let file = read.with_context(damaged)?;
    let bundle = file.trust_bundle.as_ref().map(|bundle| Given::new(place.as_str(), bundle.as_str()));
    let draft =
        file.draft(&place).ok_or_else(|| anyhow!("something is missing in it")).with_context(damaged)?;
    Ok(draft.check(bundle.as_ref(), Timestamp::now()))
}

/// As it is in the file. Which of them are there depends on the kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kind: String,
    host_name: Option<String>,
    device_id: Option<String>,
    global_endpoint: Option<String>,
    id_scope: Option<String>,
    registration_id: Option<String>,
    /// Base64.
    key: Option<Secret>,
    certificate: Option<String>,
    private_key: Option<Secret>,
    trust_bundle: Option<String>,
}

impl File {
    fn draft(self, place: &str) -> Option<Draft> {
        let given = |text: String| Given::new(place, text);
        let secret = |text: Option<Secret>| Some(Given::new(place, text?.expose()));
        let key = || secret(self.key.clone());
        let device = || {
            Some(DeviceDraft {
                host_name: given(self.host_name.clone()?),
                device_id: given(self.device_id.clone()?),
            })
        };
        let registration = || {
            Some(RegistrationDraft {
                global_endpoint: given(self.global_endpoint.clone()?),
                id_scope: given(self.id_scope.clone()?),
                registration_id: Some(given(self.registration_id.clone()?)),
                device_id: self.device_id.clone().map(given),
            })
        };
        let identity = || {
            Some(IdentityDraft {
                certificate: given(self.certificate.clone()?),
                key: secret(self.private_key.clone())?,
            })
        };
        Some(match self.kind.as_str() {
            "connection-string" => Draft::ConnectionString(key()?),
            "sas" => Draft::ManualSas(device()?, key()?),
            "x509" => Draft::ManualX509(device()?, identity()?),
            "dps-symmetric-key" => {
                Draft::DpsSymmetricKey { registration: registration()?, key: key()?, is_of_group: false }
            }
            "dps-x509" => Draft::DpsX509(registration()?, identity()?),
            "dps-tpm" => Draft::DpsTpm(registration()?),
            _ => return None,
        })
    }
}

impl Kept {
    /// Keeps them in the place of those that are there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, paths: &Paths) -> Result<()> {
        write_private(&file(paths), self.to_json().to_string().as_bytes())
    }

    fn to_json(&self) -> Value {
        let provisioning = &self.provisioning;
        let mut json = match provisioning.origin() {
            Origin::Manual(Device { host_name, device_id }) => {
                json!({ "host_name": host_name, "device_id": device_id })
            }
            Origin::Dps(Registration { global_endpoint, id_scope, registration_id, device_id }) => json!({
                "global_endpoint": global_endpoint,
                "id_scope": id_scope,
                "registration_id": registration_id,
                "device_id": device_id,
            }),
        };
        json["kind"] = provisioning.kind().into();
        if let Some(text) = provisioning.connection_string() {
            // It has the rest in it.
            return json!({ "kind": provisioning.kind(), "key": text.expose(), "trust_bundle": self.trust_bundle });
        }
        if let Some(key) = provisioning.key() {
            json["key"] = key.to_base64().expose().into();
        }
        if let Some(identity) = provisioning.identity() {
            json["certificate"] = identity.chain_pem.as_str().into();
            json["private_key"] = identity.key_pem.expose().into();
        }
        json["trust_bundle"] = self.trust_bundle.clone().into();
        json
    }

    /// Whether they lead to the local hub of these settings.
    #[must_use]
    pub fn are_for_local_hub(&self, settings: &Settings) -> bool {
        self.provisioning.host_name().eq_ignore_ascii_case(&settings.hub.host_name)
    }

    /// Whether the runtime of these settings cannot use them.
    #[must_use]
    pub fn need_another_runtime(&self, settings: &Settings) -> bool {
        settings.runtime.kind == Runtime::Simulated
            && matches!(self.provisioning, Provisioning::DpsTpm { .. })
    }
}

/// The credentials with which the edge is to connect; `None` when the local hub makes its own.
///
/// # Errors
/// [`Unfit`] when they lead elsewhere, the runtime cannot use them, or there are none; [`super::UnusableCredentials`] when something is wrong with
/// them; else when they cannot be read.
pub fn wanted(paths: &Paths, settings: &Settings) -> Result<Option<Kept>> {
    let Some(checked) = kept(paths)? else {
        fit(None, settings)?;
        return Ok(None);
    };
    // Where they lead is told even when something else is wrong with them, since then it does not matter.
    if checked.kept.is_some() {
        fit(checked.kept.as_ref(), settings)?;
    }
    if checked.kept.as_ref().is_some_and(|kept| kept.need_another_runtime(settings)) {
        return Err(Unfit::WithoutTpm.into());
    }
    Ok(Some(checked.usable()?))
}

/// Whether the edge can connect with these credentials to the hub of these settings.
///
/// # Errors
/// [`Unfit`].
pub fn fit(kept: Option<&Kept>, settings: &Settings) -> Result<(), Unfit> {
    let local = &settings.hub.host_name;
    match (settings.hub.kind, kept) {
        (Hub::Local, Some(kept)) if !kept.are_for_local_hub(settings) => {
            Err(Unfit::Elsewhere(kept.provisioning.host_name().into(), local.clone()))
        }
        (Hub::Azure, Some(kept)) if kept.are_for_local_hub(settings) => Err(Unfit::Local(local.clone())),
        (Hub::Azure, None) => Err(Unfit::Missing),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "kept/tests.rs"]
mod tests;
