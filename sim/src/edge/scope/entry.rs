//! What the hub says of a device or module, and what follows from it for who may come in.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::edge::gateway::credentials::{Credentials, Proof};
use crate::identity::Identity;
use crate::sas::SharedAccessKey;
use crate::x509::Thumbprint;

/// A device or module, in the names of the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    device_id: String,
    #[serde(default)]
    module_id: Option<String>,
    /// Modules have none of their own.
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    authentication: Authentication,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authentication {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    symmetric_key: Option<SymmetricKey>,
    #[serde(default)]
    x509_thumbprint: Option<Thumbprints>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Thumbprints {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

impl Authentication {
    /// What can be made of it; a kind that is not named is the oldest one.
    fn proof(&self) -> Option<Proof> {
        match self.kind.as_deref().unwrap_or("sas") {
            "sas" => {
                let keys = self.symmetric_key.as_ref()?;
                let key = |text: &Option<String>| SharedAccessKey::from_base64(text.as_ref()?).ok();
                Some(Proof::Keys([key(&keys.primary_key)?, key(&keys.secondary_key)?]))
            }
            "selfSigned" => {
                let Thumbprints { primary_thumbprint, secondary_thumbprint } =
                    self.x509_thumbprint.as_ref()?;
                let texts = [primary_thumbprint, secondary_thumbprint].into_iter().flatten();
                let thumbprints: Vec<Thumbprint> = texts.filter_map(|text| text.parse().ok()).collect();
                (!thumbprints.is_empty()).then_some(Proof::Thumbprints(thumbprints))
            }
            "certificateAuthority" => Some(Proof::Authority),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SymmetricKey {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    #[serde(default)]
    pub(super) devices: Vec<Entry>,
    #[serde(default)]
    pub(super) modules: Vec<Entry>,
    #[serde(default)]
    pub(super) continuation_link: Option<String>,
}

impl Entry {
    pub(super) fn identity(&self) -> Option<Identity> {
        let identity = match &self.module_id {
            Some(module) => Identity::module(&self.device_id, module),
            None => Identity::device(&self.device_id),
        };
        identity.ok()
    }

    pub(super) fn member(&self) -> Option<(Identity, Member)> {
        let identity = self.identity()?;
        let enabled = self.status.as_ref().is_none_or(|status| status.eq_ignore_ascii_case("enabled"));
        let member = match self.authentication.proof() {
            Some(proof) if enabled => Member::Enabled(Arc::new(Credentials::new(identity.clone(), proof))),
            _ => Member::Disabled,
        };
        Some((identity, member))
    }
}

/// What is known of a client.
#[derive(Debug, Clone)]
pub(in crate::edge) enum Member {
    /// It may connect with this proof.
    Enabled(Arc<Credentials>),
    /// It is in scope, but is disabled, or has nothing to prove itself by.
    Disabled,
}
