//! Symmetric keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kedge_sim::sas::SharedAccessKey;
use sha2::{Digest, Sha256};

use super::{Given, Review};

/// What the hub and the provisioning service take.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=64;
/// Words that only credentials have in them.
const WORDS: [&str; 4] = ["sharedaccess", "hostname=", "private key", "-----begin"];

/// Reads a key: base64 text, or the raw bytes.
pub(super) fn read(review: &mut Review, given: &Given) -> Option<SharedAccessKey> {
    let is_text = given.bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let key = if is_text {
        let key = from_text(given.text().unwrap_or_default());
        if let Ok(key) = &key {
            review
                .note(&given.place, format!("taken as base64 text of a key of {} bytes", key.expose().len()));
        }
        key
    } else {
        // Its last byte may be one that ends a line in a text.
        let key = from_bytes(given.bytes.clone());
        if key.is_ok() {
            review.note(
                &given.place,
                format!("taken as the raw bytes of a key, {} of them", given.bytes.len()),
            );
        }
        key
    };
    key.map_err(|problem| review.problem(&given.place, problem)).ok()
}

/// Reads base64 text, whose padding may be left out, as everywhere in the runtime.
pub(super) fn from_text(text: &str) -> Result<SharedAccessKey, String> {
    let lower = text.to_ascii_lowercase();
    if text.is_empty() {
        return Err("it is empty; the key of the device is needed".into());
    }
    if lower.contains("sharedaccesskey=") || lower.contains("hostname=") {
        return Err(
            "this is a connection string, not a key; use `cargo xtask device connection-string`".into()
        );
    }
    if lower.contains("-----begin") {
        return Err(
            "this is PEM, and a symmetric key is needed; for a certificate use `x509` or `dps-x509`".into()
        );
    }
    let bytes = decode(text).ok_or(
        "it is not base64; take the whole key, as it stands in the portal or in `az iot hub device-identity show`",
    )?;
    from_bytes(bytes)
}

fn from_bytes(bytes: Vec<u8>) -> Result<SharedAccessKey, String> {
    let found = bytes.len();
    let (shortest, longest) = (LENGTHS.start(), LENGTHS.end());
    if found == 0 {
        return Err("it is empty; the key of the device is needed".into());
    }
    if found < *shortest {
        return Err(format!(
            "the key is too short: it has {found} bytes, and the services take {shortest} to {longest}; is it cut off?"
        ));
    }
    if found > *longest {
        return Err(format!(
            "the key is too long: it has {found} bytes, and the services take {shortest} to {longest}"
        ));
    }
    SharedAccessKey::from_bytes(bytes).map_err(|error| error.to_string())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let unpadded = text.trim_end_matches('=');
    // No base64 ends in more than two of them.
    if text.len() - unpadded.len() > 2 {
        return None;
    }
    STANDARD.decode(format!("{unpadded}{}", "=".repeat((4 - unpadded.len() % 4) % 4))).ok()
}

/// What may be told of a key: so much that two can be told apart.
#[must_use]
pub(in crate::provisioning) fn describe(key: &SharedAccessKey) -> String {
    let digest = hex::encode(&Sha256::digest(key.expose())[..4]);
    format!("{} bytes, fingerprint {digest}", key.expose().len())
}

/// Whether a text that stands where a name or a path should stand may be a secret, which must not be repeated.
#[must_use]
pub fn looks_like_a_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
        || (text.len() >= 22 && decode(text).is_some() && is_mixed(text))
}

/// Whether it has digits and letters of both cases, or signs, as a key has and few names have.
fn is_mixed(text: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| text.as_bytes().iter().any(kind);
    let letters = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    (letters && has(u8::is_ascii_digit)) || text.contains(['+', '=']) || (letters && text.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> String {
        let mut review = Review::default();
        let key = read(&mut review, &Given::new("key", bytes));
        let all = if key.is_some() { review.notes } else { review.problems };
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_key_is_taken_as_text_or_as_bytes_and_that_is_told() {
        let text = STANDARD.encode([7; 32]);
        let expected = "key: taken as base64 text of a key of 32 bytes";
        assert_eq!(told(format!("{text}\r\n").as_bytes()), expected);
        assert_eq!(told(text.trim_end_matches('=').as_bytes()), expected);
        let mut raw = vec![0xf0; 31];
        raw.push(b'\n');
        assert_eq!(told(&raw), "key: taken as the raw bytes of a key, 32 of them");
        let key = read(&mut Review::default(), &Given::new("key", raw.clone())).unwrap();
        assert_eq!(key.expose(), raw, "a byte that looks like the end of a line is one of the key");
    }

    #[test]
    fn what_is_no_key_says_what_it_is() {
        for (bytes, expected) in [
            (&b""[..], "it is empty"),
            (b" \n", "it is empty"),
            (b"not a key!", "it is not base64"),
            (b"QUJD====", "it is not base64"),
            (b"QUJD", "too short: it has 3 bytes"),
            (&[0xff; 15], "too short: it has 15 bytes"),
            (&[0xff; 65], "too long: it has 65 bytes"),
            (b"HostName=h;DeviceId=d;SharedAccessKey=QUJD", "this is a connection string"),
            (b"-----BEGIN PRIVATE KEY-----", "this is PEM"),
        ] {
            let told = told(bytes);
            assert!(told.starts_with("key: ") && told.contains(expected), "{told}");
            assert!(!told.contains("QUJD"), "{told}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_told_from_names() {
        let key = STANDARD.encode(Sha256::digest("any"));
        for secret in [
            key.as_str(),
            key.trim_end_matches('='),
            "HostName=h;DeviceId=d;SharedAccessKey=x",
            "-----BEGIN PRIVATE KEY-----",
            "kR7Zq0WmT2xY9bLpVd4sNg",
        ] {
            assert!(looks_like_a_secret(secret), "{secret}");
        }
        for name in [
            "key.txt",
            "/run/secrets/device-key",
            "secrets/device/connection/string",
            "AZURE_IOT_DEVICE_KEY",
            "factory.azure-devices.net",
            "0ne00A1B2C3",
            "line1-press7-cell3-plant42",
            "averylongnamewithoutanydots",
        ] {
            assert!(!looks_like_a_secret(name), "{name}");
        }
    }

    #[test]
    fn a_fingerprint_tells_two_keys_apart_and_shows_neither() {
        let [one, other] =
            [[1; 32], [2; 32]].map(|bytes| SharedAccessKey::from_bytes(bytes.to_vec()).unwrap());
        assert_ne!(describe(&one), describe(&other));
        assert_eq!(describe(&one).len(), "32 bytes, fingerprint 01234567".len());
    }
}
