//! Who may do what: tokens and certificates are verified here, for HTTPS and MQTT alike.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;

use super::store::{Authentication, Status, Store, StoreError};
use crate::identity::{EDGE_HUB, Identity};
use crate::sas::{OWNER_POLICY, SasError, SharedAccessKey, Token, derived_policy_key, unix_seconds};
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

/// What a policy lets services do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    RegistryRead,
    RegistryWrite,
    ServiceConnect,
    /// What a device does for itself, and no policy but the owner's in its place.
    DeviceConnect,
    /// What the real hub leaves to Azure's resource manager.
    Administration,
}

impl Permission {
    /// The permission that a request needs.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let is_read = method == Method::GET;
        let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
        match segments[..] {
            ["twins" | "messages", ..] => Self::ServiceConnect,
            ["devices", _, "messages", "deviceBound"] if !is_read => Self::ServiceConnect,
            ["devices", _, "messages", ..] => Self::DeviceConnect,
            ["devices", _, "commands"] => Self::ServiceConnect,
            ["devices", ..] if is_read || path == "/devices/query" => Self::RegistryRead,
            ["devices", ..] => Self::RegistryWrite,
            ["kedge", "telemetry"] if is_read => Self::ServiceConnect,
            _ => Self::Administration,
        }
    }
}

struct Policy {
    name: &'static str,
    key: SharedAccessKey,
    permissions: &'static [Permission],
}

/// The policies that a real hub has from the start. The owner's, which may do everything, is the first.
fn policies(owner_key: SharedAccessKey) -> Vec<Policy> {
    use Permission::{RegistryRead, RegistryWrite, ServiceConnect};
    let derived: [(&str, &[Permission]); 3] = [
        ("service", &[ServiceConnect]),
        ("registryRead", &[RegistryRead]),
        ("registryReadWrite", &[RegistryRead, RegistryWrite]),
    ];
    let derived = derived.into_iter().filter_map(|(name, permissions)| {
        Some(Policy { name, key: derived_policy_key(&owner_key, name)?, permissions })
    });
    let derived: Vec<_> = derived.collect();
    [Policy { name: OWNER_POLICY, key: owner_key, permissions: &[] }].into_iter().chain(derived).collect()
}

/// The hub's own name and key, which every decision needs.
pub(super) struct Authority {
    hub_name: String,
    policies: Vec<Policy>,
    /// The authorities of the configuration, which stay whatever services add.
    device_ca: Option<String>,
    device_authorities: RwLock<Authorities>,
}

impl Authority {
    /// `device_ca` are authorities that may issue the certificates of devices.
    pub(super) fn new(hub_name: &str, owner_key: SharedAccessKey, device_ca: Option<String>) -> Self {
        let device_authorities = RwLock::default();
        Self { hub_name: hub_name.to_owned(), policies: policies(owner_key), device_ca, device_authorities }
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

    /// Verifies the token of a service, whose policy must give the permission.
    pub(super) fn verify_service(
        &self,
        token: &Token,
        permission: Permission,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let name = token.policy().ok_or(AuthError::Policy)?;
        let policy = self.policies.iter().find(|policy| policy.name == name).ok_or(AuthError::Policy)?;
        token.verify([&policy.key], &self.hub_name, unix_seconds(now))?;
        let is_given = policy.name == OWNER_POLICY || policy.permissions.contains(&permission);
        if is_given { Ok(()) } else { Err(AuthError::Policy) }
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
            authority.verify_service(&read_token(Some(&token))?, Permission::RegistryRead, now)
        };
        let (good, owner) = (unix_seconds(now) + 60, Some(OWNER_POLICY));
        assert_eq!(verify("HUB.test", 9, good, owner), Ok(()));
        assert_eq!(verify(HUB, 1, good, owner), Err(AuthError::Token(SasError::WrongSignature)));
        assert_eq!(verify("other.test", 9, good, owner), Err(AuthError::Token(SasError::WrongAudience)));
        assert_eq!(verify(HUB, 9, unix_seconds(now) - 3600, owner), Err(AuthError::Token(SasError::Expired)));
        assert_eq!(verify(HUB, 9, good, Some("device")), Err(AuthError::Policy));
        assert_eq!(verify(HUB, 9, good, None), Err(AuthError::Policy));
    }

    #[test]
    fn each_policy_gives_its_own_permissions() {
        use Permission::{Administration, DeviceConnect, RegistryRead, RegistryWrite, ServiceConnect};
        let (authority, _, now) = hub();
        let all = [RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect, Administration];
        let cases: [(&str, &[Permission]); 4] = [
            (OWNER_POLICY, &all),
            ("service", &[ServiceConnect]),
            ("registryRead", &[RegistryRead]),
            ("registryReadWrite", &[RegistryRead, RegistryWrite]),
        ];
        for (policy, given) in cases {
            let own =
                if policy == OWNER_POLICY { key(9) } else { derived_policy_key(&key(9), policy).unwrap() };
            for permission in all {
                let verify = |key: &SharedAccessKey| {
                    let token = sign(HUB, key, unix_seconds(now) + 60, Some(policy));
                    authority.verify_service(&read_token(Some(&token)).unwrap(), permission, now)
                };
                let expected = if given.contains(&permission) { Ok(()) } else { Err(AuthError::Policy) };
                assert_eq!(verify(&own), expected, "{policy} {permission:?}");
                assert!(verify(&key(1)).is_err());
            }
        }
        let requests = [
            (Method::GET, "/devices/d", RegistryRead),
            (Method::POST, "/devices/query", RegistryRead),
            (Method::PUT, "/devices/d/modules/m", RegistryWrite),
            (Method::POST, "/devices/d/applyConfigurationContent", RegistryWrite),
            (Method::POST, "/devices/d/messages/deviceBound", ServiceConnect),
            (Method::DELETE, "/devices/d/commands", ServiceConnect),
            (Method::POST, "/devices/d/messages/events", DeviceConnect),
            (Method::GET, "/devices/d/messages/deviceBound", DeviceConnect),
            (Method::DELETE, "/devices/d/messages/deviceBound/token", DeviceConnect),
            (Method::POST, "/devices/d/messages/deviceBound/token/abandon", DeviceConnect),
            (Method::PUT, "/devices/d/modules/commands", RegistryWrite),
            (Method::GET, "/twins/d", ServiceConnect),
            (Method::POST, "/twins/d/methods", ServiceConnect),
            (Method::GET, "/messages/serviceBound/feedback", ServiceConnect),
            (Method::GET, "/kedge/telemetry", ServiceConnect),
            (Method::PUT, "/kedge/faults", Administration),
            (Method::GET, "/kedge/certificates", Administration),
            (Method::GET, "/enrollments/x", Administration),
        ];
        for (method, path, permission) in requests {
            assert_eq!(Permission::of(&method, path), permission, "{method} {path}");
        }
    }
}
