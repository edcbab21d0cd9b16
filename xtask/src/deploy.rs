//! To a cluster of somebody else: looked at, compared, shown, asked for, applied and waited for. Nothing here needs a
//! container engine, but for an image that is to be pushed.

pub mod changes;
pub mod credentials;
pub mod facts;
pub mod image;
pub mod pull_secret;
pub mod remove;
pub mod target;

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kedge_sim::secret::Secret;
use kube::{Api, Client};

use self::facts::Facts;
use self::image::Pinned;
use self::pull_secret::{Choice, LoginArgs};
use self::target::Target;
use crate::cluster::confinement::Confined;
use crate::cluster::manifests::{self, MADE_BY, Object, PULL_SECRET, Pull, Tailoring, Values};
use crate::cluster::rollout::{Rollout, Watcher};
use crate::cluster::{self, plainly};
use crate::engine::Login;
use crate::exit::Usage;
use crate::image_reference::{self, ImageName};
use crate::progress::Progress;
use crate::provisioning::SecretFiles;
use crate::session::Setup;
use crate::settings::DeploySettings;
use crate::tier::Decision;

/// A node may have to pull the image from far away, and to be made first.
const READY_LIMIT: Duration = Duration::from_secs(900);
/// How many of the last lines of a pod that does not start are looked through.
const LOG_LINES: i64 = 40;
/// The entrypoint's lines begin so.
const ENTRYPOINT: &str = "kedge: ";

/// What is to be deployed where, as far as flags say it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Request {
    /// Context of your kubeconfig that names the cluster [default: that of the settings, never the current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Image of the pod, by digest or by tag [default: that of the settings]
    #[arg(long, value_name = "REFERENCE")]
    pub image: Option<String>,
    /// The login at the image's registry.
    #[command(flatten)]
    pub login: LoginArgs,
}

impl Request {
    /// The image or the repository that was named.
    ///
    /// # Errors
    /// [`Usage`] when none is, or it is no reference.
    pub fn image<'a>(&'a self, settings: &'a DeploySettings) -> Result<&'a str, Usage> {
        let named = self.image.as_deref().unwrap_or(&settings.image);
        if named.is_empty() {
            let text = "no image is named; name one with `--image`, or as `image` in [deploy] of the settings: the pod's image \
                        in a registry from which the cluster pulls";
            return Err(Usage(text.into()));
        }
        image_reference::check(named).map_err(|reason| Usage(format!("--image {named}: {reason}")))?;
        Ok(named)
    }
}

/// What `deploy` would apply, complete.
#[derive(Debug)]
pub struct Prepared {
    /// The image.
    pub image: Pinned,
    /// The objects, the namespace first.
    pub objects: Vec<Object>,
    /// The tier of the pod.
    pub decision: Decision,
    /// What one should know of the login.
    pub warnings: Vec<String>,
}

/// The registry login of a deployment: what was chosen, and what the cluster has.
#[derive(Debug)]
pub struct Logins {
    choice: Choice,
    kept: Option<Secret>,
    registry: String,
}

