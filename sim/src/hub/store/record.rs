//! What the registry holds about a device and a module. In the database a record is JSON text, in which fields may
//! come and go.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::session::KeptSession;
use super::{StoreError, Twin};
use crate::sas::SharedAccessKey;
use crate::x509::Thumbprint;

/// The part that devices and modules have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::hub) struct Record {
    pub(in crate::hub) generation_id: String,
    pub(in crate::hub) etag: u64,
    pub(in crate::hub) authentication: Authentication,
    /// Nobody is connected when the hub starts.
    #[serde(skip)]
    pub(in crate::hub) connected: bool,
    #[serde(default)]
    pub(in crate::hub) connection_state_updated: Option<Timestamp>,
    #[serde(default)]
    pub(in crate::hub) last_activity: Option<Timestamp>,
    /// Kept beside the record, because it changes far more often.
    #[serde(skip)]
    pub(in crate::hub) twin: Twin,
    /// Messages from services that wait for it.
    #[serde(skip)]
    pub(in crate::hub) cloud_message_count: usize,
    /// Kept beside the record, too.
    #[serde(skip)]
    pub(super) session: Option<KeptSession>,
}

impl Record {
    pub(super) fn new(number: u64, authentication: Authentication, now: Timestamp) -> Self {
        Self {
            generation_id: number.to_string(),
            etag: number,
            authentication,
            connected: false,
            connection_state_updated: None,
            last_activity: None,
            twin: Twin::new(now),
            cloud_message_count: 0,
            session: None,
        }
    }
}

/// How an identity proves itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(in crate::hub) enum Authentication {
    /// Either key is good.
    Sas {
        #[serde(with = "key_text")]
        primary: SharedAccessKey,
        #[serde(with = "key_text")]
        secondary: SharedAccessKey,
    },
    /// By a certificate with either thumbprint.
    SelfSigned { primary: Option<Thumbprint>, secondary: Option<Thumbprint> },
    /// By a certificate that names the identity and comes from a registered authority.
    CertificateAuthority,
    /// Not at all; such an identity cannot connect.
    None,
}

impl Authentication {
    /// Takes the given keys, and makes those that are missing.
    pub(in crate::hub) fn sas(
        primary: Option<SharedAccessKey>,
        secondary: Option<SharedAccessKey>,
    ) -> Result<Self, StoreError> {
        let or_generate = |key: Option<_>| key.map_or_else(SharedAccessKey::generate, Ok);
        Ok(Self::Sas { primary: or_generate(primary)?, secondary: or_generate(secondary)? })
    }

    /// The keys to verify a token with.
    pub(in crate::hub) fn keys(&self) -> impl Iterator<Item = &SharedAccessKey> {
        let keys = match self {
            Self::Sas { primary, secondary } => Some([primary, secondary]),
            Self::SelfSigned { .. } | Self::CertificateAuthority | Self::None => None,
        };
        keys.into_iter().flatten()
    }
}

/// Keys in the database, where they have to be: it is a file that only the hub may read.
mod key_text {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::sas::SharedAccessKey;
    use crate::secret::Secret;

    pub(super) fn serialize<S: Serializer>(key: &SharedAccessKey, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(key.to_base64().expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SharedAccessKey, D::Error> {
        let text = Secret::deserialize(from)?;
        SharedAccessKey::from_base64(text.expose()).map_err(D::Error::custom)
    }
}

/// Whether a device may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::hub) enum Status {
    #[default]
    Enabled,
    Disabled,
}

/// A device with its modules.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::hub) struct Device {
    pub(in crate::hub) id: String,
    pub(in crate::hub) record: Record,
    #[serde(default)]
    pub(in crate::hub) status: Status,
    #[serde(default)]
    pub(in crate::hub) status_reason: Option<String>,
    #[serde(default)]
    pub(in crate::hub) status_updated: Option<Timestamp>,
    #[serde(default)]
    pub(in crate::hub) iot_edge: bool,
    /// The scope of the edge device that this device is a child of.
    #[serde(default)]
    pub(in crate::hub) parent_scope: Option<String>,
    #[serde(skip)]
    pub(in crate::hub) modules: BTreeMap<String, Module>,
}

impl Device {
    /// The scope that an edge device opens for its children; a device that was made again opens another.
    pub(in crate::hub) fn own_scope(&self) -> Option<String> {
        let id = &self.id;
        self.iot_edge.then(|| format!("ms-azure-iot-edge://{id}-{}", self.record.generation_id))
    }
}

/// A module of a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::hub) struct Module {
    pub(in crate::hub) id: String,
    pub(in crate::hub) device_id: String,
    pub(in crate::hub) record: Record,
    #[serde(default)]
    pub(in crate::hub) managed_by: Option<String>,
}

/// What a caller asks a device to be. What is `None` is made, or kept on update.
#[derive(Debug, Clone, Default)]
pub(in crate::hub) struct DeviceSpec {
    pub(in crate::hub) authentication: Option<Authentication>,
    pub(in crate::hub) status: Option<Status>,
    pub(in crate::hub) status_reason: Option<String>,
    pub(in crate::hub) iot_edge: Option<bool>,
    pub(in crate::hub) parent: Parent,
}

/// What is asked about the parent of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::hub) enum Parent {
    #[default]
    Keep,
    Nobody,
    /// The edge device that opens this scope.
    Scope(String),
}

/// What a caller asks a module to be. What is `None` is made, or kept on update.
#[derive(Debug, Clone, Default)]
pub(in crate::hub) struct ModuleSpec {
    pub(in crate::hub) authentication: Option<Authentication>,
    pub(in crate::hub) managed_by: Option<String>,
}
