//! How the edge device comes to its identity, and what is delivered to the edge for that.
//!
//! [`Given`] is what a user brings; [`Draft::check`] tells all that is wrong with it, and makes a [`Provisioning`] of
//! what is right; that gives the runtime's configuration and the files of the Secret. Nothing here shows a secret.

mod check;
mod config;
mod delivery;
mod files;
mod kept;
mod redact;

use std::fmt;

use jiff::Timestamp;
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::secret::Secret;
use kedge_sim::x509::files::FileCertificate;

pub use self::check::{
    Checked, DeviceDraft, Draft, Given, IdentityDraft, RegistrationDraft, UnusableCredentials,
    looks_like_a_secret,
};
pub(crate) use self::config::FOLDER;
pub use self::delivery::{Delivery, delivered};
pub use self::files::{
    CONFIG, DEVICE_KEY, HUB_CA, IDENTITY_CERTIFICATE, IDENTITY_KEY, SecretFiles, TRUST_BUNDLE,
};
pub use self::kept::{Kept, Unfit, fit, folder, forget, kept, wanted};
pub use self::redact::Redaction;

/// Microsoft's provisioning service.
pub const GLOBAL_ENDPOINT: &str = "https://global.azure-devices-provisioning.net";

/// How the device comes to its identity, checked.
#[derive(Debug, Clone)]
pub enum Provisioning {
    /// A connection string says all.
    ConnectionString {
        /// The device.
        device: Device,
        /// Its key.
        key: SharedAccessKey,
    },
    /// The identity is written down, and the key is in a file.
    ManualSas {
        /// The device.
        device: Device,
        /// Its key.
        key: SharedAccessKey,
    },
    /// The identity is written down, and the device proves it by a certificate.
    ManualX509 {
        /// The device.
        device: Device,
        /// Its certificate.
        identity: Identity,
    },
    /// The provisioning service tells the identity to a device that has the key.
    DpsSymmetricKey {
        /// The registration.
        registration: Registration,
        /// Its key: that of an individual enrolment, or derived from a group's.
        key: SharedAccessKey,
    },
    /// The provisioning service tells the identity to a device that has the certificate.
    DpsX509 {
        /// The registration.
        registration: Registration,
        /// Its certificate.
        identity: Identity,
    },
    /// The provisioning service tells the identity to the machine with this security chip.
    DpsTpm {
        /// The registration.
        registration: Registration,
    },
}

/// A device in a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Host name of the hub.
    pub host_name: String,
    /// Its id.
    pub device_id: String,
}

/// A registration at the provisioning service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// URL of the service.
    pub global_endpoint: String,
    /// The service's name for its customer.
    pub id_scope: String,
    /// Under which the device is enrolled.
    pub registration_id: String,
    /// The id that the device gets, when the enrolment names another than the registration id.
    pub device_id: Option<String>,
}

/// A certificate with its private key.
#[derive(Clone)]
pub struct Identity {
    /// The device's own certificate and those of its issuers, PEM.
    pub chain_pem: String,
    /// The private key, PEM.
    pub key_pem: Secret,
    /// What the device's own certificate says.
    pub certificate: FileCertificate,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.certificate.subject).finish()
    }
}

impl Provisioning {
    /// The name of the kind, as one types it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ConnectionString { .. } => "connection-string",
            Self::ManualSas { .. } => "sas",
            Self::ManualX509 { .. } => "x509",
            Self::DpsSymmetricKey { .. } => "dps-symmetric-key",
            Self::DpsX509 { .. } => "dps-x509",
            Self::DpsTpm { .. } => "dps-tpm",
        }
    }

    /// The host to which the device goes first: the hub, or the provisioning service.
    #[must_use]
    pub fn host_name(&self) -> &str {
        match self.origin() {
            Origin::Manual(device) => &device.host_name,
            Origin::Dps(registration) => registration.host_name(),
        }
    }

    /// The id that the device has in the hub.
    #[must_use]
    pub fn device_id(&self) -> &str {
        match self.origin() {
            Origin::Manual(device) => &device.device_id,
            Origin::Dps(registration) => {
                registration.device_id.as_ref().unwrap_or(&registration.registration_id)
            }
        }
    }

    /// What is told of it: names and values, none of them a secret.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("kind", self.kind().to_owned())];
        match self.origin() {
            Origin::Manual(Device { host_name, device_id }) => {
                facts.extend([("host name", host_name.clone()), ("device id", device_id.clone())]);
            }
            Origin::Dps(registration) => {
                facts.extend([
                    ("global endpoint", registration.global_endpoint.clone()),
                    ("id scope", registration.id_scope.clone()),
                    ("registration id", registration.registration_id.clone()),
                ]);
                facts.extend(registration.device_id.clone().map(|id| ("device id", id)));
            }
        }
        match (self.key(), self.identity()) {
            (Some(key), _) => facts.push(("key", check::describe_key(key))),
            (None, Some(identity)) => facts.extend(identity.facts()),
            (None, None) => facts.push(("key", "in the security chip (TPM) of the machine".into())),
        }
        facts
    }

    /// Whether the identity is written down, rather than told by the provisioning service.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        matches!(self.origin(), Origin::Manual(_))
    }

    pub(crate) fn origin(&self) -> Origin<'_> {
        match self {
            Self::ConnectionString { device, .. }
            | Self::ManualSas { device, .. }
            | Self::ManualX509 { device, .. } => Origin::Manual(device),
            Self::DpsSymmetricKey { registration, .. }
            | Self::DpsX509 { registration, .. }
            | Self::DpsTpm { registration } => Origin::Dps(registration),
        }
    }

    /// The symmetric key, where there is one.
    #[must_use]
    pub fn key(&self) -> Option<&SharedAccessKey> {
        match self {
            Self::ConnectionString { key, .. }
            | Self::ManualSas { key, .. }
            | Self::DpsSymmetricKey { key, .. } => Some(key),
            Self::ManualX509 { .. } | Self::DpsX509 { .. } | Self::DpsTpm { .. } => None,
        }
    }

    /// The certificate, where there is one.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::ManualX509 { identity, .. } | Self::DpsX509 { identity, .. } => Some(identity),
            _ => None,
        }
    }
}

/// Where the identity comes from.
pub(crate) enum Origin<'a> {
    Manual(&'a Device),
    Dps(&'a Registration),
}

impl Registration {
    /// The host of the service.
    fn host_name(&self) -> &str {
        self.global_endpoint.strip_prefix("https://").unwrap_or(&self.global_endpoint)
    }
}

impl Identity {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let certificate = &self.certificate;
        let issuer = if certificate.is_self_signed() { "itself" } else { &certificate.issuer };
        let moment = |time: Option<Timestamp>| time.map_or("?".into(), |time| time.to_string());
        let [from, until] = certificate.validity.map(moment);
        vec![
            ("certificate", certificate.subject.clone()),
            ("issued by", issuer.to_owned()),
            ("valid", format!("{from} to {until}")),
            ("SHA-256", certificate.thumbprint().to_string()),
            ("SHA-1", certificate.thumbprint_sha1().to_string()),
        ]
    }
}
