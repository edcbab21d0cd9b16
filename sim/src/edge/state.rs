//! What the runtime keeps across restarts: the master key of the module identities and the Edge CA.
//!
//! Both are made on the first start. A file that is there but cannot be used is an error and is never
//! replaced silently, because modules and downstream devices depend on it.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::backup::Backup;
use super::provisioning::Assignment;
use super::seal::{self, Sealer};
use crate::pki::CertificateAuthority;
use crate::random;
use crate::sas::{SasError, SharedAccessKey};
use crate::secret::Secret;

/// Where the state is kept.
pub const DEFAULT_FOLDER: &str = "/var/lib/aziot";
const MASTER_KEY_BYTES: usize = 32;

/// The state folder, with the file names of the real services where they have one.
#[derive(Debug, Clone)]
pub struct StateFolder(PathBuf);

impl StateFolder {
    /// Uses `path`; nothing is made before it is needed.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Folder of the modules' workload sockets.
    #[must_use]
    pub fn workload_sockets(&self) -> PathBuf {
        self.0.join("edged/mnt")
    }

    /// What the provisioning service has said the last time. What cannot be read is asked for again.
    pub(super) fn assignment(&self) -> Option<Assignment> {
        let bytes = read_if_there(&self.0.join("identityd/device_info")).ok()??;
        toml::from_str(std::str::from_utf8(&bytes).ok()?).ok()
    }

    pub(super) fn keep_assignment(&self, assignment: &Assignment) -> anyhow::Result<()> {
        let text = toml::to_string(assignment)?;
        Ok(write_private(&self.0.join("identityd/device_info"), text.as_bytes())?)
    }

    /// What the device falls back on while the hub is away.
    #[must_use]
    pub fn backup(&self, hub_name: &str, device_id: &str) -> Backup {
        Backup::new(&self.0, hub_name, device_id)
    }

    /// The gateway's store. Messages of another device, or for another hub, stay in a file of their own.
    #[must_use]
    pub fn message_store(&self, hub_name: &str, device_id: &str) -> PathBuf {
        use sha2::{Digest as _, Sha256};

        let owner = Sha256::digest(format!("{}/{device_id}", hub_name.to_lowercase()));
        let name: String = owner.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        self.0.join(format!("edgehub/{name}.db"))
    }

    /// The key from which the keys of all module identities are derived.
    pub fn master_key(&self) -> anyhow::Result<SharedAccessKey> {
        let path = self.0.join("keyd/aziot_identityd_master_id");
        let bytes = kept_key::<MASTER_KEY_BYTES>(&path)?;
        SharedAccessKey::from_bytes(bytes).with_context(|| format!("{} is not a key", path.display()))
    }

    /// The key by which modules have their data encrypted.
    pub fn sealer(&self) -> anyhow::Result<Sealer> {
        let path = self.0.join("keyd/iotedge_master_encryption_id");
        let bytes = kept_key::<{ seal::KEY_BYTES }>(&path)?;
        Sealer::new(&bytes).with_context(|| format!("{} is not a key", path.display()))
    }

    /// The authority that issues the gateway's certificate.
    pub fn edge_ca(&self, device_id: &str) -> anyhow::Result<CertificateAuthority> {
        let certificate_path = self.0.join("certd/aziot-edged-ca.pem");
        let key_path = self.0.join("keyd/aziot-edged-ca.pem");
        match (read_if_there(&certificate_path)?, read_if_there(&key_path)?) {
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (String::from_utf8(certificate)?, String::from_utf8(key)?);
                CertificateAuthority::load(&certificate, &Secret::new(key))
                    .with_context(|| format!("the Edge CA in {} cannot be used", self.0.display()))
            }
            (Some(_), None) => anyhow::bail!("the key of the Edge CA is missing: {}", key_path.display()),
            // Nobody trusts a key whose certificate was never written.
            (None, _) => {
                let authority = CertificateAuthority::generate(&format!("aziot-edge CA {device_id}"))?;
                // The key goes first: a certificate without its key would look complete and be useless.
                write_private(&key_path, authority.key_pem().expose().as_bytes())?;
                write_private(&certificate_path, authority.certificate_pem().as_bytes())?;
                Ok(authority)
            }
        }
    }
}

/// The bytes of the file, which is made at the first time.
fn kept_key<const LENGTH: usize>(path: &Path) -> anyhow::Result<Vec<u8>> {
    if let Some(bytes) = read_if_there(path)? {
        return Ok(bytes);
    }
    let bytes: [u8; LENGTH] =
        random::bytes().map_err(|_| SasError::NoRandomness).context("failed to make a key")?;
    write_private(path, &bytes)?;
    Ok(bytes.to_vec())
}

pub(super) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file that only its owner can read, completely or not at all.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;

    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    let mut file = fs_err::OpenOptions::new();
    fs_err::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    let mut file = file.write(true).create(true).truncate(true).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs_err::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_master_key_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        let made = state.master_key().unwrap();
        assert_eq!(state.master_key().unwrap(), made);
        let sealed = state.sealer().unwrap().seal(b"m", b"v", b"text".to_vec()).unwrap();
        assert_eq!(state.sealer().unwrap().open(b"m", b"v", sealed).unwrap(), b"text");
        let mode =
            std::fs::metadata(folder.path().join("keyd/aziot_identityd_master_id")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn the_edge_ca_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        let made = state.edge_ca("d").unwrap();
        assert_eq!(state.edge_ca("d").unwrap().certificate_pem(), made.certificate_pem());
    }

    #[test]
    fn damaged_state_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        state.master_key().unwrap();
        fs_err::write(folder.path().join("keyd/aziot_identityd_master_id"), "").unwrap();
        assert!(state.master_key().unwrap_err().to_string().contains("aziot_identityd_master_id"));
        state.edge_ca("d").unwrap();
        fs_err::write(folder.path().join("certd/aziot-edged-ca.pem"), "junk").unwrap();
        assert!(state.edge_ca("d").is_err());
        fs_err::remove_file(folder.path().join("keyd/aziot-edged-ca.pem")).unwrap();
        let error = state.edge_ca("d").err().unwrap().to_string();
        assert!(error.contains("keyd/aziot-edged-ca.pem"), "{error}");
    }
}
