//! One invocation that changes something: opened with a preflight, run by plan, closed with a report.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::arrival::EventHub;
use crate::azure_hub;
use crate::cli::Global;
use crate::context::Context;
use crate::credentials::Credentials;
use crate::engine::Connector;
use crate::evidence;
use crate::execute::{Outcome, Record, conclude, execute};
use crate::exit::Usage;
use crate::lock::Lock;
use crate::observe::observe;
use crate::paths::{self, Paths};
use crate::place::Place;
use crate::plan::{Action, Plan};
use crate::preview::Preview;
use crate::progress;
use crate::provisioning::{self, Kept};
use crate::report::{CriticalPath, Environment, Report, Results, StepReport};
use crate::room;
use crate::secret_input::Source;
use crate::settings::{Hub, Origins, Resolved, Runtime, Settings};
use crate::sources::{self, SourcesError};
use crate::steps;
use crate::verify;

/// There is nothing to look at; the text says what to do first.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NothingUp(&'static str);

/// Settings, folders and cancellation of an invocation, before an engine is needed.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The desired state.
    pub settings: Settings,
    /// Where each setting comes from.
    pub origins: Origins,
    /// The folders.
    pub paths: Paths,
    /// Ends the run; Ctrl-C and SIGTERM cancel it.
    pub cancel: CancellationToken,
    /// Whether nothing may be changed.
    pub dry_run: bool,
    /// Whether what is missing may be installed without asking.
    pub yes: bool,
    /// Where arrival at the user's hub can be read, if they have told.
    pub events: Option<EventHub>,
    /// What goes to standard output.
    pub results: Results,
}

