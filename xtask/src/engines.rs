//! From settings to engines: which one does the work of an invocation, and which ones hold the deployment already.

use anyhow::Result;
use jiff::Timestamp;

use crate::engine::{Choice, Demand, Engine, EngineKind, Inventory};
use crate::plan::Obstructed;
use crate::preflight::{self, Preflight};
use crate::process::find_on_path;
use crate::session::Setup;

impl Setup {
    /// Connects to the engine that does what is asked; what it lacks is installed, with the user's consent.
    ///
    /// # Errors
    /// When something is missing, or no engine can do the work.
    pub async fn engine(&self, demand: Demand) -> Result<(Engine, Preflight)> {
        let started = Timestamp::now();
        let (engine, installed) = match self.connector().choose(demand).await {
            Ok(engine) => {
                let installed = preflight::ensure(installed_here(&engine), self.yes).await?;
                (engine, installed)
            }
            Err(none) => {
                let Some(kind) = self.installable() else { return Err(none) };
                let installed = preflight::ensure(Some(kind), self.yes).await?;
                (self.connector().choose(demand).await?, installed)
            }
        };
        Ok((engine, Preflight { started, ended: Timestamp::now(), installed }))
    }

    /// The engine that could be installed where none does: Podman, unless Docker and no other is wanted.
    #[must_use]
    pub fn installable(&self) -> Option<EngineKind> {
        let kind = match self.settings.engine.choice {
            // A Docker that `DOCKER_HOST` names is not for us to install.
            Choice::Docker if std::env::var_os("DOCKER_HOST").is_some() => return None,
            Choice::Docker => EngineKind::Docker,
            Choice::Auto | Choice::Podman => EngineKind::Podman,
        };
        preflight::lacks(kind).then_some(kind)
    }

    /// The engines that answer, and what each holds of the deployment; those that hold something come first. Nothing is
    /// installed or tried out.
    ///
    /// # Errors
    /// When an engine that is here, or that was asked for, does not answer, and no other does.
    pub async fn holders(&self) -> Result<Vec<(Engine, Inventory)>> {
        let mut found = Vec::new();
        let mut problems = Vec::new();
        for &kind in self.settings.engine.choice.kinds() {
            if kind == EngineKind::Podman && find_on_path("podman").is_none() {
                continue;
            }
            match self.connector().reach(kind).await {
                Ok(engine) => {
                    let inventory = engine.inventory().await?;
                    found.push((engine, inventory));
                }
                // One that nobody asked for is not missed.
                Err(_) if kind == EngineKind::Docker && self.settings.engine.choice == Choice::Auto => {}
                Err(error) => problems.push(error.context(format!("{kind} does not answer"))),
            }
        }
        match problems.pop() {
            Some(problem) if found.is_empty() => Err(problem),
            problem => {
                if let Some(problem) = problem {
                    eprintln!("warning: {problem:#}");
                }
                found.sort_by_key(|(_, inventory)| inventory.is_empty());
                Ok(found)
            }
        }
    }

    /// Refuses to go on in one engine while another holds a part of the deployment: ports and the device's identity
    /// exist once.
    ///
    /// # Errors
    /// [`Obstructed`], with the engine to remove it from.
    pub(crate) async fn refuse_two_engines(&self, chosen: &Engine) -> Result<()> {
        for kind in Choice::Auto.kinds().iter().copied().filter(|kind| *kind != chosen.kind()) {
            // An engine that does not answer holds nothing that runs.
            let Ok(other) = self.connector().reach(kind).await else { continue };
            let inventory = other.inventory().await?;
            if !inventory.is_empty() {
                let name = &self.settings.cluster.name;
                return Err(Obstructed { obstacles: vec![format!(
                    "{} holds a part of `{name}` already ({inventory}); go on there with `--engine {kind}`, or remove it first: `cargo xtask down --engine {kind}`",
                    other.description()
                )] }
                .into());
            }
        }
        Ok(())
    }
}

/// The engine whose parts have to be on this machine. A Docker that answers has all that it needs, wherever that is.
#[must_use]
pub fn installed_here(engine: &Engine) -> Option<EngineKind> {
    (engine.kind() == EngineKind::Podman).then_some(EngineKind::Podman)
}
