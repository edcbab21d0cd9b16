//! The manifests: read from `manifests/`, checked by the types of `k8s-openapi`, filled in.
//!
//! Pure functions from text and values to objects, so that `cargo xtask render` prints exactly what is applied.

mod confinement;
mod filling;
mod reading;

use anyhow::{Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service, ServiceAccount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use self::confinement::fill_namespace;
use self::filling::{fill_claim, fill_deployment, fill_pull_secret, fill_secret};
use self::reading::{parse, read};
use crate::engine::Login;
use crate::provisioning::SecretFiles;

pub use self::confinement::Confinement;
pub use self::filling::docker_config;
pub use self::reading::{Mistake, Step};

/// Selects what belongs to KEdge.
pub const SELECTOR: &str = "app.kubernetes.io/name=kedge";
/// The Deployment and its container.
pub const DEPLOYMENT: &str = "kedge";
/// The container in the pod.
pub const CONTAINER: &str = "edge";
/// The Secret with the device's configuration and credentials.
pub const CREDENTIALS: &str = "kedge-credentials";
/// The pull secret.
pub const PULL_SECRET: &str = "regcred";
/// The DaemonSet that brings the profiles onto the nodes.
pub const PROFILES: &str = "kedge-profiles";
/// The claim for the runtime's state.
pub const STATE_CLAIM: &str = "kedge-state";
/// The claim for what the inner engine has.
pub const ENGINE_CLAIM: &str = "kedge-engine";
/// On what `deploy` has made; what `up` makes in the tool's own cluster does not carry it.
pub const MADE_BY: &str = "kedge.io/made-by";
/// On the pod template: changes when the Secret does, so that a new credential rolls the pod.
pub const CHECKSUM: &str = "kedge.io/credentials-checksum";

/// The value of [`MADE_BY`] on the object of this name: a copy under another name carries it as well, and is not ours.
#[must_use]
pub fn made_by_deploy(name: &str) -> String {
    format!("deploy/{name}")
}

/// An object that the tool applies.
#[derive(Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A Secret.
    Secret(Secret),
    /// A ConfigMap.
    ConfigMap(ConfigMap),
    /// A service account.
    ServiceAccount(ServiceAccount),
    /// A claim to storage.
    PersistentVolumeClaim(Box<PersistentVolumeClaim>),
    /// A Service.
    Service(Box<Service>),
    /// A Deployment.
    Deployment(Box<Deployment>),
    /// A DaemonSet.
    DaemonSet(Box<DaemonSet>),
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The derived text would show what is in a Secret.
        f.write_str(&self.title())
    }
}

/// What the manifests are filled in with.
#[derive(Debug)]
pub struct Values<'a> {
    /// The namespace of everything.
    pub namespace: &'a str,
    /// The edge image by digest, as the cluster pulls it.
    pub image: &'a str,
    /// With what it is pulled.
    pub pull: Pull<'a>,
    /// The device's configuration and credentials.
    pub files: &'a SecretFiles,
    /// What suits a cluster of somebody else; none in the tool's own.
    pub tailoring: Option<Tailoring<'a>>,
    /// How the pod is confined.
    pub confinement: Confinement<'a>,
}

/// With which login the image is pulled.
#[derive(Debug)]
pub enum Pull<'a> {
    /// With this one.
    With {
        /// Host of the registry, as it stands in the image's reference.
        registry: &'a str,
        /// Login at that registry.
        login: &'a Login,
    },
    /// With the one that the cluster has.
    AsBefore,
    /// The nodes may pull without one.
    Without,
}

/// What suits a cluster of somebody else.
#[derive(Debug)]
pub struct Tailoring<'a> {
    /// Storage class of the claims; none for the cluster's default.
    pub storage_class: Option<&'a str>,
    /// Size of the claim for the runtime's state.
    pub state_size: &'a str,
    /// Size of the claim for the inner engine.
    pub engine_size: &'a str,
    /// Requested processor time.
    pub cpu: &'a str,
    /// Requested memory.
    pub memory: &'a str,
    /// Limit of memory.
    pub memory_limit: Option<&'a str>,
}

