//! What is to be done, and in which order: a pure function from goals to a graph of steps.
//!
//! A command names the actions that it wants done; the plan adds what these need. Nothing here looks at the
//! machine or changes it: that is [`crate::execute`] and the modules that it calls.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::images::Image;

/// One thing that the tool can bring about. Each is idempotent: it looks first, and does only what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The engine's network that cluster, registry and hub share.
    Network,
    /// The `kind` program.
    Kind,
    /// KEdge's own programs, linked statically for the images.
    Binaries,
    /// An image in the engine.
    Image(Image),
    /// The node image: kind's own where it can be pulled, else the one made from Debian packages.
    NodeImage,
    /// The cluster, its API answering and its node ready.
    Cluster,
    /// The registry, answering with the login that it asks for.
    Registry,
    /// An image in the registry, its digest known.
    Push(Image),
    /// Nodes and people told where the registry is.
    Wiring,
    /// The local hub, answering.
    Hub,
    /// The device in the hub, with its deployment.
    Device,
    /// The manifests applied.
    Deploy,
    /// The pod ready.
    Pod,
    /// Telemetry proved to be at the hub.
    Telemetry,
}

/// One node of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// What must be done before.
    pub needs: Vec<Action>,
    /// When to give up.
    pub limit: Duration,
}

/// Steps in an order in which they could run one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps; each comes after all that it needs.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan that reaches all of `goals`.
    #[must_use]
    pub fn reaching(goals: &[Action]) -> Self {
        let mut seen = BTreeSet::new();
        let mut steps = Vec::new();
        for goal in goals {
            visit(*goal, &mut seen, &mut steps);
        }
        Self { steps }
    }
}

/// Depth first; [`Action::needs`] has no cycle, which a test proves.
fn visit(action: Action, seen: &mut BTreeSet<Action>, steps: &mut Vec<Step>) {
    if !seen.insert(action) {
        return;
    }
    let needs = action.needs();
    for need in &needs {
        visit(*need, seen, steps);
    }
    steps.push(Step { action, needs, limit: action.limit() });
}

impl Action {
    /// What must be done before this.
    #[must_use]
    pub fn needs(self) -> Vec<Self> {
        match self {
            Self::Network | Self::Kind | Self::Binaries | Self::Image(Image::Base) => vec![],
            Self::Image(Image::Node | Image::Registry) => vec![Self::Image(Image::Base)],
            Self::Image(Image::Edge) => vec![Self::Image(Image::Base), Self::Binaries],
            Self::Image(Image::Hub | Image::TemperatureSensor) => vec![Self::Binaries],
            Self::NodeImage => vec![Self::Image(Image::Base)],
            Self::Cluster => vec![Self::Network, Self::NodeImage, Self::Kind],
            Self::Registry => vec![Self::Network, Self::Image(Image::Registry)],
            Self::Push(image) => vec![Self::Image(image), Self::Registry],
            Self::Wiring => vec![Self::Cluster, Self::Registry],
            Self::Hub => vec![Self::Network, Self::Image(Image::Hub)],
            Self::Device => vec![Self::Hub, Self::Push(Image::TemperatureSensor)],
            Self::Deploy => vec![Self::Wiring, Self::Device, Self::Push(Image::Edge)],
            Self::Pod => vec![Self::Deploy],
            Self::Telemetry => vec![Self::Pod],
        }
    }

    /// The name used in reports, log files and on the screen.
    #[must_use]
    pub fn id(self) -> String {
        match self {
            Self::Network => "network".into(),
            Self::Kind => "kind".into(),
            Self::Binaries => "binaries".into(),
            Self::Image(image) => format!("image-{}", image.short_name()),
            Self::NodeImage => "node-image".into(),
            Self::Cluster => "cluster".into(),
            Self::Registry => "registry".into(),
            Self::Push(image) => format!("push-{}", image.short_name()),
            Self::Wiring => "wiring".into(),
            Self::Hub => "hub".into(),
            Self::Device => "device".into(),
            Self::Deploy => "deploy".into(),
            Self::Pod => "pod".into(),
            Self::Telemetry => "telemetry".into(),
        }
    }

    /// What it is for, in words that fit after "failed to".
    #[must_use]
    pub fn purpose(self) -> String {
        match self {
            Self::Network => "make the network of cluster, registry and hub".into(),
            Self::Kind => "find or fetch kind".into(),
            Self::Binaries => "compile the hub, the edge daemon and the sensor".into(),
            Self::Image(image) => format!("build the {image} image"),
            Self::NodeImage => "get a node image for kind".into(),
            Self::Cluster => "create the kind cluster".into(),
            Self::Registry => "start the registry".into(),
            Self::Push(image) => format!("push the {image} image"),
            Self::Wiring => "tell the nodes where the registry is".into(),
            Self::Hub => "start the local IoT Hub".into(),
            Self::Device => "register the edge device and its deployment".into(),
            Self::Deploy => "apply the manifests".into(),
            Self::Pod => "get the pod ready".into(),
            Self::Telemetry => "prove that telemetry arrives at the hub".into(),
        }
    }

    /// Whether it runs child processes, which need a moment to end when the run is stopped.
    #[must_use]
    pub fn has_children(self) -> bool {
        matches!(self, Self::Kind | Self::Binaries | Self::Image(Image::Base) | Self::Cluster)
    }

    /// The longest that it may take on a slow machine.
    fn limit(self) -> Duration {
        let minutes = match self {
            Self::NodeImage | Self::Image(Image::Node) => 45,
            Self::Binaries => 20,
            Self::Image(_) | Self::Cluster => 15,
            Self::Kind | Self::Push(_) | Self::Pod => 5,
            // The settings have a limit of their own, of at most an hour.
            Self::Telemetry => 65,
            Self::Network | Self::Registry | Self::Wiring | Self::Hub | Self::Device | Self::Deploy => 2,
        };
        Duration::from_secs(minutes * 60)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_comes_after_what_it_needs() {
        let plan = Plan::reaching(&[Action::Telemetry]);
        for (position, step) in plan.steps.iter().enumerate() {
            for need in &step.needs {
                let at = plan.steps.iter().position(|other| other.action == *need);
                assert!(at.is_some_and(|at| at < position), "{} needs {need}", step.action);
            }
        }
    }

    #[test]
    fn a_part_of_the_system_needs_only_its_part() {
        let ids =
            |goal| Plan::reaching(&[goal]).steps.iter().map(|step| step.action.id()).collect::<Vec<_>>();
        assert_eq!(ids(Action::Registry), ["network", "image-base", "image-registry", "registry"]);
        assert_eq!(ids(Action::Hub), ["network", "binaries", "image-hub", "hub"]);
        assert_eq!(ids(Action::Cluster), ["network", "image-base", "node-image", "kind", "cluster"]);
    }

    #[test]
    fn cluster_images_and_hub_do_not_wait_for_each_other() {
        let reaches =
            |from: Action, to: Action| Plan::reaching(&[from]).steps.iter().any(|step| step.action == to);
        for (one, other) in [
            (Action::Cluster, Action::Hub),
            (Action::Cluster, Action::Push(Image::Edge)),
            (Action::Hub, Action::Push(Image::Edge)),
        ] {
            assert!(!reaches(one, other) && !reaches(other, one), "{one} and {other} depend on each other");
        }
    }
}
