//! The proof: walk the layers in order, say which one is broken and why, and count telemetry only when it has
//! arrived at the hub.

mod cause;
mod certificate;
mod diagnosis;
mod elsewhere;
mod hub;
mod hub_path;
mod journal;
pub mod layers;
mod lookout;
#[cfg(test)]
mod played;
mod real;
mod runtime;
mod scene;
mod security;
mod silence;
mod simulated;
mod telemetry;
mod units;

use std::time::Duration;

use anyhow::{Error, Result};
use serde::Serialize;
use tokio::time::Instant;

use self::cause::{Cause, Lasting};
use crate::context::Context;
use crate::engine::EngineKind;
use crate::execute::Effect;
use crate::exit::{NotProved, Unproved};
use crate::place::Place;
use crate::wait::{WaitError, wait_for};

pub use self::elsewhere::Elsewhere;
pub use self::layers::Name;
pub use self::lookout::Lookout;
pub use self::scene::{Means, Scene};
pub use self::security::{Security, broken_promise, confined_and_ready, observe_tier, prove_tier};
pub use self::telemetry::{Evidence, Expectation, Verdict, judge};

/// How one layer was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Which layer.
    pub name: Name,
    /// `ok`, `broken`, `not proved` or `not reached`.
    pub result: &'static str,
    /// What was seen, or what is wrong.
    pub detail: String,
    /// What to do about it, when it is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Layer {
    /// One that is broken.
    fn broken(scene: &Scene<'_>, name: Name, cause: Cause) -> Self {
        let next = match (cause.next, scene.is_elsewhere()) {
            // What helps with a cluster of ours helps with no other.
            (_, true) if name == Name::Node => name.next_elsewhere().to_owned(),
            (Some(next), false) => next.to_owned(),
            (Some(next), true) => next.replace("`cargo xtask up`", "`cargo xtask deploy`"),
            (None, false) => name.next().to_owned(),
            (None, true) => name.next_elsewhere().to_owned(),
        };
        Self { name, result: BROKEN, detail: cause.text, next: Some(next) }
    }

    fn of(scene: &Scene<'_>, name: Name, outcome: Outcome) -> Self {
        let (result, detail) = match outcome {
            Outcome::Fine(detail) => ("ok", detail),
            Outcome::NotProved(why) => (NOT_PROVED, why),
            Outcome::NotReached => (NOT_REACHED, String::new()),
            Outcome::Broken(name, cause) => return Self::broken(scene, name, cause),
        };
        Self { name, result, detail, next: None }
    }
}

const BROKEN: &str = "broken";

/// A layer beneath is broken.
const NOT_REACHED: &str = "not reached";

/// Nothing is broken as far as can be seen, and one could not look further.
const NOT_PROVED: &str = "not proved";

/// What was proved.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Proof {
    /// All layers, in order.
    pub layers: Vec<Layer>,
    /// The telemetry that counted.
    pub messages: Vec<Evidence>,
}

impl Proof {
    /// The layer that is broken.
    #[must_use]
    pub fn broken(&self) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.result == BROKEN)
    }

    /// Notes that a layer has broken which was well before: nothing above it counts.
    fn breaks(&mut self, broken: Layer) {
        let Some(at) = self.layers.iter().position(|layer| layer.name == broken.name) else { return };
        for above in &mut self.layers[at + 1..] {
            *above = Layer { result: NOT_REACHED, detail: String::new(), ..above.clone() };
        }
        self.layers[at] = broken;
    }

    /// The layer of which nobody could say whether it is well.
    #[must_use]
    pub fn not_proved(&self) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.result == NOT_PROVED)
    }
}

/// How long a layer of an edge that did not get ready is looked at, to tell what is wrong with it.
const DIAGNOSIS_LIMIT: Duration = Duration::from_secs(8);

/// How long layers may take.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// All together.
    Until(Instant),
    /// Each of them, so that the time of one is not taken from the next, which would be blamed for it.
    Each(Duration),
}

impl Limit {
    /// What is left for the next layer.
    fn left(self) -> Duration {
        match self {
            Self::Until(deadline) => deadline.saturating_duration_since(Instant::now()),
            Self::Each(limit) => limit,
        }
    }
}

/// What became of a layer.
enum Outcome {
    Fine(String),
    NotProved(String),
    NotReached,
    /// The layer, or one beneath that has broken meanwhile.
    Broken(Name, Cause),
}

/// Walks all layers, within `limit`; the last one, the hub, only if it is wanted. Only telemetry that was enqueued after
/// the run began counts.
async fn walk(scene: &Scene<'_>, limit: Limit, with_hub: bool) -> Proof {
    let mut proof = Proof::default();
    for &name in scene.layers() {
        let outcome = if proof.broken().is_some() || (name == Name::Hub && !with_hub) {
            Outcome::NotReached
        } else {
            look(scene, name, limit.left(), &mut proof.messages).await
        };
        let layer = match outcome {
            Outcome::Broken(beneath, cause) if beneath != name => {
                proof.breaks(Layer::broken(scene, beneath, cause));
                Layer::of(scene, name, Outcome::NotReached)
            }
            outcome => Layer::of(scene, name, outcome),
        };
        scene.progress.detail("telemetry", &format!("{name}: {}", layer.result));
        proof.layers.push(layer);
        scene.record(&proof);
    }
    proof
}

