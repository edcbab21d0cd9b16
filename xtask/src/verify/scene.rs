//! What is looked at, and by which means: the edge of this deployment, or one in a cluster of somebody else, for which no
//! engine is needed here.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::layers::Name;
use super::{Proof, Security, runtime};
use crate::arrival::EventHub;
use crate::cluster;
use crate::context::Context;
use crate::deploy::target::Target;
use crate::edge;
use crate::engine::Output;
use crate::place::Place;
use crate::progress::Progress;
use crate::settings::{Runtime, Settings};

/// One edge and the way to it.
#[derive(Debug, Clone)]
pub struct Scene<'a> {
    /// The way to it.
    pub means: Means<'a>,
    /// The desired state.
    pub settings: &'a Settings,
    /// The id that the device should have in the hub.
    pub device: &'a str,
    /// What the user sees.
    pub progress: &'a Arc<Progress>,
    /// Ends the walk.
    pub cancel: &'a CancellationToken,
    /// Telemetry that was enqueued earlier proves nothing.
    pub started: Timestamp,
    /// Where arrival at the user's hub can be read, if that is known.
    pub events: Option<&'a EventHub>,
    /// Asked once.
    found: OnceCell<runtime::Found>,
    /// How it is confined, as that was found last.
    security: Arc<Mutex<Option<Security>>>,
}

/// The way to an edge.
#[derive(Debug, Clone, Copy)]
pub enum Means<'a> {
    /// It is this deployment's own.
    Own(&'a Context, Place),
    /// It is a pod of a cluster of somebody else. The context is there when the hub is our own.
    Foreign(&'a Target, Option<&'a Context>),
    /// Programs in a folder play the edge.
    #[cfg(test)]
    Played(&'a std::path::Path),
}

impl<'a> Scene<'a> {
    /// The edge of this deployment.
    #[must_use]
    pub fn own(context: &'a Context, place: Place) -> Self {
        Self {
            means: Means::Own(context, place),
            settings: &context.settings,
            device: context.device_id(),
            progress: &context.progress,
            cancel: &context.cancel,
            started: context.started,
            events: context.events.as_deref(),
            found: OnceCell::new(),
            security: Arc::default(),
        }
    }

    /// An edge that is reached by these means.
    #[must_use]
    pub fn other(
        means: Means<'a>,
        settings: &'a Settings,
        device: &'a str,
        progress: &'a Arc<Progress>,
        cancel: &'a CancellationToken,
        events: Option<&'a EventHub>,
    ) -> Self {
        let (started, found) = (Timestamp::now(), OnceCell::new());
        Self { means, settings, device, progress, cancel, started, events, found, security: Arc::default() }
    }

    /// Whether it is in the cluster of somebody else.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.means, Means::Foreign(..))
    }

    /// The same edge, of which only what comes from now on proves something.
    #[must_use]
    pub fn from_now(&self) -> Self {
        Self { started: Timestamp::now(), found: OnceCell::new(), security: Arc::default(), ..self.clone() }
    }

    /// The layers that it has.
    #[must_use]
    pub fn layers(&self) -> &'static [Name] {
        match self.means {
            Means::Own(_, place) => Name::all(place),
            // Of whatever engine that cluster's nodes are made is not ours to look at.
            Means::Foreign(..) => Name::all(Place::Cluster).split_first().map_or(&[], |(_, rest)| rest),
            #[cfg(test)]
            Means::Played(_) => &[Name::Runtime, Name::Agent, Name::Module, Name::Gateway],
        }
    }

    /// A connection to the cluster.
    ///
    /// # Errors
    /// When there is none.
    pub async fn client(&self) -> Result<Client> {
        match self.means {
            Means::Own(context, _) => cluster::client(&context.paths.kubeconfig()).await,
            Means::Foreign(target, _) => Ok(target.client.clone()),
            #[cfg(test)]
            Means::Played(_) => anyhow::bail!("there is no cluster"),
        }
    }

    /// Runs a command in the edge.
    ///
    /// # Errors
    /// When the edge is not up, or the command could not be run.
    pub async fn run(&self, command: &[&str]) -> Result<Output> {
        match self.means {
            Means::Own(context, place) => edge::run(context, place, command).await,
            Means::Foreign(target, _) => {
                edge::run_in_pod(&target.client, &self.settings.deploy.namespace, command).await
            }
            #[cfg(test)]
            Means::Played(folder) => super::played::run(folder, command),
        }
    }

    /// Runs a script in the edge; gives what it printed, whether it went well or not.
    pub(super) async fn script(&self, script: &str) -> Result<String> {
        Ok(self.run(&["sh", "-c", script]).await?.stdout)
    }

    /// How the edge has ended, when it will not come back by itself.
    pub(super) async fn death(&self) -> Option<String> {
        match self.means {
            Means::Own(context, place) => edge::death(context, place).await,
            Means::Foreign(..) => None,
            #[cfg(test)]
            Means::Played(_) => None,
        }
    }

    /// The context through which our own hub can be asked.
    #[must_use]
    pub fn local_hub(&self) -> Option<&'a Context> {
        match self.means {
            Means::Own(context, _) => Some(context),
            Means::Foreign(_, context) => context,
            #[cfg(test)]
            Means::Played(_) => None,
        }
    }

    /// Notes what was found for the report.
    pub(super) fn record(&self, proof: &Proof) {
        if let Means::Own(context, _) = self.means {
            let mut findings = context.findings();
            findings.proof = proof.clone();
            findings.runtime = self.runtime_kind();
            findings.security = self.security();
        }
    }

    /// Notes how it is confined.
    pub(super) fn note_security(&self, found: Security) {
        *self.security.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }

    /// How it is confined, if the edge was asked.
    #[must_use]
    pub fn security(&self) -> Option<Security> {
        self.security.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which runtime that is, if the edge was asked.
    #[must_use]
    pub fn runtime_kind(&self) -> Option<Runtime> {
        self.found.get().map(runtime::Found::kind)
    }

    /// The runtime that is really in the edge.
    pub(super) async fn runtime(&self) -> Result<&runtime::Found> {
        self.found.get_or_try_init(|| runtime::find(self)).await
    }
}

impl runtime::Found {
    /// What a report calls it.
    pub(super) fn kind(&self) -> Runtime {
        match self {
            Self::Simulated { .. } => Runtime::Simulated,
            Self::Azure => Runtime::Azure,
        }
    }
}
