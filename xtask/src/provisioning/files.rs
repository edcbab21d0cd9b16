//! What is in the Secret `kedge-credentials`: names of files, and bytes that are never shown.

use std::collections::BTreeMap;
use std::fmt;

use kedge_sim::secret::Secret;
use sha2::{Digest, Sha256};

/// The runtime's whole configuration, as `iotedge config apply` reads it. Always there.
pub const CONFIG: &str = "config.toml";
/// The authority of the hub's certificate, where that is from no public one.
pub const HUB_CA: &str = "hub-ca.pem";
/// The symmetric key of the device or of its registration, as raw bytes.
pub const DEVICE_KEY: &str = "device-key";
/// The private key of the device's certificate.
pub const IDENTITY_KEY: &str = "identity-key.pem";
/// The device's certificate, and those of its issuers.
pub const IDENTITY_CERTIFICATE: &str = "identity-certificate.pem";
/// What modules are to trust besides the Edge CA.
pub const TRUST_BUNDLE: &str = "trust-bundle.pem";

/// The files of the Secret, in the order of their names.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFiles(BTreeMap<String, Vec<u8>>);

impl SecretFiles {
    /// The Secret of a device that needs nothing but its configuration.
    #[must_use]
    pub fn new(config: &Secret) -> Self {
        Self(BTreeMap::from([(CONFIG.to_owned(), config.expose().into())]))
    }

    /// Adds a file, or puts another one in its place.
    #[must_use]
    pub fn with(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.0.insert(name.to_owned(), contents.into());
        self
    }

    /// The names of the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The files themselves. The name makes every use easy to find.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, contents)| (name.as_str(), contents.as_slice()))
    }

    /// Tells two Secrets apart and nothing else about them.
    #[must_use]
    pub fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        for (name, contents) in &self.0 {
            // Hashed one by one, so that no byte can move from one file to the next unnoticed.
            hash.update(Sha256::digest(name));
            hash.update(Sha256::digest(contents));
        }
        hex::encode(&hash.finalize()[..8])
    }
}

impl fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(config: &str) -> SecretFiles {
        SecretFiles::new(&Secret::new(config))
    }

    #[test]
    fn the_names_are_shown_and_nothing_of_what_is_in_the_files() {
        let files = files("s3cret").with(DEVICE_KEY, "hunter2");
        assert_eq!(format!("{files:?}"), r#"{"config.toml", "device-key"}"#);
        assert_eq!(files.names().collect::<Vec<_>>(), [CONFIG, DEVICE_KEY]);
    }

    #[test]
    fn every_byte_of_every_file_and_each_name_counts() {
        let variants = [
            files("a"),
            files("b"),
            files("a").with(HUB_CA, "x"),
            files("a").with(HUB_CA, "y"),
            files("a").with(DEVICE_KEY, "x"),
            files("a").with(HUB_CA, ""),
            files("a").with(HUB_CA, "x").with(DEVICE_KEY, "x"),
        ];
        let distinct: std::collections::BTreeSet<_> = variants.iter().map(SecretFiles::checksum).collect();
        assert_eq!(distinct.len(), variants.len());
        assert_eq!(files("b").with(CONFIG, "a"), files("a"), "a file takes the place of one of its name");
    }
}
