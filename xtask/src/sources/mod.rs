//! Everything that a user edits, checked before anything is changed: the deployment manifest, the runtime's
//! configuration, the Kubernetes manifests, kind's configuration, the profiles that confine the edge, and the packages of Microsoft's runtime. All problems of all files are told at once.

mod deployment;
mod json;
mod kind;
mod kubernetes;
mod packages;
mod runtime;
mod yaml;

use std::collections::BTreeSet;

use crate::cluster::manifests;
use crate::edge_config::{self, images};
use crate::paths::{self, Paths};
use crate::problems::{self, Collector, Problem, did_you_mean};
use crate::provisioning;
use crate::settings::{Hub, Origins, Settings};
use crate::text_file;
use crate::tier::Profiles;

/// Files that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("these files cannot be used, and nothing was changed:{}", problems::list(problems))]
pub struct SourcesError {
    /// All that is wrong with them.
    pub problems: Vec<Problem>,
}

/// Checks the files.
///
/// # Errors
/// [`SourcesError`] with all that is wrong.
pub fn check(paths: &Paths, settings: &Settings) -> Result<(), SourcesError> {
    let mut problems = Vec::new();
    let mut each = |path: &str, check: &dyn Fn(&str, &str) -> Vec<Problem>| {
        let (name, text) = read(paths, path, &mut problems)?;
        problems.extend(check(&name, &text));
        Some(text)
    };
    let pod = each("manifests/kedgedeployment.yaml", &kubernetes::deployment)
        .and_then(|manifest| manifests::pod_host_name(&manifest));
    each("manifests/local-registry-hosting.yaml", &kubernetes::local_registry);
    each("manifests/profiles.yaml", &kubernetes::profiles);
    each("kind-cluster/kind.yaml", &kind::check);
    each("kind-cluster/kind-upstream.yaml", &kind::check);
    each(&settings.device.deployment, &deployment::check);
    let delivered = delivered(paths, settings);
    each(&settings.device.config, &|name, text| {
        let mut problems = runtime::check(name, text, pod.as_deref(), settings.shape());
        problems.extend(delivered.iter().flat_map(|files| runtime::undelivered(name, text, files)));
        problems
    });
    problems.extend(packages::check(paths, &settings.runtime));
    problems.extend(profiles(paths));
    if problems.is_empty() { Ok(()) } else { Err(SourcesError { problems }) }
}

/// What keeps the profiles of the edge from being used.
fn profiles(paths: &Paths) -> Vec<Problem> {
    let mut problems = Collector::new("image/security", "");
    if let Err(error) = Profiles::read(&paths.project) {
        problems.push(None, format!("{error:#}"));
    }
    problems.finish()
}

/// The names of the files that the Secret will have; nothing while credentials are to be given yet.
fn delivered(paths: &Paths, settings: &Settings) -> Option<BTreeSet<String>> {
    match provisioning::kept(paths).ok()? {
        None if settings.hub.kind == Hub::Azure => None,
        None => Some(provisioning::delivered(None, settings.shape())),
        Some(checked) => checked.kept.map(|kept| provisioning::delivered(Some(&kept), settings.shape())),
    }
}

/// What is no mistake, and probably not meant: entries of `[images]` to which no image leads that the files name.
#[must_use]
pub fn doubts(paths: &Paths, settings: &Settings, origins: &Origins) -> Vec<String> {
    let text = |path: &str| fs_err::read_to_string(paths.project.join(path)).unwrap_or_default();
    let mut named = edge_config::named_images(&text(&settings.device.deployment));
    named.extend(edge_config::agent_image(&text(&settings.device.config)));
    named.extend(settings.runtime.preload.iter().cloned());
    let unused = images::unused(&settings.images, &named);
    let doubt = |name: &str| {
        let origin = origins.of(&format!("images.{name}"));
        let hint = did_you_mean(name, named.iter().map(String::as_str));
        let file = &settings.device.deployment;
        format!("{origin}: [images] \"{name}\" stands for no image that {file} names{hint}")
    };
    unused.into_iter().map(doubt).collect()
}

/// The name and the text of a file, if it can be read.
fn read(paths: &Paths, path: &str, problems: &mut Vec<Problem>) -> Option<(String, String)> {
    let path = paths.project.join(path);
    let name = paths::shown(&path, &paths.project);
    match text_file::read(&path, &name) {
        Ok(text) => Some((name, text)),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}
