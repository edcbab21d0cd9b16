//! Certificates by which clients prove who they are.
//!
//! The TLS handshake proves only that a client has the key of the certificate that it shows. Whom that certificate
//! stands for is decided here and by the callers: by its thumbprint, which somebody has registered, or by its
//! common name and a chain to an authority that somebody has registered.

pub mod files;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates that a client may show at once: its own and those of its issuers.
pub const MAX_CHAIN: usize = 8;

/// A client with a longer certificate proves itself anew each year.
const MAX_REMAINING: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    /// It is not a certificate, or has times outside of the calendar.
    #[error("it is not an X.509 certificate")]
    Malformed,
    /// The text has no PEM certificate.
    #[error("the text has no PEM certificate")]
    NoCertificate,
    /// A client shows more certificates than [`MAX_CHAIN`].
    #[error("the chain has more than {MAX_CHAIN} certificates")]
    TooLong,
    /// The certificate may not issue others.
    #[error("the certificate is not one of an authority")]
    NotAuthority,
    /// The text is not a thumbprint.
    #[error("a thumbprint has 40 (SHA-1) or 64 (SHA-256) hexadecimal digits")]
    Thumbprint,
    /// Its time has not come yet.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// Its time is over.
    #[error("the certificate has expired")]
    Expired,
}

/// The SHA-1 or SHA-256 hash of a certificate, as hexadecimal digits in upper case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Thumbprint(String);

impl FromStr for Thumbprint {
    type Err = X509Error;

    /// Colons and spaces are what other tools put between the bytes.
    fn from_str(text: &str) -> Result<Self, X509Error> {
        let digits: String = text.chars().filter(|char| !matches!(char, ':' | ' ')).take(65).collect();
        let valid = matches!(digits.len(), 40 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if valid { Ok(Self(digits.to_ascii_uppercase())) } else { Err(X509Error::Thumbprint) }
    }
}

impl TryFrom<String> for Thumbprint {
    type Error = X509Error;

    fn try_from(text: String) -> Result<Self, X509Error> {
        text.parse()
    }
}

impl From<Thumbprint> for String {
    fn from(thumbprint: Thumbprint) -> Self {
        thumbprint.0
    }
}

impl Thumbprint {
    /// The SHA-256 hash of a certificate.
    fn sha256(der: &[u8]) -> Self {
        Self(hex(&Sha256::digest(der)))
    }

    /// The SHA-1 hash of a certificate.
    fn sha1(der: &[u8]) -> Self {
        Self(hex(&Sha1::digest(der)))
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The certificate that a client has shown, and of which it has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    chain: Arc<[CertificateDer<'static>]>,
    common_name: Option<String>,
    not_before: i64,
    not_after: i64,
}

impl ClientCertificate {
    /// Takes the chain of a handshake: the client's own certificate, then those of its issuers.
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Result<Self, X509Error> {
        if chain.len() > MAX_CHAIN {
            return Err(X509Error::TooLong);
        }
        let own = parse(chain.first().ok_or(X509Error::NoCertificate)?)?;
        let common_name = own.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Ok(Self {
            common_name: common_name.map(str::to_owned),
            not_before: own.validity().not_before.timestamp(),
            not_after: own.validity().not_after.timestamp(),
            chain: chain.iter().cloned().map(CertificateDer::into_owned).collect(),
        })
    }

    /// Reads a chain from PEM.
    pub fn from_pem(pem: &str) -> Result<Self, X509Error> {
        Self::from_chain(&read_pem(pem)?)
    }

    /// The common name of its subject.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// True when the thumbprint is that of this certificate.
    pub fn has(&self, thumbprint: &Thumbprint) -> bool {
        let der = self.chain.first().map(AsRef::as_ref).unwrap_or_default();
        match thumbprint.0.len() {
            40 => Thumbprint::sha1(der) == *thumbprint,
            _ => Thumbprint::sha256(der) == *thumbprint,
        }
    }

    /// The SHA-256 thumbprint.
    pub fn thumbprint(&self) -> Thumbprint {
        Thumbprint::sha256(self.chain.first().map(AsRef::as_ref).unwrap_or_default())
    }

    /// The SHA-1 thumbprint, which many tools show.
    pub fn thumbprint_sha1(&self) -> Thumbprint {
        Thumbprint::sha1(self.chain.first().map(AsRef::as_ref).unwrap_or_default())
    }

    /// The first and the last moment of its validity.
    pub fn validity(&self) -> [Option<Timestamp>; 2] {
        [self.not_before, self.not_after].map(|seconds| Timestamp::from_second(seconds).ok())
    }

    /// Refuses a certificate whose time has not come or is over.
    pub fn check_validity(&self, now: Timestamp) -> Result<(), X509Error> {
        match now.as_second() {
            now if now < self.not_before => Err(X509Error::NotYetValid),
            now if now > self.not_after => Err(X509Error::Expired),
            _ => Ok(()),
        }
    }

    /// How long the certificate is still valid, as far as timers reach.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        let seconds = self.not_after.saturating_sub(now.as_second());
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).min(MAX_REMAINING)
    }
}

/// Certificate authorities whose certificates are believed.
#[derive(Clone, Default)]
pub struct Authorities {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Authorities {
    /// Takes authorities from PEM texts, each with one or more of them.
    pub fn from_pem<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, X509Error> {
        let mut roots = RootCertStore::empty();
        for text in texts {
            for certificate in read_pem(text)? {
                check_authority(&certificate)?;
                roots.add(certificate).map_err(|_| X509Error::Malformed)?;
            }
        }
        if roots.is_empty() {
            return Ok(Self::default());
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self { verifier: Some(verifier.map_err(|_| X509Error::Malformed)?) })
    }

