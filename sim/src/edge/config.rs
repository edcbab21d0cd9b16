//! `/etc/aziot/config.toml`, the file that configures the whole runtime.
//!
//! The same file serves Microsoft's runtime, so settings that have no meaning here are named in a
//! notice instead of being refused; settings that would change what the device trusts or how it
//! authenticates are refused, because a substitute would be a silent lie. No error quotes a line of
//! the file: it holds the device key.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::connection_string::{ConnectionString, parse_key};
use crate::identity::validate_id;
use crate::sas::SharedAccessKey;
use crate::secret::{Secret, without_quoted_text};

/// The exit status of the real daemon for bad settings; its unit tells systemd not to restart on it.
pub const EXIT_BAD_SETTINGS: u8 = 153;

/// Where the file is looked for.
pub const DEFAULT_PATH: &str = "/etc/aziot/config.toml";

const DEFAULT_ENGINE_URI: &str = "unix:///var/run/docker.sock";
const DEFAULT_NETWORK: &str = "azure-iot-edge";
const SUPPORTED: [&str; 4] = ["hostname", "trust_bundle_cert", "provisioning", "moby_runtime"];

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or a file that it names, cannot be read.
    #[error("could not read config file: {0}")]
    Unreadable(#[from] std::io::Error),
    /// The file is not TOML, or a setting has the wrong type.
    #[error("could not parse config file: line {line}: {message}")]
    Syntax {
        /// Line of the file, from 1.
        line: usize,
        /// What is wrong there, without the text of the line.
        message: String,
    },
    /// A setting is missing, wrong, or asks for what this runtime does not have.
    #[error("invalid config: {0}")]
    Invalid(String),
}

/// What the runtime needs to know, checked.
#[derive(Debug)]
pub struct Settings {
    /// The device's own name: the gateway's TLS name, which modules connect to.
    pub hostname: String,
    /// Host name of the IoT Hub, as typed.
    pub hub_hostname: String,
    /// Device identity.
    pub device_id: String,
    /// The device's symmetric key.
    pub device_key: SharedAccessKey,
    /// Certificates that modules shall trust besides the Edge CA.
    pub trust_bundle: Option<String>,
    /// Path of the container engine's socket.
    pub engine_socket: PathBuf,
    /// The engine network of the modules.
    pub network: String,
    /// Settings of the file that have no meaning for this runtime.
    pub ignored: Vec<String>,
}

impl Settings {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&fs_err::read_to_string(path)?)
    }

    /// Checks the text of a file; reads the files that it names.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        let file: File = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        refuse_unsupported(&table)?;
        let credentials = Credentials::resolve(file.provisioning.as_ref())?;
        let runtime = file.moby_runtime.unwrap_or_default();
        Ok(Self {
            hostname: file.hostname.map_or_else(machine_hostname, Ok)?,
            hub_hostname: credentials.hub_hostname,
            device_id: credentials.device_id,
            device_key: credentials.key,
            trust_bundle: file.trust_bundle_cert.as_deref().map(read_uri).transpose()?,
            engine_socket: engine_socket(runtime.uri.as_deref())?,
            network: runtime.network.unwrap_or_else(|| DEFAULT_NETWORK.to_owned()),
            ignored: ignored(&table),
        })
    }
}

#[derive(Deserialize)]
struct File {
    hostname: Option<String>,
    trust_bundle_cert: Option<String>,
    provisioning: Option<Provisioning>,
    moby_runtime: Option<MobyRuntime>,
}

#[derive(Deserialize)]
struct Provisioning {
    source: String,
    connection_string: Option<Secret>,
    iothub_hostname: Option<String>,
    device_id: Option<String>,
    authentication: Option<Authentication>,
}

#[derive(Deserialize)]
struct Authentication {
    method: String,
    device_id_pk: Option<SymmetricKey>,
}

#[derive(Deserialize)]
struct SymmetricKey {
    value: Option<Secret>,
    uri: Option<String>,
}

#[derive(Deserialize, Default)]
struct MobyRuntime {
    uri: Option<String>,
    network: Option<String>,
}

struct Credentials {
    hub_hostname: String,
    device_id: String,
    key: SharedAccessKey,
}

