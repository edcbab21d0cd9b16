//! What is to be done, and in which order: a pure function from goals and from what was observed to a graph of steps.
//!
//! A command names the actions that it wants done; the plan adds what these need, and says of each whether there is
//! something to do and why. Nothing here looks at the machine or changes it: that is [`crate::observe`] and
//! [`crate::execute`] with the modules that they call.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::images::Image;
use crate::place::Place;
use crate::settings::{Hub, Runtime};

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
    /// The edge as a container directly on the engine, ready.
    EdgeContainer,
    /// Telemetry of the edge in this place proved to be at the hub.
    Telemetry(Place),
}

/// What is simulated, and what is the user's: it decides what the steps need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The hub to which the edge connects.
    pub hub: Hub,
    /// The runtime in the edge's image.
    pub runtime: Runtime,
}

impl Shape {
    /// All that can be simulated is.
    pub const SIMULATED: Self = Self { hub: Hub::Local, runtime: Runtime::Simulated };
}

/// How a part of the system was found, compared with how it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// As it is wanted; the text says what is there.
    Holds(String),
    /// Absent or otherwise; the text says how.
    Differs(String),
    /// One could not look, for this reason; mostly because what it rests on is not there.
    Unseen(String),
    /// Something that is not ours is in the way; the text says what, and what to do.
    Blocked(String),
}

/// How each part was found. One that nobody has looked at counts as absent.
pub type Observed = BTreeMap<Action, Condition>;

/// What a step has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Nothing: what is there is as it is wanted.
    Nothing(String),
    /// Something, for this reason.
    Due(String),
    /// That shows when these are done: it is looked at again.
    Open(Vec<Action>),
    /// It cannot be done, for this reason.
    Blocked(String),
}

/// One node of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// What must be done before.
    pub needs: Vec<Action>,
    /// Whether there is something to do.
    pub work: Work,
    /// When to give up.
    pub limit: Duration,
}

/// Steps in an order in which they could run one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps; each comes after all that it needs.
    pub steps: Vec<Step>,
}

/// Something that is not ours is in the way; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("something else is in the way:{}", obstacles.iter().map(|obstacle| format!("\n  {obstacle}")).collect::<String>())]
pub struct Obstructed {
    /// One sentence for each thing.
    pub obstacles: Vec<String>,
}

impl Plan {
    /// The plan that brings `goals` about in this shape, given what was observed.
    #[must_use]
    pub fn new(goals: &[Action], shape: Shape, observed: &Observed) -> Self {
        let mut works: BTreeMap<Action, Work> = BTreeMap::new();
        let step = |action: Action| {
            let needs = action.needs(shape);
            let work = work(&needs, observed.get(&action), &works);
            works.insert(action, work.clone());
            Step { action, needs, work, limit: action.limit() }
        };
        Self { steps: Action::leading_to(goals, shape).into_iter().map(step).collect() }
    }

    /// Whether nothing has to be done.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        self.steps.iter().all(|step| matches!(step.work, Work::Nothing(_)))
    }

    /// Whether the edge may be another one in the end than the one that is there.
    #[must_use]
    pub fn may_replace_edge(&self) -> bool {
        let is_edge = |step: &&Step| matches!(step.action, Action::Pod | Action::EdgeContainer);
        self.steps.iter().filter(is_edge).any(|step| !matches!(step.work, Work::Nothing(_)))
    }

    /// Refuses a plan that cannot be carried out.
    ///
    /// # Errors
    /// [`Obstructed`], with all that is in the way.
    pub fn unobstructed(self) -> Result<Self, Obstructed> {
        let blocked = |step: &Step| match &step.work {
            Work::Blocked(reason) => Some(reason.clone()),
            _ => None,
        };
        let mut obstacles: Vec<_> = self.steps.iter().filter_map(blocked).collect();
        // Several steps may meet the same thing.
        obstacles.sort();
        obstacles.dedup();
        if obstacles.is_empty() { Ok(self) } else { Err(Obstructed { obstacles }) }
    }
}

