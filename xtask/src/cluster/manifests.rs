//! The manifests: read from `manifests/`, checked by the types of `k8s-openapi`, filled in.
//!
//! Pure functions from text and values to objects, so that `cargo xtask render` prints exactly what is applied.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service, ServiceAccount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kedge_sim::secret::{Secret as Hidden, without_quoted_text};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::engine::Login;
use crate::provisioning::SecretFiles;

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
/// On the pod template: changes when the Secret does, so that a new credential rolls the pod.
pub const CHECKSUM: &str = "kedge.io/credentials-checksum";

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
    /// Host of the registry, as it stands in the image's reference.
    pub registry: &'a str,
    /// Login at that registry.
    pub login: &'a Login,
    /// The device's configuration and credentials.
    pub files: &'a SecretFiles,
}

impl Object {
    /// Kind and name, for people.
    #[must_use]
    pub fn title(&self) -> String {
        let (kind, metadata) = match self {
            Self::Namespace(it) => ("Namespace", &it.metadata),
            Self::Secret(it) => ("Secret", &it.metadata),
            Self::ConfigMap(it) => ("ConfigMap", &it.metadata),
            Self::ServiceAccount(it) => ("ServiceAccount", &it.metadata),
            Self::PersistentVolumeClaim(it) => ("PersistentVolumeClaim", &it.metadata),
            Self::Service(it) => ("Service", &it.metadata),
            Self::Deployment(it) => ("Deployment", &it.metadata),
        };
        format!("{kind} `{}`", metadata.name.as_deref().unwrap_or("?"))
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

    fn metadata(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Namespace(it) => &mut it.metadata,
            Self::Secret(it) => &mut it.metadata,
            Self::ConfigMap(it) => &mut it.metadata,
            Self::ServiceAccount(it) => &mut it.metadata,
            Self::PersistentVolumeClaim(it) => &mut it.metadata,
            Self::Service(it) => &mut it.metadata,
            Self::Deployment(it) => &mut it.metadata,
        }
    }
}

/// The objects of `manifests/kedgedeployment.yaml`, filled in.
///
/// # Errors
/// When the source is not what the types of Kubernetes allow, or lacks an object that has to be filled in.
pub fn deployment(source: &str, values: &Values<'_>) -> Result<Vec<Object>> {
    let mut objects = parse(source)?;
    let checksum = values.files.checksum();
    for object in &mut objects {
        if let Object::Namespace(namespace) = object {
            namespace.metadata.name = Some(values.namespace.to_owned());
        } else {
            object.metadata().namespace = Some(values.namespace.to_owned());
        }
        match object {
            Object::Secret(secret) => fill_secret(secret, values),
            Object::Deployment(deployment) => fill_deployment(deployment, values.image, &checksum)?,
            Object::Namespace(_)
            | Object::ConfigMap(_)
            | Object::ServiceAccount(_)
            | Object::PersistentVolumeClaim(_)
            | Object::Service(_) => {}
        }
    }
    for (kind, name) in [("Secret", CREDENTIALS), ("Secret", PULL_SECRET), ("Deployment", DEPLOYMENT)] {
        let title = format!("{kind} `{name}`");
        if !objects.iter().any(|object| object.title() == title) {
            bail!("`manifests/kedgedeployment.yaml` has no {title}");
        }
    }
    Ok(objects)
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

/// Something that a manifest must not have.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Which document of the file, from 0.
    pub document: usize,
    /// How to get to the place; empty for the document as a whole.
    pub path: Vec<Step>,
    /// What is wrong.
    pub text: String,
}

/// One level further into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// By the name of a field.
    Field(String),
    /// By the index of an item.
    Item(usize),
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

fn parse(source: &str) -> Result<Vec<Object>> {
    let (objects, mistakes) = read(source);
    match mistakes.first() {
        None => Ok(objects),
        Some(mistake) => bail!("document {}: {}", mistake.document + 1, mistake.text),
    }
}

/// The objects that are as they should be, and what is wrong with the others.
fn read(source: &str) -> (Vec<Object>, Vec<Mistake>) {
    let (mut objects, mut mistakes) = (Vec::new(), Vec::new());
    for (index, document) in serde_yaml::Deserializer::from_str(source).enumerate() {
        let mut found = Vec::new();
        let value = serde_json::Value::deserialize(document);
        // After an error the reader does not get on: it would give the same one for ever.
        let is_readable = value.is_ok();
        match value {
            Ok(serde_json::Value::Null) => {}
            Ok(value) => objects.extend(object(&value, &mut found)),
            Err(error) => found.push((Vec::new(), format!("not YAML: {error}"))),
        }
        mistakes.extend(found.into_iter().map(|(path, text)| Mistake { document: index, path, text }));
        if !is_readable {
            break;
        }
    }
    (objects, mistakes)
}

/// Where something is wrong, and what.
type Found = (Vec<Step>, String);

