//! What the cluster is like: looked at before anything is changed, told, and judged.

mod judgement;
mod nodes;
mod runtimes;
mod suiting;

use std::fmt;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolumeClaim};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, Client};

use self::nodes::NodeFacts;
use super::is_made_by_deploy;
use super::target::Target;
use crate::cluster::confinement::tier_of;
use crate::cluster::manifests::{ENGINE_CLAIM, STATE_CLAIM};
use crate::cluster::{self, plainly};
use crate::tier::nodes::{Asked, Inside};
use crate::tier::{self, Tier};

pub use self::judgement::{Judgement, Wanted};

/// The label by which Pod Security admission goes.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// What the cluster is like. Not everybody may look at all of it.
#[derive(Debug)]
pub struct Facts {
    context: String,
    server: String,
    version: String,
    nodes: Result<Vec<NodeFacts>, String>,
    namespace: NamespaceFacts,
    classes: Result<Vec<ClassFacts>, String>,
    /// The RuntimeClasses, and the handlers of which kubelets tell.
    runtimes: Vec<String>,
    /// Storage classes of the claims that are there already.
    claims: Vec<(String, Option<String>)>,
    /// What decides about the tier of the pod.
    pub tier: tier::Facts,
    /// The tier of the pod that is deployed already.
    tier_before: Option<Tier>,
}

/// A namespace, which may not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub is_there: bool,
    /// Whether `deploy` has made it.
    pub is_ours: bool,
    is_ending: bool,
    /// The Pod Security level that is enforced, where a label says one.
    level: Option<String>,
}

/// A storage class.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ClassFacts {
    name: String,
    is_default: bool,
    provisioner: String,
}

impl Facts {
    /// Looks at the cluster.
    ///
    /// # Errors
    /// When the API server does not answer, or does not let the user look at the namespace.
    pub async fn look(target: &Target, namespace: &str) -> Result<Self> {
        let client = &target.client;
        // First of all and alone: what is wrong with the connection or the login is told once.
        let version = target.version().await?;
        let (nodes, classes, runtimes): (Api<Node>, Api<StorageClass>, Api<RuntimeClass>) =
            (Api::all(client.clone()), Api::all(client.clone()), Api::all(client.clone()));
        let all = ListParams::default();
        let (nodes, classes, runtimes, space, claims, deployed) = tokio::join!(
            nodes.list(&all),
            classes.list(&all),
            runtimes.list(&all),
            look_at_namespace(client, namespace),
            look_at_claims(client, namespace),
            cluster::deployed_pod(client, namespace)
        );
        let space = space?;
        let tier = tier::nodes::facts(&Asked {
            server: &version,
            nodes: nodes.as_ref().ok().map(|list| list.items.as_slice()),
            classes: runtimes.as_ref().ok().map(|list| list.items.as_slice()),
            is_ours: false,
            namespace,
            level: space.level.as_deref().filter(|_| space.is_foreign()),
            inside: Inside::default(),
        });
        Ok(Self {
            context: target.context.clone(),
            server: target.server.clone(),
            version,
            namespace: space,
            classes: classes.map(|list| list.iter().map(class).collect()).map_err(|error| told(&error)),
            claims: claims?,
            runtimes: runtimes::words(
                runtimes.as_ref().map_or(&[], |list| list.items.as_slice()),
                nodes.as_ref().map_or(&[], |list| list.items.as_slice()),
            ),
            nodes: nodes.map(|list| list.iter().map(NodeFacts::of).collect()).map_err(|error| told(&error)),
            tier,
            tier_before: deployed?.as_ref().and_then(tier_of),
        })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &NamespaceFacts {
        &self.namespace
    }
}

async fn look_at_namespace(client: &Client, name: &str) -> Result<NamespaceFacts> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = api
        .get_opt(name)
        .await
        .map_err(plainly)
        .with_context(|| format!("failed to look at the namespace `{name}`"))?;
    Ok(namespace(name, found.as_ref()))
}

fn namespace(name: &str, found: Option<&Namespace>) -> NamespaceFacts {
    let metadata = found.map(|found| &found.metadata);
    NamespaceFacts {
        name: name.to_owned(),
        is_there: found.is_some(),
        is_ours: metadata.is_some_and(is_made_by_deploy),
        is_ending: metadata.is_some_and(|metadata| metadata.deletion_timestamp.is_some()),
        level: metadata.and_then(|metadata| metadata.labels.as_ref()?.get(ENFORCE).cloned()),
    }
}

async fn look_at_claims(client: &Client, namespace: &str) -> Result<Vec<(String, Option<String>)>> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let mut found = Vec::new();
    for name in [STATE_CLAIM, ENGINE_CLAIM] {
        let claim = api
            .get_opt(name)
            .await
            .map_err(plainly)
            .with_context(|| format!("failed to look at the claim `{name}`"))?;
        if let Some(claim) = claim {
            found.push((name.to_owned(), claim.spec.and_then(|spec| spec.storage_class_name)));
        }
    }
    Ok(found)
}

fn class(found: &StorageClass) -> ClassFacts {
    let annotations = found.metadata.annotations.as_ref();
    ClassFacts {
        name: found.metadata.name.clone().unwrap_or_default(),
        is_default: annotations.and_then(|all| all.get(IS_DEFAULT)).is_some_and(|value| value == "true"),
        provisioner: found.provisioner.clone(),
    }
}

fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "context        {} ({})", self.context, self.server)?;
        writeln!(f, "Kubernetes     {}", self.version)?;
        match &self.nodes {
            Ok(nodes) => nodes::write(f, nodes)?,
            Err(reason) => writeln!(f, "nodes          not seen: {reason}")?,
        }
        if !self.runtimes.is_empty() {
            writeln!(f, "runtimes       {}", self.runtimes.join(", "))?;
        }
        writeln!(f, "namespace      {}", self.namespace)?;
        match &self.classes {
            Ok(classes) if classes.is_empty() => writeln!(f, "storage        no storage classes"),
            Ok(classes) => {
                let all: Vec<_> = classes.iter().map(ToString::to_string).collect();
                writeln!(f, "storage        {}", all.join(", "))
            }
            Err(reason) => writeln!(f, "storage        not seen: {reason}"),
        }
    }
}

impl NamespaceFacts {
    /// Whether somebody else has made it.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.is_there && !self.is_ours
    }
}

impl fmt::Display for NamespaceFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level.as_deref().map_or_else(
            || "no Pod Security level of its own".into(),
            |level| format!("Pod Security level `{level}`"),
        );
        match (self.is_there, self.is_ours) {
            (false, _) => write!(f, "`{}`, which is not there yet", self.name),
            (true, true) => write!(f, "`{}`, made by `deploy`, {level}", self.name),
            (true, false) => write!(f, "`{}`, which is not ours, {level}", self.name),
        }
    }
}

impl fmt::Display for ClassFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = if self.is_default { ", the default" } else { "" };
        write!(f, "`{}` ({}{default})", self.name, self.provisioner)
    }
}