impl Object {
    /// Kind and name, for people.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} `{}`", self.kind(), self.name().unwrap_or("?"))
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Namespace(_) => "Namespace",
            Self::Secret(_) => "Secret",
            Self::ConfigMap(_) => "ConfigMap",
            Self::ServiceAccount(_) => "ServiceAccount",
            Self::PersistentVolumeClaim(_) => "PersistentVolumeClaim",
            Self::Service(_) => "Service",
            Self::Deployment(_) => "Deployment",
            Self::DaemonSet(_) => "DaemonSet",
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.metadata().name.as_deref()
    }

    /// The namespace that it is in.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.metadata().namespace.as_deref()
    }

    /// Whether its values are not to be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_))
    }

    /// The same object with every secret value replaced, for people to read.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut copy = self.clone();
        if let Self::Secret(secret) = &mut copy {
            let data = secret.data.take().unwrap_or_default().into_keys();
            let names = data.chain(secret.string_data.take().unwrap_or_default().into_keys());
            // As text: in base64 nobody would see that it is no secret.
            secret.string_data = Some(names.map(|name| (name, "[redacted]".to_owned())).collect());
        }
        copy
    }

    /// Lets `deploy` and `undeploy` take it for one of theirs.
    pub fn mark_as_deploys(&mut self) {
        let metadata = self.metadata_mut();
        let by = made_by_deploy(metadata.name.as_deref().unwrap_or_default());
        metadata.annotations.get_or_insert_default().insert(MADE_BY.to_owned(), by);
    }

    /// Names, labels and annotations.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(it) => &it.metadata,
            Self::Secret(it) => &it.metadata,
            Self::ConfigMap(it) => &it.metadata,
            Self::ServiceAccount(it) => &it.metadata,
            Self::PersistentVolumeClaim(it) => &it.metadata,
            Self::Service(it) => &it.metadata,
            Self::Deployment(it) => &it.metadata,
            Self::DaemonSet(it) => &it.metadata,
        }
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Namespace(it) => &mut it.metadata,
            Self::Secret(it) => &mut it.metadata,
            Self::ConfigMap(it) => &mut it.metadata,
            Self::ServiceAccount(it) => &mut it.metadata,
            Self::PersistentVolumeClaim(it) => &mut it.metadata,
            Self::Service(it) => &mut it.metadata,
            Self::Deployment(it) => &mut it.metadata,
            Self::DaemonSet(it) => &mut it.metadata,
        }
    }
}

/// The objects of `manifests/kedgedeployment.yaml`, filled in.
///
/// # Errors
/// When the source is not what the types of Kubernetes allow, or lacks an object that has to be filled in.
pub fn deployment(source: &str, values: &Values<'_>) -> Result<Vec<Object>> {
    let mut objects = parse(source)?;
    if let Some(daemon_set) = profiles(values)? {
        // Before the pod that does not start without the profiles.
        let at = objects.iter().position(|object| matches!(object, Object::Deployment(_)));
        objects.insert(at.unwrap_or(objects.len()), daemon_set);
        keep_profiles_to_nodes_of_pod(&mut objects);
    }
    for object in &mut objects {
        if let Object::Namespace(namespace) = object {
            namespace.metadata.name = Some(values.namespace.to_owned());
            fill_namespace(namespace, &values.confinement);
        } else {
            object.metadata_mut().namespace = Some(values.namespace.to_owned());
        }
        if values.tailoring.is_some() {
            object.mark_as_deploys();
        }
        match (object, &values.tailoring) {
            (Object::Secret(secret), _) => fill_secret(secret, values),
            (Object::Deployment(deployment), _) => fill_deployment(deployment, values)?,
            (Object::PersistentVolumeClaim(claim), Some(tailoring)) => fill_claim(claim, tailoring),
            _ => {}
        }
    }
    for (kind, name) in [("Secret", CREDENTIALS), ("Secret", PULL_SECRET), ("Deployment", DEPLOYMENT)] {
        let title = format!("{kind} `{name}`");
        if !objects.iter().any(|object| object.title() == title) {
            bail!("`manifests/kedgedeployment.yaml` has no {title}");
        }
    }
    if !matches!(values.pull, Pull::With { .. }) {
        objects.retain(|object| !(object.is_secret() && object.name() == Some(PULL_SECRET)));
    }
    Ok(objects)
}

/// The DaemonSet of the profiles goes to the nodes to which the Deployment lets its pod come, and to no others.
pub fn keep_profiles_to_nodes_of_pod(objects: &mut [Object]) {
    let pod = objects.iter().find_map(|object| match object {
        Object::Deployment(deployment) => deployment.spec.as_ref()?.template.spec.clone(),
        _ => None,
    });
    let Some(pod) = pod else { return };
    for object in objects {
        if let Object::DaemonSet(daemon_set) = object {
            confinement::follow_pod(daemon_set, &pod);
        }
    }
}

/// What brings the profiles onto the nodes, filled in; nothing where the tier does not go by them.
///
/// # Errors
/// When the source is not what it has to be.
pub fn profiles(values: &Values<'_>) -> Result<Option<Object>> {
    confinement::daemon_set(values)
}

/// The objects that tell people and tools where the registry is (KEP-1755), and let their pods pull from it.
///
/// # Errors
/// When the source is not valid.
pub fn local_registry(source: &str, host: &str, login: &Login) -> Result<Vec<Object>> {
    let mut objects = parse(&source.replace("localhost:5001", host))?;
    for object in &mut objects {
        if let Object::Secret(secret) = object {
            fill_pull_secret(secret, host, login);
        }
    }
    Ok(objects)
}

/// What the source has that Kubernetes would not take as it is written.
#[must_use]
pub fn mistakes(source: &str) -> Vec<Mistake> {
    read(source).1
}

/// The host name that the pod gets.
#[must_use]
pub fn pod_host_name(source: &str) -> Option<String> {
    let objects = read(source).0;
    let deployment = objects.into_iter().find_map(|object| match object {
        Object::Deployment(deployment) => Some(deployment),
        _ => None,
    });
    deployment?.spec?.template.spec?.hostname
}
