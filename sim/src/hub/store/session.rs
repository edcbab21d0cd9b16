//! What is kept of an MQTT session while its client is away. What the client has not confirmed is kept in the queue
//! of its device.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::journal::{Change, json};
use super::{Store, StoreError};
use crate::identity::Identity;
use crate::topics::Subscription;

/// Topic filters with the granted quality of service.
pub(in crate::hub) type Subscriptions = BTreeMap<Subscription, u8>;

/// A session that outlives its connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct KeptSession {
    #[serde(default)]
    subscriptions: BTreeMap<String, u8>,
}

impl Store {
    /// Begins a session: a clean one, for which an older one is forgotten, or one that goes on. Gives the
    /// subscriptions of the latter, when there was one.
    pub(in crate::hub) fn open_session(
        &mut self,
        identity: &Identity,
        clean: bool,
    ) -> Result<Option<Subscriptions>, StoreError> {
        let session = &mut self.record_mut(identity)?.session;
        if clean {
            if session.take().is_some() {
                let (device, module) = names(identity);
                self.journal.put(Change::SessionGone { device, module });
            }
            return Ok(None);
        }
        let Some(session) = session else {
            self.keep_session(identity, &Subscriptions::new())?;
            return Ok(None);
        };
        let filters = session.subscriptions.iter();
        let parsed = filters.filter_map(|(filter, qos)| Some((Subscription::parse(filter).ok()?, *qos)));
        Ok(Some(parsed.collect()))
    }

    /// Keeps the subscriptions of a session.
    pub(in crate::hub) fn keep_session(
        &mut self,
        identity: &Identity,
        subscriptions: &Subscriptions,
    ) -> Result<(), StoreError> {
        let subscriptions = subscriptions.iter().map(|(filter, qos)| (filter.to_string(), *qos)).collect();
        let session = KeptSession { subscriptions };
        let (device, module) = names(identity);
        let text = json(&session);
        self.record_mut(identity)?.session = Some(session);
        self.journal.put(Change::Session { device, module, session: text });
        Ok(())
    }
}

fn names(identity: &Identity) -> (String, String) {
    (identity.device_id().to_owned(), identity.module_id().unwrap_or_default().to_owned())
}
