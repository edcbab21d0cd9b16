//! A dry run: what a command would do, found out without doing it.
//!
//! Nothing is installed, made or written, but for the settings files of an engine that is asked, and for a container that
//! only exits, where nothing else can tell whether the engine runs privileged ones.

use std::sync::Arc;

use anyhow::Result;

use crate::context::Context;
use crate::credentials::Credentials;
use crate::engines::installed_here;
use crate::observe::observe;
use crate::plan::{Action, Observed, Plan};
use crate::preflight::{self, Tool};
use crate::room;
use crate::session::Setup;
use crate::steps;

/// What would be done, and what hinders it.
#[derive(Debug)]
pub struct Preview {
    /// What would be installed first.
    pub install: Vec<Tool>,
    /// What would be done.
    pub plan: Plan,
    /// Why it could not be begun.
    refusal: Option<anyhow::Error>,
}

impl Preview {
    /// What it takes to reach `goals`.
    ///
    /// # Errors
    /// When the settings or sources cannot be used, or no engine can do the work.
    pub async fn of(setup: Setup, goals: &[Action]) -> Result<Self> {
        setup.check_sources()?;
        let device = setup.device(goals)?;
        let engine = match setup.connector().choose(Action::demand(goals, setup.settings.security.tier)).await
        {
            Ok(engine) => engine,
            Err(none) => {
                let Some(kind) = setup.installable() else { return Err(none) };
                let (install, plan) = (
                    preflight::missing(Some(kind)),
                    Plan::new(goals, setup.settings.shape(), &Observed::new()),
                );
                return Ok(Self { install, plan, refusal: None });
            }
        };
        setup.refuse_two_engines(&engine).await?;
        let install = preflight::missing(installed_here(&engine));
        let credentials = Credentials::load_or_make(&setup.paths.state, &setup.settings.hub.host_name)?;
        let mut context = Context::new(setup, engine, credentials, None);
        context.device = device.map(Arc::new);
        steps::check_tier(&context, goals).await?;
        let plan = Plan::new(goals, context.settings.shape(), &observe(&context, goals).await);
        let refusal = room::check(&context, &plan).await.err();
        Ok(Self { install, plan, refusal })
    }

    /// Whether it could be done.
    ///
    /// # Errors
    /// When something is in the way, or a disk has too little room.
    pub fn verdict(self) -> Result<()> {
        self.plan.unobstructed()?;
        self.refusal.map_or(Ok(()), Err)
    }
}
