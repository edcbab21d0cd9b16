//! The runtime's configuration and the files of the Secret for each kind of provisioning, as `iotedge config apply` reads
//! them. After a wanted change: `INSTA_UPDATE=always cargo test -p xtask --test provisioning`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use jiff::Timestamp;
use kedge_sim::edge::config::{self, Settings};
use kedge_sim::pki::{Validity, self_signed_client};
use xtask::provisioning::{DeviceDraft, Draft, Given, IdentityDraft, RegistrationDraft, SecretFiles};
use xtask::settings::Runtime;

/// What stands in the user's file; `[tpm]` goes through untouched.
const BASE: &str =
    "hostname = \"kedge-edge\"\n\n[agent]\nname = \"edgeAgent\"\n\n[tpm]\ntcti = \"device:/dev/tpmrm0\"\n";
const KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";
/// Where the image puts the files.
const FOLDER: &str = "file:///var/secrets/kedge/";

fn given(text: &str) -> Given {
    Given::new("test", text)
}

fn device() -> DeviceDraft {
    DeviceDraft { host_name: given("factory.azure-devices.net"), device_id: given("press-7") }
}

fn registration() -> RegistrationDraft {
    RegistrationDraft {
        global_endpoint: given("https://global.azure-devices-provisioning.net/"),
        id_scope: given("0ne00A1B2C3"),
        registration_id: Some(given("press-7")),
        device_id: None,
    }
}

fn identity() -> IdentityDraft {
    let year = Validity::for_next(Duration::from_secs(365 * 24 * 3600));
    let issued = self_signed_client("press-7", year).unwrap();
    IdentityDraft { certificate: given(&issued.chain_pem), key: given(issued.key_pem.expose()) }
}

fn files(draft: &Draft) -> SecretFiles {
    let bundle =
        given(&self_signed_client("CA", Validity::for_next(Duration::from_secs(3600))).unwrap().chain_pem);
    // What modules are to trust goes with any kind; one is enough to see it.
    let bundle = Some(&bundle).filter(|_| matches!(draft, Draft::DpsX509(..)));
    draft.check(bundle, Timestamp::now()).usable().unwrap().files(BASE).unwrap()
}

fn drafts() -> [(&'static str, Draft); 7] {
    let connection_string =
        format!("HostName=factory.azure-devices.net;DeviceId=press-7;SharedAccessKey={KEY}");
    let symmetric =
        |is_of_group| Draft::DpsSymmetricKey { registration: registration(), key: given(KEY), is_of_group };
    [
        ("connection string", Draft::ConnectionString(given(&connection_string))),
        ("manual, SAS", Draft::ManualSas(device(), given(KEY))),
        ("manual, X.509", Draft::ManualX509(device(), identity())),
        ("DPS, symmetric key", symmetric(false)),
        ("DPS, symmetric key derived from a group's", symmetric(true)),
        ("DPS, X.509", Draft::DpsX509(registration(), identity())),
        ("DPS, TPM", Draft::DpsTpm(registration())),
    ]
}

fn text(files: &SecretFiles, wanted: &str) -> Option<String> {
    let contents = files.expose().find(|(name, _)| *name == wanted)?.1;
    Some(String::from_utf8_lossy(contents).into_owned())
}

#[test]
fn each_kind_is_written_as_the_runtime_reads_it() {
    let mut shown = String::new();
    for (name, draft) in drafts() {
        let files = files(&draft);
        let names = files.names().collect::<Vec<_>>().join(", ");
        shown.push_str(&format!("=== {name}\nfiles: {names}\n\n{}\n", text(&files, "config.toml").unwrap()));
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn a_key_in_a_file_is_raw_and_one_of_a_group_stays_outside() {
    let [one, derived] = [3, 4].map(|at| files(&drafts()[at].1));
    let key =
        |files: &SecretFiles| files.expose().find(|(name, _)| *name == "device-key").unwrap().1.to_vec();
    assert_eq!(key(&one), b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef");
    assert_eq!(key(&derived).len(), 32);
    assert_ne!(key(&derived), key(&one));
}

/// What is delivered is what the simulated runtime takes, with each file of the Secret at the place that is named for it.
#[test]
fn the_simulated_runtime_reads_what_is_delivered() {
    for (name, draft) in drafts() {
        let files = files(&draft);
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in files.expose() {
            fs_err::write(folder.path().join(name), contents).unwrap();
        }
        let config = text(&files, "config.toml").unwrap();
        for (at, _) in config.match_indices(FOLDER) {
            let file = config[at + FOLDER.len()..].split('"').next().unwrap();
            assert!(files.names().any(|name| name == file), "{name}: {file} is not in the Secret");
        }
        let config = config.replace(FOLDER, &format!("file://{}/", folder.path().display()));
        let read = Settings::parse(&config);
        match (read, draft) {
            (Err(config::ConfigError::Invalid(told)), Draft::DpsTpm(_)) => {
                assert!(told.contains("\"tpm\""), "{told}");
            }
            (Ok(settings), draft) => {
                let is_manual = matches!(settings.provisioning, config::Provisioning::Manual { .. });
                let wanted = matches!(
                    draft,
                    Draft::ConnectionString(_) | Draft::ManualSas(..) | Draft::ManualX509(..)
                );
                assert_eq!(is_manual, wanted, "{name}");
            }
            (Err(error), _) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn on_the_local_hub_microsofts_runtime_trusts_its_authority_beside_what_the_user_gives() {
    let own = self_signed_client("CA", Validity::for_next(Duration::from_secs(3600))).unwrap().chain_pem;
    let draft = Draft::ManualSas(device(), given(KEY));
    let kept =
        |bundle: Option<&str>| draft.check(bundle.map(given).as_ref(), Timestamp::now()).usable().unwrap();
    let delivered = |bundle: Option<&str>, runtime| {
        let files = kept(bundle).files_for_local_hub(BASE, runtime, "authority").unwrap();
        assert_eq!(text(&files, "hub-ca.pem").as_deref(), Some("authority"));
        let names_it = text(&files, "config.toml").unwrap().contains("trust_bundle_cert = ");
        let bundle = text(&files, "trust-bundle.pem");
        assert_eq!(names_it, bundle.is_some());
        bundle
    };
    assert_eq!(delivered(None, Runtime::Simulated), None);
    assert_eq!(delivered(None, Runtime::Azure).as_deref(), Some("authority"));
    let both = delivered(Some(own.trim_end()), Runtime::Azure).unwrap();
    assert_eq!(both, format!("{}\nauthority", own.trim_end()));
}
