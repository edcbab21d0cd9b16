//! `cargo xtask verify`: walk the layers of what is up, from the engine to the hub.

use anyhow::Result;

use crate::context::Context;
use crate::session::{Setup, write_report};
use crate::verify;

/// Proves that telemetry arrives, now.
///
/// # Errors
/// [`crate::exit::Unproved`] with the first broken layer.
pub async fn run(setup: Setup) -> Result<()> {
    let context = setup.attach().await?;
    let result = verify::telemetry_step(&context).await.map(drop);
    print(&context);
    write_report(&context, "verify", Vec::new(), result.as_ref().err());
    result
}

/// Prints the layers, if any were walked.
pub fn print(context: &Context) {
    for layer in &context.findings().proof.layers {
        println!("{:13} {:12} {}", layer.name, layer.result, layer.detail);
    }
}
