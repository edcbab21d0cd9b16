//! `cargo xtask verify`: walk the layers of what is up, from the engine to the hub.

use std::time::Instant;

use anyhow::Result;

use crate::context::Context;
use crate::edge;
use crate::plan::Action;
use crate::progress::Mark;
use crate::session::{Setup, write_report};
use crate::verify;

/// Proves that telemetry arrives, now.
///
/// # Errors
/// [`crate::exit::Unproved`] with the first broken layer.
pub async fn run(setup: Setup) -> Result<()> {
    let context = setup.attach().await?;
    let place = edge::place(&context).await?;
    let (step, started) = (Action::Telemetry(place).id(), Instant::now());
    context.progress.begin(&step, "walk the layers");
    let result = verify::telemetry_step(&context, place).await;
    let (mark, note) = match &result {
        Ok(effect) => (Mark::Done, effect.note.as_str()),
        Err(_) => (Mark::Failed, ""),
    };
    context.progress.end(&step, mark, started.elapsed(), note);
    print(&context);
    write_report(&context, "verify", Vec::new(), result.as_ref().err());
    result.map(drop)
}

/// Prints the layers, if any were walked, each in one line; the error has the whole of what is wrong.
pub fn print(context: &Context) {
    for layer in &context.findings().proof.layers {
        let detail = layer.detail.lines().next().unwrap_or_default();
        println!("{:13} {:12} {detail}", layer.name, layer.result);
    }
}
