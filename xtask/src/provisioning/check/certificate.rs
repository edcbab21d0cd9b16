//! Certificates and their private keys: what is in the files, whether they belong together, whose they are, and for how
//! long.

use jiff::{SignedDuration, Timestamp};
use kedge_sim::secret::Secret;
use kedge_sim::x509::files::{ChainError, FileCertificate, FileKey, KeyError, read_certificates};
use rustls::SignatureAlgorithm;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Given, IdentityDraft, Review};
use crate::problems::shown;
use crate::provisioning::{Device, Identity, Registration};

/// Less is too little to get another certificate in.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// As long as the name of a user can be in an error.
const KEY_AS_PEM: &str = "its key is needed as PEM, beginning with `-----BEGIN PRIVATE KEY-----`";
/// What is told of a key that cannot be used though it is one.
const OTHER_KIND: &str = "the private key is damaged, or of a kind that the services do not take; make one of RSA with 2048 to 4096 \
                          bits, or on the curve P-256 or P-384";

/// Reads the certificates of a file.
pub(super) fn read(review: &mut Review, given: &Given) -> Option<Vec<FileCertificate>> {
    let place = &given.place;
    let Some(text) = given.text() else {
        let what = if given.bytes.first() == Some(&0x30) {
            "this is binary, and PEM is needed: `openssl x509 -inform der -in FILE` makes it of DER, and `openssl pkcs12 \
             -in FILE -nokeys` of PKCS #12"
        } else {
            "this is neither PEM nor a certificate; it has to begin with `-----BEGIN CERTIFICATE-----`"
        };
        review.problem(place, what);
        return None;
    };
    if text.contains("PRIVATE KEY-----") {
        review.problem(place, "a private key is in it; only certificates belong here, which others may read");
    }
    let problem = match read_certificates(text) {
        Ok(chain) => return Some(chain),
        Err(ChainError::None) if text.contains("CERTIFICATE REQUEST-----") => {
            "this is a request for a certificate; the certificate itself comes from the authority".to_owned()
        }
        Err(ChainError::None) if text.is_empty() => "it is empty; a certificate is needed, as PEM".to_owned(),
        Err(ChainError::None) => {
            "there is no certificate in it; PEM is needed, beginning with `-----BEGIN CERTIFICATE-----`"
                .to_owned()
        }
        Err(ChainError::Damaged(number)) => {
            format!("certificate {number} is damaged; copy it anew, from its line BEGIN to its line END")
        }
    };
    review.problem(place, problem);
    None
}

/// Certificates that modules are to trust, as text.
pub(super) fn bundle(review: &mut Review, given: &Given) -> Option<String> {
    read(review, given).map(|_| super::with_newline(given))
}

/// Reads a private key.
pub(super) fn read_key(review: &mut Review, given: &Given) -> Option<FileKey> {
    let place = &given.place;
    let Some(text) = given.text() else {
        review
            .problem(place, format!("this is binary, and {KEY_AS_PEM}: `openssl pkey -inform der -in FILE`"));
        return None;
    };
    let problem = match FileKey::from_pem(&Secret::new(text)) {
        Ok(_) if is_of_ed25519(text) => OTHER_KIND,
        Ok(key) => return Some(key),
        Err(KeyError::Unknown) => OTHER_KIND,
        Err(KeyError::Encrypted) => {
            "the private key is encrypted, and nobody can type its password when the edge starts; `openssl pkey -in \
             FILE -out PLAIN` decrypts it"
        }
        Err(KeyError::Damaged) => {
            "the private key is damaged; copy it anew, from its line BEGIN to its line END"
        }
        Err(KeyError::None) if text.contains("BEGIN PUBLIC KEY-----") => {
            "this is a public key; the private one is needed"
        }
        Err(KeyError::None) if text.contains("BEGIN CERTIFICATE-----") => {
            "this is a certificate; its private key is needed"
        }
        Err(KeyError::None) if text.is_empty() => {
            "it is empty; the private key of the certificate is needed, as PEM"
        }
        Err(KeyError::None) => {
            "there is no private key in it; PEM is needed, beginning with `-----BEGIN PRIVATE KEY-----`"
        }
    };
    review.problem(place, problem);
    None
}

/// TLS here knows such keys, and neither the services nor Microsoft's runtime do.
fn is_of_ed25519(pem: &str) -> bool {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok();
    let key = key.and_then(|key| any_supported_type(&key).ok());
    key.is_some_and(|key| key.algorithm() == SignatureAlgorithm::ED25519)
}

