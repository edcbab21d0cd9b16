//! What each action of the plan does, and how its part of the system is found. `observe` looks and changes nothing;
//! `ensure` looks once more, because time has passed, and does only what is missing.

pub mod binaries;
pub mod cluster;
pub mod deploy;
pub mod device;
pub mod edge_container;
pub mod hub;
pub mod images;
pub mod kind;
pub mod network;
pub mod node_image;
pub mod preload;
pub mod registry;
mod userns;

use std::sync::Arc;

use anyhow::Result;

use crate::context::Context;
use crate::edge;
use crate::execute::Effect;
use crate::images::Image;
use crate::place::Place;
use crate::plan::{Action, Condition};
use crate::tier::judge;

/// Whether the tier of the edge can be had, as far as the engine tells, before anything is made for it. What the nodes of a cluster
/// have to say is heard when there are some.
///
/// # Errors
/// [`crate::tier::Unobtainable`] when it cannot; else when the engine cannot be asked.
pub async fn check_tier(context: &Context, goals: &[Action]) -> Result<()> {
    let Some(place) = Action::place(goals) else { return Ok(()) };
    match place {
        Place::Host => drop(edge_container::decide_tier(context).await?),
        Place::Cluster => {
            let facts = context.engine.facts().await?.of_nodes_to_come();
            judge::decide(&facts, context.settings.security.tier)?;
        }
    }
    Ok(())
}

/// How the part that an action is for is found.
///
/// # Errors
/// When one cannot look.
pub async fn observe(context: &Context, action: Action) -> Result<Condition> {
    match action {
        Action::Network => network::observe(context).await,
        Action::Kind => Ok(kind::observe(context)),
        Action::Binaries => binaries::observe(context),
        Action::Image(image) => images::observe(context, image).await,
        Action::NodeImage => node_image::observe(context).await,
        Action::Cluster => cluster::observe(context).await,
        Action::Registry => registry::observe(context).await,
        Action::Push(image) => registry::observe_push(context, image).await,
        Action::Wiring => cluster::observe_wiring(context).await,
        Action::Hub => hub::observe(context).await,
        Action::Device => device::observe(context).await,
        Action::Deploy => {
            edge::refuse_second(context, Place::Cluster).await?;
            deploy::observe(context).await
        }
        Action::Pod => deploy::observe_pod(context).await,
        Action::EdgeContainer => {
            edge::refuse_second(context, Place::Host).await?;
            edge_container::observe(context).await
        }
        Action::Telemetry(_) => Ok(Condition::Differs("it is proved anew every time".into())),
    }
}

/// Brings about one action and tells in a few words how.
///
/// # Errors
/// When it cannot be brought about.
pub async fn run(context: Arc<Context>, action: Action) -> Result<Effect> {
    let context = &*context;
    match action {
        Action::Network => network::ensure(context).await,
        Action::Kind => kind::ensure(context).await,
        Action::Binaries => binaries::ensure(context).await,
        Action::Image(Image::Base) => images::ensure_base(context).await,
        Action::Image(image) => images::ensure(context, image, &action.id()).await,
        Action::NodeImage => node_image::ensure(context).await,
        Action::Cluster => cluster::ensure(context).await,
        Action::Registry => registry::ensure(context).await,
        Action::Push(image) => registry::push(context, image).await,
        Action::Wiring => cluster::wire_registry(context).await,
        Action::Hub => hub::ensure(context).await,
        Action::Device => device::ensure(context).await,
        Action::Deploy => {
            edge::refuse_second(context, Place::Cluster).await?;
            deploy::ensure(context).await
        }
        Action::Pod => deploy::wait_until_ready(context).await,
        Action::EdgeContainer => {
            edge::refuse_second(context, Place::Host).await?;
            edge_container::ensure(context).await
        }
        Action::Telemetry(place) => crate::verify::telemetry_step(context, place).await,
    }
}