fn object(value: &serde_json::Value, found: &mut Vec<Found>) -> Option<Object> {
    match value["kind"].as_str().unwrap_or_default() {
        "Namespace" => typed(value, found).map(Object::Namespace),
        "Secret" => typed(value, found).map(Object::Secret),
        "ConfigMap" => typed(value, found).map(Object::ConfigMap),
        "ServiceAccount" => typed(value, found).map(Object::ServiceAccount),
        "PersistentVolumeClaim" => typed(value, found).map(|it| Object::PersistentVolumeClaim(Box::new(it))),
        "Service" => typed(value, found).map(|it| Object::Service(Box::new(it))),
        "Deployment" => typed(value, found).map(|it| Object::Deployment(Box::new(it))),
        other => {
            let text = format!("the kind is {other:?}, which KEdge does not apply");
            found.push((vec![Step::Field("kind".into())], text));
            None
        }
    }
}

/// Reads an object and refuses what the type does not know: the API server would drop it without a word.
fn typed<T: DeserializeOwned + Serialize>(value: &serde_json::Value, found: &mut Vec<Found>) -> Option<T> {
    let kind = value["kind"].as_str().unwrap_or_default();
    let object: T = match serde_path_to_error::deserialize(value) {
        Ok(object) => object,
        Err(error) => {
            let path = error.path().iter().filter_map(step).collect();
            // What stands in the wrong place may be a credential.
            let reason = without_quoted_text(&error.inner().to_string());
            found.push((path, format!("not a valid {kind}: `{}`: {reason}", error.path())));
            return None;
        }
    };
    // Types of Kubernetes can always be written.
    let kept = serde_json::to_value(&object).unwrap_or_default();
    let mut lost = Vec::new();
    self::lost(value, &kept, &mut Vec::new(), &mut lost);
    let is_whole = lost.is_empty();
    found.extend(lost.into_iter().map(|path| {
        let text = format!("not a valid {kind}: unknown field `{}`", path_text(&path));
        (path, text)
    }));
    is_whole.then_some(object)
}

fn step(segment: &serde_path_to_error::Segment) -> Option<Step> {
    match segment {
        serde_path_to_error::Segment::Seq { index } => Some(Step::Item(*index)),
        serde_path_to_error::Segment::Map { key } => Some(Step::Field(key.clone())),
        _ => None,
    }
}

fn path_text(path: &[Step]) -> String {
    let text: String = path
        .iter()
        .map(|step| match step {
            Step::Field(name) => format!(".{name}"),
            Step::Item(index) => format!("[{index}]"),
        })
        .collect();
    text.trim_start_matches('.').to_owned()
}

/// Collects the fields of `written` that are not in `kept`.
fn lost(
    written: &serde_json::Value,
    kept: &serde_json::Value,
    path: &mut Vec<Step>,
    lost_fields: &mut Vec<Vec<Step>>,
) {
    use serde_json::Value;
    match (written, kept) {
        (Value::Object(fields), Value::Object(others)) => {
            for (name, field) in fields {
                path.push(Step::Field(name.clone()));
                match others.get(name) {
                    Some(other) => lost(field, other, path, lost_fields),
                    None if field.is_null() => {}
                    None => lost_fields.push(path.clone()),
                }
                path.pop();
            }
        }
        (Value::Array(items), Value::Array(others)) => {
            for (index, (item, other)) in items.iter().zip(others).enumerate() {
                path.push(Step::Item(index));
                lost(item, other, path, lost_fields);
                path.pop();
            }
        }
        _ => {}
    }
}

fn fill_secret(secret: &mut Secret, values: &Values<'_>) {
    let data = match secret.metadata.name.as_deref() {
        Some(CREDENTIALS) => {
            let files = values.files.expose();
            files.map(|(name, contents)| (name.to_owned(), ByteString(contents.to_vec()))).collect()
        }
        Some(PULL_SECRET) => return fill_pull_secret(secret, values.registry, values.login),
        _ => return,
    };
    secret.data = Some(data);
}

fn fill_pull_secret(secret: &mut Secret, registry: &str, login: &Login) {
    let config = docker_config(registry, login);
    secret.data = Some(BTreeMap::from([(
        ".dockerconfigjson".to_owned(),
        ByteString(config.expose().as_bytes().to_vec()),
    )]));
}

/// The login as a Docker configuration, which is what a pull secret holds, and what tools that push read.
#[must_use]
pub fn docker_config(registry: &str, login: &Login) -> Hidden {
    let pair = format!("{}:{}", login.username, login.password.expose());
    let auth = base64::engine::general_purpose::STANDARD.encode(pair);
    let entry = json!({ "username": login.username, "password": login.password.expose(), "auth": auth });
    Hidden::new(json!({ "auths": { registry: entry } }).to_string())
}

fn fill_deployment(deployment: &mut Deployment, image: &str, checksum: &str) -> Result<()> {
    let template =
        deployment.spec.as_mut().map(|spec| &mut spec.template).context("the Deployment has no spec")?;
    let metadata = template.metadata.get_or_insert_default();
    metadata.annotations.get_or_insert_default().insert(CHECKSUM.to_owned(), checksum.to_owned());
    let pod = template.spec.as_mut().context("the Deployment has no pod template")?;
    let container = pod
        .containers
        .iter_mut()
        .find(|container| container.name == CONTAINER)
        .with_context(|| format!("the Deployment has no container `{CONTAINER}`"))?;
    container.image = Some(image.to_owned());
    Ok(())
}
