//! Which image is deployed: always by its digest.

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::engine::Login;
use crate::exit::Usage;
use crate::image_reference::ImageName;
use crate::images::Image;
use crate::plan::Action;
use crate::registry_client::{Found, RegistryClient};
use crate::session::{Setup, carry_out};

/// The image, as it is deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Its reference by digest.
    pub reference: String,
    /// What it runs on; empty where that is not known.
    pub platforms: Vec<String>,
    /// Why that is not known.
    pub warning: Option<String>,
}

/// Finds the image that was named. `deployed` is the one that the cluster has.
///
/// # Errors
/// When the name does not lead to one image, or the registry has no such image.
pub async fn pin(named: &str, login: Option<&Login>, deployed: Option<&str>) -> Result<Pinned> {
    let name = ImageName::of(named);
    let registry = RegistryClient::new(name.registry.as_str(), login.cloned());
    match (&name.digest, &name.tag) {
        (Some(digest), _) => Ok(known(named, registry.find(&name.repository, digest).await)),
        (None, Some(tag)) => {
            let found = registry.find(&name.repository, tag).await.with_context(|| {
                format!("the digest of `{named}` cannot be told; name the image by its digest where the registry is out of reach")
            })?;
            Ok(Pinned { reference: name.pinned(&found.digest), platforms: found.platforms, warning: None })
        }
        (None, None) => match deployed.map(ImageName::of) {
            Some(ImageName { name: same, digest: Some(digest), .. }) if same == name.name => {
                Ok(known(&name.pinned(&digest), registry.find(&name.repository, &digest).await))
            }
            _ => bail!(Usage(format!(
                "`{named}` names no image but a repository: give a tag or a digest as well, or let `--push` build and push one"
            ))),
        },
    }
}

/// One by digest, which the cluster may be able to pull when this machine is not.
fn known(reference: &str, found: Result<Found>) -> Pinned {
    let reference = reference.to_owned();
    match found {
        Ok(found) => Pinned { reference, platforms: found.platforms, warning: None },
        Err(error) => Pinned {
            reference,
            platforms: Vec::new(),
            warning: Some(format!("whether the nodes can run the image is not known: {error:#}")),
        },
    }
}

/// Builds the edge's image and pushes it to the repository, unless that has it; its reference by digest. Nothing in a
/// dry run.
///
/// # Errors
/// When it cannot be built or pushed.
pub async fn push(setup: &Setup, repository: &str, login: &Login) -> Result<Option<String>> {
    let name = ImageName::of(repository);
    if name.digest.is_some() {
        bail!(Usage(format!(
            "`{repository}` is one image already; `--push` wants the repository to push to"
        )));
    }
    let goals = [Action::Image(Image::Edge)];
    let Some(context) = carry_out(setup.clone(), "deploy --push", &goals).await? else { return Ok(None) };
    let tag = match &name.tag {
        Some(tag) => tag.clone(),
        None => context.fingerprint(Image::Edge)?.to_string(),
    };
    let registry = RegistryClient::new(name.registry.as_str(), Some(login.clone()));
    // A tag of the user's may be that of another image.
    let present = if name.tag.is_none() { registry.digest(&name.repository, &tag).await? } else { None };
    let digest = match present {
        Some(digest) => digest,
        None => push_as(&context, &name, &tag, login, &registry).await?,
    };
    Ok(Some(name.pinned(&digest)))
}

async fn push_as(
    context: &Context,
    name: &ImageName,
    tag: &str,
    login: &Login,
    registry: &RegistryClient,
) -> Result<String> {
    context.progress.say(&format!("pushing `{}:{tag}`", name.name));
    context.engine.push(&context.reference(Image::Edge)?, &name.name, tag, login).await?;
    let digest = registry.digest(&name.repository, tag).await?;
    digest.with_context(|| format!("the registry has no `{}:{tag}` after the push", name.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[tokio::test]
    async fn what_is_named_by_digest_needs_no_registry() {
        let named = format!("localhost:1/kedge/edge@{DIGEST}");
        let pinned = pin(&named, None, None).await.unwrap();
        assert_eq!(pinned.reference, named);
        assert!(pinned.warning.unwrap().contains("localhost:1"));
    }

    #[tokio::test]
    async fn a_repository_stands_for_what_is_deployed_from_it() {
        let deployed = format!("localhost:1/kedge/edge@{DIGEST}");
        assert_eq!(pin("localhost:1/kedge/edge", None, Some(&deployed)).await.unwrap().reference, deployed);
        for other in [None, Some("localhost:1/other@sha256:00"), Some("localhost:1/kedge/edge:1")] {
            let error = pin("localhost:1/kedge/edge", None, other).await.unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains("--push"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_tag_that_cannot_be_resolved_is_told() {
        let error = pin("localhost:1/kedge/edge:v1", None, None).await.unwrap_err();
        assert!(error.to_string().contains("by its digest"), "{error:#}");
    }
}
