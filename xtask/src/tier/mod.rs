//! How the edge is kept from the machine that it runs on: four tiers, of which the strongest that works is taken.
//!
//! [`facts`] has what a machine, an engine or a cluster is like ([`nodes`] of which), [`judge`] what follows from that, [`profiles`] what the edge is
//! allowed, and [`proof`] what it really has, as it is read from the inside. All of it is pure.

pub mod facts;
pub mod judge;
pub mod nodes;
pub mod profiles;
pub mod proof;

use std::fmt;

use serde::Serialize;

pub use self::facts::Facts;
pub use self::judge::{Decision, Unobtainable};
pub use self::profiles::Profiles;
pub use self::proof::Proof;

/// On the pod template and on a container: the tier that it was made for. What it really has is read from the inside.
pub const TIER: &str = "kedge.io/tier";

/// A way to confine the edge, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Root in the edge is nobody on the machine.
    Userns,
    /// As `userns`, made by the runtime Sysbox.
    Sysbox,
    /// Capabilities, system calls and paths are those that systemd and the inner engine need.
    Confined,
    /// Everything is allowed.
    Privileged,
}

/// The tier that the user wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The strongest that works.
    #[default]
    Auto,
    /// A user namespace.
    Userns,
    /// The runtime Sysbox.
    Sysbox,
    /// Named capabilities, seccomp and AppArmor.
    Confined,
    /// All privileges.
    Privileged,
}

impl Choice {
    /// The tier that was asked for.
    #[must_use]
    pub fn tier(self) -> Option<Tier> {
        match self {
            Self::Auto => None,
            Self::Userns => Some(Tier::Userns),
            Self::Sysbox => Some(Tier::Sysbox),
            Self::Confined => Some(Tier::Confined),
            Self::Privileged => Some(Tier::Privileged),
        }
    }
}

impl Tier {
    /// All of them, the strongest first.
    pub const ALL: [Self; 4] = [Self::Userns, Self::Sysbox, Self::Confined, Self::Privileged];

    /// The word for it in settings, on the command line and in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Userns => "userns",
            Self::Sysbox => "sysbox",
            Self::Confined => "confined",
            Self::Privileged => "privileged",
        }
    }

    /// The tier of this name.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.word() == word)
    }

    /// What it gives away, in one sentence.
    #[must_use]
    pub fn gives_away(self) -> &'static str {
        match self {
            Self::Userns | Self::Sysbox => {
                "root in the edge is nobody on the machine; what is left to attack is the kernel"
            }
            Self::Confined => {
                "root in the edge is root on the machine with fewer rights: that is hardening and no boundary"
            }
            Self::Privileged => {
                "root in the edge is root on the machine: who breaks out of a module can do anything there"
            }
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::word;

    #[test]
    fn a_tier_is_called_the_same_everywhere() {
        for tier in Tier::ALL {
            let choice = <Choice as clap::ValueEnum>::from_str(tier.word(), false).unwrap();
            assert_eq!((choice.tier(), word(&choice).as_str()), (Some(tier), tier.word()));
            assert_eq!(Tier::named(tier.word()), Some(tier));
            assert_eq!(serde_json::to_value(tier).unwrap(), tier.word());
        }
        assert_eq!(Choice::default().tier(), None);
    }
}
