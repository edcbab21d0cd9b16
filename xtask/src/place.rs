//! Where the edge runs: as a pod of the cluster, or as a container directly on the engine; and what that asks of the
//! engine.

use std::fmt;

use crate::engine::Demand;
use crate::plan::{Action, Shape};
use crate::tier;

/// Where the edge runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// As a pod of the cluster.
    Cluster,
    /// As a container directly on the engine.
    Host,
}

impl Place {
    /// The word for it on the command line and in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "in the cluster",
            Self::Host => "on the host",
        })
    }
}

impl Action {
    /// What reaching `goals`, with the edge in this tier, asks of an engine, in whatever shape.
    #[must_use]
    pub fn demand(goals: &[Self], tier: tier::Choice) -> Demand {
        let actions = Self::leading_to(goals, Shape::SIMULATED);
        let cluster = actions.contains(&Self::Cluster);
        let edge = actions.contains(&Self::EdgeContainer) && tier == tier::Choice::Privileged;
        Demand { privileged: cluster || edge, cluster }
    }

    /// Where reaching `goals` brings the edge up, if it does, in whatever shape.
    #[must_use]
    pub fn place(goals: &[Self]) -> Option<Place> {
        Self::leading_to(goals, Shape::SIMULATED).into_iter().find_map(|action| match action {
            Self::Deploy => Some(Place::Cluster),
            Self::EdgeContainer => Some(Place::Host),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_host_nothing_of_kubernetes_is_needed() {
        let goals = [Action::Telemetry(Place::Host)];
        let ids: Vec<_> = Action::leading_to(&goals, Shape::SIMULATED).into_iter().map(Action::id).collect();
        assert!(["registry", "hub", "device", "edge-container"].iter().all(|id| ids.contains(&(*id).into())));
        for id in ["kind", "node-image", "cluster", "wiring", "push-edge", "deploy", "pod"] {
            assert!(!ids.contains(&id.into()), "{id}");
        }
        assert_eq!(Action::place(&goals), Some(Place::Host));
        assert_eq!(Action::place(&[Action::Pod]), Some(Place::Cluster));
        assert_eq!(Action::place(&[Action::Hub]), None);
    }

    #[test]
    fn only_the_cluster_and_a_privileged_edge_need_privileges() {
        use tier::Choice::{Auto, Confined, Privileged};
        let privileged = |goal, tier| Action::demand(&[goal], tier).privileged;
        assert!(privileged(Action::Pod, Confined) && privileged(Action::EdgeContainer, Privileged));
        assert!(!privileged(Action::EdgeContainer, Confined) && !privileged(Action::EdgeContainer, Auto));
        for action in [Action::NodeImage, Action::Hub, Action::Registry] {
            assert!(!privileged(action, Privileged), "{action}");
        }
    }
}