/// Whether the key is that of the first certificate, and each further one has issued the one before it.
pub(super) fn compare_with_key(
    review: &mut Review,
    draft: &IdentityDraft,
    chain: &[FileCertificate],
    key: &FileKey,
) {
    let place = &draft.certificate.place;
    if !chain.first().is_some_and(|own| own.belongs_to(key)) {
        let at = chain.iter().position(|certificate| certificate.belongs_to(key));
        return match at {
            Some(at) => review.problem(
                place,
                format!(
                    "the device's own certificate is number {}; it has to be the first, followed by that of its issuer",
                    at + 1
                ),
            ),
            None => review.problem(
                &draft.key.place,
                format!("this is not the key of the certificate in {place}; bring the two that were made together"),
            ),
        };
    }
    let broken = chain.windows(2).position(|pair| !pair[0].is_issued_by(&pair[1]));
    if let Some(at) = broken {
        let what = format!(
            "certificate {} has not issued certificate {}; put each issuer behind the certificate that it has issued",
            at + 2,
            at + 1
        );
        review.problem(place, what);
    }
    if chain.first().is_some_and(|own| !own.is_for_clients) {
        let what = "the certificate is not for clients (its extended key usage lacks `clientAuth`), so services may \
                    refuse it";
        review.warning(place, what);
    }
}

/// Refuses what has ended or not begun, and warns of what ends soon.
pub(super) fn check_times(review: &mut Review, place: &str, chain: &[FileCertificate], now: Timestamp) {
    for (number, certificate) in chain.iter().enumerate() {
        let name = if number == 0 {
            "the certificate".to_owned()
        } else {
            format!("certificate {}, that of the issuer,", number + 1)
        };
        match certificate.validity {
            [Some(from), _] if now < from => review.problem(
                place,
                format!("{name} is not valid before {from}, and it is {now:.0}; is the clock of this machine right?"),
            ),
            [_, Some(until)] if until < now => {
                review.problem(place, format!("{name} has ended at {until}; get a new one"));
            }
            [_, Some(until)] if until.duration_since(now) < SOON => {
                let days = until.duration_since(now).as_hours() / 24;
                review.warning(place, format!("{name} ends at {until}, in {days} days; get a new one in time"));
            }
            _ => {}
        }
    }
}

/// A hub knows a device by the thumbprint of its certificate, whatever that says, or by its name and its issuer.
pub(super) fn compare_with_device(review: &mut Review, place: &str, identity: &Identity, device: &Device) {
    let name = identity.certificate.common_name.as_deref().unwrap_or_default();
    if name != device.device_id {
        let what = format!(
            "the common name is `{}` and the device id `{}`: a hub takes such a certificate only by its thumbprint",
            shown(name),
            shown(&device.device_id)
        );
        review.warning(place, what);
    }
}