impl Setup {
    /// Reads the settings and listens for Ctrl-C.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(global: &Global) -> Result<Self> {
        let (profile, name) = profile(global)?;
        let setup = Self::with(global, Settings::read(&profile, &name)?)?;
        if global.packages.is_some() && setup.settings.runtime.kind == Runtime::Simulated {
            let text =
                "`--packages` goes with `--runtime azure`; the simulated runtime comes without packages";
            return Err(Usage(text.into()).into());
        }
        Ok(setup)
    }

    /// As [`Setup::new`], for a command that removes: it needs no more of the settings than what to remove.
    ///
    /// # Errors
    /// When the settings do not tell what to remove.
    pub fn for_removal(global: &Global) -> Result<Self> {
        let (profile, name) = profile(global)?;
        let (resolved, problems) = Settings::read_for_removal(&profile, &name)?;
        for problem in &problems {
            eprintln!("warning: {problem}");
        }
        Self::with(global, resolved)
    }

    fn with(global: &Global, mut resolved: Resolved) -> Result<Self> {
        resolved.override_by(global)?;
        let Resolved { settings, origins } = resolved;
        let paths = Paths::discover(&settings.cluster.name)?;
        let cancel = CancellationToken::new();
        cancel_on_signal(cancel.clone())?;
        let (dry_run, yes, results) = (global.dry_run, global.yes, Results::default());
        Ok(Self { settings, origins, paths, cancel, dry_run, yes, events: None, results })
    }

    /// The same for somebody who reads the results in another way.
    #[must_use]
    pub fn telling(mut self, results: Results) -> Self {
        results.on(Environment::of(&self.settings, None));
        self.results = results;
        self
    }

    /// Takes the Event-Hub-compatible connection string from where the user says it is.
    ///
    /// # Errors
    /// When there is none, or the hub is not the user's.
    pub async fn read_events(&mut self, from: Option<&OsStr>) -> Result<()> {
        let Some(typed) = from else { return Ok(()) };
        if self.settings.hub.kind == Hub::Local {
            return Err(Usage("`--events` goes with `--hub azure`; the local hub needs none".into()).into());
        }
        self.events = Some(EventHub::parse(&Source::of(typed)?.read_text().await?)?);
        Ok(())
    }

    /// Makes this the only invocation that changes the deployment, until the lock is dropped.
    ///
    /// # Errors
    /// [`crate::exit::Busy`] when another one is at work; else when the lock cannot be made.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.paths.state.with_extension("lock"), &self.settings.cluster.name)
    }

    /// How to connect to an engine.
    #[must_use]
    pub fn connector(&self) -> Connector<'_> {
        Connector::of(&self.settings, &self.paths)
    }

    /// Checks the files that a user edits, and tells what in them is probably not meant.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn check_sources(&self) -> Result<(), SourcesError> {
        sources::check(&self.paths, &self.settings)?;
        for doubt in sources::doubts(&self.paths, &self.settings, &self.origins) {
            eprintln!("warning: {doubt}");
        }
        Ok(())
    }

    /// Opens a session that may bring `goals` about, with new secrets if there are none. Nothing of it is kept before
    /// [`Context::begin`].
    ///
    /// # Errors
    /// As [`Setup::engine`], when another engine holds a part of the deployment, or when a folder cannot be made.
    pub async fn open(self, goals: &[Action]) -> Result<Arc<Context>> {
        self.check_sources()?;
        let device = self.device(goals)?;
        let lock = self.lock()?;
        let (engine, preflight) = self.engine(Action::demand(goals, self.settings.security.tier)).await?;
        self.refuse_two_engines(&engine).await?;
        let credentials = Credentials::load_or_make(&self.paths.state, &self.settings.hub.host_name)?;
        let mut context = Context::new(self, engine, credentials, Some(lock));
        context.device = device.map(Arc::new);
        context.preflight = Some(preflight);
        context.findings().place = Action::place(goals);
        Ok(Arc::new(context))
    }

    /// Opens a session on what is up.
    ///
    /// # Errors
    /// When nothing is up, or the engine does not answer.
    pub async fn attach(self) -> Result<Arc<Context>> {
        let nothing = NothingUp(match self.settings.hub.kind {
            Hub::Local => "nothing is up; run `cargo xtask up` first",
            Hub::Azure => {
                "nothing is up; run `cargo xtask up` first, or name the cluster of `deploy`, as in `cargo xtask verify \
                 --context NAME`"
            }
        });
        let credentials = Credentials::load(&self.paths.state)?.ok_or(nothing)?;
        let mut engines = self.holders().await?.into_iter();
        let (engine, _) = engines.next().context("there is no container engine here")?;
        let device = provisioning::kept(&self.paths)?.and_then(|checked| checked.kept);
        let mut context = Context::new(self, engine, credentials, None);
        context.device = device.map(Arc::new);
        Ok(Arc::new(context))
    }

    /// The kept credentials of the device. Those that the edge would have to use for `goals` must be good for that.
    ///
    /// # Errors
    /// As [`provisioning::wanted`].
    pub fn device(&self, goals: &[Action]) -> Result<Option<Kept>> {
        let is_edge = |action: &Action| matches!(action, Action::Deploy | Action::EdgeContainer);
        if Action::leading_to(goals, self.settings.shape()).iter().any(is_edge) {
            provisioning::wanted(&self.paths, &self.settings)
        } else {
            Ok(provisioning::kept(&self.paths)?.and_then(|checked| checked.kept))
        }
    }
}

/// The settings file, and how it is shown.
fn profile(global: &Global) -> Result<(PathBuf, String)> {
    let project = paths::project()?;
    let profile = global.profile.clone().unwrap_or_else(|| project.join("config/kedge.toml"));
    let name = paths::shown(&profile, &project);
    Ok((profile, name))
}

/// Brings `goals` about and writes the report; in a dry run prints the plan instead, and returns nothing.
///
/// # Errors
/// When something is in the way, or a step failed.
pub async fn carry_out(setup: Setup, command: &str, goals: &[Action]) -> Result<Option<Arc<Context>>> {
    if setup.dry_run {
        let results = setup.results.clone();
        let preview = Preview::of(setup, goals).await?;
        preview.show(&results)?;
        return preview.verdict().map(|()| None);
    }
    let mut context = setup.open(goals).await?;
    let (steps, result) = reach(&context, goals).await?;
    if result.is_ok() {
        context.progress.say(&summary(&steps));
    } else {
        context = context.with_engine().await;
        evidence::collect(&context).await;
    }
    write_report(&context, command, steps, result.as_ref().err());
    if result.is_err() {
        evidence::pack(&context).await;
    }
    result.map(|()| Some(context))
}

