//! The steps of the plan, carried out.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bollard::models::ContainerCreateBody;

use super::container::{self, Context, OptionsError};
use super::deployment::{Deployment, ModuleSpec, PullPolicy};
use super::engine::Engine;
use super::identity::ModuleIdentity;
use super::link::Upstream;
use super::planner::Step;
use super::supervisor::Action;
use super::workload::Workloads;

/// What the containers of modules need to know of this host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Name of the device, at which modules find the gateway.
    pub hostname: String,
    /// The modules' network.
    pub network: String,
}

/// Everything that steps work with.
pub struct Steps<E> {
    /// The container engine.
    pub engine: Arc<E>,
    /// Identities and state.
    pub upstream: Arc<Upstream>,
    /// The modules' sockets.
    pub workloads: Workloads,
    /// This host.
    pub host: Host,
}

impl<E: Engine> Steps<E> {
    /// The container of a module of the deployment.
    pub fn describe(
        &self,
        name: &str,
        spec: &ModuleSpec,
        deployment: &Deployment,
        identity: &ModuleIdentity,
        gateway: IpAddr,
    ) -> Result<ContainerCreateBody, OptionsError> {
        let context = Context {
            name,
            generation_id: &identity.generation_id,
            device_id: self.upstream.identities.device_id(),
            hub_hostname: &self.upstream.link.hub_name,
            hostname: &self.host.hostname,
            gateway,
            network: &self.host.network,
            workload_socket: &self.workloads.socket(name),
            log_config: deployment.runtime.log_config.as_ref(),
            inherited: &inherited(deployment),
        };
        container::describe(spec, context)
    }

    /// Does one step for one module. It can be given up at any point; the next plan starts from what is there.
    pub async fn execute(
        &self,
        name: &str,
        step: Step,
        deployment: &Deployment,
        unhealthy: bool,
        gateway: IpAddr,
    ) -> anyhow::Result<()> {
        match step {
            Step::Provision => {
                self.upstream.identities.provision(name).await?;
            }
            Step::Create => self.create(name, deployment, gateway, false).await?,
            Step::Replace => self.create(name, deployment, gateway, true).await?,
            Step::Start | Step::Restart => {
                self.workloads.open(name).await?;
                if unhealthy {
                    self.engine.stop(name).await?;
                }
                self.engine.start(name).await.context("the container does not start")?;
                tracing::info!("Started module {name}");
            }
            Step::Stop => {
                self.engine.stop(name).await?;
                tracing::info!("Stopped module {name}");
            }
            Step::Remove => self.remove(name, deployment).await?,
        }
        Ok(())
    }

    /// Does what somebody wants done with a module.
    pub async fn obey(&self, name: &str, action: Action) -> anyhow::Result<()> {
        if matches!(action, Action::Stop | Action::Restart) {
            self.engine.stop(name).await?;
        }
        if matches!(action, Action::Start | Action::Restart) {
            self.workloads.open(name).await?;
            self.engine.start(name).await.context("the container does not start")?;
        }
        Ok(())
    }

    /// Makes the container, in place of one when it `replaces` it. A new image is there before the old container goes.
    async fn create(
        &self,
        name: &str,
        deployment: &Deployment,
        gateway: IpAddr,
        replaces: bool,
    ) -> anyhow::Result<()> {
        let spec = deployment.modules.get(name).context("the module has left the deployment")?;
        let identity = self.upstream.identities.get(name).context("the module has lost its identity")?;
        let body = self.describe(name, spec, deployment, &identity, gateway)?;
        self.workloads.open(name).await?;
        if spec.pull_policy == PullPolicy::OnCreate && !self.engine.has_pinned_image(&spec.image).await {
            tracing::info!("Pulling image {}...", spec.image);
            self.engine
                .pull(&spec.image, deployment.credential_for(&spec.image))
                .await
                .with_context(|| format!("cannot pull {}", spec.image))?;
            tracing::info!("Successfully pulled image {}", spec.image);
        }
        if replaces {
            // Its connections are closed as they should be; removing would kill it.
            self.engine.stop(name).await?;
            self.engine.remove(name).await?;
        }
        self.engine.create(name, body).await.context("the container cannot be made")?;
        tracing::info!("{} module {name}", if replaces { "Updated" } else { "Created" });
        Ok(())
    }

    async fn remove(&self, name: &str, deployment: &Deployment) -> anyhow::Result<()> {
        self.engine.stop(name).await?;
        self.engine.remove(name).await?;
        tracing::info!("Removed module {name}");
        if !deployment.modules.contains_key(name) {
            self.workloads.close(name);
            self.upstream.identities.delete(name).await.context("cannot delete the module identity")?;
        }
        Ok(())
    }
}

/// What modules get from edgeAgent: the level of its log, by .NET's name, and the protocol that it was told to use.
fn inherited(deployment: &Deployment) -> Vec<(&'static str, String)> {
    let agent = |name| deployment.system_variable("edgeAgent", name);
    let level = match agent("RuntimeLogLevel").unwrap_or_default().to_lowercase().as_str() {
        "verbose" => "Verbose",
        "debug" => "Debug",
        "warning" => "Warning",
        "error" => "Error",
        "fatal" => "Fatal",
        _ => "Information",
    };
    let protocol = agent("UpstreamProtocol").map(|protocol| ("UpstreamProtocol", protocol.to_owned()));
    std::iter::once(("RuntimeLogLevel", level.to_owned())).chain(protocol).collect()
}
