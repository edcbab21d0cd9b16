//! The proof: walk the layers in order, say which one is broken and why, and count telemetry only when it has
//! arrived at the hub.

pub mod layers;
mod refusal;
mod telemetry;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

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

/// Walks all layers, within `limit`. Only telemetry that was enqueued after the run began counts.
async fn walk(context: &Context, place: Place, limit: Duration) -> Proof {
    let deadline = Instant::now() + limit;
    let mut proof = Proof::default();
    for &name in Name::all(place) {
        let (result, detail) = if proof.broken().is_some() {
            ("not reached", String::new())
        } else {
            match look(context, place, name, deadline, &mut proof.messages).await {
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
    deadline: Instant,
    messages: &mut Vec<Evidence>,
) -> Result<String> {
    let limit = deadline.saturating_duration_since(Instant::now());
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
    let proof = walk(context, place, Duration::from_secs(context.settings.verify.time_limit)).await;
    match proof.broken() {
        None => Ok(Effect::changed(format!("{} messages", proof.messages.len()))),
        Some(layer) => Err(Unproved::of(layer).into()),
    }
}

/// Names the layer at which an edge is stuck that did not get ready.
///
/// # Errors
/// When a layer below the hub is broken; the error names it.
pub async fn diagnose(context: &Context, place: Place) -> Result<()> {
    context.findings().place = Some(place);
    match walk(context, place, DIAGNOSIS_LIMIT).await.broken().filter(|layer| layer.name != Name::Hub) {
        None => Ok(()),
        Some(layer) => Err(Unproved::of(layer).into()),
    }
}
