//! What every step is given: settings, folders, engine, secrets, and where to tell its progress.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::arrival::EventHub;
use crate::credentials::Credentials;
use crate::engine::{Connector, ContainerSpec, Engine, Fit};
use crate::images::{Image, Ingredients, Recipe};
use crate::inputs::Fingerprint;
use crate::lock::Lock;
use crate::paths::Paths;
use crate::place::Place;
use crate::preflight::Preflight;
use crate::preload;
use crate::process::Process;
use crate::progress::Progress;
use crate::provisioning::{Kept, Redaction};
use crate::report::Results;
use crate::session::Setup;
use crate::settings::{Runtime, Settings};
use crate::tier::Decision;
use crate::verify::{Proof, Security};
use crate::wait::{Observation, WaitError, wait_for};

/// How long the hub and the registry may take to answer.
const CONTAINER_LIMIT: Duration = Duration::from_secs(60);
/// The same for one that is not new, which has less to do.
const OLD_CONTAINER_LIMIT: Duration = Duration::from_secs(20);

/// What a run finds out about its surroundings and proves.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Version of the cluster's API server.
    pub kubernetes: Option<String>,
    /// The image of the cluster's node.
    pub node_image: Option<String>,
    /// Where the edge runs.
    pub place: Option<Place>,
    /// The runtime that was found in the edge.
    pub runtime: Option<Runtime>,
    /// How the edge is confined, and why so.
    pub decision: Option<Decision>,
    /// What confines it, as it was read from inside.
    pub security: Option<Security>,
    /// The layers and the telemetry.
    pub proof: Proof,
}

/// The context of one run. Steps share it; nothing in it changes but what the engine and the cluster hold.
#[derive(Debug, Clone)]
pub struct Context {
    /// The desired state.
    pub settings: Settings,
    /// The folders.
    pub paths: Paths,
    /// The container engine.
    pub engine: Arc<Engine>,
    /// The secrets of this deployment.
    pub credentials: Arc<Credentials>,
    /// The credentials of the device, where a user has given some.
    pub device: Option<Arc<Kept>>,
    /// Where arrival at the user's hub can be read, if they have told.
    pub events: Option<Arc<EventHub>>,
    /// What the user sees.
    pub progress: Arc<Progress>,
    /// What goes to standard output.
    pub results: Results,
    /// Ends the run.
    pub cancel: CancellationToken,
    /// The folder of this run, with a log for each step.
    pub run_folder: PathBuf,
    /// How the machine was made ready, when this run has seen to that.
    pub preflight: Option<Preflight>,
    /// Held until the end of the run.
    _lock: Option<Arc<Lock>>,
    /// When the run began; older telemetry proves nothing about it.
    pub started: Timestamp,
    /// What the run has found out, for the report.
    findings: Arc<Mutex<Findings>>,
    fingerprints: Arc<Mutex<BTreeMap<Image, Fingerprint>>>,
}

impl Context {
    /// A context for one run.
    #[must_use]
    pub fn new(setup: Setup, engine: Engine, credentials: Credentials, lock: Option<Lock>) -> Self {
        let started = Timestamp::now();
        let run_folder = setup.paths.run(started);
        Self {
            settings: setup.settings,
            paths: setup.paths,
            engine: Arc::new(engine),
            credentials: Arc::new(credentials),
            device: None,
            events: setup.events.map(Arc::new),
            progress: Arc::new(Progress::default()),
            results: setup.results,
            cancel: setup.cancel,
            run_folder,
            preflight: None,
            _lock: lock.map(Arc::new),
            started,
            findings: Arc::default(),
            fingerprints: Arc::default(),
        }
    }