impl Logins {
    /// Reads the login that was asked for, and the one that the cluster has.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub async fn read(setup: &Setup, target: &Target, request: &Request) -> Result<Self> {
        let settings = &setup.settings.deploy;
        let registry = ImageName::of(request.image(settings)?).registry;
        let choice = request.login.choose(&registry).await?;
        let api: Api<KubeSecret> = Api::namespaced(target.client.clone(), &settings.namespace);
        let live =
            api.get_opt(PULL_SECRET).await.map_err(plainly).context("failed to look at the pull secret")?;
        let config =
            live.map(|live| live.data.unwrap_or_default().remove(".dockerconfigjson").unwrap_or_default());
        let kept = config.map(|bytes| Secret::new(String::from_utf8_lossy(&bytes.0)));
        Ok(Self { choice, kept, registry })
    }

    /// The login with which this machine may look at the image, and push it.
    #[must_use]
    pub fn own(&self) -> Option<Login> {
        match (&self.choice, &self.kept) {
            (Choice::Login { login, .. }, _) => Some(login.clone()),
            (Choice::Keep, Some(kept)) => pull_secret::login_in(kept, &self.registry),
            _ => None,
        }
    }

    /// The login that was given for this invocation.
    #[must_use]
    pub fn given(&self) -> Option<Login> {
        match &self.choice {
            Choice::Login { login, .. } => Some(login.clone()),
            Choice::Keep | Choice::Without => None,
        }
    }

    fn pull(&self) -> Pull<'_> {
        match (&self.choice, &self.kept) {
            (Choice::Login { login, .. }, _) => {
                Pull::With { registry: pull_secret::key(&self.registry), login }
            }
            (Choice::Keep, Some(_)) => Pull::AsBefore,
            _ => Pull::Without,
        }
    }

    fn warnings(&self) -> Vec<String> {
        match (&self.choice, &self.kept) {
            (Choice::Login { warning, .. }, _) => warning.iter().map(ToString::to_string).collect(),
            (Choice::Keep, Some(_)) if self.own().is_none() => vec![format!(
                "the pull secret `{PULL_SECRET}` that is there has no login for the registry `{}`; `--registry-login` names one",
                self.registry
            )],
            _ => Vec::new(),
        }
    }
}

/// Makes the objects, with `files` in the Secret. `pushed` is the image, where it was pushed just now.
///
/// # Errors
/// When the tier cannot be had, the image cannot be found, or the manifests are not valid.
pub async fn prepare(
    setup: &Setup,
    (target, facts): (&Target, &Facts),
    request: &Request,
    logins: &Logins,
    files: &SecretFiles,
    pushed: Option<&str>,
) -> Result<Prepared> {
    let settings = &setup.settings.deploy;
    let named = match pushed {
        Some(pushed) => pushed,
        None => request.image(settings)?,
    };
    let deployed = deployed_image(&target.client, &settings.namespace).await?;
    let image = image::pin(named, logins.own().as_ref(), deployed.as_deref()).await?;
    let source = fs_err::read_to_string(setup.paths.project.join("manifests/kedgedeployment.yaml"))?;
    let confined = Confined::choose(&setup.paths.project, facts.tier.clone(), setup.settings.security.tier)?;
    let objects = manifests::deployment(
        &source,
        &Values {
            namespace: &settings.namespace,
            image: &image.reference,
            pull: logins.pull(),
            files,
            tailoring: Some(tailoring(settings)),
            confinement: confined.values(),
        },
    )?;
    Ok(Prepared { image, objects, decision: confined.decision, warnings: logins.warnings() })
}

/// The objects, exactly as `deploy` applies them: without the namespace where that is somebody else's.
///
/// # Errors
/// As [`prepare`], and when the credentials cannot be used, or the cluster cannot be asked.
pub async fn render(setup: &Setup, request: &Request) -> Result<Vec<Object>> {
    let settings = &setup.settings.deploy;
    let target = Target::open(&setup.paths.project, settings, request.context.as_deref()).await?;
    let files = credentials::files(setup)?;
    let facts = Facts::look(&target, &settings.namespace).await?;
    let logins = Logins::read(setup, &target, request).await?;
    let Prepared { mut objects, image, .. } =
        prepare(setup, (&target, &facts), request, &logins, &files, None).await?;
    facts.suit(&mut objects, &image.platforms);
    objects.retain(|object| !facts.namespace().is_foreign() || !matches!(object, Object::Namespace(_)));
    Ok(objects)
}

fn tailoring(settings: &DeploySettings) -> Tailoring<'_> {
    fn set(text: &str) -> Option<&str> {
        Some(text).filter(|text| !text.is_empty())
    }
    Tailoring {
        storage_class: set(&settings.storage_class),
        state_size: &settings.state_size,
        engine_size: &settings.engine_size,
        cpu: &settings.cpu,
        memory: &settings.memory,
        memory_limit: set(&settings.memory_limit),
    }
}