/// Observes, plans, and runs what has to be done to reach `goals`; how each step went, and how all of them.
///
/// # Errors
/// When something is in the way; nothing was changed then.
pub async fn reach(context: &Arc<Context>, goals: &[Action]) -> Result<(Vec<StepReport>, Result<()>)> {
    let started = Timestamp::now();
    steps::check_tier(context, goals).await?;
    let observed = observe(context, goals).await;
    let plan = Plan::new(goals, context.settings.shape(), &observed).unobstructed()?;
    room::check(context, &plan).await?;
    context.begin()?;
    if plan.may_replace_edge() {
        context.forget_edge();
    }
    if context.settings.hub.kind == Hub::Azure && Action::place(goals).is_some() {
        // Before the edge is waited for: it may be waiting for its deployment.
        for line in azure_hub::hand_over(&context.paths, &context.settings, context.device.as_deref())? {
            context.progress.say(&line);
        }
    }
    let mut steps = vec![StepReport::of_observation(started)];
    let (mut records, lost) = execute_beside(context, &plan).await;
    let result = match lost {
        Some(lost) => Err(lost),
        None => conclude(&mut records),
    };
    steps.extend(records.iter().map(StepReport::of));
    Ok((steps, result))
}

/// Executes the plan while the engine is there. When it has gone, everything else is a consequence: the steps that wait for
/// something end as well, and what they say is not the cause.
async fn execute_beside(context: &Arc<Context>, plan: &Plan) -> (Vec<Record>, Option<anyhow::Error>) {
    let run = |action| steps::run(Arc::clone(context), action);
    let mut work = std::pin::pin!(execute(plan, &context.progress, &context.cancel, run));
    let tell = |error: &anyhow::Error| {
        context.progress.say(&format!("the run ends, for the engine has gone: {error:#}"));
    };
    tokio::select! {
        records = &mut work => {
            // A step may meet the loss before the next look does.
            let failed = records.iter().any(|record| matches!(record.outcome, Outcome::Failed(_)));
            let gone = if failed { context.engine.is_there().await.err() } else { None };
            gone.iter().for_each(tell);
            (records, gone.map(|error| verify::without_engine(context, &error)))
        }
        error = context.engine.gone() => {
            tell(&error);
            context.cancel.cancel();
            let records = work.await;
            // Only now: until its end, a step notes what it finds.
            (records, Some(verify::without_engine(context, &error)))
        }
    }
}

/// What has come of a run, in one line.
fn summary(steps: &[StepReport]) -> String {
    let changed: Vec<_> = steps.iter().filter(|step| step.changed).map(|step| step.id.as_str()).collect();
    if changed.is_empty() {
        format!("nothing to do: all {} parts are as they are described", steps.len() - 1)
    } else {
        format!("changed: {}; unchanged: {} other parts", changed.join(", "), steps.len() - 1 - changed.len())
    }
}

/// Writes the report of a run and says where it is. That it cannot be written is told, and does not hide how
/// the run itself went.
pub fn write_report(
    context: &Context,
    command: &str,
    mut steps: Vec<StepReport>,
    error: Option<&anyhow::Error>,
) {
    let started = context.preflight.as_ref().map_or(context.started, |preflight| preflight.started);
    if let Some(preflight) = &context.preflight {
        steps.insert(0, StepReport::of_preflight(preflight, &context.engine.description()));
    }
    let findings = context.findings().clone();
    let report = Report {
        environment: Environment {
            engine: context.engine.description(),
            on: findings.place.map(Place::word),
            kubernetes: findings.kubernetes,
            node_image: findings.node_image,
            ..Environment::of(&context.settings, findings.runtime)
        }
        .confined(findings.decision, findings.security),
        critical_path: CriticalPath::of(&steps),
        steps,
        layers: findings.proof.layers,
        messages: findings.proof.messages,
        ..Report::of(command, started, error)
    };
    let (folder, project) = (&context.run_folder, &context.paths.project);
    report.publish(folder, project, &context.progress, &context.results, |text| context.redact(text));
}

/// Cancels on Ctrl-C and on SIGTERM; a second signal ends the program at once.
fn cancel_on_signal(cancel: CancellationToken) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    tokio::spawn(async move {
        let mut stopping = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stopping {
                progress::leave_terminal();
                std::process::exit(i32::from(crate::exit::INTERRUPTED));
            }
            stopping = true;
            progress::say_above("stopping; press Ctrl-C again to stop at once and leave everything as it is");
            cancel.cancel();
        }
    });
    Ok(())
}
