//! What is put into the objects that were read.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, PodSpec, PodTemplateSpec, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kedge_sim::secret::Secret as Hidden;
use serde_json::json;

use super::confinement::fill_template;
use super::{
    CHECKSUM, CONTAINER, CREDENTIALS, ENGINE_CLAIM, PULL_SECRET, Pull, STATE_CLAIM, Tailoring, Values,
};
use crate::engine::Login;

pub(super) fn fill_secret(secret: &mut Secret, values: &Values<'_>) {
    match (secret.metadata.name.as_deref(), &values.pull) {
        (Some(CREDENTIALS), _) => {
            let files = values.files.expose();
            let data = files.map(|(name, contents)| (name.to_owned(), ByteString(contents.to_vec())));
            secret.data = Some(data.collect());
        }
        (Some(PULL_SECRET), Pull::With { registry, login }) => fill_pull_secret(secret, registry, login),
        _ => {}
    }
}

pub(super) fn fill_pull_secret(secret: &mut Secret, registry: &str, login: &Login) {
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

pub(super) fn fill_deployment(deployment: &mut Deployment, values: &Values<'_>) -> Result<()> {
    let template = template(deployment)?;
    let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    annotations.insert(CHECKSUM.to_owned(), values.files.checksum());
    fill_template(template, &values.confinement)?;
    let pod = template.spec.as_mut().context("the Deployment has no pod template")?;
    if matches!(values.pull, Pull::Without) {
        pod.image_pull_secrets = None;
    }
    let container = container(pod)?;
    container.image = Some(values.image.to_owned());
    if let Some(tailoring) = &values.tailoring {
        fill_resources(container, tailoring);
    }
    Ok(())
}

fn template(deployment: &mut Deployment) -> Result<&mut PodTemplateSpec> {
    deployment.spec.as_mut().map(|spec| &mut spec.template).context("the Deployment has no spec")
}

pub(super) fn container(pod: &mut PodSpec) -> Result<&mut Container> {
    let mut containers = pod.containers.iter_mut();
    containers
        .find(|container| container.name == CONTAINER)
        .with_context(|| format!("the Deployment has no container `{CONTAINER}`"))
}

fn fill_resources(container: &mut Container, tailoring: &Tailoring<'_>) {
    let quantity = |text: &str| Quantity(text.to_owned());
    let resources = container.resources.get_or_insert_default();
    let requests = resources.requests.get_or_insert_default();
    requests.insert("cpu".into(), quantity(tailoring.cpu));
    requests.insert("memory".into(), quantity(tailoring.memory));
    if let Some(limit) = tailoring.memory_limit {
        resources.limits.get_or_insert_default().insert("memory".into(), quantity(limit));
    }
}

pub(super) fn fill_claim(claim: &mut PersistentVolumeClaim, tailoring: &Tailoring<'_>) {
    let size = match claim.metadata.name.as_deref() {
        Some(STATE_CLAIM) => tailoring.state_size,
        Some(ENGINE_CLAIM) => tailoring.engine_size,
        _ => return,
    };
    let spec = claim.spec.get_or_insert_default();
    let requests = spec.resources.get_or_insert_default().requests.get_or_insert_default();
    requests.insert("storage".into(), Quantity(size.to_owned()));
    if let Some(class) = tailoring.storage_class {
        spec.storage_class_name = Some(class.to_owned());
    }
}
