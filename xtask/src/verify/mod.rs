//! The proof: walk the layers in order, say which one is broken and why, and count telemetry only when it has
//! arrived at the hub.

pub mod layers;
mod refusal;
mod telemetry;

use std::time::Duration;

use anyhow::{Error, Result, bail};
use serde::Serialize;
use tokio::time::Instant;

use crate::context::Context;
use crate::execute::Effect;
use crate::exit::Unproved;
use crate::place::Place;
use crate::wait::{WaitError, wait_for};

pub use self::layers::Name;
pub use self::refusal::Refusal;
pub use self::telemetry::{Evidence, Expectation, Verdict, judge};

/// How one layer was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Which layer.
    pub name: Name,
    /// `ok`, `broken` or `not reached`.
    pub result: &'static str,
    /// What was seen, or what is wrong.
    pub detail: String,
}

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
        self.layers.iter().find(|layer| layer.result == "broken")
    }
}

/// How long a layer of an edge that did not get ready is looked at, to tell what is wrong with it.
const DIAGNOSIS_LIMIT: Duration = Duration::from_secs(3);

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

/// Walks all layers, within `limit`. Only telemetry that was enqueued after the run began counts.
async fn walk(context: &Context, place: Place, limit: Limit) -> Proof {
    let mut proof = Proof::default();
    for &name in Name::all(place) {
        let (result, detail) = if proof.broken().is_some() {
            ("not reached", String::new())
        } else {
            match look(context, place, name, limit.left(), &mut proof.messages).await {
                Ok(detail) => ("ok", detail),
                Err(error) => ("broken", format!("{error:#}")),
            }
        };
        context.progress.detail("telemetry", &format!("{name}: {result}"));
        proof.layers.push(Layer { name, result, detail });
        context.findings().proof = proof.clone();
    }
    proof
}

async fn look(
    context: &Context,
    place: Place,
    name: Name,
    limit: Duration,
    messages: &mut Vec<Evidence>,
) -> Result<String> {
    if name == Name::Hub {
        *messages = telemetry::collect(context, place, limit).await?;
        return Ok(format!("{} messages with continuous sequence numbers", messages.len()));
    }
    match wait_for(&name.to_string(), limit, || layers::observe(context, place, name)).await {
        Ok(detail) => Ok(detail),
        // The layer is named where the error is shown; what was seen last is what matters.
        Err(WaitError::TimedOut { last: seen, .. } | WaitError::Died { reason: seen, .. }) => bail!(seen),
    }
}

/// The proof as a step of a plan.
///
/// # Errors
/// When a layer is broken; the error names it.
pub async fn telemetry_step(context: &Context, place: Place) -> Result<Effect> {
    context.findings().place = Some(place);
    let limit = Duration::from_secs(context.settings.verify.time_limit);
    let proof = walk(context, place, Limit::Until(Instant::now() + limit)).await;
    match proof.broken() {
        None => Ok(Effect::changed(format!("{} messages", proof.messages.len()))),
        Some(layer) => Err(Unproved::of(layer).into()),
    }
}

/// The layer below the hub at which an edge is stuck that did not get ready.
pub async fn stuck_at(context: &Context, place: Place) -> Option<Layer> {
    context.findings().place = Some(place);
    let proof = walk(context, place, Limit::Each(DIAGNOSIS_LIMIT)).await;
    proof.broken().filter(|layer| layer.name != Name::Hub).cloned()
}

/// Why an edge did not get ready: at which layer it is stuck, and what was waited for in vain.
pub async fn diagnose(context: &Context, place: Place, error: Error) -> Error {
    match stuck_at(context, place).await {
        None => error,
        Some(layer) => Unproved::of(&with_cause(layer, &format!("{error:#}"))).into(),
    }
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
    fn the_cause_is_told_once() {
        let told = |detail: &str, error: &str| {
            let layer = Layer { name: Name::Pod, result: "broken", detail: detail.into() };
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
