//! A client with its keys, which verify its tokens and make those with which the gateway speaks for it.

use std::time::Duration;

use jiff::Timestamp;

use crate::edge::identity::ModuleIdentity;
use crate::identity::Identity;
use crate::sas::{SasError, SharedAccessKey, Token, sign, unix_seconds};
use crate::secret::Secret;

/// Lifetime of the tokens that open sessions at the hub.
const SESSION_TOKEN_SECS: u64 = 3600;

/// A client with its keys.
#[derive(Debug)]
pub(in crate::edge) struct Credentials {
    /// Who it is.
    pub(in crate::edge) identity: Identity,
    keys: [SharedAccessKey; 2],
}

impl Credentials {
    /// A client with its two keys.
    pub(in crate::edge) fn new(identity: Identity, keys: [SharedAccessKey; 2]) -> Self {
        Self { identity, keys }
    }

    /// A token for a session of this client at the hub.
    pub(super) fn token(&self, hub_name: &str) -> Secret {
        let expiry = unix_seconds(Timestamp::now()) + SESSION_TOKEN_SECS;
        Secret::new(sign(&self.identity.resource(hub_name), &self.keys[0], expiry, None))
    }

    /// Verifies a token that the client presents; gives how long it is good.
    pub(super) fn verify(&self, token: &str, hub_name: &str, now: u64) -> Result<Duration, SasError> {
        let token = Token::parse(token)?;
        token.verify(&self.keys, &self.identity.resource(hub_name), now)?;
        Ok(token.remaining(now))
    }
}

impl From<&ModuleIdentity> for Credentials {
    fn from(module: &ModuleIdentity) -> Self {
        Self::new(module.identity.clone(), module.keys().clone())
    }
}