impl Credentials {
    fn resolve(provisioning: Option<&Provisioning>) -> Result<Self, ConfigError> {
        let provisioning = provisioning.ok_or_else(|| invalid("[provisioning] is missing"))?;
        if provisioning.source != "manual" {
            return Err(invalid(format!(
                "provisioning source \"{}\" is not supported by the simulated runtime, only \"manual\"",
                provisioning.source
            )));
        }
        let credentials = match &provisioning.connection_string {
            Some(text) => Self::from_connection_string(text)?,
            None => Self::from_sas(provisioning)?,
        };
        validate_id(&credentials.device_id).map_err(|error| invalid(format!("device id: {error}")))?;
        Ok(credentials)
    }

    fn from_connection_string(text: &Secret) -> Result<Self, ConfigError> {
        let parsed = ConnectionString::parse(text.expose())
            .map_err(|error| invalid(format!("invalid connection string: {error}")))?;
        Ok(Self { hub_hostname: parsed.hub_hostname, device_id: parsed.device_id, key: parsed.key })
    }

    fn from_sas(provisioning: &Provisioning) -> Result<Self, ConfigError> {
        let missing = |name: &str| invalid(format!("provisioning: \"{name}\" is missing"));
        let authentication =
            provisioning.authentication.as_ref().ok_or_else(|| missing("connection_string"))?;
        if authentication.method != "sas" {
            return Err(invalid(format!(
                "authentication method \"{}\" is not supported by the simulated runtime, only \"sas\"",
                authentication.method
            )));
        }
        let key = authentication.device_id_pk.as_ref().ok_or_else(|| missing("device_id_pk"))?;
        Ok(Self {
            hub_hostname: provisioning.iothub_hostname.clone().ok_or_else(|| missing("iothub_hostname"))?,
            device_id: provisioning.device_id.clone().ok_or_else(|| missing("device_id"))?,
            key: key.resolve()?,
        })
    }
}

impl SymmetricKey {
    /// Keys in files are raw bytes, as the real key service takes them.
    fn resolve(&self) -> Result<SharedAccessKey, ConfigError> {
        let key = match (&self.value, &self.uri) {
            (Some(value), None) => parse_key(value.expose()),
            (None, Some(uri)) => {
                SharedAccessKey::from_bytes(fs_err::read(file_path(uri)?)?).map_err(|error| error.to_string())
            }
            _ => Err("one of \"value\" and \"uri\" is needed".to_owned()),
        };
        key.map_err(|error| invalid(format!("device_id_pk: {error}")))
    }
}

fn invalid(message: impl Into<String>) -> ConfigError {
    ConfigError::Invalid(message.into())
}

/// The library's own text shows the offending line, which may hold a key.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1;
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    ConfigError::Syntax { line, message: without_quoted_text(&message) }
}

/// Settings that cannot be left out without weakening or changing what the user asked for.
fn refuse_unsupported(table: &toml::Table) -> Result<(), ConfigError> {
    let edge_ca = table.get("edge_ca").and_then(toml::Value::as_table);
    let refused = [
        (table.contains_key("parent_hostname"), "parent_hostname"),
        (table.contains_key("local_gateway_hostname"), "local_gateway_hostname"),
        (edge_ca.is_some_and(|ca| ca.contains_key("cert") || ca.contains_key("method")), "[edge_ca] cert"),
    ];
    match refused.iter().find(|(present, _)| *present) {
        Some((_, name)) => Err(invalid(format!("{name} is not supported by the simulated runtime"))),
        None => Ok(()),
    }
}

fn ignored(table: &toml::Table) -> Vec<String> {
    table.keys().filter(|key| !SUPPORTED.contains(&key.as_str())).cloned().collect()
}

fn file_path(uri: &str) -> Result<&Path, ConfigError> {
    uri.strip_prefix("file://")
        .map(Path::new)
        .filter(|path| path.is_absolute())
        .ok_or_else(|| invalid("a file URI must have the form \"file:///path\""))
}

fn read_uri(uri: &str) -> Result<String, ConfigError> {
    Ok(fs_err::read_to_string(file_path(uri)?)?)
}

fn engine_socket(uri: Option<&str>) -> Result<PathBuf, ConfigError> {
    let uri = uri.unwrap_or(DEFAULT_ENGINE_URI);
    uri.strip_prefix("unix://")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .ok_or_else(|| invalid("moby_runtime: uri must have the form \"unix:///path\""))
}

