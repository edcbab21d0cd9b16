//! From what a look at a layer has found to its cause. More is looked at only where the layer is not well.

use kedge_sim::service::ServiceClient;

use super::cause::{Cause, Kind};
use super::layers::Name;
use super::scene::{Means, Scene};
use super::{certificate, hub_path, units};
use crate::context::Context;
use crate::settings::Hub;
use crate::steps::hub;

/// How the cluster and the runtimes say that an image could not be pulled.
const NO_IMAGE: [&str; 3] = ["ErrImagePull", "ImagePullBackOff", "cannot pull"];
/// How the runtimes say that the hub has refused the device.
const REFUSALS: [&str; 6] =
    ["401", "unauthor", "not authori", "bad user name or password", "refuses the device", "notauthorized"];
const GIVE_CREDENTIALS: &str =
    "give the credentials that the hub knows: `cargo xtask device`, then `cargo xtask up` or `deploy`";

/// Why a layer is not well, of which `status` was told.
pub(super) async fn of(scene: &Scene<'_>, layer: Name, status: String) -> Cause {
    let found = match layer {
        Name::Systemd | Name::InnerEngine | Name::Runtime => units::obstacle(scene, layer).await,
        Name::Agent if !status.contains("the deployment has status") => agent(scene, &status).await,
        Name::Gateway => certificate::obstacle(scene).await,
        Name::Node => stopped_node(scene).await,
        Name::Pod | Name::Agent | Name::Module if NO_IMAGE.iter().any(|mark| status.contains(mark)) => {
            stopped_registry(scene).await
        }
        _ => None,
    };
    match found {
        Some(cause) if status.contains(&cause.text) => Cause { text: status, ..cause },
        // A program that does not reach a service which has ended has nothing to add.
        Some(cause) if cause.kind == Kind::Unit || cause.text.contains(&status) => cause,
        // What the layer says itself is kept: it may know more.
        Some(cause) => Cause { text: format!("{} ({status})", cause.text), ..cause },
        None => Cause::of_words(layer, status),
    }
}

/// Why the agent does not connect: the way to the hub, or what the hub knows of the device.
async fn agent(scene: &Scene<'_>, status: &str) -> Option<Cause> {
    if let Some(stopped) = stopped_hub(scene).await {
        return Some(stopped);
    }
    if let Some(obstacle) = hub_path::obstacle(scene).await {
        return Some(obstacle);
    }
    let asked = asked_of_hub(scene).await;
    let lower = status.to_lowercase();
    asked.or_else(|| {
        REFUSALS.iter().any(|mark| lower.contains(mark)).then(|| {
            Cause::new(Kind::Refused, "the hub refuses the credentials of the device", GIVE_CREDENTIALS)
        })
    })
}

/// Whether our own hub is there at all.
async fn stopped_hub(scene: &Scene<'_>) -> Option<Cause> {
    let context = scene.local_hub().filter(|_| scene.settings.hub.kind == Hub::Local)?;
    stopped(context, Kind::Hub, &context.settings.hub_container(), "the local hub").await
}

/// Whether a node of our own cluster has stopped, as after a restart of the machine.
async fn stopped_node(scene: &Scene<'_>) -> Option<Cause> {
    let Means::Own(context, _) = scene.means else { return None };
    for node in context.engine.nodes().await.ok()? {
        if context.engine.process_id(&node).await.is_ok_and(|process| process.is_none()) {
            return Some(does_not_run(Kind::Pod, &node, "the node"));
        }
    }
    None
}

/// Whether our own registry, which every image comes from, is there.
async fn stopped_registry(scene: &Scene<'_>) -> Option<Cause> {
    let Means::Own(context, _) = scene.means else { return None };
    stopped(context, Kind::Image, &context.settings.registry_container(), "the local registry").await
}

/// Whether a container of ours is there and runs.
async fn stopped(context: &Context, kind: Kind, name: &str, what: &str) -> Option<Cause> {
    let state = context.engine.container(name).await.ok()?;
    (!state.is_some_and(|state| state.running)).then(|| does_not_run(kind, name, what))
}

fn does_not_run(kind: Kind, name: &str, what: &str) -> Cause {
    Cause::new(kind, format!("the container `{name}` of {what} does not run"), "start it: `cargo xtask up`")
}

/// What our own hub knows of the device. It never tells a client why that is refused.
async fn asked_of_hub(scene: &Scene<'_>) -> Option<Cause> {
    let context = scene.local_hub().filter(|_| scene.settings.hub.kind == Hub::Local)?;
    let service: ServiceClient = hub::service(context).await.ok()?;
    match service.device(scene.device).await {
        Ok(device) if device.status == "disabled" => Some(Cause::new(
            Kind::Hub,
            format!("the device `{}` is disabled in the hub", scene.device),
            "enable the device in the hub",
        )),
        Err(error) if error.status() == Some(kedge_sim::http::StatusCode::NOT_FOUND) => Some(Cause::new(
            Kind::Hub,
            format!("the hub does not know the device `{}`", scene.device),
            "register it: `cargo xtask up` does that in the local hub",
        )),
        _ => None,
    }
}
