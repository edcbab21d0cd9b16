//! Certificates and private keys as people bring them in files: what is in them, and whether they belong together.
//!
//! A server only says that it refuses; here each thing that can be wrong with a file has a name of its own.

use jiff::Timestamp;
use rustls::crypto::ring::sign::any_supported_type;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Thumbprint;
use crate::secret::Secret;

/// Why the text is not a chain of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// There is no PEM certificate in it.
    #[error("the text has no PEM certificate")]
    None,
    /// What stands between the lines `BEGIN` and `END` is not base64, or not a certificate.
    #[error("certificate {0} of the text is damaged")]
    Damaged(usize),
}

/// Why the text is not a private key that can be compared with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM private key in it.
    #[error("the text has no PEM private key")]
    None,
    /// It can be used only with its password.
    #[error("the private key is encrypted")]
    Encrypted,
    /// What stands between the lines `BEGIN` and `END` is not base64.
    #[error("the private key is damaged")]
    Damaged,
    /// It is damaged within, or is neither RSA of at least 2048 bits nor on a curve that is known here.
    #[error("the private key is damaged or of a kind that is not known")]
    Unknown,
}

/// One certificate of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCertificate {
    /// The common name of its subject.
    pub common_name: Option<String>,
    /// Its subject, in words.
    pub subject: String,
    /// Whose certificate has issued it, in words.
    pub issuer: String,
    /// Whether it may issue others.
    pub is_authority: bool,
    /// Whether a client may prove itself by it.
    pub is_for_clients: bool,
    /// The first and the last moment of its validity.
    pub validity: [Option<Timestamp>; 2],
    der: CertificateDer<'static>,
}

/// Reads all certificates of a file, in their order.
pub fn read_certificates(pem: &str) -> Result<Vec<FileCertificate>, ChainError> {
    let mut certificates = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let damaged = ChainError::Damaged(certificates.len() + 1);
        let certificate = der.ok().and_then(FileCertificate::read);
        certificates.push(certificate.ok_or(damaged)?);
    }
    if certificates.is_empty() { Err(ChainError::None) } else { Ok(certificates) }
}

impl FileCertificate {
    fn read(der: CertificateDer<'static>) -> Option<Self> {
        let Ok(([], parsed)) = X509Certificate::from_der(&der) else { return None };
        let usages = parsed.extended_key_usage().ok().flatten();
        let moment = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let validity = parsed.validity();
        let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Some(Self {
            common_name: common_name.map(str::to_owned),
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            is_authority: parsed.is_ca(),
            is_for_clients: usages.is_none_or(|usages| usages.value.any || usages.value.client_auth),
            validity: [moment(validity.not_before), moment(validity.not_after)],
            der,
        })
    }

    /// The hash of the whole certificate, by SHA-256.
    pub fn thumbprint(&self) -> Thumbprint {
        Thumbprint::sha256(&self.der)
    }

    /// The same by SHA-1, which many tools show.
    pub fn thumbprint_sha1(&self) -> Thumbprint {
        Thumbprint::sha1(&self.der)
    }

    /// Whether nobody else has issued it.
    pub fn is_self_signed(&self) -> bool {
        self.is_issued_by(self)
    }

    /// Whether it names the other one as its issuer, and that one's key has signed it.
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        let (own, issuer) = (X509Certificate::from_der(&self.der), X509Certificate::from_der(&issuer.der));
        let (Ok((_, own)), Ok((_, issuer))) = (own, issuer) else { return false };
        own.issuer().as_raw() == issuer.subject().as_raw()
            && own.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// Whether it is the certificate of this key.
    pub fn belongs_to(&self, key: &FileKey) -> bool {
        X509Certificate::from_der(&self.der)
            .is_ok_and(|(_, own)| own.public_key().raw == key.public.as_slice())
    }
}

/// The public half of a private key in a file: PKCS #8, PKCS #1 or SEC 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileKey {
    public: Vec<u8>,
}

