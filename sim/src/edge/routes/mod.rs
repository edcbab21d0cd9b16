//! The routes of `$edgeHub`: which messages go to the hub, and which to inputs of modules.
//!
//! A route that cannot be read is left out and named in the reported status; the others work. Only a structure that
//! cannot be read at all is refused as a whole.

mod route;
mod settings;

use serde_json::Value;

use self::route::Route;
use super::condition::Subject;
use super::deployment::DeploymentError;
use crate::topics::PropertyBag;

pub use self::route::{MessageKind, Sink};
pub use self::settings::StoreSettings;

const SCHEMA_MINORS: [&str; 4] = ["0", "1", "2", "3"];

/// The routes in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routes {
    routes: Vec<Route>,
    /// How long messages are kept, and how many.
    pub store: StoreSettings,
    /// What could not be read, one sentence for each route.
    pub problems: Vec<String>,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The place.
    pub sink: Sink,
    /// The lower one is sent first.
    pub priority: u32,
    /// How long the message is kept.
    pub time_to_live_secs: u32,
}

impl Routes {
    /// Reads the `desired` part of the twin of `$edgeHub`.
    pub fn parse(desired: &Value) -> Result<Self, DeploymentError> {
        let malformed = |message: &str| DeploymentError::Malformed(message.to_owned());
        let desired = desired.as_object().ok_or_else(|| malformed("the desired properties are no object"))?;
        if desired.keys().all(|key| key.starts_with('$')) {
            return Err(DeploymentError::Empty);
        }
        let version = desired.get("schemaVersion").and_then(Value::as_str).unwrap_or_default();
        let minor = version.strip_prefix("1.").and_then(|rest| rest.split('.').next());
        if !minor.is_some_and(|minor| SCHEMA_MINORS.contains(&minor)) {
            return Err(DeploymentError::SchemaVersion(version.to_owned()));
        }
        let store = StoreSettings::parse(desired.get("storeAndForwardConfiguration"))?;
        let mut routes = Self { store, ..Self::default() };
        let described = match desired.get("routes") {
            None | Some(Value::Null) => return Ok(routes),
            Some(Value::Object(described)) => described,
            Some(_) => return Err(malformed("the routes are no object")),
        };
        for (name, value) in described {
            match Route::parse(value) {
                Ok(route) => routes.routes.extend(route),
                Err(problem) => routes.problems.push(format!("route {name}: {problem}")),
            }
        }
        Ok(routes)
    }

    /// Where a message goes, whose properties say whom it is from: once to each place, by the route that is first
    /// there.
    #[must_use]
    pub fn destinations(&self, kind: MessageKind, properties: &PropertyBag, body: &[u8]) -> Vec<Destination> {
        let subject = Subject::new(properties, body);
        let mut destinations: Vec<Destination> = Vec::new();
        for route in self.routes.iter().filter(|route| route.takes(kind, properties, &subject)) {
            let destination = Destination {
                sink: route.sink.clone(),
                priority: route.priority,
                time_to_live_secs: route.time_to_live_secs.unwrap_or(self.store.time_to_live_secs),
            };
            match destinations.iter_mut().find(|other| other.sink == destination.sink) {
                Some(other) if other.priority <= destination.priority => {}
                Some(other) => *other = destination,
                None => destinations.push(destination),
            }
        }
        destinations
    }
}

#[cfg(test)]
mod tests;
