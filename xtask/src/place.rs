//! Where the edge runs: as a pod of the cluster, or as a container directly on the engine.

use std::fmt;

/// What a container of the edge may do to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    /// Everything: `--privileged`.
    Privileged,
    /// What systemd and the inner engine cannot do without, each right named.
    Unprivileged,
}

/// Where the edge runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// As a pod of the cluster.
    Cluster,
    /// As a container directly on the engine.
    Host(Privilege),
}

impl Place {
    /// The word for it on the command line and in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Host(_) => "host",
        }
    }

    /// Whether the edge has all privileges there.
    #[must_use]
    pub fn is_privileged(self) -> bool {
        self != Self::Host(Privilege::Unprivileged)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "in the cluster",
            Self::Host(Privilege::Privileged) => "on the host, privileged",
            Self::Host(Privilege::Unprivileged) => "on the host, unprivileged",
        })
    }
}