impl FileKey {
    /// Reads the first private key of a text.
    pub fn from_pem(pem: &Secret) -> Result<Self, KeyError> {
        let text = pem.expose();
        // RFC 7468, and the older form of OpenSSL.
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
            rustls_pki_types::pem::Error::NoItemsFound => KeyError::None,
            _ => KeyError::Damaged,
        })?;
        let key = any_supported_type(&key).map_err(|_| KeyError::Unknown)?;
        let public = key.public_key().ok_or(KeyError::Unknown)?;
        Ok(Self { public: public.as_ref().to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pki::{CertificateAuthority, Validity, self_signed_client};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_chain_is_read_with_who_has_issued_whom() {
        let root = CertificateAuthority::generate("root").unwrap();
        let low = root.issue_authority("low", Validity::for_next(DAY)).unwrap();
        let issued = low.issue_client("press-7", Validity::for_next(DAY)).unwrap();
        let chain = read_certificates(&format!("{}{}", issued.chain_pem, root.certificate_pem())).unwrap();
        let [own, low, root] = chain.as_slice() else { panic!("{chain:?}") };
        assert_eq!((own.common_name.as_deref(), own.issuer.as_str()), (Some("press-7"), "CN=low"));
        assert!(own.is_issued_by(low) && low.is_issued_by(root) && root.is_self_signed());
        assert!(!own.is_issued_by(root) && !own.is_self_signed() && !low.is_issued_by(own));
        assert!(low.is_authority && !own.is_authority && own.is_for_clients);
        // One of the same name with another key has not signed it.
        let impostor = CertificateAuthority::generate("low").unwrap();
        let impostor = read_certificates(impostor.certificate_pem()).unwrap();
        assert!(!own.is_issued_by(&impostor[0]));
        let server = low_server();
        assert!(!server.is_for_clients, "{server:?}");
    }

    fn low_server() -> FileCertificate {
        let authority = CertificateAuthority::generate("CA").unwrap();
        let issued = authority.issue_server(&["h.test"], DAY).unwrap();
        read_certificates(&issued.chain_pem).unwrap().remove(0)
    }

    #[test]
    fn a_key_is_told_from_the_key_of_another_certificate() {
        let [one, other] = ["d", "e"].map(|name| self_signed_client(name, Validity::for_next(DAY)).unwrap());
        let certificate = &read_certificates(&one.chain_pem).unwrap()[0];
        assert!(certificate.belongs_to(&FileKey::from_pem(&one.key_pem).unwrap()));
        assert!(!certificate.belongs_to(&FileKey::from_pem(&other.key_pem).unwrap()));
    }

    /// Made with `openssl genpkey`, `openssl rsa -traditional` and `openssl ec`: the same key in both of its forms.
    #[test]
    fn every_form_of_a_private_key_is_read() {
        for (pkcs8, traditional) in [
            (include_str!("testdata/rsa.pkcs8.pem"), include_str!("testdata/rsa.pkcs1.pem")),
            (include_str!("testdata/p384.pkcs8.pem"), include_str!("testdata/p384.sec1.pem")),
        ] {
            let [one, other] = [pkcs8, traditional].map(|pem| FileKey::from_pem(&Secret::new(pem)));
            assert!(one.is_ok());
            assert_eq!(one, other);
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let good = self_signed_client("d", Validity::for_next(DAY)).unwrap();
        let cut = |text: &str| text.lines().take(2).map(|line| format!("{line}\n")).collect::<String>();
        for (text, expected) in [
            (include_str!("testdata/encrypted.pkcs8.pem").to_owned(), KeyError::Encrypted),
            (include_str!("testdata/encrypted.pkcs1.pem").to_owned(), KeyError::Encrypted),
            ("a2V5".to_owned(), KeyError::None),
            (good.chain_pem.clone(), KeyError::None),
            (cut(good.key_pem.expose()), KeyError::Damaged),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(), KeyError::Unknown),
        ] {
            assert_eq!(FileKey::from_pem(&Secret::new(text)), Err(expected));
        }
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, expected) in [
            (String::new(), ChainError::None),
            (good.key_pem.expose().to_owned(), ChainError::None),
            (damaged.to_owned(), ChainError::Damaged(1)),
            (format!("{}{damaged}", good.chain_pem), ChainError::Damaged(2)),
            (cut(&good.chain_pem), ChainError::Damaged(1)),
        ] {
            assert_eq!(read_certificates(&text), Err(expected), "{text}");
        }
    }
}
