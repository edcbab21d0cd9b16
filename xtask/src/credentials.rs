//! The secrets of a deployment: made once, kept in one private file in the state folder, never printed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use kedge_sim::pki::CertificateAuthority;
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::secret::{Secret, without_quoted_text};
use serde::Deserialize;

use crate::engine::Login;
use crate::paths::write_private;

/// As long as its authority: it ends with the deployment.
const VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The secrets of one deployment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The host name that the hub's certificate is for.
    pub hub_host_name: String,
    /// Certificate of the authority that issued the hub's certificate, PEM. Not a secret.
    pub hub_ca: String,
    /// The hub's certificate chain, PEM. Not a secret.
    pub hub_certificate: String,
    /// The private key of the hub's certificate, PEM.
    pub hub_key: Secret,
    /// The key of the hub's owner policy, base64.
    pub owner_key: Secret,
    /// The password of the registry.
    pub registry_password: Secret,
}

impl Credentials {
    /// The user that may log in at the registry.
    pub const REGISTRY_USER: &'static str = "kedge";

    fn file(state: &Path) -> PathBuf {
        state.join("credentials.json")
    }

    /// Reads the secrets, or makes new ones, which nobody keeps yet.
    ///
    /// # Errors
    /// When the file exists and cannot be used.
    pub fn load_or_make(state: &Path, hub_host_name: &str) -> Result<Self> {
        match Self::load(state)?.filter(|kept| kept.hub_host_name == hub_host_name) {
            Some(kept) => Ok(kept),
            None => Self::create(hub_host_name),
        }
    }

    /// Keeps the secrets, unless they are kept already.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, state: &Path) -> Result<()> {
        let text = serde_json::json!({
            "hub_host_name": self.hub_host_name,
            "hub_ca": self.hub_ca,
            "hub_certificate": self.hub_certificate,
            "hub_key": self.hub_key.expose(),
            "owner_key": self.owner_key.expose(),
            "registry_password": self.registry_password.expose(),
        });
        let (path, text) = (Self::file(state), text.to_string());
        if fs_err::read(&path).is_ok_and(|kept| kept == text.as_bytes()) {
            return Ok(());
        }
        write_private(&path, text.as_bytes())
    }

    /// Reads the secrets; `None` when there are none, because nothing is up.
    ///
    /// # Errors
    /// When the file exists and cannot be used.
    pub fn load(state: &Path) -> Result<Option<Self>> {
        let path = Self::file(state);
        let damaged = || format!("`{}` is damaged; run `cargo xtask down` and begin again", path.display());
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                return Err(error).with_context(damaged);
            }
            Err(error) => return Err(error.into()),
        };
        // What the reader quotes may be a secret in a wrong place.
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| anyhow!("{}", without_quoted_text(&error.to_string())))
            .with_context(damaged)
    }

    fn create(hub_host_name: &str) -> Result<Self> {
        let authority = CertificateAuthority::generate("KEdge local hub CA")?;
        let names = [hub_host_name, "localhost", "127.0.0.1"];
        let issued = authority.issue_server(&names, VALIDITY)?;
        let mut password = [0u8; 24];
        getrandom::fill(&mut password).context("the system gives no random numbers")?;
        Ok(Self {
            hub_host_name: hub_host_name.to_owned(),
            hub_ca: authority.certificate_pem().to_owned(),
            hub_certificate: issued.chain_pem.clone(),
            hub_key: issued.key_pem.clone(),
            owner_key: SharedAccessKey::generate()?.to_base64(),
            registry_password: Secret::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(password)),
        })
    }

    /// The same text with every secret of the deployment, in each form in which it travels, taken out; of a
    /// connection string the key, whoever made it.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let password = self.registry_password.expose();
        let login =
            base64::engine::general_purpose::STANDARD.encode(format!("{}:{password}", Self::REGISTRY_USER));
        let mut text = text.to_owned();
        for secret in [self.owner_key.expose(), self.hub_key.expose().trim(), password, &login] {
            text = text.replace(secret, "[redacted]");
        }
        let mut parts = text.split("SharedAccessKey=");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |redacted, part| {
            let key =
                part.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)).count();
            redacted + "SharedAccessKey=[redacted]" + &part[key..]
        })
    }

    /// The login at the registry.
    #[must_use]
    pub fn registry_login(&self) -> Login {
        Login { username: Self::REGISTRY_USER.into(), password: self.registry_password.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_kept_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        assert!(Credentials::load(&state).unwrap().is_none());
        let first = Credentials::load_or_make(&state, "hub.test").unwrap();
        assert!(!state.exists(), "nothing is kept before it is used");
        first.keep(&state).unwrap();
        let second = Credentials::load_or_make(&state, "hub.test").unwrap();
        assert_eq!(first.owner_key, second.owner_key);
        let mode = fs_err::metadata(Credentials::file(&state)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(first.registry_password.expose()));
    }

    #[test]
    fn secrets_are_redacted_in_every_form() {
        let made = Credentials::create("hub.test").unwrap();
        let password = made.registry_password.expose();
        let login = base64::engine::general_purpose::STANDARD.encode(format!("kedge:{password}"));
        let text = format!(
            "a {password} b {login} c HostName=h;SharedAccessKey=a+b/c=;x {} d",
            made.owner_key.expose()
        );
        assert_eq!(
            made.redact(&text),
            "a [redacted] b [redacted] c HostName=h;SharedAccessKey=[redacted];x [redacted] d"
        );
    }

    #[test]
    fn another_host_name_needs_another_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let first = Credentials::load_or_make(folder.path(), "hub.test").unwrap();
        first.keep(folder.path()).unwrap();
        let second = Credentials::load_or_make(folder.path(), "other.test").unwrap();
        assert_ne!(first.hub_certificate, second.hub_certificate);
    }

    #[test]
    fn a_damaged_file_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(Credentials::file(folder.path()), "{").unwrap();
        let error = Credentials::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("cargo xtask down"), "{error}");
    }
}
