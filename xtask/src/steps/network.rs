//! The network that the cluster's node, the registry and the hub share.

use anyhow::Result;

use crate::context::Context;
use crate::execute::Effect;
use crate::plan::Condition;

/// Whether the network is there.
///
/// # Errors
/// As [`ensure`].
pub async fn observe(context: &Context) -> Result<Condition> {
    let name = context.network();
    Ok(if context.engine.has_network().await? {
        Condition::Holds(format!("`{name}`"))
    } else {
        Condition::Differs(format!("there is no network `{name}`"))
    })
}

/// Makes the network.
///
/// # Errors
/// When a network of that name belongs to somebody else, or the engine refuses.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let made = context.engine.ensure_network().await?;
    let name = context.network();
    Ok(if made { Effect::changed(format!("made `{name}`")) } else { Effect::unchanged(format!("`{name}`")) })
}
