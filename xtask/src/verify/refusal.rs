//! A deployment that the runtime refuses: an image that does not exist, for example. Waiting for the edge to get ready
//! makes no sense then, but the same words are said of passing trouble, so they have to last.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::layers;
use super::scene::Scene;
use crate::context::Context;
use crate::place::Place;

/// How long a refusal is believed to be passing.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often to ask, for every question is a process in the edge.
const INTERVAL: Duration = Duration::from_secs(2);

/// Whether, and since when, the runtime refuses its deployment.
#[derive(Debug, Default)]
pub struct Refusal {
    marks: Mutex<Marks>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Marks {
    asked: Option<Instant>,
    since: Option<Instant>,
}

impl Refusal {
    /// Whether the runtime has refused its deployment for so long that it will go on to.
    pub async fn is_lasting(&self, context: &Context, place: Place) -> bool {
        let marks = *self.lock();
        if marks.asked.is_some_and(|asked| asked.elapsed() < INTERVAL) {
            return false;
        }
        let refused = layers::is_refused(&Scene::own(context, place)).await;
        let now = Instant::now();
        let marks = marks.after(refused, now);
        *self.lock() = marks;
        marks.since.is_some_and(|since| now.duration_since(since) >= PATIENCE)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Marks {
    fn after(self, refused: bool, now: Instant) -> Self {
        Self { asked: Some(now), since: if refused { self.since.or(Some(now)) } else { None } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unbroken_refusal_lasts() {
        let start = Instant::now();
        let refused = Marks::default().after(true, start).after(true, start + PATIENCE);
        assert_eq!(refused.since, Some(start));
        assert_eq!(refused.after(false, start + PATIENCE).since, None);
    }
}
