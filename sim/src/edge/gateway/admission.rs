//! Who may connect to the gateway.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Gateway;
use super::credentials::{Credentials, ProofError, Shown};
use crate::edge::identity::ModuleIdentity;
use crate::edge::scope::Member;
use crate::identity::{EDGE_AGENT, EDGE_HUB, Identity, MAX_ID_LEN, Username};
use crate::mqtt::packet::{Connect, ConnectReturnCode};
use crate::sas::SasError;
use crate::x509::ClientCertificate;

/// Why a client was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the client id {0:?} is not that of a module or leaf device")]
    ClientId(String),
    #[error("the user name does not belong to the client id, or names another hub")]
    Username,
    #[error("{client}: {source}")]
    Malformed { client: Identity, source: SasError },
    #[error("{0} is not known yet")]
    NotYetKnown(Identity),
    #[error("there is no module {0} in the deployment")]
    UnknownModule(String),
    #[error("{0} is not a child of this device in the hub")]
    NotInScope(Identity),
    #[error("{0} is disabled in the hub, or has neither keys nor a certificate there")]
    Disabled(Identity),
    #[error("{client}: {source}")]
    Proof { client: Identity, source: ProofError },
    #[error("{0} clients are connected already")]
    TooMany(usize),
}

impl Refusal {
    /// The code of the CONNACK, as the hub chooses it.
    pub(super) fn code(&self) -> ConnectReturnCode {
        match self {
            Self::ClientId(_) => ConnectReturnCode::BadClientId,
            Self::Username | Self::Malformed { .. } => ConnectReturnCode::BadUserNamePassword,
            Self::NotYetKnown(_) | Self::TooMany(_) => ConnectReturnCode::ServiceUnavailable,
            Self::UnknownModule(_) | Self::NotInScope(_) | Self::Disabled(_) | Self::Proof { .. } => {
                ConnectReturnCode::NotAuthorized
            }
        }
    }
}

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) credentials: Arc<Credentials>,
    /// How long the token or certificate is good, and with it the connection.
    pub(super) proof_life: Duration,
}

/// What a client says of itself, when that makes sense.
#[derive(Debug, PartialEq, Eq)]
struct Claim<'a> {
    identity: Identity,
    password: &'a str,
}

impl<'a> Claim<'a> {
    fn read(connect: &'a Connect, hub_name: &str, device_id: &str) -> Result<Self, Refusal> {
        // A stranger chose it: it goes into the log escaped, and not in any length.
        let foreign = || Refusal::ClientId(connect.client_id.chars().take(2 * MAX_ID_LEN + 1).collect());
        let identity = Identity::from_client_id(&connect.client_id).map_err(|_| foreign())?;
        let is_own = identity.device_id() == device_id;
        let is_client = match identity.module_id() {
            Some(module) => ![EDGE_AGENT, EDGE_HUB].contains(&module),
            None => !is_own,
        };
        if !is_client {
            return Err(foreign());
        }
        let login = connect.login.as_ref().ok_or(Refusal::Username)?;
        let username = Username::parse(&login.username).map_err(|_| Refusal::Username)?;
        if username.identity != identity || !username.hub_name.eq_ignore_ascii_case(hub_name) {
            return Err(Refusal::Username);
        }
        Ok(Self { identity, password: &login.password })
    }
}

impl Gateway {
    /// Checks what a client says of itself. `certificate` is the one of the TLS connection.
    pub(super) async fn authenticate(
        &self,
        connect: &Connect,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Admitted, Refusal> {
        let (identities, hub_name) = (&self.upstream.identities, &self.upstream.link.hub_name);
        let Claim { identity, password } = Claim::read(connect, hub_name, identities.device_id())?;
        self.verify(identity, password, certificate).await
    }

    /// Verifies what somebody shows who may use the gateway.
    pub(super) async fn verify(
        &self,
        identity: Identity,
        token: &str,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Admitted, Refusal> {
        let shown = Shown::read(token, certificate)
            .map_err(|source| Refusal::Malformed { client: identity.clone(), source })?;
        let verified = |credentials: Arc<Credentials>| {
            let hub_name = &self.upstream.link.hub_name;
            let verified = credentials.verify(&shown, hub_name, &self.authorities, Timestamp::now());
            verified.map(|proof_life| Admitted { credentials, proof_life })
        };
        if let Some(module) = self.own_module(&identity)? {
            let outcome = verified(Arc::new(Credentials::from(&*module)));
            return outcome.map_err(|source| Refusal::Proof { client: identity, source });
        }
        let first = match self.member(&identity, false).await? {
            Member::Enabled(credentials) => {
                verified(credentials).map_err(|source| Refusal::Proof { client: identity.clone(), source })
            }
            Member::Disabled => Err(Refusal::Disabled(identity.clone())),
        };
        if first.is_ok() {
            return first;
        }
        // Its proof or its state may be another by now.
        match self.member(&identity, true).await {
            Ok(Member::Enabled(credentials)) => {
                verified(credentials).map_err(|source| Refusal::Proof { client: identity, source })
            }
            Ok(Member::Disabled) => Err(Refusal::Disabled(identity)),
            Err(_) => first,
        }
    }

    /// A module of the deployment, when its keys are known; an error for one that is not in the deployment.
    fn own_module(&self, identity: &Identity) -> Result<Option<Arc<ModuleIdentity>>, Refusal> {
        let identities = &self.upstream.identities;
        let Some(module) = identity.module_id().filter(|_| identity.device_id() == identities.device_id())
        else {
            return Ok(None);
        };
        let deployment = self.deployments.borrow().clone();
        match deployment.map(|deployment| deployment.modules.contains_key(module)) {
            Some(false) => Err(Refusal::UnknownModule(module.to_owned())),
            Some(true) => Ok(identities.get(module)),
            None => Ok(None),
        }
    }

    async fn member(&self, identity: &Identity, again: bool) -> Result<Member, Refusal> {
        match self.scope.member(identity, again).await {
            Ok(Some(member)) => Ok(member),
            Ok(None) => Err(Refusal::NotInScope(identity.clone())),
            Err(error) => {
                tracing::debug!("{identity}: {error}");
                Err(Refusal::NotYetKnown(identity.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_client_id_stays_one_line_of_bounded_length() {
        let connect = Connect::new(format!("d/m\n<3>forged{}", "x".repeat(60_000)));
        let refusal = Claim::read(&connect, "hub.test", "d").unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains("d/m\\n<3>forged") && !text.contains('\n') && text.len() < 1000, "{text}");
        assert_eq!(refusal.code(), ConnectReturnCode::BadClientId);
    }
}
