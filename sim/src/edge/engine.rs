//! What the runtime asks of a container engine.
//!
//! The trait is as narrow as the supervisor's needs, so that a test can stand in for the engine and
//! run modules as tasks; [`super::docker`] is the real one.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;

use bollard::models::ContainerCreateBody;

use super::deployment::RegistryCredential;
use super::planner::ObservedModule;

/// An error of the engine, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// The engine's message.
    pub message: String,
}

/// A container engine that runs the modules.
pub trait Engine: Send + Sync + 'static {
    /// Succeeds when the engine answers; its version.
    fn version(&self) -> impl Future<Output = Result<String, EngineError>> + Send;

    /// Makes the network of the modules when it is missing; the address at which they reach this host.
    fn ensure_network(&self, name: &str) -> impl Future<Output = Result<IpAddr, EngineError>> + Send;

    /// The containers of modules by name, running or not.
    fn modules(&self) -> impl Future<Output = Result<BTreeMap<String, ObservedModule>, EngineError>> + Send;

    /// Whether the image is there and cannot have changed, because its reference is a digest.
    fn has_pinned_image(&self, image: &str) -> impl Future<Output = bool> + Send;

    /// Pulls an image.
    fn pull(
        &self,
        image: &str,
        credential: Option<&RegistryCredential>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Makes a container.
    fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Starts a container.
    fn start(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stops a container, killing it when it does not end in time; a stopped one is fine.
    fn stop(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a container in whatever state; a missing one is fine.
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;
}
