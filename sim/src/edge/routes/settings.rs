//! `storeAndForwardConfiguration`: how long messages are kept, and how many.

use serde_json::Value;

use crate::edge::deployment::DeploymentError;

/// Two hours, as in the real runtime.
const DEFAULT_TIME_TO_LIVE_SECS: u32 = 7200;

/// How long messages are kept, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSettings {
    /// How long a message is kept, when its route says nothing else. The longest time stands for ever, which is
    /// what a negative number means.
    pub time_to_live_secs: u32,
    /// How much is kept, when there is a limit of the user's own.
    pub max_bytes: Option<u64>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { time_to_live_secs: DEFAULT_TIME_TO_LIVE_SECS, max_bytes: None }
    }
}

impl StoreSettings {
    /// Reads the section, which may be missing.
    pub(super) fn parse(section: Option<&Value>) -> Result<Self, DeploymentError> {
        let section = match section {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(section) => section,
        };
        let number = |value: Option<&Value>, name: &str| match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| {
                DeploymentError::Malformed(format!("storeAndForwardConfiguration: {name} is no whole number"))
            }),
        };
        let seconds = match section.get("timeToLiveSecs") {
            Some(value) if value.as_i64().is_some_and(i64::is_negative) => Some(u64::MAX),
            value => number(value, "timeToLiveSecs")?,
        };
        let limits = section.get("storeLimits");
        let max_bytes = number(limits.and_then(|limits| limits.get("maxSizeBytes")), "maxSizeBytes")?;
        let time_to_live_secs =
            seconds.map_or(DEFAULT_TIME_TO_LIVE_SECS, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
        Ok(Self { time_to_live_secs, max_bytes })
    }
}
