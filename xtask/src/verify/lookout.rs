//! An edge on its way, looked at from inside: what will not pass by itself ends the wait for it early.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Layer;
use super::cause::Lasting;
use super::layers::{self, Name};
use super::scene::Scene;
use crate::context::Context;
use crate::place::Place;

/// How often to look, for every look is several processes in the edge.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was seen of an edge that is waited for.
#[derive(Debug, Default)]
pub struct Lookout {
    looked: Mutex<Option<Instant>>,
    lasting: Lasting,
    broken: Mutex<Option<Layer>>,
}

impl Lookout {
    /// The layer at which the edge is stuck for good, if that is known by now.
    pub async fn stuck(&self, context: &Context, place: Place) -> Option<Layer> {
        if lock(&self.looked).is_some_and(|looked| looked.elapsed() < INTERVAL) {
            return None;
        }
        let broken = self.look(&Scene::own(context, place)).await;
        *lock(&self.looked) = Some(Instant::now());
        lock(&self.broken).clone_from(&broken);
        broken
    }

    /// The layer that was told to be stuck.
    #[must_use]
    pub fn found(&self) -> Option<Layer> {
        lock(&self.broken).clone()
    }

    async fn look(&self, scene: &Scene<'_>) -> Option<Layer> {
        for &name in scene.layers() {
            // Whoever waits looks at these; the tier is proved and the hub asked for telemetry when the edge is ready.
            let is_for_others = matches!(
                name,
                Name::Engine | Name::Node | Name::Pod | Name::Container | Name::Security | Name::Hub
            );
            if is_for_others {
                continue;
            }
            if let Err(cause) = layers::look(scene, name).await {
                let is_over = self.lasting.is_over(name, &cause);
                return is_over.then(|| Layer::broken(scene, name, cause));
            }
        }
        self.lasting.clear();
        None
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
