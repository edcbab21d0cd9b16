use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use kedge_sim::pki::{Validity, self_signed_client};

use super::*;
use crate::provisioning::{CONFIG, Redaction, UnusableCredentials};

const KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldY";

fn given(text: &str) -> Given {
    Given::new("test", text)
}

fn device() -> DeviceDraft {
    DeviceDraft { host_name: given("hub.test"), device_id: given("press-7") }
}

fn registration() -> RegistrationDraft {
    RegistrationDraft {
        global_endpoint: given("https://dps.test"),
        id_scope: given("0ne1"),
        registration_id: Some(given("press-7")),
        device_id: None,
    }
}

fn identity() -> IdentityDraft {
    let issued = self_signed_client("press-7", Validity::for_next(Duration::from_secs(9_000_000))).unwrap();
    IdentityDraft { certificate: given(&issued.chain_pem), key: given(issued.key_pem.expose()) }
}

/// One of each kind.
fn drafts() -> [Draft; 6] {
    let key = || given(KEY);
    [
        Draft::ConnectionString(given(&format!("HostName=hub.test;DeviceId=press-7;SharedAccessKey={KEY}"))),
        Draft::ManualSas(device(), key()),
        Draft::ManualX509(device(), identity()),
        Draft::DpsSymmetricKey { registration: registration(), key: key(), is_of_group: true },
        Draft::DpsX509(registration(), identity()),
        Draft::DpsTpm(registration()),
    ]
}

fn paths(folder: &Path) -> Paths {
    Paths { project: folder.join("project"), cache: folder.join("cache"), state: folder.join("state") }
}

fn checked(draft: &Draft) -> Kept {
    draft.check(None, Timestamp::now()).usable().unwrap()
}

#[test]
fn each_kind_is_kept_privately_and_read_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path());
    assert!(kept(&paths).unwrap().is_none());
    assert!(!forget(&paths).unwrap());
    for draft in drafts() {
        let first = checked(&draft);
        first.keep(&paths).unwrap();
        let second = kept(&paths).unwrap().unwrap().usable().unwrap();
        assert_eq!(second.provisioning.facts(), first.provisioning.facts());
        assert_eq!(second.files("").unwrap(), first.files("").unwrap());
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&super::folder(&paths)), mode(&file(&paths))), (0o700, 0o600));
        let shown = format!("{first:?} {:?} {draft:?}", first.files("").unwrap());
        assert!(!shown.contains("QUJDRE") && !shown.contains("BEGIN"), "{shown}");
    }
    assert!(forget(&paths).unwrap() && kept(&paths).unwrap().is_none());
}

#[test]
fn a_damaged_file_says_what_to_do_and_shows_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path());
    for text in
        ["{", "{\"kind\":\"sas\"}", "{\"kind\":\"s3cret\"}", "{\"kind\":\"sas\",\"key\":[\"s3cret\"]}"]
    {
        write_private(&file(&paths), text.as_bytes()).unwrap();
        let told = format!("{:#}", kept(&paths).unwrap_err());
        assert!(told.contains("is damaged; give the credentials anew") && !told.contains("s3cret"), "{told}");
    }
}

#[test]
fn credentials_have_to_lead_to_the_hub_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path());
    let settings = |kind, host_name: &str| {
        let mut settings = Settings::default();
        settings.hub.kind = kind;
        settings.hub.host_name = host_name.into();
        settings
    };
    let told = |kind, host_name| {
        wanted(&paths, &settings(kind, host_name))
            .map(|kept| kept.is_some())
            .map_err(|error| error.to_string())
    };
    assert_eq!(told(Hub::Local, "hub.test"), Ok(false));
    assert!(told(Hub::Azure, "hub.test").unwrap_err().contains("connection-string --from FILE"));
    checked(&drafts()[1]).keep(&paths).unwrap();
    assert_eq!(told(Hub::Local, "hub.test"), Ok(true));
    assert_eq!(told(Hub::Azure, "other.test"), Ok(true));
    assert!(told(Hub::Azure, "hub.test").unwrap_err().contains("`--hub local`"));
    let elsewhere = told(Hub::Local, "other.test").unwrap_err();
    assert!(elsewhere.contains("for hub.test") && elsewhere.contains("`--hub azure`"), "{elsewhere}");
    checked(&drafts()[3]).keep(&paths).unwrap();
    assert_eq!(told(Hub::Local, "dps.test"), Ok(true), "the provisioning service leads to the hub");
}

#[test]
fn credentials_that_have_ended_are_refused_and_can_be_shown() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path());
    let now = std::time::SystemTime::now();
    let hour = Duration::from_secs(3600);
    let validity = Validity { not_before: now - 2 * hour, not_after: now - hour };
    let issued = self_signed_client("press-7", validity).unwrap();
    let identity =
        IdentityDraft { certificate: given(&issued.chain_pem), key: given(issued.key_pem.expose()) };
    let draft = Draft::ManualX509(device(), identity).check(None, Timestamp::now());
    draft.kept.unwrap().keep(&paths).unwrap();
    assert!(kept(&paths).unwrap().unwrap().kept.is_some());
    let mut settings = Settings::default();
    settings.hub.host_name = "hub.test".into();
    let error = wanted(&paths, &settings).unwrap_err();
    assert!(error.is::<UnusableCredentials>() && error.to_string().contains("has ended"), "{error}");
}

#[test]
fn no_form_of_a_kept_secret_is_left_in_a_text() {
    for draft in drafts() {
        let kept = checked(&draft);
        let mut forms = Vec::new();
        for (_, contents) in kept.files("").unwrap().expose() {
            let text = String::from_utf8_lossy(contents).into_owned();
            if !text.contains("BEGIN CERTIFICATE") {
                forms.push(text);
            }
        }
        forms.extend(kept.provisioning.key().map(|key| key.to_base64().expose().to_owned()));
        let all = forms.concat();
        let redacted = Redaction::of(&kept).apply(&all);
        assert!(!redacted.contains("QUJDRE") && !redacted.contains("ABCDEFGHI"), "{redacted}");
        let body =
            kept.provisioning.identity().map(|it| it.key_pem.expose().lines().nth(1).unwrap().to_owned());
        assert!(body.is_none_or(|body| !redacted.contains(&body)));
    }
}

#[test]
fn a_trust_bundle_goes_with_the_credentials_once() {
    let issued = self_signed_client("CA", Validity::for_next(Duration::from_secs(3600))).unwrap();
    let bundle = given(&issued.chain_pem);
    let draft = &drafts()[0];
    let kept = draft.check(Some(&bundle), Timestamp::now()).usable().unwrap();
    let files = kept.files("hostname = \"edge\"\n").unwrap();
    assert_eq!(files.names().collect::<Vec<_>>(), [CONFIG, "trust-bundle.pem"]);
    let error = kept.files("trust_bundle_cert = \"file:///x\"\n").unwrap_err();
    assert!(error.to_string().contains("leave out one"), "{error}");
    let refused = draft.check(Some(&given("nonsense")), Timestamp::now()).usable();
    assert!(refused.is_err());
}

#[test]
fn a_configuration_with_credentials_of_its_own_is_refused() {
    let kept = checked(&drafts()[1]);
    for (config, expected) in
        [("[provisioning]\n", "no credential is in the project"), ("s3cret", "not TOML")]
    {
        let told = format!("{:#}", kept.files(config).unwrap_err());
        assert!(told.contains(expected) && !told.contains("s3cret"), "{told}");
    }
}
