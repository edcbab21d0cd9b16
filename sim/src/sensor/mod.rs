//! The simulated temperature sensor: a module that anybody who tried IoT Edge knows.
//!
//! Same message, properties, settings, twin and log lines as Microsoft's, over MQTT.

mod control;
mod edge_environment;
mod model;
mod run;
mod settings;

pub use edge_environment::EdgeEnvironment;
pub use model::{Body, Model, Randomness};
pub use run::{Log, run};
pub use settings::{Settings, SettingsError};
