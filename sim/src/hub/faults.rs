//! Faults that a service can switch on, so that clients can be seen to live with them. They are kept in memory only:
//! a hub that is started anew has none.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A clock is at most this wrong.
const MAX_SKEW_SECS: i64 = 10 * 365 * 24 * 3600;

/// What is switched on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultSettings {
    /// Connections are closed without an answer; only `/kedge` is still served.
    pub offline: bool,
    /// Requests are answered with 429, those for twins over MQTT too.
    pub throttle: bool,
    /// Requests are answered with this status: 503 without a body, others with one.
    pub reject_status: Option<u16>,
    /// Polls of a registration that are answered with `assigning`.
    pub provisioning_delay_polls: u32,
    /// The identity service is told of modules that they are of another generation than they are.
    pub wrong_generation_ids: bool,
    /// How far the hub's clock is ahead when it looks at tokens and certificates of devices. Services are spared, since
    /// they could not switch it off otherwise.
    pub clock_skew_secs: i64,
}

impl FaultSettings {
    /// Refuses what no hub does.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match self.reject_status {
            Some(status) if !(400..600).contains(&status) => Err("rejectStatus is between 400 and 599"),
            _ if self.clock_skew_secs.abs() > MAX_SKEW_SECS => Err("clockSkewSecs is more than ten years"),
            _ => Ok(()),
        }
    }
}

/// The faults of a hub.
#[derive(Debug, Default)]
pub(super) struct Faults {
    settings: RwLock<FaultSettings>,
}

impl Faults {
    fn read(&self) -> RwLockReadGuard<'_, FaultSettings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self) -> FaultSettings {
        self.read().clone()
    }

    pub(super) fn set(&self, settings: FaultSettings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    pub(super) fn is_offline(&self) -> bool {
        self.read().offline
    }

    pub(super) fn is_throttling(&self) -> bool {
        self.read().throttle
    }

    pub(super) fn provisioning_delay(&self) -> u32 {
        self.read().provisioning_delay_polls
    }

    pub(super) fn has_wrong_generation_ids(&self) -> bool {
        self.read().wrong_generation_ids
    }

    /// The time by the hub's clock.
    pub(super) fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        let skew = SignedDuration::from_secs(self.read().clock_skew_secs);
        now.checked_add(skew).unwrap_or(now)
    }
}
