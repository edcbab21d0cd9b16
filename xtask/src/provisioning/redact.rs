//! Taking kept credentials out of what is shown or kept for people, in each form in which they travel.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::Kept;

/// Shorter texts stand elsewhere by chance.
const SHORTEST: usize = 12;

/// The texts to be taken out.
#[derive(Clone, Default)]
pub struct Redaction(Vec<String>);

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Redaction").field(&self.0.len()).finish()
    }
}

impl Redaction {
    /// All forms of the secrets that are kept.
    #[must_use]
    pub fn of(kept: &Kept) -> Self {
        let mut forms = Vec::new();
        let provisioning = &kept.provisioning;
        if let Some(key) = provisioning.key() {
            forms.extend(forms_of(key.expose()));
        }
        if let Some(text) = provisioning.connection_string() {
            forms.extend(forms_of(text.expose().as_bytes()));
        }
        if let Some(identity) = provisioning.identity() {
            forms.extend(forms_of_pem(identity.key_pem.expose()));
        }
        Self::taking_out(forms)
    }

    /// All forms of keys, passwords and connection strings, and of private keys in PEM.
    #[must_use]
    pub fn of_secrets(secrets: &[Vec<u8>], keys: &[&str]) -> Self {
        let forms = secrets.iter().flat_map(|secret| forms_of(secret));
        Self::taking_out(forms.chain(keys.iter().flat_map(|pem| forms_of_pem(pem))).collect())
    }

    fn taking_out(mut forms: Vec<String>) -> Self {
        forms.retain(|form| form.len() >= SHORTEST);
        // What is a part of another text comes after it.
        forms.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        forms.dedup();
        Self(forms)
    }

    /// The same text without them.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, form| text.replace(form, "[redacted]"))
    }
}

/// A private key as a whole and line by line, for it is wrapped otherwise elsewhere.
fn forms_of_pem(pem: &str) -> Vec<String> {
    let lines: Vec<_> = pem.lines().filter(|line| !line.contains("-----")).map(str::to_owned).collect();
    let mut forms = vec![pem.trim().to_owned(), STANDARD_NO_PAD.encode(pem), lines.concat()];
    forms.extend(lines);
    forms
}

/// The bytes themselves, and how they are written.
fn forms_of(bytes: &[u8]) -> Vec<String> {
    let padded = STANDARD.encode(bytes);
    let escaped = |plus, slash, equals| padded.replace('+', plus).replace('/', slash).replace('=', equals);
    let mut forms = vec![
        escaped("%2B", "%2F", "%3D"),
        escaped("%2b", "%2f", "%3d"),
        STANDARD_NO_PAD.encode(bytes),
        URL_SAFE_NO_PAD.encode(bytes),
        STANDARD_NO_PAD.encode(&padded),
        hex::encode(bytes),
    ];
    forms.extend(std::str::from_utf8(bytes).map(str::to_owned));
    forms
}