fn machine_hostname() -> Result<String, ConfigError> {
    Ok(fs_err::read_to_string("/proc/sys/kernel/hostname")?.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = r#"
hostname = "edge.test"
[provisioning]
source = "manual"
connection_string = "HostName=hub.test;DeviceId=d;SharedAccessKey=c2VjcmV0"
"#;

    fn error_for(text: &str) -> String {
        Settings::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_connection_string_is_enough() {
        let settings = Settings::parse(MANUAL).unwrap();
        assert_eq!(settings.hub_hostname, "hub.test");
        assert_eq!(settings.hostname, "edge.test");
        assert_eq!(settings.network, "azure-iot-edge");
        assert_eq!(settings.engine_socket, Path::new("/var/run/docker.sock"));
        assert_eq!(settings.ignored, Vec::<String>::new());
        let without_hostname = MANUAL.replace("hostname = \"edge.test\"", "");
        assert!(!Settings::parse(&without_hostname).unwrap().hostname.is_empty());
    }

    #[test]
    fn manual_sas_takes_the_key_as_a_value_or_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("device-id");
        fs_err::write(&key, b"secret").unwrap();
        for source in ["value = \"c2VjcmV0\"".to_owned(), format!("uri = \"file://{}\"", key.display())] {
            let text = format!(
                "[provisioning]\nsource = \"manual\"\niothub_hostname = \"h\"\ndevice_id = \"d\"\n\
                 [provisioning.authentication]\nmethod = \"sas\"\ndevice_id_pk = {{ {source} }}"
            );
            assert_eq!(Settings::parse(&text).unwrap().device_key.to_base64().expose(), "c2VjcmV0");
        }
    }

    #[test]
    fn the_engine_and_the_trust_bundle_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca.pem");
        fs_err::write(&bundle, "PEM").unwrap();
        let text = format!(
            "trust_bundle_cert = \"file://{}\"\n{MANUAL}[moby_runtime]\nuri = \"unix:///run/e.sock\"\nnetwork = \"n\"",
            bundle.display()
        );
        let settings = Settings::parse(&text).unwrap();
        assert_eq!(settings.trust_bundle.as_deref(), Some("PEM"));
        assert_eq!(
            (settings.engine_socket, settings.network),
            (PathBuf::from("/run/e.sock"), "n".to_owned())
        );
    }

    #[test]
    fn settings_of_the_real_runtime_that_mean_nothing_here_are_named() {
        let text = format!("{MANUAL}[agent]\nname = \"edgeAgent\"\n[watchdog]\nmax_retries = 3");
        assert_eq!(Settings::parse(&text).unwrap().ignored, ["agent", "watchdog"]);
    }

    #[test]
    fn what_the_simulated_runtime_cannot_do_is_refused() {
        for (from, to, named) in [
            ("source = \"manual\"", "source = \"dps\"", "provisioning source \"dps\""),
            ("hostname = \"edge.test\"", "parent_hostname = \"p\"", "parent_hostname"),
            ("[provisioning]", "[edge_ca]\ncert = \"file:///c\"\n[provisioning]", "[edge_ca] cert"),
            ("[provisioning]", "[moby_runtime]\nuri = \"tcp://x\"\n[provisioning]", "moby_runtime"),
            ("[provisioning]", "[other]", "[provisioning] is missing"),
            ("connection_string", "unused", "\"connection_string\" is missing"),
            ("DeviceId=d", "DeviceId=a b", "device id"),
            ("DeviceId=d", "Device=d", "required parameter \"DeviceId\" is missing"),
        ] {
            let error = error_for(&MANUAL.replace(from, to));
            assert!(error.contains(named), "{error}");
        }
        let x509 = "[provisioning]\nsource = \"manual\"\n[provisioning.authentication]\nmethod = \"x509\"";
        assert!(error_for(x509).contains("method \"x509\""));
    }

    #[test]
    fn an_error_is_one_line_names_the_place_and_never_shows_the_key() {
        for text in [
            MANUAL.replace("SharedAccessKey=c2VjcmV0\"", "SharedAccessKey=c2VjcmV0"),
            MANUAL.replace("connection_string = ", "connection_string "),
            format!("{MANUAL}connection_string = \"SharedAccessKey=c2VjcmV0\""),
            MANUAL.replace("c2VjcmV0", "c2VjcmV0!"),
            MANUAL.replace("source = \"manual\"", "source = 7"),
            "provisioning = \"SharedAccessKey=c2VjcmV0\"".to_owned(),
        ] {
            let error = error_for(&text);
            assert!(!error.contains("c2VjcmV0") && !error.contains('\n'), "{error}");
        }
        assert!(error_for("a = 1\nb = = 2").contains("line 2"), "{}", error_for("a = 1\nb = = 2"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Settings::load(Path::new("/nonexistent/config.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/config.toml"), "{error}");
    }
}
