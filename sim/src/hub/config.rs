//! The configuration of the hub: a small file, and the secrets that it names.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use serde::Deserialize;

use super::Retention;
use crate::identity::validate_id;
use crate::sas::SharedAccessKey;
use crate::secret::Secret;
use crate::tls;
use crate::x509::Authorities;

/// The id scope of a hub whose configuration names none.
pub const DEFAULT_ID_SCOPE: &str = "0neKEDGE";

/// What the hub needs to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name that tokens are for and that clients connect to.
    pub host_name: String,
    /// Certificate and key of that name.
    pub tls: Arc<ServerConfig>,
    /// The key of the `iothubowner` policy.
    pub owner_key: SharedAccessKey,
    /// Where the hub keeps its state; made when it is missing.
    pub state_folder: PathBuf,
    /// Authorities that may issue the certificates of devices, as PEM.
    pub device_ca: Option<String>,
    /// The id scope of the provisioning service.
    pub id_scope: String,
    /// How much telemetry is kept.
    pub retention: Retention,
}

/// `hub.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The name that tokens are for and that clients connect to.
    pub host_name: String,
    /// Where HTTPS listens.
    #[serde(default = "default_https")]
    pub https: SocketAddr,
    /// Where MQTT over TLS listens.
    #[serde(default = "default_mqtt")]
    pub mqtt: SocketAddr,
    /// PEM file with the certificate of `host_name`, followed by its issuers.
    pub certificate_file: PathBuf,
    /// PEM file with the key of the certificate.
    pub key_file: PathBuf,
    /// File with the base64 key of the `iothubowner` policy.
    pub owner_key_file: PathBuf,
    /// Where the hub keeps its state.
    #[serde(default = "default_state_folder")]
    pub state_folder: PathBuf,
    /// PEM file with the authorities that may issue the certificates of devices; services may add others.
    pub device_ca_file: Option<PathBuf>,
    /// The id scope of the provisioning service.
    #[serde(default = "default_id_scope")]
    pub id_scope: String,
    /// About how many messages of telemetry are kept.
    #[serde(default = "default_telemetry_messages")]
    pub telemetry_max_messages: NonZeroU64,
    /// About how many bytes of telemetry are kept.
    #[serde(default = "default_telemetry_bytes")]
    pub telemetry_max_bytes: NonZeroU64,
}

fn default_id_scope() -> String {
    DEFAULT_ID_SCOPE.to_owned()
}

fn default_telemetry_messages() -> NonZeroU64 {
    NonZeroU64::new(Retention::default().messages).unwrap_or(NonZeroU64::MAX)
}

fn default_telemetry_bytes() -> NonZeroU64 {
    NonZeroU64::new(Retention::default().bytes).unwrap_or(NonZeroU64::MAX)
}

fn default_https() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 443))
}

fn default_mqtt() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8883))
}

fn default_state_folder() -> PathBuf {
    PathBuf::from("/var/lib/kedge-hub")
}

impl ConfigFile {
    /// Reads the file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs_err::read_to_string(path)?;
        toml::from_str(&text).with_context(|| format!("{} is not a hub configuration", path.display()))
    }

    /// Reads the files that it names.
    pub fn load(&self) -> anyhow::Result<Config> {
        validate_id(&self.host_name).context("host_name is not a host name")?;
        let chain = fs_err::read_to_string(&self.certificate_file)?;
        let key = Secret::new(fs_err::read_to_string(&self.key_file)?);
        let tls = tls::server_config(&chain, &key)
            .with_context(|| format!("cannot use the certificate {}", self.certificate_file.display()))?;
        let owner_key = SharedAccessKey::from_base64(&fs_err::read_to_string(&self.owner_key_file)?)
            .with_context(|| format!("cannot use the key in {}", self.owner_key_file.display()))?;
        let device_ca = self.device_ca_file.as_deref().map(read_authorities).transpose()?;
        let (host_name, state_folder) = (self.host_name.clone(), self.state_folder.clone());
        validate_id(&self.id_scope).context("id_scope is not an id scope")?;
        let id_scope = self.id_scope.clone();
        let (messages, bytes) = (self.telemetry_max_messages.get(), self.telemetry_max_bytes.get());
        let retention = Retention { messages, bytes };
        Ok(Config { host_name, tls, owner_key, state_folder, device_ca, id_scope, retention })
    }
}

fn read_authorities(path: &Path) -> anyhow::Result<String> {
    let text = fs_err::read_to_string(path)?;
    Authorities::from_pem([text.as_str()])
        .with_context(|| format!("cannot use the authorities in {}", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pki::CertificateAuthority;

    fn write_files(folder: &Path, extra: &str) -> PathBuf {
        let authority = CertificateAuthority::generate("test CA").unwrap();
        let issued = authority.issue_server(&["hub.test"], Duration::from_secs(3600)).unwrap();
        let file = |name: &str, text: &str| {
            fs_err::write(folder.join(name), text).unwrap();
            folder.join(name)
        };
        let (certificate, key) = (file("c.pem", &issued.chain_pem), file("k.pem", issued.key_pem.expose()));
        let owner = file("owner.key", "b3duZXIga2V5\n");
        let text = format!(
            "host_name = \"hub.test\"\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n\
             owner_key_file = {owner:?}\n{extra}"
        );
        file("hub.toml", &text)
    }

    #[test]
    fn a_file_is_read_with_the_ports_of_iot_hub_as_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = ConfigFile::read(&write_files(folder.path(), "")).unwrap();
        assert_eq!((file.https.port(), file.mqtt.port()), (443, 8883));
        let config = file.load().unwrap();
        assert_eq!((config.host_name.as_str(), config.retention), ("hub.test", Retention::default()));
        let limits = "telemetry_max_messages = 7\ntelemetry_max_bytes = 9";
        let file = ConfigFile::read(&write_files(folder.path(), limits)).unwrap();
        assert_eq!(file.load().unwrap().retention, Retention { messages: 7, bytes: 9 });
        let file = ConfigFile::read(&write_files(folder.path(), "mqtt = \"127.0.0.1:0\"")).unwrap();
        assert_eq!(file.mqtt, "127.0.0.1:0".parse().unwrap());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", ConfigFile::read(&write_files(folder.path(), "typo = 1")).unwrap_err());
        assert!(error.contains("hub.toml") && error.contains("typo"), "{error}");
        let nothing_kept = write_files(folder.path(), "telemetry_max_messages = 0");
        let error = format!("{:#}", ConfigFile::read(&nothing_kept).unwrap_err());
        assert!(error.contains("telemetry_max_messages"), "{error}");
        let file = ConfigFile::read(&write_files(folder.path(), "")).unwrap();
        let load = |file: ConfigFile| format!("{:#}", file.load().unwrap_err());
        assert!(load(ConfigFile { host_name: "a/b".into(), ..file.clone() }).contains("host_name"));
        let missing = folder.path().join("missing");
        assert!(load(ConfigFile { key_file: missing.clone(), ..file.clone() }).contains("missing"));
        let swapped = ConfigFile { certificate_file: file.owner_key_file.clone(), ..file.clone() };
        assert!(load(swapped).contains("owner.key"));
        let no_authority = ConfigFile { device_ca_file: Some(file.key_file.clone()), ..file.clone() };
        assert!(load(no_authority).contains("authorities in"));
        let swapped = ConfigFile { owner_key_file: file.key_file.clone(), ..file };
        let error = load(swapped);
        assert!(error.contains("k.pem") && !error.contains("PRIVATE"), "{error}");
    }
}
