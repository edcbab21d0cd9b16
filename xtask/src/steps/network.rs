//! The network that the cluster's node, the registry and the hub share.

use anyhow::Result;

use crate::context::Context;

/// Makes the network.
///
/// # Errors
/// When a network of that name belongs to somebody else, or the engine refuses.
pub async fn ensure(context: &Context) -> Result<String> {
    let made = context.engine.ensure_network().await?;
    Ok(if made { format!("made `{}`", context.network()) } else { "was there".into() })
}
