//! From settings to engines: which one does the work of an invocation, and which ones hold the deployment already.

use anyhow::{Error, Result};
use jiff::Timestamp;

use crate::engine::{Choice, Demand, Engine, EngineKind, Inventory, Silent, may_be_docker};
use crate::plan::Obstructed;
use crate::preflight::{self, Preflight};
use crate::process::find_on_path;
use crate::session::Setup;

/// Where the deployment was looked for.
#[derive(Debug, Default)]
pub struct Search {
    /// The engines that answer, and what each holds of the deployment; those that hold something come first.
    pub engines: Vec<(Engine, Inventory)>,
    /// Why others, which are here, do not answer.
    pub silent: Vec<Error>,
}

impl Search {
    /// Whether the deployment may be where one could not look: nothing of it was found, and not every engine answered.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        !self.silent.is_empty() && self.engines.iter().all(|(_, inventory)| inventory.is_empty())
    }

    /// Tells which engines do not answer.
    pub fn warn(&self) {
        self.silent.iter().for_each(|problem| eprintln!("warning: {problem:#}"));
    }
}

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

    /// As [`Setup::search`], with a warning where that leaves a doubt.
    ///
    /// # Errors
    /// As [`Setup::search`].
    pub async fn holders(&self) -> Result<Vec<(Engine, Inventory)>> {
        let search = self.search().await?;
        if search.is_in_doubt() {
            search.warn();
        }
        Ok(search.engines)
    }

    /// Looks for the deployment in every engine that the settings allow. Nothing is installed or tried out.
    ///
    /// # Errors
    /// When an engine that is here, or that was asked for, does not answer, and no other does.
    pub async fn search(&self) -> Result<Search> {
        let mut search = Search::default();
        for &kind in self.settings.engine.choice.kinds() {
            if kind == EngineKind::Podman && find_on_path("podman").is_none() {
                continue;
            }
            match self.connector().reach(kind).await {
                Ok(engine) => {
                    let inventory = engine.inventory().await?;
                    search.engines.push((engine, inventory));
                }
                // One that nobody asked for is missed only where it may hold something.
                Err(error)
                    if kind == EngineKind::Docker
                        && self.settings.engine.choice == Choice::Auto
                        && !is_silent_docker(&error) => {}
                Err(error) => search.silent.push(error.context(format!("{kind} does not answer"))),
            }
        }
        search.engines.sort_by_key(|(_, inventory)| inventory.is_empty());
        match search.silent.pop() {
            Some(problem) if search.engines.is_empty() => Err(problem),
            problem => {
                search.silent.extend(problem);
                Ok(search)
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
            let other = match self.connector().reach(kind).await {
                Ok(other) => other,
                Err(error) => {
                    self.warn_of_silent(kind, &error, chosen).await?;
                    continue;
                }
            };
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

    /// Tells of an engine that does not answer where it may hold what was brought up: there is a deployment, and not in
    /// the engine that was chosen.
    async fn warn_of_silent(&self, kind: EngineKind, error: &Error, chosen: &Engine) -> Result<()> {
        let may_hold = match kind {
            EngineKind::Docker => is_silent_docker(error),
            EngineKind::Podman => find_on_path("podman").is_some(),
        };
        if may_hold && self.paths.state.exists() && chosen.inventory().await?.is_empty() {
            let name = &self.settings.cluster.name;
            eprintln!("warning: {kind}, which may hold a part of `{name}`, does not answer: {error:#}");
        }
        Ok(())
    }
}

/// Whether there is a Docker that does not answer: stopped, or closed to this user.
fn is_silent_docker(error: &Error) -> bool {
    error.is::<Silent>() && may_be_docker(std::env::var("DOCKER_HOST").ok().as_deref())
}

/// The engine whose parts have to be on this machine. A Docker that answers has all that it needs, wherever that is.
#[must_use]
pub fn installed_here(engine: &Engine) -> Option<EngineKind> {
    (engine.kind() == EngineKind::Podman).then_some(EngineKind::Podman)
}
