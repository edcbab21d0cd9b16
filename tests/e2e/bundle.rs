//! The bundle of a failed run: what is in it, and that no secret is, in whatever form.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// A bundle may go through any mail.
const MOST_BYTES: u64 = 5_000_000;

/// An unpacked bundle: the files of a run by their names in its folder.
pub(crate) struct Bundle(BTreeMap<String, String>);

impl Bundle {
    /// The bundle of a run.
    pub(crate) fn of(run: &Path) -> Self {
        Self::read(&run.join("bundle.tar.zst"))
    }

    pub(crate) fn read(path: &Path) -> Self {
        let file = fs_err::File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        assert!(size < MOST_BYTES, "{} has {size} bytes", path.display());
        let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().split_once('/').unwrap().1.to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
        Self(files)
    }

    /// These are in it, and not empty.
    pub(crate) fn has(&self, names: &[&str]) {
        for name in names {
            let missing = &self.0["MISSING.txt"];
            assert!(self.0.get(*name).is_some_and(|text| !text.trim().is_empty()), "{name}: {missing}");
        }
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        &self.0[name]
    }

    /// None of its files has one of the secrets, as it is or in base64.
    pub(crate) fn has_none_of(&self, secrets: &[String]) {
        assert!(!secrets.is_empty() && secrets.iter().all(|secret| secret.len() > 11));
        let forms: Vec<_> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        for (name, text) in &self.0 {
            assert!(!forms.iter().any(|form| text.contains(form)), "a secret is in {name} of the bundle");
        }
    }
}

/// The secret as it is, and in base64 at each place in which it may stand in a longer text.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    for before in 0..3 {
        let text = " ".repeat(before) + secret;
        for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            // The characters at both ends depend on what stands beside.
            forms.push(encoded[(before * 8).div_ceil(6)..encoded.len() - 1].to_owned());
        }
    }
    forms
}

/// The secrets of the deployment with this state.
pub(crate) fn secrets_of(state: &Path) -> Vec<String> {
    let text = fs_err::read_to_string(state.join("credentials.json")).unwrap();
    let credentials: Value = serde_json::from_str(&text).unwrap();
    let text = |name: &str| credentials[name].as_str().unwrap();
    // Of a private key, a line from the middle: how it is wrapped does not matter then.
    let key = text("hub_key").lines().nth(1).unwrap();
    [text("owner_key"), text("registry_password"), key].map(str::to_owned).to_vec()
}