    /// True when one of the authorities has issued the certificate, directly or through others in its chain, and
    /// all of them are valid now.
    pub fn have_issued(&self, certificate: &ClientCertificate, now: Timestamp) -> bool {
        let Some(((own, issuers), verifier)) = certificate.chain.split_first().zip(self.verifier.as_ref())
        else {
            return false;
        };
        let now = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        verifier.verify_client_cert(own, issuers, now).is_ok()
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("some", &self.verifier.is_some()).finish()
    }
}

fn check_authority(certificate: &CertificateDer<'_>) -> Result<(), X509Error> {
    let certificate = parse(certificate)?;
    if certificate.is_ca() { Ok(()) } else { Err(X509Error::NotAuthority) }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, X509Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(X509Error::Malformed),
    }
}

fn read_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, X509Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(X509Error::NoCertificate),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(X509Error::Malformed),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{CertificateAuthority, IssuedCertificate, Validity};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn authority(name: &str) -> CertificateAuthority {
        CertificateAuthority::generate(name).unwrap()
    }

    fn issue(authority: &CertificateAuthority, name: &str) -> IssuedCertificate {
        authority.issue_client(name, Validity::for_next(DAY)).unwrap()
    }

    fn read(issued: &IssuedCertificate) -> ClientCertificate {
        ClientCertificate::from_pem(&issued.chain_pem).unwrap()
    }

    #[test]
    fn thumbprints_are_read_in_the_forms_of_other_tools() {
        let certificate = read(&issue(&authority("CA"), "d"));
        let (sha1, sha256) = (certificate.thumbprint_sha1(), certificate.thumbprint());
        assert_eq!((sha1.to_string().len(), sha256.to_string().len()), (40, 64));
        for thumbprint in [&sha1, &sha256] {
            let text = thumbprint.to_string();
            let pairs: Vec<_> = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap()).collect();
            for text in [&text.to_ascii_lowercase(), &pairs.join(":"), &pairs.join(" "), &text] {
                assert_eq!(text.parse::<Thumbprint>().unwrap(), *thumbprint);
            }
            assert!(certificate.has(thumbprint));
        }
        let other = read(&issue(&authority("CA"), "d"));
        assert!(!other.has(&sha1) && !other.has(&sha256));
        for text in ["", "AB", &"G".repeat(40), &"A".repeat(39), &"A".repeat(65), &"ä".repeat(20)] {
            assert_eq!(text.parse::<Thumbprint>(), Err(X509Error::Thumbprint), "{text:?}");
        }
    }

    /// The thumbprint of a known certificate, made with `openssl x509 -fingerprint`.
    #[test]
    fn the_thumbprint_is_the_hash_of_the_whole_certificate() {
        let der = CertificateDer::from(b"abc".to_vec());
        assert_eq!(hex(&Sha1::digest(&der)), "A9993E364706816ABA3E25717850C26C9CD0D89D");
    }

    #[test]
    fn only_a_registered_authority_and_the_right_time_make_a_chain_good() {
        let (known, unknown) = (authority("CA"), authority("CA"));
        let now = Timestamp::now();
        let authorities = Authorities::from_pem([known.certificate_pem()]).unwrap();
        let good = read(&issue(&known, "d"));
        assert_eq!(good.common_name(), Some("d"));
        assert!(authorities.have_issued(&good, now));
        assert!(!authorities.have_issued(&read(&issue(&unknown, "d")), now));
        assert!(!Authorities::default().have_issued(&good, now));
        let below = known.issue_authority("low CA", Validity::for_next(DAY)).unwrap();
        assert!(authorities.have_issued(&read(&issue(&below, "d")), now));

        let day = jiff::SignedDuration::from_hours(25);
        let (early, late) = (now - day, now + day);
        for (time, result) in
            [(early, Err(X509Error::NotYetValid)), (now, Ok(())), (late, Err(X509Error::Expired))]
        {
            assert_eq!(good.check_validity(time), result);
            assert_eq!(authorities.have_issued(&good, time), result.is_ok());
        }
    }

    #[test]
    fn what_is_no_certificate_or_no_authority_is_refused() {
        let authority = authority("CA");
        let leaf = issue(&authority, "d").chain_pem;
        assert_eq!(Authorities::from_pem([leaf.as_str()]).unwrap_err(), X509Error::NotAuthority);
        assert_eq!(Authorities::from_pem([""]).unwrap_err(), X509Error::NoCertificate);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(ClientCertificate::from_pem(broken), Err(X509Error::Malformed));
        assert_eq!(ClientCertificate::from_chain(&[]), Err(X509Error::NoCertificate));
        let long = leaf.repeat(MAX_CHAIN);
        assert_eq!(ClientCertificate::from_pem(&long), Err(X509Error::TooLong));
        let der = read_pem(&leaf).unwrap().remove(0);
        for end in 0..der.len() {
            let cut = CertificateDer::from(der[..end].to_vec());
            assert_eq!(ClientCertificate::from_chain(&[cut]), Err(X509Error::Malformed));
        }
    }
}
