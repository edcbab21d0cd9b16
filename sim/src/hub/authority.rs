//! Who may do what: tokens and certificates are verified here, for HTTPS and MQTT alike.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

use super::store::{Authentication, Status, Store, StoreError};
use crate::identity::{EDGE_HUB, Identity};
use crate::sas::{OWNER_POLICY, SasError, SharedAccessKey, Token, unix_seconds};
use crate::x509::{Authorities, ClientCertificate, X509Error};

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AuthError {
    #[error("there is neither a token nor a client certificate")]
    Missing,
    #[error(transparent)]
    Token(#[from] SasError),
    #[error(transparent)]
    Unknown(#[from] StoreError),
    #[error("the device is disabled")]
    Disabled,
    #[error("the client certificate is refused: {0}")]
    Certificate(#[from] X509Error),
    #[error("the thumbprint of the client certificate is not that of the identity")]
    Thumbprint,
    #[error("the common name of the client certificate is not that of the identity")]
    CommonName,
    #[error("no registered authority has issued the client certificate")]
    Issuer,
    #[error("the identity proves itself in another way than by a certificate")]
    NoCertificateExpected,
    #[error("the target is not in the scope of the edge device, or the caller is not its gateway")]
    NotInScope,
    #[error("the shared access policy does not exist or gives no access here")]
    Policy,
}

/// By what a device or module proves who it is. A token counts when there is one, as at the real hub.
pub(super) enum Credential<'a> {
    Token(Token),
    Certificate(&'a ClientCertificate),
}

impl<'a> Credential<'a> {
    /// Takes the token of a header or a password, or else the certificate of the TLS connection.
    pub(super) fn read(
        token: Option<&str>,
        certificate: Option<&'a ClientCertificate>,
    ) -> Result<Self, AuthError> {
        match (token, certificate) {
            (None, Some(certificate)) => Ok(Self::Certificate(certificate)),
            (token, _) => read_token(token).map(Self::Token),
        }
    }
}

/// The hub's own name and key, which every decision needs.
pub(super) struct Authority {
    hub_name: String,
    owner_keys: [SharedAccessKey; 1],
    /// The authorities of the configuration, which stay whatever services add.
    device_ca: Option<String>,
    device_authorities: RwLock<Authorities>,
}

impl Authority {
    /// `device_ca` are authorities that may issue the certificates of devices.
    pub(super) fn new(hub_name: &str, owner_key: SharedAccessKey, device_ca: Option<String>) -> Self {
        let device_authorities = RwLock::default();
        Self { hub_name: hub_name.to_owned(), owner_keys: [owner_key], device_ca, device_authorities }
    }

    /// Replaces the authorities that services have added. All were checked before.
    pub(super) fn set_added_authorities(&self, texts: &[String]) {
        let texts = self.device_ca.iter().chain(texts).map(String::as_str);
        let authorities = Authorities::from_pem(texts).unwrap_or_else(|error| {
            tracing::error!(%error, "the authorities of devices cannot be used");
            Authorities::default()
        });
        *self.device_authorities.write().unwrap_or_else(PoisonError::into_inner) = authorities;
    }

    pub(super) fn hub_name(&self) -> &str {
        &self.hub_name
    }

    /// Verifies the token of a service, which names the owner policy.
    pub(super) fn verify_service(&self, token: &Token, now: Timestamp) -> Result<(), AuthError> {
        if token.policy() != Some(OWNER_POLICY) {
            return Err(AuthError::Policy);
        }
        Ok(token.verify(&self.owner_keys, &self.hub_name, unix_seconds(now))?)
    }

    /// Verifies what a device or module proves itself by; gives how long that is good for.
    pub(super) fn verify_identity(
        &self,
        store: &Store,
        identity: &Identity,
        credential: &Credential<'_>,
        now: Timestamp,
    ) -> Result<Duration, AuthError> {
        let device = store.device(identity.device_id())?;
        let authentication = &store.record(identity)?.authentication;
        let life = match credential {
            Credential::Token(token) => self.verify_token(identity, authentication, token, now)?,
            Credential::Certificate(certificate) => {
                self.verify_certificate(identity, authentication, certificate, now)?
            }
        };
        // Told last, so that only the device itself learns that it is disabled.
        match device.status {
            Status::Enabled => Ok(life),
            Status::Disabled => Err(AuthError::Disabled),
        }
    }

    /// Verifies the gateway of the edge device `edge`, which connects in the place of an identity in its scope.
    pub(super) fn verify_on_behalf_of(
        &self,
        store: &Store,
        edge: &str,
        identity: &Identity,
        credential: &Credential<'_>,
        now: Timestamp,
    ) -> Result<Duration, AuthError> {
        let gateway = Identity::module(edge, EDGE_HUB).map_err(StoreError::from)?;
        let life = self.verify_identity(store, &gateway, credential, now)?;
        store.record(identity)?;
        if !store.is_in_scope(edge, identity.device_id()) {
            return Err(AuthError::NotInScope);
        }
        match store.device(identity.device_id())?.status {
            Status::Enabled => Ok(life),
            Status::Disabled => Err(AuthError::Disabled),
        }
    }

    fn verify_token(
        &self,
        identity: &Identity,
        authentication: &Authentication,
        token: &Token,
        now: Timestamp,
    ) -> Result<Duration, AuthError> {
        if token.policy().is_some() {
            return Err(AuthError::Policy);
        }
        let now = unix_seconds(now);
        token.verify(authentication.keys(), &identity.resource(&self.hub_name), now)?;
        Ok(token.remaining(now))
    }

    fn verify_certificate(
        &self,
        identity: &Identity,
        authentication: &Authentication,
        certificate: &ClientCertificate,
        now: Timestamp,
    ) -> Result<Duration, AuthError> {
        match authentication {
            Authentication::SelfSigned { primary, secondary } => {
                if ![primary, secondary].into_iter().flatten().any(|it| certificate.has(it)) {
                    return Err(AuthError::Thumbprint);
                }
            }
            Authentication::CertificateAuthority => {
                if certificate.common_name() != Some(identity.to_string().as_str()) {
                    return Err(AuthError::CommonName);
                }
            }
            Authentication::Sas { .. } | Authentication::None => {
                return Err(AuthError::NoCertificateExpected);
            }
        }
        certificate.check_validity(now)?;
        if *authentication == Authentication::CertificateAuthority {
            let authorities = self.device_authorities.read().unwrap_or_else(PoisonError::into_inner);
            if !authorities.have_issued(certificate, now) {
                return Err(AuthError::Issuer);
            }
        }
        Ok(certificate.remaining(now))
    }
}

/// Reads the token of a header or a password.
pub(super) fn read_token(text: Option<&str>) -> Result<Token, AuthError> {
    Ok(Token::parse(text.ok_or(AuthError::Missing)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::store::{Authentication, DeviceSpec, ModuleSpec};
    use crate::sas::sign;

    const HUB: &str = "hub.test";

    fn key(byte: u8) -> SharedAccessKey {
        SharedAccessKey::from_bytes(vec![byte; 32]).unwrap()
    }

    /// A hub with the devices `d` (keys 1 and 2, module `m` with keys 3 and 4) and `off` (keys 5 and 6).
    fn hub() -> (Authority, Store, Timestamp) {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let keys = |one, two| Some(Authentication::Sas { primary: key(one), secondary: key(two) });
        let mut store = Store::default();
        let device = DeviceSpec { authentication: keys(1, 2), ..DeviceSpec::default() };
        store.create_device("d", device, now).unwrap();
        let module = ModuleSpec { authentication: keys(3, 4), ..ModuleSpec::default() };
        store.create_module("d", "m", module, now).unwrap();
        let disabled = DeviceSpec {
            authentication: keys(5, 6),
            status: Some(Status::Disabled),
            ..DeviceSpec::default()
        };
        store.create_device("off", disabled, now).unwrap();
        (Authority::new(HUB, key(9), None), store, now)
    }

    fn verify(
        client_id: &str,
        resource: &str,
        signing_key: u8,
        policy: Option<&str>,
    ) -> Result<(), AuthError> {
        let (authority, store, now) = hub();
        let identity = Identity::from_client_id(client_id).unwrap();
        let token = sign(resource, &key(signing_key), unix_seconds(now) + 60, policy);
        let credential = Credential::read(Some(&token), None)?;
        authority.verify_identity(&store, &identity, &credential, now).map(drop)
    }

    #[test]
    fn devices_and_modules_are_let_in_with_either_of_their_own_keys() {
        for signing_key in [1, 2] {
            assert_eq!(verify("d", "hub.test/devices/d", signing_key, None), Ok(()));
        }
        for signing_key in [3, 4] {
            assert_eq!(verify("d/m", "hub.test/devices/d/modules/m", signing_key, None), Ok(()));
        }
    }

    #[test]
    fn everybody_else_is_refused() {
        let wrong_key = Err(AuthError::Token(SasError::WrongSignature));
        let wrong_audience = Err(AuthError::Token(SasError::WrongAudience));
        let device_key_for_module = verify("d/m", "hub.test/devices/d/modules/m", 1, None);
        assert_eq!(device_key_for_module, wrong_key);
        assert_eq!(verify("d", "hub.test/devices/d", 9, None), wrong_key);
        assert_eq!(verify("d", "hub.test/devices/off", 5, None), wrong_audience);
        assert_eq!(verify("d", "hub.test/devices/d/modules/m", 3, None), wrong_audience);
        assert_eq!(verify("d", "other.test/devices/d", 1, None), wrong_audience);
        assert_eq!(verify("off", "hub.test/devices/off", 5, None), Err(AuthError::Disabled));
        assert_eq!(verify("off", "hub.test/devices/off", 1, None), wrong_key);
        assert_eq!(verify("d", "hub.test/devices/d", 9, Some(OWNER_POLICY)), Err(AuthError::Policy));
        assert!(matches!(verify("x", "hub.test/devices/x", 1, None), Err(AuthError::Unknown(_))));
        assert!(matches!(verify("d/x", "hub.test/devices/d", 1, None), Err(AuthError::Unknown(_))));
        assert_eq!(read_token(None).err(), Some(AuthError::Missing));
    }

    #[test]
    fn a_service_needs_the_owner_policy_and_its_key_for_this_hub() {
        let (authority, _, now) = hub();
        let verify = |resource: &str, signing_key, expiry, policy| {
            let token = sign(resource, &key(signing_key), expiry, policy);
            authority.verify_service(&read_token(Some(&token))?, now)
        };
        let (good, owner) = (unix_seconds(now) + 60, Some(OWNER_POLICY));
        assert_eq!(verify("HUB.test", 9, good, owner), Ok(()));
        assert_eq!(verify(HUB, 1, good, owner), Err(AuthError::Token(SasError::WrongSignature)));
        assert_eq!(verify("other.test", 9, good, owner), Err(AuthError::Token(SasError::WrongAudience)));
        assert_eq!(verify(HUB, 9, unix_seconds(now) - 3600, owner), Err(AuthError::Token(SasError::Expired)));
        assert_eq!(verify(HUB, 9, good, Some("device")), Err(AuthError::Policy));
        assert_eq!(verify(HUB, 9, good, None), Err(AuthError::Policy));
    }
}
