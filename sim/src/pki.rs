//! Certificates that KEdge issues itself: a certificate authority, and certificates of servers and clients under it.
//!
//! The tool makes one for the hub and the simulated edge one for its gateway; devices can prove who they are by one. Keys are ECDSA P-256; everything
//! goes in and out as PEM, and private keys are [`Secret`]s.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

use crate::secret::Secret;

const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates begin a little in the past, since the clock of a client may be slow.
const BACKDATED: Duration = Duration::from_secs(3600);

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A server certificate without a name proves nothing.
    #[error("a server certificate needs at least one name")]
    NoNames,
    /// The validity does not fit a calendar, or is over before it begins.
    #[error("the validity of a certificate is out of range")]
    Validity,
    /// The library refused a name, a certificate or a key.
    #[error("failed to make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// A certificate authority that issues server certificates.
pub struct CertificateAuthority {
    certificate_pem: String,
    key_pem: Secret,
    issuer: Issuer<'static, KeyPair>,
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// From a little before now, since the clock of the other side may be slow. A duration that no calendar has makes
    /// a validity that is refused.
    pub fn for_next(duration: Duration) -> Self {
        let now = SystemTime::now();
        let not_before = now.checked_sub(BACKDATED).unwrap_or(now);
        Self { not_before, not_after: now.checked_add(duration).unwrap_or(SystemTime::UNIX_EPOCH) }
    }
}

/// A certificate with its private key.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// The certificate, followed by that of the authority.
    pub chain_pem: String,
    /// PKCS #8.
    pub key_pem: Secret,
}

impl CertificateAuthority {
    /// Makes a self-signed authority, good for ten years.
    pub fn generate(common_name: &str) -> Result<Self, PkiError> {
        let params = authority_params(common_name, Validity::for_next(AUTHORITY_VALIDITY))?;
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        let key_pem = Secret::new(key.serialize_pem());
        Ok(Self { certificate_pem, key_pem, issuer: Issuer::new(params, key) })
    }

    /// Makes an authority under this one. Certificates that it issues come with its own, not with this one's.
    pub fn issue_authority(&self, common_name: &str, validity: Validity) -> Result<Self, PkiError> {
        let params = authority_params(common_name, validity)?;
        let key = KeyPair::generate()?;
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        let key_pem = Secret::new(key.serialize_pem());
        Ok(Self { certificate_pem, key_pem, issuer: Issuer::new(params, key) })
    }

    /// Takes up an authority that was made before.
    pub fn load(certificate_pem: &str, key_pem: &Secret) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem.expose())?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)?;
        Ok(Self { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.clone(), issuer })
    }

    /// The authority's certificate, for the trust store of clients.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key.
    pub fn key_pem(&self) -> &Secret {
        &self.key_pem
    }

    /// Issues a server certificate for DNS names and IP addresses; the first is also the common name.
    pub fn issue_server(&self, names: &[&str], validity: Duration) -> Result<IssuedCertificate, PkiError> {
        let first = names.first().ok_or(PkiError::NoNames)?;
        let alternative_names = names.iter().map(|&name| name.to_owned()).collect();
        let params = new_params(alternative_names, first, Validity::for_next(validity))?;
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a certificate by which a client proves to be `common_name`: for IoT Hub `{device}` or
    /// `{device}/{module}`, for its provisioning service the registration id.
    pub fn issue_client(&self, common_name: &str, validity: Validity) -> Result<IssuedCertificate, PkiError> {
        let params = new_params(Vec::new(), common_name, validity)?;
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Issues a certificate by which a client proves to be what the URI names.
    pub fn issue_client_for(
        &self,
        common_name: &str,
        uri: &str,
        validity: Validity,
    ) -> Result<IssuedCertificate, PkiError> {
        let mut params = new_params(Vec::new(), common_name, validity)?;
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<IssuedCertificate, PkiError> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?.pem();
        Ok(IssuedCertificate {
            chain_pem: format!("{leaf}{}", self.certificate_pem),
            key_pem: Secret::new(key.serialize_pem()),
        })
    }
}

/// Makes a self-signed certificate of a client, which is registered by its thumbprint.
pub fn self_signed_client(common_name: &str, validity: Validity) -> Result<IssuedCertificate, PkiError> {
    let mut params = new_params(Vec::new(), common_name, validity)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let chain_pem = params.self_signed(&key)?.pem();
    Ok(IssuedCertificate { chain_pem, key_pem: Secret::new(key.serialize_pem()) })
}

fn authority_params(common_name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut params = new_params(Vec::new(), common_name, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn new_params(
    names: Vec<String>,
    common_name: &str,
    validity: Validity,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if validity.not_after <= validity.not_before {
        return Err(PkiError::Validity);
    }
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Trust, client_config, server_config};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn an_authority_that_was_loaded_issues_under_the_same_certificate() {
        let authority = CertificateAuthority::generate("KEdge test CA").unwrap();
        let loaded = CertificateAuthority::load(authority.certificate_pem(), authority.key_pem()).unwrap();
        assert_eq!(loaded.certificate_pem(), authority.certificate_pem());
        let issued = loaded.issue_server(&["hub.kedge.test", "127.0.0.1"], DAY).unwrap();
        assert_eq!(issued.chain_pem.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(issued.chain_pem.ends_with(authority.certificate_pem()));
        server_config(&issued.chain_pem, &issued.key_pem).unwrap();
        client_config(Trust::Only(authority.certificate_pem())).unwrap();
    }

    #[test]
    fn keys_are_not_printed() {
        let authority = CertificateAuthority::generate("KEdge test CA").unwrap();
        let issued = authority.issue_server(&["a.test"], DAY).unwrap();
        assert!(!format!("{issued:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_cannot_be_issued_is_refused() {
        let authority = CertificateAuthority::generate("KEdge test CA").unwrap();
        assert!(matches!(authority.issue_server(&[], DAY), Err(PkiError::NoNames)));
        assert!(matches!(authority.issue_server(&["ä.test"], DAY), Err(PkiError::Certificate(_))));
        assert!(matches!(authority.issue_server(&["a.test"], Duration::MAX), Err(PkiError::Validity)));
        assert!(CertificateAuthority::load("not PEM", authority.key_pem()).is_err());
        assert!(CertificateAuthority::load(authority.certificate_pem(), &Secret::new("")).is_err());
    }
}
