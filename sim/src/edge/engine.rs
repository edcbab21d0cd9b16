//! What the runtime asks of a container engine.
//!
//! The trait is as narrow as the supervisor's needs, so that a test can stand in for the engine and
//! run modules as tasks; [`super::docker`] is the real one.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;

use bollard::models::ContainerCreateBody;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::deployment::RegistryCredential;
use super::planner::ObservedModule;

/// An error of the engine, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// The engine's message.
    pub message: String,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineVersion {
    /// Version of the engine.
    pub engine: String,
    /// The highest version of its API, such as `1.41`.
    pub api: String,
}

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Go on with what is written later.
    pub follow: bool,
    /// So many lines from the end.
    pub tail: Option<u64>,
    /// From this time, in Unix seconds.
    pub since: Option<i32>,
    /// Until this time, in Unix seconds.
    pub until: Option<i32>,
    /// With the engine's time in front of each line.
    pub timestamps: bool,
}

/// A line of a log, or a part of a very long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFrame {
    /// Whether it was written to the standard error.
    pub is_error: bool,
    /// With its end of line.
    pub text: Bytes,
}

/// Lines of a log.
pub type LogStream = BoxStream<'static, Result<LogFrame, EngineError>>;

/// A container engine that runs the modules.
pub trait Engine: Send + Sync + 'static {
    /// Succeeds when the engine answers.
    fn version(&self) -> impl Future<Output = Result<EngineVersion, EngineError>> + Send;

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

    /// Stops a container, killing it when it does not end in time; a stopped or missing one is fine.
    fn stop(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a container in whatever state; a missing one is fine.
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// The log of a container.
    fn logs(&self, name: &str, request: LogRequest) -> Result<LogStream, EngineError>;
}
