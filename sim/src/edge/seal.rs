//! What modules have the runtime encrypt for them, with AES-256-GCM.
//!
//! A module chooses an initialisation vector of any length, and some use one for everything. So the
//! nonce is random and goes with the ciphertext; the vector and the owner only have to be the same
//! again when it is opened.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::random;

/// Length of the key.
pub const KEY_BYTES: usize = 32;

/// Something cannot be encrypted or decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The system gives no random bytes, or the text is too long.
    #[error("could not encrypt")]
    Encrypt,
    /// It was not made by this device for this owner with this vector.
    #[error("could not decrypt")]
    Decrypt,
    /// The key has another length.
    #[error("the key must have {KEY_BYTES} bytes")]
    Key,
}

/// Encrypts and decrypts with one key.
pub struct Sealer(LessSafeKey);

impl Sealer {
    /// Uses the key.
    pub fn new(key: &[u8]) -> Result<Self, SealError> {
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealError::Key)?)))
    }

    /// Encrypts `plaintext`.
    pub fn seal(&self, owner: &[u8], vector: &[u8], mut plaintext: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] = random::bytes().map_err(|_| SealError::Encrypt)?;
        let bound = bound(owner, vector);
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut plaintext)
            .map_err(|_| SealError::Encrypt)?;
        Ok([nonce.as_slice(), &plaintext].concat())
    }

    /// Decrypts what [`Sealer::seal`] made.
    pub fn open(&self, owner: &[u8], vector: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let nonce = sealed.first_chunk().copied().ok_or(SealError::Decrypt)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_within(nonce, bound(owner, vector), &mut sealed, NONCE_LEN..);
        Ok(opened.map_err(|_| SealError::Decrypt)?.to_vec())
    }
}

/// The length keeps the two apart.
fn bound(owner: &[u8], vector: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&(owner.len() as u64).to_be_bytes(), owner, vector].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_with_the_same_key_owner_and_vector_is_opened() {
        let sealer = Sealer::new(&[1; KEY_BYTES]).unwrap();
        let sealed = sealer.seal(b"m1", b"vector", b"secret".to_vec()).unwrap();
        assert_eq!(sealer.open(b"m1", b"vector", sealed.clone()).unwrap(), b"secret");
        assert_ne!(sealer.seal(b"m1", b"vector", b"secret".to_vec()).unwrap(), sealed);
        let other = Sealer::new(&[2; KEY_BYTES]).unwrap();
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        for (sealer, owner, vector, sealed) in [
            (&other, "m1", "vector", sealed.clone()),
            (&sealer, "m2", "vector", sealed.clone()),
            (&sealer, "m1", "other", sealed.clone()),
            (&sealer, "m1vector", "", sealed.clone()),
            (&sealer, "m1", "vector", changed),
            (&sealer, "m1", "vector", sealed[..20].to_vec()),
            (&sealer, "m1", "vector", Vec::new()),
        ] {
            let opened = sealer.open(owner.as_bytes(), vector.as_bytes(), sealed);
            assert_eq!(opened, Err(SealError::Decrypt), "{owner} {vector}");
        }
        assert_eq!(Sealer::new(&[1; 31]).err(), Some(SealError::Key));
    }
}
