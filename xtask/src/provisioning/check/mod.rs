//! What a user brings as credentials, and all that is wrong with it: told at once, each with its place and with what to
//! do, and never with the value.

mod certificate;
mod connection_string;
mod key;
mod names;

use std::fmt;

use jiff::Timestamp;
use kedge_sim::secret::Secret;

use super::{Device, Identity, Kept, Provisioning, Registration};
use crate::problems::{self, Problem};

pub(super) use self::key::describe as describe_key;
pub use self::key::looks_like_a_secret;

/// Something that a user has brought, and where it comes from.
pub struct Given {
    /// A file, a variable, a flag: as it is shown.
    pub place: String,
    bytes: Vec<u8>,
}

impl Given {
    /// The bytes that come from `place`.
    #[must_use]
    pub fn new(place: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { place: place.into(), bytes: bytes.into() }
    }

    /// The text without blanks at its ends, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok().map(str::trim)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Given").field(&self.place).finish()
    }
}

/// What a user brings: for each kind other things.
#[derive(Debug)]
pub enum Draft {
    /// A connection string.
    ConnectionString(Given),
    /// A device and its key.
    ManualSas(DeviceDraft, Given),
    /// A device and its certificate with the key.
    ManualX509(DeviceDraft, IdentityDraft),
    /// A registration and its key.
    DpsSymmetricKey {
        /// The registration.
        registration: RegistrationDraft,
        /// A key.
        key: Given,
        /// Whether the key is that of an enrolment group, of which the device's is derived.
        is_of_group: bool,
    },
    /// A registration and its certificate with the key.
    DpsX509(RegistrationDraft, IdentityDraft),
    /// A registration whose key is in the machine.
    DpsTpm(RegistrationDraft),
}

/// A device, as it is named by a user.
#[derive(Debug)]
pub struct DeviceDraft {
    /// Host name of the hub.
    pub host_name: Given,
    /// The device's id.
    pub device_id: Given,
}

/// A registration, as it is named by a user.
#[derive(Debug)]
pub struct RegistrationDraft {
    /// URL or host name of the service.
    pub global_endpoint: Given,
    /// The id scope.
    pub id_scope: Given,
    /// Left out, it is the common name of the certificate.
    pub registration_id: Option<Given>,
    /// Left out, it is the registration id.
    pub device_id: Option<Given>,
}

/// A certificate with its key, as they are in the user's files.
#[derive(Debug)]
pub struct IdentityDraft {
    /// The certificates.
    pub certificate: Given,
    /// The private key.
    pub key: Given,
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("these credentials cannot be used, and nothing was changed:{}", problems::list(problems))]
pub struct UnusableCredentials {
    /// All that is wrong with them.
    pub problems: Vec<Problem>,
}

/// What came of a check.
#[derive(Debug)]
pub struct Checked {
    /// The credentials, as far as they can be read. With problems, they are good for being shown and no more.
    pub kept: Option<Kept>,
    /// What hinders.
    pub problems: Vec<Problem>,
    /// What may hinder, now or soon.
    pub warnings: Vec<Problem>,
    /// How something was understood that can be understood in two ways.
    pub notes: Vec<Problem>,
}

impl Checked {
    /// The credentials, if nothing is wrong with them.
    ///
    /// # Errors
    /// [`UnusableCredentials`].
    pub fn usable(self) -> Result<Kept, UnusableCredentials> {
        match self.kept {
            Some(kept) if self.problems.is_empty() => Ok(kept),
            _ => Err(UnusableCredentials { problems: self.problems }),
        }
    }
}

/// Collects what is found.
#[derive(Debug, Default)]
struct Review {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    notes: Vec<Problem>,
}

impl Review {
    fn problem(&mut self, place: &str, text: impl Into<String>) {
        self.problems.push(problem(place, text));
    }

    fn warning(&mut self, place: &str, text: impl Into<String>) {
        self.warnings.push(problem(place, text));
    }

    fn note(&mut self, place: &str, text: impl Into<String>) {
        self.notes.push(problem(place, text));
    }
}

fn problem(place: &str, text: impl Into<String>) -> Problem {
    Problem { file: place.to_owned(), at: None, text: text.into() }
}