/// What a step has to do, given how its part was found and what the steps before it do.
fn work(needs: &[Action], found: Option<&Condition>, works: &BTreeMap<Action, Work>) -> Work {
    let touches = |need: &Action| match works.get(need) {
        Some(Work::Open(_)) => true,
        // What was made from an image or with a program stays when these are made anew under the same name.
        Some(Work::Due(_)) => !need.is_artifact(),
        _ => false,
    };
    let touched: Vec<_> = needs.iter().copied().filter(touches).collect();
    match found {
        Some(Condition::Blocked(reason)) => Work::Blocked(reason.clone()),
        Some(Condition::Differs(reason)) => Work::Due(reason.clone()),
        Some(Condition::Unseen(reason)) if touched.is_empty() => Work::Due(reason.clone()),
        None => Work::Due("it is not there".into()),
        Some(Condition::Holds(note)) if touched.is_empty() => Work::Nothing(note.clone()),
        Some(Condition::Holds(_) | Condition::Unseen(_)) => Work::Open(touched),
    }
}

/// Depth first; [`Action::needs`] has no cycle, which a test proves.
fn visit(action: Action, shape: Shape, seen: &mut BTreeSet<Action>, order: &mut Vec<Action>) {
    if seen.insert(action) {
        for need in action.needs(shape) {
            visit(need, shape, seen, order);
        }
        order.push(action);
    }
}

impl Action {
    /// `goals` and all that they need, each after what it needs.
    #[must_use]
    pub fn leading_to(goals: &[Self], shape: Shape) -> Vec<Self> {
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for goal in goals {
            visit(*goal, shape, &mut seen, &mut order);
        }
        order
    }

    /// Whether it brings about a file or an image whose name says what is in it.
    fn is_artifact(self) -> bool {
        matches!(self, Self::Kind | Self::Image(_) | Self::NodeImage)
    }

    /// What must be done before this.
    #[must_use]
    pub fn needs(self, shape: Shape) -> Vec<Self> {
        match self {
            Self::Network | Self::Kind | Self::Binaries | Self::Image(Image::Base) => vec![],
            Self::Image(Image::Node | Image::Registry) => vec![Self::Image(Image::Base)],
            Self::Image(Image::Edge) => match shape.runtime {
                Runtime::Simulated => vec![Self::Image(Image::Base), Self::Binaries],
                Runtime::Azure => vec![Self::Image(Image::Base)],
            },
            Self::Image(Image::Hub | Image::TemperatureSensor) => vec![Self::Binaries],
            Self::NodeImage => vec![Self::Image(Image::Base)],
            Self::Cluster => vec![Self::Network, Self::NodeImage, Self::Kind],
            Self::Registry => vec![Self::Network, Self::Image(Image::Registry)],
            Self::Push(image) => vec![Self::Image(image), Self::Registry],
            Self::Wiring => vec![Self::Cluster, Self::Registry],
            Self::Hub => vec![Self::Network, Self::Image(Image::Hub)],
            Self::Device => vec![Self::Hub, Self::Push(Image::TemperatureSensor)],
            Self::Deploy => match shape.hub {
                Hub::Local => vec![Self::Wiring, Self::Device, Self::Push(Image::Edge)],
                Hub::Azure => vec![Self::Wiring, Self::Push(Image::Edge)],
            },
            Self::Pod => vec![Self::Deploy],
            Self::EdgeContainer => match shape.hub {
                Hub::Local => vec![Self::Device, Self::Image(Image::Edge)],
                Hub::Azure => vec![Self::Network, Self::Image(Image::Edge)],
            },
            Self::Telemetry(Place::Cluster) => vec![Self::Pod],
            Self::Telemetry(Place::Host) => vec![Self::EdgeContainer],
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
            Self::EdgeContainer => "edge-container".into(),
            Self::Telemetry(_) => "telemetry".into(),
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
            Self::EdgeContainer => "get the edge's container ready".into(),
            Self::Telemetry(_) => "prove that telemetry arrives at the hub".into(),
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
            // One that is replaced is waited for twice.
            Self::EdgeContainer => 10,
            // The profiles of the pod come with its image.
            Self::Kind | Self::Push(_) | Self::Deploy | Self::Pod => 5,
            // The settings have a limit of their own, of at most an hour.
            Self::Telemetry(_) => 65,
            Self::Network | Self::Registry | Self::Wiring | Self::Hub | Self::Device => 2,
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
mod tests;
