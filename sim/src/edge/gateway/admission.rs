//! Who may connect to the gateway.

use std::sync::Arc;

use crate::edge::identity::{IdentityService, ModuleIdentity};
use crate::identity::{EDGE_AGENT, EDGE_HUB, Identity, Username};
use crate::mqtt::packet::{Connect, ConnectReturnCode};
use crate::sas::SasError;

/// Why a client was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the client id \"{0}\" is not that of a module of this device")]
    ClientId(String),
    #[error("the user name does not belong to the client id, or names another hub")]
    Username,
    #[error("the module {0} is not known yet")]
    NotYetKnown(String),
    #[error("there is no module {0} in the deployment")]
    UnknownModule(String),
    #[error("{module}: {source}")]
    Token { module: String, source: SasError },
}

impl Refusal {
    /// The code of the CONNACK, as the real gateway chooses it.
    pub(super) fn code(&self) -> ConnectReturnCode {
        match self {
            Self::ClientId(_) => ConnectReturnCode::BadClientId,
            Self::Username => ConnectReturnCode::BadUserNamePassword,
            Self::NotYetKnown(_) => ConnectReturnCode::ServiceUnavailable,
            Self::UnknownModule(_) | Self::Token { .. } => ConnectReturnCode::NotAuthorized,
        }
    }
}

/// Checks what a client says of itself.
///
/// `is_deployed` tells whether a module belongs to the deployment, or `None` before the first one came.
pub(super) fn admit(
    connect: &Connect,
    identities: &IdentityService,
    hub_name: &str,
    is_deployed: impl Fn(&str) -> Option<bool>,
    now: u64,
) -> Result<Arc<ModuleIdentity>, Refusal> {
    let foreign = || Refusal::ClientId(connect.client_id.clone());
    let identity = Identity::from_client_id(&connect.client_id).map_err(|_| foreign())?;
    let module = identity
        .module_id()
        .filter(|module| ![EDGE_AGENT, EDGE_HUB].contains(module))
        .filter(|_| identity.device_id() == identities.device_id())
        .ok_or_else(foreign)?;
    let login = connect.login.as_ref().ok_or(Refusal::Username)?;
    let username = Username::parse(&login.username).map_err(|_| Refusal::Username)?;
    if username.identity != identity || !username.hub_name.eq_ignore_ascii_case(hub_name) {
        return Err(Refusal::Username);
    }
    match (is_deployed(module), identities.get(module)) {
        (Some(false), _) => Err(Refusal::UnknownModule(module.to_owned())),
        (Some(true), Some(known)) => match known.verify(&login.password, hub_name, now) {
            Ok(()) => Ok(known),
            Err(source) => Err(Refusal::Token { module: module.to_owned(), source }),
        },
        _ => Err(Refusal::NotYetKnown(module.to_owned())),
    }
}
