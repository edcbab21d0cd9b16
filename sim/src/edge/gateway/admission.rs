//! Who may connect to the gateway.

use std::sync::Arc;
use std::time::Duration;

use crate::edge::identity::{IdentityService, ModuleIdentity};
use crate::identity::{EDGE_AGENT, EDGE_HUB, Identity, MAX_ID_LEN, Username};
use crate::mqtt::packet::{Connect, ConnectReturnCode};
use crate::sas::SasError;

/// Why a client was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the client id {0:?} is not that of a module of this device")]
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

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) identity: Arc<ModuleIdentity>,
    /// How long the token is good, and with it the connection.
    pub(super) token_life: Duration,
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
) -> Result<Admitted, Refusal> {
    // A stranger chose it: it goes into the log escaped, and not in any length.
    let foreign = || Refusal::ClientId(connect.client_id.chars().take(2 * MAX_ID_LEN + 1).collect());
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
        (Some(true), Some(identity)) => match identity.verify(&login.password, hub_name, now) {
            Ok(token_life) => Ok(Admitted { identity, token_life }),
            Err(source) => Err(Refusal::Token { module: module.to_owned(), source }),
        },
        _ => Err(Refusal::NotYetKnown(module.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::backup::Backup;
    use crate::edge::identity::DeviceCredential;
    use crate::http::HttpClient;
    use crate::sas::SharedAccessKey;
    use crate::tls::{Endpoint, Trust, client_config};

    #[test]
    fn a_strangers_client_id_stays_one_line_of_bounded_length() {
        let authority = crate::pki::CertificateAuthority::generate("test CA").unwrap();
        let tls = client_config(Trust::Only(authority.certificate_pem())).unwrap();
        let http = HttpClient::new(Endpoint::new("hub.test", 443), tls);
        let key = || SharedAccessKey::generate().unwrap();
        let identities = IdentityService::new(
            http,
            "hub.test".into(),
            "d".into(),
            DeviceCredential::Sas(key()),
            key(),
            Backup::new("/nonexistent".as_ref(), "hub.test", "d"),
        );
        let connect = Connect::new(format!("d/m\n<3>forged{}", "x".repeat(60_000)));
        let refusal = admit(&connect, &identities, "hub.test", |_| Some(true), 0).unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains("d/m\\n<3>forged") && !text.contains('\n') && text.len() < 1000, "{text}");
        assert_eq!(refusal.code(), ConnectReturnCode::BadClientId);
    }
}