    /// Keeps what the run needs from now on, since it is going to change something: its secrets, and a folder for logs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self) -> Result<()> {
        self.credentials.keep(&self.paths.state)?;
        Ok(fs_err::create_dir_all(&self.run_folder)?)
    }

    /// The same run with an engine that is there, if it can be had: a service of ours that has ended is started anew, for what
    /// it has made has not ended with it.
    pub async fn with_engine(self: &Arc<Self>) -> Arc<Self> {
        if self.engine.is_there().await.is_ok() {
            return Arc::clone(self);
        }
        match Connector::of(&self.settings, &self.paths).reach(self.engine.kind()).await {
            Ok(engine) => Arc::new(Self { engine: Arc::new(engine), ..Self::clone(self) }),
            // Whoever needs it will tell.
            Err(_) => Arc::clone(self),
        }
    }

    /// Brings a container of this deployment up, and waits until it does what it is for. One that was there and does not
    /// is replaced, once: it would not do it the next time either. Tells how the container was found.
    ///
    /// # Errors
    /// When a name is taken, the engine refuses, or the container ended or did not get there in time.
    pub async fn ensure_container<F, Fut>(&self, what: &str, spec: &ContainerSpec, works: F) -> Result<Fit>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let found = self.engine.ensure_container(spec).await?;
        if matches!(found, Fit::Runs | Fit::Stopped) {
            let Err(error) = self.wait_for_container(what, &spec.name, OLD_CONTAINER_LIMIT, &works).await
            else {
                return Ok(found);
            };
            self.progress.say(&format!("{error}; its container is replaced"));
            self.engine.replace_container(spec).await?;
        }
        self.wait_for_container(what, &spec.name, CONTAINER_LIMIT, &works).await?;
        Ok(if found == Fit::Absent { found } else { Fit::Other })
    }

    /// Waits until a container does what it is for; one that has ended ends the wait.
    async fn wait_for_container<F, Fut>(
        &self,
        what: &str,
        name: &str,
        limit: Duration,
        works: &F,
    ) -> Result<(), WaitError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        wait_for(what, limit, || async {
            match works().await {
                Ok(()) => Observation::Ready(()),
                Err(error) => match self.engine.container(name).await {
                    Ok(Some(state)) if !state.running => {
                        let log = self.engine.container_log(name, 5).await.unwrap_or_default();
                        Observation::Failed(format!("its container ended: {}", log.trim()))
                    }
                    _ => Observation::NotYet(format!("{error:#}")),
                },
            }
        })
        .await
    }

    /// The id of the edge device in the hub.
    #[must_use]
    pub fn device_id(&self) -> &str {
        self.device.as_ref().map_or(&self.settings.device.id, |kept| kept.provisioning.device_id())
    }

    /// The same text without any secret of the deployment or of the device.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let mut text = self.credentials.redact(text);
        if let Some(events) = &self.events {
            text = events.redact(&text);
        }
        self.device.as_ref().map_or_else(|| text.clone(), |kept| Redaction::of(kept).apply(&text))
    }

    /// What the run has found out.
    pub fn findings(&self) -> MutexGuard<'_, Findings> {
        // A panic elsewhere leaves at worst an incomplete report.
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found in the edge is not so any longer: another one takes its place, or nobody can look.
    pub fn forget_edge(&self) {
        let mut findings = self.findings();
        (findings.proof, findings.security, findings.runtime) = (Proof::default(), None, None);
    }

    /// Name of the engine's network, which is that of the cluster.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.settings.cluster.name
    }

    /// The log file of a step.
    #[must_use]
    pub fn log(&self, step: &str) -> PathBuf {
        self.run_folder.join(format!("{step}.log"))
    }

    /// A child process of the step called `step`: logged and shown there, and ended with the run.
    #[must_use]
    pub fn process(&self, step: &str, purpose: &str, program: impl AsRef<std::ffi::OsStr>) -> Process {
        let (progress, name) = (Arc::clone(&self.progress), step.to_owned());
        Process::new(purpose, program)
            .log(&self.log(step))
            .telling(move |line| progress.detail(&name, line))
            .cancelled_by(&self.cancel)
    }

    /// Where the statically linked programs are.
    #[must_use]
    pub fn binaries(&self) -> PathBuf {
        crate::steps::binaries::folder(&self.paths)
    }

    /// How to build `image`.
    pub(crate) fn recipe(&self, image: Image) -> Result<Option<Recipe>> {
        let preloaded = match image {
            Image::Edge => preload::all(&self.paths.cache, &self.settings.runtime.preload)?,
            _ => Vec::new(),
        };
        image.recipe(Ingredients {
            project: &self.paths.project,
            binaries: &self.binaries(),
            runtime: &self.settings.runtime,
            preloaded: &preloaded,
        })
    }

    /// The hash of what `image` is made of, as it was when this run first asked: a file that is edited
    /// meanwhile counts for the next run.
    ///
    /// # Errors
    /// When an input cannot be read, for example because it has not been compiled yet.
    pub fn fingerprint(&self, image: Image) -> Result<Fingerprint> {
        if let Some(known) = self.fingerprints().get(&image) {
            return Ok(known.clone());
        }
        let fingerprint = match self.recipe(image)? {
            None => crate::steps::images::base_fingerprint()?,
            Some(recipe) => {
                let base = if recipe.on_base { Some(self.reference(Image::Base)?) } else { None };
                recipe
                    .fingerprint(base.as_deref())
                    .with_context(|| format!("failed to read the inputs of the {image} image"))?
            }
        };
        Ok(self.fingerprints().entry(image).or_insert(fingerprint).clone())
    }

    /// Forgets the hashes: what images are made of has changed within this run.
    pub(crate) fn forget_fingerprints(&self) {
        self.fingerprints().clear();
    }

    fn fingerprints(&self) -> MutexGuard<'_, BTreeMap<Image, Fingerprint>> {
        self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reference of `image` in the engine.
    ///
    /// # Errors
    /// As [`Context::fingerprint`].
    pub fn reference(&self, image: Image) -> Result<String> {
        Ok(image.local_reference(&self.fingerprint(image)?))
    }
}