impl Draft {
    /// Tells all that is wrong at the moment `now`. What is left out of `trust_bundle` is left out of the result.
    #[must_use]
    pub fn check(&self, trust_bundle: Option<&Given>, now: Timestamp) -> Checked {
        let mut review = Review::default();
        let provisioning = self.provisioning(&mut review, now);
        let bundle = trust_bundle.map(|given| certificate::bundle(&mut review, given));
        let kept = match bundle {
            // Reading went wrong, and was told.
            Some(None) => None,
            bundle => provisioning.map(|provisioning| Kept { provisioning, trust_bundle: bundle.flatten() }),
        };
        let Review { problems, warnings, notes } = review;
        Checked { kept, problems, warnings, notes }
    }

    fn provisioning(&self, review: &mut Review, now: Timestamp) -> Option<Provisioning> {
        match self {
            Self::ConnectionString(given) => {
                let (device, key) = connection_string::read(review, given)?;
                Some(Provisioning::ConnectionString { device, key })
            }
            Self::ManualSas(device, key) => {
                let (device, key) = (device.check(review), key::read(review, key));
                Some(Provisioning::ManualSas { device: device?, key: key? })
            }
            Self::ManualX509(device, identity) => {
                let (device, identity) = (device.check(review), identity.check(review, now));
                let (device, identity) = (device?, identity?);
                certificate::compare_with_device(review, self.certificate_place(), &identity, &device);
                Some(Provisioning::ManualX509 { device, identity })
            }
            Self::DpsSymmetricKey { registration, key, is_of_group } => {
                let (registration, key) = (registration.check(review, None), key::read(review, key));
                let (registration, key) = (registration?, key?);
                let key = if *is_of_group { key.derive(&registration.registration_id)? } else { key };
                Some(Provisioning::DpsSymmetricKey { registration, key })
            }
            Self::DpsX509(registration, identity) => {
                let identity = identity.check(review, now);
                let name = identity.as_ref().and_then(|identity| identity.certificate.common_name.as_deref());
                let registration = registration.check(review, name);
                let (registration, identity) = (registration?, identity?);
                certificate::compare_with_registration(
                    review,
                    self.certificate_place(),
                    &identity,
                    &registration,
                );
                Some(Provisioning::DpsX509 { registration, identity })
            }
            Self::DpsTpm(registration) => {
                Some(Provisioning::DpsTpm { registration: registration.check(review, None)? })
            }
        }
    }

    fn certificate_place(&self) -> &str {
        match self {
            Self::ManualX509(_, identity) | Self::DpsX509(_, identity) => &identity.certificate.place,
            _ => "",
        }
    }
}

impl DeviceDraft {
    fn check(&self, review: &mut Review) -> Option<Device> {
        let host_name = names::host_name(review, &self.host_name);
        let device_id = names::device_id(review, &self.device_id);
        Some(Device { host_name: host_name?, device_id: device_id? })
    }
}

impl RegistrationDraft {
    /// `common_name` is that of the certificate, which stands for a registration id that was left out.
    fn check(&self, review: &mut Review, common_name: Option<&str>) -> Option<Registration> {
        let global_endpoint = names::global_endpoint(review, &self.global_endpoint);
        let id_scope = names::id_scope(review, &self.id_scope);
        let registration_id = match (&self.registration_id, common_name) {
            (Some(given), _) => names::registration_id(review, given),
            (None, Some(name)) => {
                names::registration_id(review, &Given::new("the common name of the certificate", name))
            }
            (None, None) => {
                review
                    .problem("--registration-id", "it is needed: the id under which the device is enrolled");
                None
            }
        };
        let device_id = self.device_id.as_ref().map(|given| names::device_id(review, given));
        Some(Registration {
            global_endpoint: global_endpoint?,
            id_scope: id_scope?,
            registration_id: registration_id?,
            device_id: match device_id {
                Some(id) => Some(id?),
                None => None,
            },
        })
    }
}

impl IdentityDraft {
    fn check(&self, review: &mut Review, now: Timestamp) -> Option<Identity> {
        let chain = certificate::read(review, &self.certificate);
        let key = certificate::read_key(review, &self.key);
        let (chain, key) = (chain?, key?);
        certificate::compare_with_key(review, self, &chain, &key);
        certificate::check_times(review, &self.certificate.place, &chain, now);
        Some(Identity {
            chain_pem: with_newline(&self.certificate),
            key_pem: Secret::new(with_newline(&self.key)),
            certificate: chain.into_iter().next()?,
        })
    }
}

fn with_newline(given: &Given) -> String {
    format!("{}\n", given.text().unwrap_or_default())
}
