//! The symmetric key of an identity or of an access policy.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::SasError;
use crate::random;
use crate::secret::Secret;

const GENERATED_KEY_BYTES: usize = 32;
const MAX_KEY_TEXT: usize = 1024;

/// A key that signs and verifies. It is written as base64 and never printed.
#[derive(Clone)]
pub struct SharedAccessKey {
    bytes: Vec<u8>,
    mac: Box<Hmac<Sha256>>,
}

impl SharedAccessKey {
    /// Reads the base64 text of a connection string or an identity.
    pub fn from_base64(text: &str) -> Result<Self, SasError> {
        if text.len() > MAX_KEY_TEXT {
            return Err(SasError::InvalidKey);
        }
        let bytes = STANDARD.decode(text.trim()).map_err(|_| SasError::InvalidKey)?;
        Self::from_bytes(bytes)
    }

    /// Takes the raw bytes, for a key that was derived.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SasError> {
        if bytes.is_empty() {
            return Err(SasError::InvalidKey);
        }
        let mac = Hmac::<Sha256>::new_from_slice(&bytes).map_err(|_| SasError::InvalidKey)?;
        Ok(Self { bytes, mac: Box::new(mac) })
    }

    /// Makes a new random key of 32 bytes.
    pub fn generate() -> Result<Self, SasError> {
        let bytes = random::bytes::<GENERATED_KEY_BYTES>().map_err(|_| SasError::NoRandomness)?;
        Self::from_bytes(bytes.to_vec())
    }

    /// The text form, as it stands in connection strings.
    pub fn to_base64(&self) -> Secret {
        Secret::new(STANDARD.encode(&self.bytes))
    }

    /// The bytes themselves, as the key service of the runtime reads them from a file.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// HMAC-SHA256 of `data`: a signature, or the bytes of a derived key.
    pub fn hmac(&self, data: &[u8]) -> [u8; 32] {
        Hmac::clone(&self.mac).chain_update(data).finalize().into_bytes().into()
    }

    /// The key that is derived from this one for a name: that of a device in an enrolment group, or of a policy.
    pub fn derive(&self, name: &str) -> Option<Self> {
        Self::from_bytes(self.hmac(name.as_bytes()).to_vec()).ok()
    }

    /// Compares in constant time.
    pub(super) fn verifies(&self, data: &[u8], signature: &[u8]) -> bool {
        Hmac::clone(&self.mac).chain_update(data).verify_slice(signature).is_ok()
    }
}

impl PartialEq for SharedAccessKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for SharedAccessKey {}

impl fmt::Debug for SharedAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hmac_is_that_of_rfc_4231_case_2() {
        let key = SharedAccessKey::from_bytes(b"Jefe".to_vec()).unwrap();
        let data = b"what do ya want for nothing?";
        let hex: String = key.hmac(data).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(key.verifies(data, &key.hmac(data)));
        assert!(!key.verifies(data, &key.hmac(data)[..31]));
    }

    #[test]
    fn the_key_of_a_device_in_a_group_is_that_of_the_published_example() {
        let group =
            "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
        let group = SharedAccessKey::from_base64(group).unwrap();
        let derived = group.derive("sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6").unwrap();
        assert_eq!(derived.to_base64().expose(), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }

    #[test]
    fn a_key_that_is_empty_or_not_base64_or_too_long_is_refused() {
        for text in ["", "   ", "not base64!", "YQ", &"QUFB".repeat(400)] {
            assert_eq!(SharedAccessKey::from_base64(text).unwrap_err(), SasError::InvalidKey, "{text:?}");
        }
    }

    #[test]
    fn generated_keys_differ_and_are_never_printed() {
        let (one, two) = (SharedAccessKey::generate().unwrap(), SharedAccessKey::generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(SharedAccessKey::from_base64(one.to_base64().expose()).unwrap(), one);
        assert_eq!(format!("{one:?}"), "[redacted]");
    }
}