/// The image that the cluster has of `deploy`.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn deployed_image(client: &Client, namespace: &str) -> Result<Option<String>> {
    let pod = cluster::deployed_pod(client, namespace).await?.and_then(|pod| pod.spec);
    let mut containers = pod.into_iter().flat_map(|pod| pod.containers);
    Ok(containers
        .find(|container| container.name == manifests::CONTAINER)
        .and_then(|container| container.image))
}

/// Whether `deploy` has made the object with this metadata.
pub(crate) fn is_made_by_deploy(metadata: &ObjectMeta) -> bool {
    let by = metadata.annotations.as_ref().and_then(|all| all.get(MADE_BY));
    by.is_some_and(|by| *by == manifests::made_by_deploy(metadata.name.as_deref().unwrap_or_default()))
}

/// The pod and its profiles on their way.
#[must_use]
pub fn rollout(facts: &Facts) -> Rollout<'_> {
    Rollout { namespace: facts.namespace().name.as_str(), limit: READY_LIMIT, may_grow: true }
}

/// Whether the pod is as it is deployed, and ready.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn is_ready(client: &Client, facts: &Facts) -> Result<bool> {
    rollout(facts).is_complete(client).await
}

/// Waits until the pod is ready; what hinders it is told with the line of its entrypoint.
///
/// # Errors
/// When it does not get ready.
pub async fn wait(client: &Client, facts: &Facts, progress: &Progress) -> Result<()> {
    struct Shown<'a>(&'a Progress);
    impl Watcher for Shown<'_> {
        fn tell(&self, status: &str) {
            self.0.detail("pod", status);
        }
    }
    let rollout = rollout(facts);
    let work = async {
        rollout.wait(client, &Shown(progress)).await?;
        Ok("ready".to_owned())
    };
    let Err(error) = progress.show("pod", "get the pod ready", work).await else { return Ok(()) };
    let log = cluster::pod_log(client, rollout.namespace, LOG_LINES).await.unwrap_or_default();
    Err(match last_words(&log) {
        Some(words) => error.context(format!("the pod says: {words}")),
        None => error,
    })
}

/// What the entrypoint has said last.
fn last_words(log: &str) -> Option<&str> {
    log.lines().map(str::trim).rfind(|line| line.starts_with(ENTRYPOINT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_to_be_named() {
        let settings = DeploySettings::default();
        let error = Request::default().image(&settings).unwrap_err().to_string();
        assert!(error.contains("--image"), "{error}");
        let request = Request { image: Some("Edge".into()), ..Request::default() };
        assert!(request.image(&settings).unwrap_err().to_string().starts_with("--image Edge: "));
        let settings = DeploySettings { image: "r.test/edge".into(), ..settings };
        assert_eq!(Request::default().image(&settings).unwrap(), "r.test/edge");
    }

    #[test]
    fn the_login_that_the_cluster_has_is_used_again() {
        let kept = || Some(Secret::new(r#"{"auths":{"r.test":{"auth":"dTpw"}}}"#));
        let logins = |choice, kept, registry: &str| Logins { choice, kept, registry: registry.into() };
        let same = logins(Choice::Keep, kept(), "r.test");
        assert!(matches!(same.pull(), Pull::AsBefore) && same.own().unwrap().username == "u");
        assert_eq!(same.warnings(), [""; 0]);
        let other = logins(Choice::Keep, kept(), "other.test");
        assert!(other.own().is_none() && other.warnings()[0].contains("`other.test`"));
        assert!(matches!(logins(Choice::Without, kept(), "r.test").pull(), Pull::Without));
        assert!(matches!(logins(Choice::Keep, None, "r.test").pull(), Pull::Without));
    }

    #[test]
    fn the_entrypoint_is_heard() {
        let log = "Starting\r\nkedge: the Secret lacks device-key\r\n[  OK  ] x\r\n";
        assert_eq!(last_words(log), Some("kedge: the Secret lacks device-key"));
        assert_eq!(last_words("Starting\n"), None);
    }
}
