//! Shared access signatures: how devices, modules and services prove who they are to IoT Hub.
//!
//! A token names a resource (`sr`), an expiry in Unix seconds (`se`) and an HMAC-SHA256 over `{sr}\n{se}`. The
//! HMAC is taken over the literal text of `sr` as received, because clients differ in how they escape it: the
//! identity service leaves `/` alone and lowers the case, the SDKs write `%2F`. Audiences are compared decoded
//! and without regard to case.

mod key;
mod token;

pub use key::SharedAccessKey;
pub use token::{CLOCK_SKEW_SECS, Token, Unsigned, sign, unix_seconds};

/// The shared access policy with all permissions; its key is the one that service clients use.
pub const OWNER_POLICY: &str = "iothubowner";

/// The key of another policy than the owner's: `service`, `registryRead` or `registryReadWrite`. It is derived from the
/// owner's key, so that the hub need not keep it.
pub fn derived_policy_key(owner_key: &SharedAccessKey, policy: &str) -> Option<SharedAccessKey> {
    owner_key.derive(policy)
}

/// Why a key or a token was refused. No variant carries any part of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SasError {
    /// The key is not base64, or is empty.
    #[error("the shared access key is not base64 text")]
    InvalidKey,
    /// The operating system gave no random bytes for a new key.
    #[error("no random bytes for a new key")]
    NoRandomness,
    /// The text is not a shared access signature; the reason says which part.
    #[error("malformed shared access signature: {0}")]
    Malformed(&'static str),
    /// The token is for another resource.
    #[error("the token is for another resource")]
    WrongAudience,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// No key of the identity made this signature.
    #[error("the signature was made with another key")]
    WrongSignature,
}
