//! What can happen to a running edge, and whether its telemetry has come through it. Pure functions; the command carries
//! them out.

pub mod continuity;
pub mod strike;

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::place::Place;
use crate::settings::Hub;

/// Something that goes wrong, and comes right again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The sensor's container is killed; the agent starts it again.
    ModuleKilled,
    /// The runtime's daemon is killed with SIGKILL; systemd starts it again.
    EdgeKilled,
    /// The inner engine is killed with SIGKILL; systemd starts it again.
    EngineKilled,
    /// The pod is deleted; the Deployment makes another on the same volumes.
    PodDeleted,
    /// The node's container is killed, as when its machine loses power, and started again; kind's cluster only.
    NodeRestarted,
    /// The local hub is killed and started again.
    HubRestarted,
    /// The local registry is gone for a while; what runs does not need it.
    RegistryStopped,
}

impl Fault {
    /// What happens, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::ModuleKilled => "the module is killed",
            Self::EdgeKilled => "the runtime's daemon is killed",
            Self::EngineKilled => "the inner engine is killed",
            Self::PodDeleted => "the pod is deleted",
            Self::NodeRestarted => "the node is killed and started again",
            Self::HubRestarted => "the hub is killed and started again",
            Self::RegistryStopped => "the registry is stopped for a while",
        }
    }

    /// Those that can happen to an edge in this place that sends to this hub; `is_own` when the deployment is that of this
    /// machine.
    #[must_use]
    pub fn possible(place: Place, hub: Hub, is_own: bool) -> Vec<Self> {
        let can_happen = |fault: &Self| match fault {
            Self::PodDeleted => place == Place::Cluster,
            Self::NodeRestarted => place == Place::Cluster && is_own,
            Self::HubRestarted => is_own && hub == Hub::Local,
            Self::RegistryStopped => is_own,
            Self::ModuleKilled | Self::EdgeKilled | Self::EngineKilled => true,
        };
        Self::value_variants().iter().copied().filter(can_happen).collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&crate::settings::word(self))
    }
}

/// What has come of one fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Survived {
    /// The fault.
    pub fault: Fault,
    /// Seconds from the fault until all layers were well and new telemetry had been proved to arrive.
    pub seconds: f64,
    /// The longest time between two messages at the hub meanwhile, in seconds; none where the hub cannot be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silence: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_can_fail() {
        let faults = |place, hub, is_own| Fault::possible(place, hub, is_own);
        assert_eq!(faults(Place::Cluster, Hub::Local, true).len(), 7);
        for of_a_cluster in [Fault::PodDeleted, Fault::NodeRestarted] {
            assert!(!faults(Place::Host, Hub::Local, true).contains(&of_a_cluster));
        }
        let foreign = faults(Place::Cluster, Hub::Azure, false);
        assert_eq!(foreign, [Fault::ModuleKilled, Fault::EdgeKilled, Fault::EngineKilled, Fault::PodDeleted]);
    }
}
