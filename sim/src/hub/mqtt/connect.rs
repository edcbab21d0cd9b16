//! CONNECT: who wants in, and whether it may.

use std::time::Duration;

use jiff::Timestamp;

use super::message::{Message, Refusal};
use crate::hub::authority::{AuthError, Authority, Credential};
use crate::hub::store::Store;
use crate::identity::{Identity, IdentityError, Username};
use crate::mqtt::packet::{Connect, ConnectReturnCode};
use crate::sas::SasError;
use crate::x509::ClientCertificate;

/// IoT Hub answers this for a longer wish, too.
const MAX_KEEP_ALIVE_SECS: u16 = 1177;

/// Why a CONNECT is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    ClientId(IdentityError),
    #[error("there is no user name")]
    NoUsername,
    #[error(transparent)]
    Username(IdentityError),
    #[error("the user name is for another hub or another identity")]
    OtherUsername,
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the will is refused")]
    Will(#[from] Refusal),
    #[error("the hub cannot write its state")]
    Storage,
}

impl ConnectError {
    /// The code that IoT Hub answers with.
    pub(super) fn code(&self) -> ConnectReturnCode {
        match self {
            Self::ClientId(_) => ConnectReturnCode::BadClientId,
            Self::NoUsername
            | Self::Username(_)
            | Self::OtherUsername
            | Self::Auth(AuthError::Missing | AuthError::Token(SasError::Malformed(_))) => {
                ConnectReturnCode::BadUserNamePassword
            }
            Self::Auth(_) | Self::Will(_) => ConnectReturnCode::NotAuthorized,
            Self::Storage => ConnectReturnCode::ServiceUnavailable,
        }
    }
}

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) identity: Identity,
    /// The edge device whose gateway connects in the place of the identity.
    pub(super) gateway: Option<String>,
    pub(super) keep_alive_secs: u16,
    /// How long the token or the certificate is good, and with it the connection.
    pub(super) token_life: Duration,
    /// To be stored when the connection ends without a DISCONNECT.
    pub(super) will: Option<Message>,
}

/// Decides about a CONNECT. `certificate` is the one of the TLS connection.
pub(super) fn accept(
    connect: &Connect,
    certificate: Option<&ClientCertificate>,
    authority: &Authority,
    store: &Store,
    now: Timestamp,
) -> Result<Accepted, ConnectError> {
    let identity = Identity::from_client_id(&connect.client_id).map_err(ConnectError::ClientId)?;
    let login = connect.login.as_ref().ok_or(ConnectError::NoUsername)?;
    let username = Username::parse(&login.username).map_err(ConnectError::Username)?;
    let same_hub = username.hub_name.eq_ignore_ascii_case(authority.hub_name());
    if !same_hub || username.identity != identity {
        return Err(ConnectError::OtherUsername);
    }
    let password = Some(login.password.as_str()).filter(|password| !password.is_empty());
    let credential = Credential::read(password, certificate)?;
    let gateway = username.acting_device();
    let token_life = match &gateway {
        Some(edge) => authority.verify_on_behalf_of(store, edge, &identity, &credential, now)?,
        None => authority.verify_identity(store, &identity, &credential, now)?,
    };
    let will = connect.last_will.as_ref();
    let will = will.map(|will| Message::from_will(&identity, will, store)).transpose()?;
    let keep_alive_secs = match connect.keep_alive {
        0 => MAX_KEEP_ALIVE_SECS,
        secs => secs.min(MAX_KEEP_ALIVE_SECS),
    };
    Ok(Accepted { identity, gateway, keep_alive_secs, token_life, will })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::store::{Authentication, DeviceSpec};
    use crate::mqtt::QoS;
    use crate::mqtt::packet::LastWill;
    use crate::sas::{CLOCK_SKEW_SECS, SharedAccessKey, sign};

    const EXPIRY: u64 = 1_790_003_600;

    fn key() -> SharedAccessKey {
        SharedAccessKey::from_bytes(vec![1; 32]).unwrap()
    }

    fn connect() -> Connect {
        let mut connect = Connect::new("d");
        connect.keep_alive = 60;
        let token = sign("hub.test/devices/d", &key(), EXPIRY, None);
        connect.set_login("hub.test/d/?api-version=2021-04-12", token);
        connect
    }

    fn decide(connect: &Connect) -> Result<Accepted, ConnectError> {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let authentication = Some(Authentication::Sas { primary: key(), secondary: key() });
        let mut store = Store::default();
        store.create_device("d", DeviceSpec { authentication, ..DeviceSpec::default() }, now).unwrap();
        let authority = Authority::new("hub.test", SharedAccessKey::generate().unwrap(), None);
        accept(connect, None, &authority, &store, now)
    }

    fn code_of(change: impl FnOnce(&mut Connect)) -> ConnectReturnCode {
        let mut connect = connect();
        change(&mut connect);
        decide(&connect).unwrap_err().code()
    }

    #[test]
    fn a_device_with_its_token_is_let_in() {
        let accepted = decide(&connect()).unwrap();
        assert_eq!((accepted.identity.to_string().as_str(), accepted.keep_alive_secs), ("d", 60));
        assert_eq!(accepted.token_life, Duration::from_secs(3600 + CLOCK_SKEW_SECS));
        for (wish, given) in [(0, 1177), (1177, 1177), (u16::MAX, 1177), (1, 1)] {
            let connect = Connect { keep_alive: wish, ..connect() };
            assert_eq!(decide(&connect).unwrap().keep_alive_secs, given);
        }
    }

    #[test]
    fn each_refusal_has_the_code_of_iot_hub() {
        let login = |username: &str| {
            let username = username.to_owned();
            move |connect: &mut Connect| {
                let password = connect.login.take().unwrap().password;
                connect.set_login(username, password);
            }
        };
        let password = |password: String| {
            move |connect: &mut Connect| connect.login.as_mut().unwrap().password = password
        };
        for client_id in ["", "d/", "a b"] {
            assert_eq!(
                code_of(|connect| connect.client_id = client_id.into()),
                ConnectReturnCode::BadClientId
            );
        }
        assert_eq!(code_of(|connect| connect.login = None), ConnectReturnCode::BadUserNamePassword);
        for username in ["", "d", "other.test/d/", "hub.test/e/", "hub.test/d/m/"] {
            assert_eq!(code_of(login(username)), ConnectReturnCode::BadUserNamePassword, "{username:?}");
        }
        for text in ["", "secret", "SharedAccessSignature sr=a"] {
            assert_eq!(code_of(password(text.into())), ConnectReturnCode::BadUserNamePassword, "{text:?}");
        }
        let other_key = SharedAccessKey::from_bytes(vec![2; 32]).unwrap();
        for token in [
            sign("hub.test/devices/d", &other_key, EXPIRY, None),
            sign("hub.test/devices/d", &key(), 1_789_000_000, None),
            sign("hub.test/devices/e", &key(), EXPIRY, None),
        ] {
            assert_eq!(code_of(password(token)), ConnectReturnCode::NotAuthorized);
        }
        let foreign_will = LastWill {
            topic: "devices/e/messages/events/".into(),
            message: "x".into(),
            qos: QoS::AtLeastOnce,
            retain: false,
        };
        assert_eq!(
            code_of(|connect| connect.last_will = Some(foreign_will)),
            ConnectReturnCode::NotAuthorized
        );
    }
}
