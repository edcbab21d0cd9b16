//! The cluster of somebody else: named by a context of the user's kubeconfig, which is only read.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::cluster::plainly;
use crate::settings::DeploySettings;

/// An API server that says nothing for so long hangs; one that is far away may take its time.
const READ_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

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
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(kube::config::KubeconfigError),
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
        let kubeconfig = if settings.kubeconfig.is_empty() {
            Kubeconfig::read()
        } else {
            Kubeconfig::read_from(project.join(&settings.kubeconfig))
        };
        let kubeconfig = kubeconfig.map_err(TargetError::Kubeconfig)?;
        let context = choose(&kubeconfig, named.unwrap_or(&settings.context))?;
        let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(TargetError::Kubeconfig)?;
        config.read_timeout = Some(READ_LIMIT);
        config.connect_timeout = Some(CONNECT_LIMIT);
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config)
            .map_err(plainly)
            .with_context(|| format!("failed to make a client for the context `{context}`"))?;
        Ok(Self { client, context, server: server.trim_end_matches('/').to_owned() })
    }
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
}
