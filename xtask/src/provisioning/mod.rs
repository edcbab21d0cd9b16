//! How the edge device comes to its identity, and what is delivered for that.

mod files;

pub use self::files::{
    CONFIG, DEVICE_KEY, HUB_CA, IDENTITY_CERTIFICATE, IDENTITY_KEY, SecretFiles, TRUST_BUNDLE,
};
