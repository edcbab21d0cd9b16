//! A client with that by which it proves who it is, and by which the gateway speaks for it.

use std::time::Duration;

use jiff::Timestamp;

use crate::edge::identity::ModuleIdentity;
use crate::identity::Identity;
use crate::sas::{SasError, SharedAccessKey, Token, sign, unix_seconds};
use crate::secret::Secret;
use crate::x509::{Authorities, ClientCertificate, Thumbprint, X509Error};

/// Lifetime of the tokens that open sessions at the hub.
const SESSION_TOKEN_SECS: u64 = 3600;

/// By what the hub knows a client.
#[derive(Debug)]
pub(in crate::edge) enum Proof {
    /// Tokens that one of its keys has signed.
    Keys([SharedAccessKey; 2]),
    /// A certificate with one of these thumbprints.
    Thumbprints(Vec<Thumbprint>),
    /// A certificate in its name, of an authority that the device trusts.
    Authority,
}

/// What a client shows; a token counts when there is one, as at the hub.
pub(super) enum Shown<'a> {
    Token(Token),
    Certificate(&'a ClientCertificate),
}

impl<'a> Shown<'a> {
    /// Takes the token of a header or a password, or else the certificate of the TLS connection.
    pub(super) fn read(token: &str, certificate: Option<&'a ClientCertificate>) -> Result<Self, SasError> {
        match certificate.filter(|_| token.is_empty()) {
            Some(certificate) => Ok(Self::Certificate(certificate)),
            None => Token::parse(token).map(Self::Token),
        }
    }
}

/// Why what a client shows is no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProofError {
    #[error(transparent)]
    Token(#[from] SasError),
    #[error("the client certificate is refused: {0}")]
    Certificate(#[from] X509Error),
    #[error("the thumbprint of the client certificate is not that of the device")]
    Thumbprint,
    #[error("the common name of the client certificate is not that of the device")]
    CommonName,
    #[error("no authority of trust_bundle_cert has issued the client certificate")]
    Issuer,
    #[error("it proves itself in the other way, by a token or by a certificate")]
    OtherKind,
}

/// A client with its proof.
#[derive(Debug)]
pub(in crate::edge) struct Credentials {
    /// Who it is.
    pub(in crate::edge) identity: Identity,
    proof: Proof,
}

impl Credentials {
    /// A client with its proof.
    pub(in crate::edge) fn new(identity: Identity, proof: Proof) -> Self {
        Self { identity, proof }
    }

    /// A token for a session of this client at the hub, when its keys are known. For others `$edgeHub` speaks with a
    /// token of its own.
    pub(super) fn token(&self, hub_name: &str) -> Option<Secret> {
        let Proof::Keys([key, _]) = &self.proof else { return None };
        let expiry = unix_seconds(Timestamp::now()) + SESSION_TOKEN_SECS;
        Some(Secret::new(sign(&self.identity.resource(hub_name), key, expiry, None)))
    }

    /// Verifies what the client shows; gives how long it is good.
    pub(super) fn verify(
        &self,
        shown: &Shown<'_>,
        hub_name: &str,
        authorities: &Authorities,
        now: Timestamp,
    ) -> Result<Duration, ProofError> {
        match (&self.proof, shown) {
            (Proof::Keys(keys), Shown::Token(token)) => {
                let now = unix_seconds(now);
                token.verify(keys, &self.identity.resource(hub_name), now)?;
                Ok(token.remaining(now))
            }
            (Proof::Thumbprints(thumbprints), Shown::Certificate(certificate)) => {
                if !thumbprints.iter().any(|thumbprint| certificate.has(thumbprint)) {
                    return Err(ProofError::Thumbprint);
                }
                certificate.check_validity(now)?;
                Ok(certificate.remaining(now))
            }
            (Proof::Authority, Shown::Certificate(certificate)) => {
                if certificate.common_name() != Some(self.identity.to_string().as_str()) {
                    return Err(ProofError::CommonName);
                }
                certificate.check_validity(now)?;
                if !authorities.have_issued(certificate, now) {
                    return Err(ProofError::Issuer);
                }
                Ok(certificate.remaining(now))
            }
            _ => Err(ProofError::OtherKind),
        }
    }
}

impl From<&ModuleIdentity> for Credentials {
    fn from(module: &ModuleIdentity) -> Self {
        Self::new(module.identity.clone(), Proof::Keys(module.keys().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{CertificateAuthority, Validity};

    const HUB: &str = "hub.test";
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn each_client_proves_itself_in_its_own_way() {
        let (ours, other) =
            ["ours", "other"].map(|name| CertificateAuthority::generate(name).unwrap()).into();
        let show = |authority: &CertificateAuthority, name: &str| {
            let issued = authority.issue_client(name, Validity::for_next(DAY)).unwrap();
            ClientCertificate::from_pem(&issued.chain_pem).unwrap()
        };
        let (own, stranger) = (show(&ours, "leaf"), show(&other, "leaf"));
        let key = SharedAccessKey::from_bytes(vec![1; 32]).unwrap();
        let leaf = |proof| Credentials::new(Identity::device("leaf").unwrap(), proof);
        let keys = leaf(Proof::Keys([key.clone(), key]));
        let thumbprints = leaf(Proof::Thumbprints(vec![stranger.thumbprint(), own.thumbprint_sha1()]));
        let authority = leaf(Proof::Authority);
        let authorities = Authorities::from_pem([ours.certificate_pem()]).unwrap();
        let now = Timestamp::now();
        let late = Timestamp::from_second(now.as_second() + 2 * 24 * 3600).unwrap();
        let token = || Shown::read(keys.token(HUB).unwrap().expose(), Some(&own)).unwrap();
        let certificate = Shown::Certificate;
        let nobody = show(&ours, "nobody");
        for (name, credentials, shown, now, expected) in [
            ("its token", &keys, token(), now, None),
            ("its certificate", &thumbprints, certificate(&own), now, None),
            ("its other certificate", &thumbprints, certificate(&stranger), now, None),
            ("the authority's", &authority, certificate(&own), now, None),
            ("a certificate for keys", &keys, certificate(&own), now, Some(ProofError::OtherKind)),
            ("a token for thumbprints", &thumbprints, token(), now, Some(ProofError::OtherKind)),
            ("a token for an authority", &authority, token(), now, Some(ProofError::OtherKind)),
            ("another thumbprint", &thumbprints, certificate(&nobody), now, Some(ProofError::Thumbprint)),
            ("another name", &authority, certificate(&nobody), now, Some(ProofError::CommonName)),
            ("another authority", &authority, certificate(&stranger), now, Some(ProofError::Issuer)),
            ("too late", &thumbprints, certificate(&own), late, Some(X509Error::Expired.into())),
            ("too late", &authority, certificate(&own), late, Some(X509Error::Expired.into())),
        ] {
            assert_eq!(credentials.verify(&shown, HUB, &authorities, now).err(), expected, "{name}");
        }
        let none = Authorities::default();
        assert_eq!(authority.verify(&certificate(&own), HUB, &none, now), Err(ProofError::Issuer));
        assert!(Shown::read("", None).is_err() && Shown::read("", Some(&own)).is_ok());
        assert!(thumbprints.token(HUB).is_none() && authority.token(HUB).is_none());
    }
}
