//! Where the edge runs: as a pod of the cluster, or as a container directly on the engine; and what that asks of the
//! engine.

use std::fmt;

use crate::engine::Demand;
use crate::plan::{Action, Shape};

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

impl Action {
    /// What reaching `goals` asks of an engine, in whatever shape.
    #[must_use]
    pub fn demand(goals: &[Self]) -> Demand {
        let actions = Self::leading_to(goals, Shape::SIMULATED);
        let cluster = actions.contains(&Self::Cluster);
        Demand {
            privileged: cluster || actions.contains(&Self::EdgeContainer(Privilege::Privileged)),
            cluster,
        }
    }

    /// Where reaching `goals` brings the edge up, if it does, in whatever shape.
    #[must_use]
    pub fn place(goals: &[Self]) -> Option<Place> {
        Self::leading_to(goals, Shape::SIMULATED).into_iter().find_map(|action| match action {
            Self::Deploy => Some(Place::Cluster),
            Self::EdgeContainer(privilege) => Some(Place::Host(privilege)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_host_nothing_of_kubernetes_is_needed() {
        let goals = [Action::Telemetry(Place::Host(Privilege::Unprivileged))];
        let ids: Vec<_> = Action::leading_to(&goals, Shape::SIMULATED).into_iter().map(Action::id).collect();
        assert!(["registry", "hub", "device", "edge-container"].iter().all(|id| ids.contains(&(*id).into())));
        for id in ["kind", "node-image", "cluster", "wiring", "push-edge", "deploy", "pod"] {
            assert!(!ids.contains(&id.into()), "{id}");
        }
        assert_eq!(Action::place(&goals), Some(Place::Host(Privilege::Unprivileged)));
        assert_eq!(Action::place(&[Action::Pod]), Some(Place::Cluster));
        assert_eq!(Action::place(&[Action::Hub]), None);
    }

    #[test]
    fn only_the_cluster_and_a_privileged_edge_need_privileges() {
        let privileged = |goal| Action::demand(&[goal]).privileged;
        assert!(privileged(Action::Pod) && privileged(Action::EdgeContainer(Privilege::Privileged)));
        assert!(!privileged(Action::EdgeContainer(Privilege::Unprivileged)));
        assert!(!privileged(Action::NodeImage) && !privileged(Action::Hub) && !privileged(Action::Registry));
    }
}