/// The provisioning service takes the certificate only under its own name.
pub(super) fn compare_with_registration(
    review: &mut Review,
    place: &str,
    identity: &Identity,
    registration: &Registration,
) {
    let name = identity.certificate.common_name.as_deref().unwrap_or_default();
    if !name.eq_ignore_ascii_case(&registration.registration_id) {
        let what = format!(
            "the common name is `{}` and the registration id `{}`; they have to be the same, so leave out \
             `--registration-id` or get another certificate",
            shown(name),
            shown(&registration.registration_id)
        );
        review.problem(place, what);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use kedge_sim::pki::{CertificateAuthority, IssuedCertificate, Validity, self_signed_client};

    use super::*;
    use crate::provisioning::{Checked, DeviceDraft, Draft, RegistrationDraft};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn identity(certificate: &str, key: &str) -> IdentityDraft {
        IdentityDraft { certificate: Given::new("c.pem", certificate), key: Given::new("k.pem", key) }
    }

    /// What is told of the certificate of the device `press-7`.
    fn manual(certificate: &str, key: &str) -> Checked {
        let device = DeviceDraft {
            host_name: Given::new("--host-name", "hub.test"),
            device_id: Given::new("--device-id", "press-7"),
        };
        Draft::ManualX509(device, identity(certificate, key)).check(None, Timestamp::now())
    }

    fn dps(registration: Option<&str>, issued: &IssuedCertificate) -> Checked {
        let registration = RegistrationDraft {
            global_endpoint: Given::new("--global-endpoint", "https://dps.test"),
            id_scope: Given::new("--id-scope", "0ne1"),
            registration_id: registration.map(|id| Given::new("--registration-id", id)),
            device_id: None,
        };
        let identity = identity(&issued.chain_pem, issued.key_pem.expose());
        Draft::DpsX509(registration, identity).check(None, Timestamp::now())
    }

    fn lines(problems: &[crate::problems::Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    fn issue(name: &str) -> IssuedCertificate {
        self_signed_client(name, Validity::for_next(90 * DAY)).unwrap()
    }

    #[test]
    fn a_good_pair_is_taken_without_a_word() {
        let authority = CertificateAuthority::generate("CA").unwrap();
        let low = authority.issue_authority("low", Validity::for_next(90 * DAY)).unwrap();
        let issued = low.issue_client("press-7", Validity::for_next(90 * DAY)).unwrap();
        let chain = format!("{}{}", issued.chain_pem, authority.certificate_pem());
        let alone = issue("press-7");
        for (chain, key) in [(chain, &issued.key_pem), (alone.chain_pem, &alone.key_pem)] {
            let checked = manual(&chain, key.expose());
            assert!(checked.problems.is_empty() && checked.warnings.is_empty(), "{checked:?}");
        }
    }

    #[test]
    fn each_mistake_in_the_files_is_told() {
        let authority = CertificateAuthority::generate("CA").unwrap();
        let issued = authority.issue_client("press-7", Validity::for_next(90 * DAY)).unwrap();
        let (own, issuer) = issued.chain_pem.split_at(issued.chain_pem.rfind("-----BEGIN").unwrap());
        let other = CertificateAuthority::generate("CA").unwrap();
        let (good, key) = (issued.chain_pem.as_str(), issued.key_pem.expose());
        let reversed = format!("{issuer}{own}");
        let wrong_issuer = format!("{own}{}", other.certificate_pem());
        let both = format!("{good}{key}");
        let half = own.lines().take(3).collect::<Vec<_>>().join("\n");
        let section = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
        let [request, public, encrypted, damaged] =
            ["CERTIFICATE REQUEST", "PUBLIC KEY", "ENCRYPTED PRIVATE KEY", "PRIVATE KEY"].map(section);
        for (certificate, key, expected) in [
            ("", key, "c.pem: it is empty"),
            ("nonsense", key, "c.pem: there is no certificate in it"),
            (request.as_str(), key, "c.pem: this is a request"),
            (half.as_str(), key, "c.pem: certificate 1 is damaged"),
            (reversed.as_str(), key, "c.pem: the device's own certificate is number 2"),
            (wrong_issuer.as_str(), key, "c.pem: certificate 2 has not issued certificate 1"),
            (both.as_str(), key, "c.pem: a private key is in it"),
            (good, "", "k.pem: it is empty"),
            (good, "nonsense", "k.pem: there is no private key"),
            (good, good, "k.pem: this is a certificate"),
            (good, damaged.as_str(), "k.pem: the private key is damaged, or of a kind"),
            (good, encrypted.as_str(), "k.pem: the private key is encrypted"),
            (good, public.as_str(), "k.pem: this is a public key"),
            (
                good,
                issue("press-7").key_pem.expose(),
                "k.pem: this is not the key of the certificate in c.pem",
            ),
        ] {
            let told = lines(&manual(certificate, key).problems);
            assert!(told.len() == 1 && told[0].starts_with(expected), "{expected}: {told:?}");
        }
        let der = IdentityDraft {
            certificate: Given::new("c.der", [0x30, 0x82, 0xff]),
            key: Given::new("k.der", [0x30, 0x82, 0xff]),
        };
        let mut review = Review::default();
        assert!(read(&mut review, &der.certificate).is_none() && read_key(&mut review, &der.key).is_none());
        let told = lines(&review.problems);
        assert!(
            told[0].contains("openssl x509 -inform der") && told[1].contains("openssl pkey -inform der"),
            "{told:?}"
        );
    }

    #[test]
    fn a_certificate_is_judged_by_the_calendar() {
        let now = SystemTime::now();
        for (from, until, problem, warning) in [
            (now - 9 * DAY, now - DAY, "c.pem: the certificate has ended at 20", ""),
            (now + DAY, now + 99 * DAY, "c.pem: the certificate is not valid before 20", ""),
            (now - DAY, now + 10 * DAY + DAY / 2, "", "c.pem: the certificate ends at 20"),
            (now - DAY, now + 31 * DAY, "", ""),
        ] {
            let issued =
                self_signed_client("press-7", Validity { not_before: from, not_after: until }).unwrap();
            let checked = manual(&issued.chain_pem, issued.key_pem.expose());
            for (told, expected) in [(lines(&checked.problems), problem), (lines(&checked.warnings), warning)]
            {
                assert_eq!(told.len(), usize::from(!expected.is_empty()), "{told:?}");
                assert!(told.concat().starts_with(expected), "{told:?}");
            }
            assert!(checked.warnings.iter().all(|warning| warning.text.contains("in 10 days")));
            assert!(checked.kept.is_some(), "what has ended can still be shown");
        }
    }

    #[test]
    fn a_name_counts_as_it_does_for_the_service() {
        let other = issue("press-8");
        let checked = manual(&other.chain_pem, other.key_pem.expose());
        assert_eq!(checked.problems, []);
        assert!(
            lines(&checked.warnings).concat().contains("only by its thumbprint"),
            "{:?}",
            checked.warnings
        );
        let checked = dps(Some("press-7"), &other);
        assert!(
            lines(&checked.problems).concat().contains("they have to be the same"),
            "{:?}",
            checked.problems
        );
        for registration in [None, Some("PRESS-8")] {
            let checked = dps(registration, &other);
            assert_eq!(checked.problems, []);
            let id = checked.kept.unwrap().provisioning.device_id().to_owned();
            assert_eq!(id, registration.unwrap_or("press-8"));
        }
        let server =
            CertificateAuthority::generate("CA").unwrap().issue_server(&["press-7"], 90 * DAY).unwrap();
        let checked = manual(&server.chain_pem, server.key_pem.expose());
        assert!(lines(&checked.warnings).concat().contains("not for clients"), "{:?}", checked.warnings);
    }
}