async fn look(scene: &Scene<'_>, name: Name, limit: Duration, messages: &mut Vec<Evidence>) -> Outcome {
    if name == Name::Hub {
        return match hub::arrival(scene, limit).await {
            Ok(hub::Arrival::Proved(proved)) => {
                *messages = proved;
                Outcome::Fine(format!("{} messages with continuous sequence numbers", messages.len()))
            }
            Ok(hub::Arrival::NotProved(why)) => Outcome::NotProved(why),
            Ok(hub::Arrival::Broken(cause)) => Outcome::Broken(name, cause),
            Err(error) => Outcome::Broken(name, Cause::passing(format!("{error:#}"))),
        };
    }
    let lasting = Lasting::default();
    match wait_for(&name.to_string(), limit, || layers::observe(scene, name, &lasting)).await {
        Ok(detail) => Outcome::Fine(detail),
        // The layer is named where the error is shown; what was seen last is what matters.
        Err(WaitError::TimedOut { last: seen, .. } | WaitError::Died { reason: seen, .. }) => {
            let (layer, next) = lasting.last().map_or((name, None), |(layer, cause)| (layer, cause.next));
            Outcome::Broken(layer, Cause { next, ..Cause::passing(seen) })
        }
    }
}

/// Walks all layers within the time that the settings give the proof.
///
/// # Errors
/// [`Unproved`] when a layer is broken, [`NotProved`] when none is and nobody could say whether telemetry arrives.
pub async fn prove(scene: &Scene<'_>) -> (Proof, Result<()>) {
    let limit = Duration::from_secs(scene.settings.verify.time_limit);
    let proof = walk(scene, Limit::Until(Instant::now() + limit), true).await;
    let result = match (proof.broken(), proof.not_proved()) {
        (Some(layer), _) => Err(Unproved::of(layer).into()),
        (None, Some(layer)) => Err(NotProved(layer.detail.clone()).into()),
        (None, None) => Ok(()),
    };
    (proof, result)
}

/// The proof as a step of a plan.
///
/// # Errors
/// As [`prove`].
pub async fn telemetry_step(context: &Context, place: Place) -> Result<Effect> {
    context.findings().place = Some(place);
    let (proof, result) = Box::pin(prove(&Scene::own(context, place))).await;
    result.map(|()| Effect::changed(format!("{} messages", proof.messages.len())))
}

/// The layer below the hub at which an edge is stuck that did not get ready.
pub async fn stuck_at(context: &Context, place: Place) -> Option<Layer> {
    context.findings().place = Some(place);
    let proof = walk(&Scene::own(context, place), Limit::Each(DIAGNOSIS_LIMIT), false).await;
    proof.broken().cloned()
}

/// Why an edge did not get ready: at which layer it is stuck, unless that is known, and what was waited for in vain.
pub async fn diagnose(context: &Context, place: Place, error: Error, known: Option<Layer>) -> Error {
    if let Some(layer) = known {
        context.findings().proof.layers = Name::up_to(place, layer);
        return context.findings().proof.broken().map_or(error, |layer| Unproved::of(layer).into());
    }
    match stuck_at(context, place).await {
        None => error,
        Some(layer) => Unproved::of(&with_cause(layer, &format!("{error:#}"))).into(),
    }
}

/// Why a run has failed whose engine has gone: nothing rests on anything without it.
pub fn without_engine(context: &Context, error: &Error) -> Error {
    let next = match context.engine.kind() {
        EngineKind::Docker => {
            "start the engine, and run the command again; `cargo xtask down` removes what is left"
        }
        // Its service is our own, and comes with the next command.
        EngineKind::Podman => {
            "see in its log why it has ended, and run the command again; `cargo xtask down` removes what is left"
        }
    };
    let layer =
        Layer { name: Name::Engine, result: BROKEN, detail: format!("{error:#}"), next: Some(next.into()) };
    let unproved = Unproved::of(&layer);
    context.forget_edge();
    let mut findings = context.findings();
    if let Some(place) = findings.place {
        findings.proof.layers = Name::up_to(place, layer);
    }
    unproved.into()
}

/// A layer often says the very thing that ended the wait; what it does not say is added.
fn with_cause(mut layer: Layer, error: &str) -> Layer {
    layer.detail =
        if error.contains(&layer.detail) { error.to_owned() } else { format!("{}; {error}", layer.detail) };
    layer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_a_layer_that_has_broken_since_does_not_count() {
        let layer = |name, result| Layer { name, result, detail: "x".into(), next: None };
        let found = [Name::Node, Name::Pod, Name::Systemd].map(|name| layer(name, "ok"));
        let mut proof = Proof { layers: found.into(), messages: Vec::new() };
        proof.breaks(layer(Name::Pod, BROKEN));
        let results: Vec<_> = proof.layers.iter().map(|layer| layer.result).collect();
        assert_eq!(results, ["ok", BROKEN, NOT_REACHED]);
        assert_eq!(proof.broken().map(|layer| layer.name), Some(Name::Pod));
    }

    #[test]
    fn the_cause_is_told_once() {
        let told = |detail: &str, error: &str| {
            let layer = Layer { name: Name::Pod, result: BROKEN, detail: detail.into(), next: None };
            with_cause(layer, error).detail
        };
        let error = "the pod will not come: p: Pending, ImagePullBackOff: no such image";
        assert_eq!(told("p: Pending, ImagePullBackOff: no such image", error), error);
        assert_eq!(told("systemd is stopping", "the pod restarts"), "systemd is stopping; the pod restarts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_diagnosis_has_as_much_time_for_the_last_layer_as_for_the_first() {
        let each = Limit::Each(DIAGNOSIS_LIMIT);
        let all = Limit::Until(Instant::now() + DIAGNOSIS_LIMIT);
        tokio::time::advance(DIAGNOSIS_LIMIT * 2).await;
        assert_eq!((each.left(), all.left()), (DIAGNOSIS_LIMIT, Duration::ZERO));
    }
}
