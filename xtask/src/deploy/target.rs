//! The cluster of somebody else: named by a context of the user's kubeconfig, which is only read.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::client::AuthError;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::cluster::{no_login_program, plainly};
use crate::settings::DeploySettings;

/// An API server that says nothing for so long hangs; one that is far away may take its time.
const READ_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// A login may ask a person to type a code into a browser.
const LOGIN_LIMIT: Duration = Duration::from_secs(180);

/// A connection to the cluster that was named.
#[derive(Clone)]
pub struct Target {
    /// Talks to its API server.
    pub client: Client,
    /// The context.
    pub context: String,
    /// The URL of the API server.
    pub server: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("context", &self.context).finish_non_exhaustive()
    }
}

/// Why there is no cluster to talk to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Nobody has said which cluster is meant.
    #[error(
        "no context is named; name the cluster with `--context`, or as `context` in [deploy] of the settings. The current \
         context is never taken for it. As for contexts of the kubeconfig, {}", told(.contexts))]
    NotNamed {
        /// Those that there are.
        contexts: Vec<String>,
    },
    /// There is no such context.
    #[error("the kubeconfig has no context `{name}`; {}", told(.contexts))]
    Unknown {
        /// The one that was named.
        name: String,
        /// Those that there are.
        contexts: Vec<String>,
    },
    /// There is no kubeconfig.
    #[error(
        "there is no kubeconfig at `{}`, so no context is known; for AKS, `az aks get-credentials` makes it. Another one is \
         named by `KUBECONFIG`, or by `kubeconfig` in [deploy] of the settings", .0.display())]
    NoKubeconfig(PathBuf),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(KubeconfigError),
}

impl From<KubeconfigError> for TargetError {
    fn from(error: KubeconfigError) -> Self {
        match error {
            KubeconfigError::ReadConfig(cause, path) if cause.kind() == ErrorKind::NotFound => {
                Self::NoKubeconfig(path)
            }
            other => Self::Kubeconfig(other),
        }
    }
}

fn told(contexts: &[String]) -> String {
    if contexts.is_empty() {
        "it has none at all; for AKS, `az aks get-credentials` adds one".to_owned()
    } else {
        format!("it has: {}", contexts.join(", "))
    }
}

impl Target {
    /// Connects to the cluster of the context that is named on the command line, else in the settings.
    ///
    /// # Errors
    /// [`TargetError`] when none is named, there is none of that name, or the kubeconfig cannot be used.
    pub async fn open(project: &Path, settings: &DeploySettings, named: Option<&str>) -> Result<Self> {
        Self::open_with(project, settings, named, Some(READ_LIMIT)).await
    }

    /// As [`Target::open`], but a connection on which nothing comes is never given up: for following a log.
    ///
    /// # Errors
    /// As [`Target::open`].
    pub async fn open_patiently(
        project: &Path,
        settings: &DeploySettings,
        named: Option<&str>,
    ) -> Result<Self> {
        Self::open_with(project, settings, named, None).await
    }

    async fn open_with(
        project: &Path,
        settings: &DeploySettings,
        named: Option<&str>,
        read_limit: Option<Duration>,
    ) -> Result<Self> {
        let kubeconfig = if settings.kubeconfig.is_empty() {
            Kubeconfig::read()
        } else {
            Kubeconfig::read_from(project.join(&settings.kubeconfig))
        };
        let kubeconfig = kubeconfig.map_err(TargetError::from)?;
        let context = choose(&kubeconfig, named.unwrap_or(&settings.context))?;
        let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(TargetError::from)?;
        config.read_timeout = read_limit;
        config.connect_timeout = Some(CONNECT_LIMIT);
        let server = config.cluster_url.to_string();
        let client = connect(config, LOGIN_LIMIT)
            .await
            .with_context(|| format!("failed to make a client for the context `{context}`"))?;
        Ok(Self { client, context, server: server.trim_end_matches('/').to_owned() })
    }

    /// The version of Kubernetes there. Whoever asks for it first of all hears what is wrong with the connection or the
    /// login, and of which cluster.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn version(&self) -> Result<String> {
        let version = self.client.apiserver_version().await.map_err(plainly).with_context(|| {
            format!("the API server of the context `{}`, {}, does not answer", self.context, self.server)
        })?;
        Ok(version.git_version)
    }
}

/// Makes the client, for which kube runs the kubeconfig's login program and waits for it. That is done in a thread of its
/// own, so that a program which never ends holds neither the limit nor Ctrl-C up.
async fn connect(config: Config, limit: Duration) -> Result<Client> {
    let (sender, made) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let program = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone());
    std::thread::spawn(move || {
        let _runtime = runtime.enter();
        // Nobody listens any longer when the limit has passed.
        let _ = sender.send(Client::try_from(config).map_err(|error| match error {
            kube::Error::Auth(AuthError::AuthExecStart(error)) => {
                no_login_program(program.as_deref(), &error)
            }
            other => plainly(other),
        }));
    });
    let made = tokio::time::timeout(limit, made).await;
    let made = made.with_context(|| {
        let seconds = limit.as_secs();
        format!(
            "the program of the kubeconfig that logs in did not end within {seconds} s; log in by hand first"
        )
    })?;
    made.context("the kubeconfig's login ended unexpectedly")?
}

fn choose(kubeconfig: &Kubeconfig, named: &str) -> Result<String, TargetError> {
    let contexts: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    if named.is_empty() {
        Err(TargetError::NotNamed { contexts })
    } else if contexts.iter().any(|context| context == named) {
        Ok(named.to_owned())
    } else {
        Err(TargetError::Unknown { name: named.to_owned(), contexts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(contexts: &[&str]) -> Kubeconfig {
        let contexts: Vec<_> = contexts.iter().map(|name| serde_json::json!({ "name": name })).collect();
        let current = serde_json::json!({ "contexts": contexts, "current-context": "production" });
        serde_json::from_value(current).unwrap()
    }

    #[test]
    fn the_current_context_is_never_taken() {
        let two = kubeconfig(&["production", "lab"]);
        let error = choose(&two, "").unwrap_err().to_string();
        assert!(error.contains("--context") && error.ends_with("it has: production, lab"), "{error}");
        assert_eq!(choose(&two, "lab").unwrap(), "lab");
        let error = choose(&two, "lba").unwrap_err().to_string();
        assert!(error.starts_with("the kubeconfig has no context `lba`") && error.contains("lab"), "{error}");
        let error = choose(&kubeconfig(&[]), "").unwrap_err().to_string();
        assert!(error.contains("az aks get-credentials"), "{error}");
    }
    #[tokio::test]
    async fn a_login_program_that_never_ends_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("never");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let exec = serde_json::json!({ "apiVersion": "client.authentication.k8s.io/v1", "command": "cat",
            "args": [fifo.to_str().unwrap()], "interactiveMode": "Never" });
        let kubeconfig = serde_json::json!({
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
            "clusters": [{ "name": "lab", "cluster": { "server": "https://127.0.0.1:9" } }],
            "users": [{ "name": "lab", "user": { "exec": exec } }],
            "current-context": "lab",
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let error = connect(config, Duration::from_millis(200)).await.map(drop).unwrap_err();
        assert!(format!("{error:#}").contains("did not end within"), "{error:#}");
        // Whoever opens the other end lets the program go.
        fs_err::write(&fifo, "").unwrap();
    }
}
