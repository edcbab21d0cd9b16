//! The image of the cluster's node: kind's own where it can be pulled, else the one assembled from Debian
//! packages, which is built once and kept as an archive in the user's cache.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::execute::Effect;
use crate::images::Image;
use crate::plan::Condition;
use crate::steps::images;

/// Version 1.32.2, which goes with the `kind` that is fetched (0.27), by digest as kind's authors recommend.
const KINDS_OWN: &str =
    "docker.io/kindest/node@sha256:f226345927d7e348497136874b6d207e0b32cc52154ad8323129352923a3142f";
/// A registry that is reachable at all answers within this; a large image may take longer to arrive.
const PULL_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The image that the cluster's node is to be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeImage {
    /// Its reference in the engine.
    pub reference: String,
    /// Whether it is the one made from Debian packages, which brings its own CNI and no CoreDNS.
    pub debian: bool,
}

/// Which node image will be used: that follows from the settings and from what the engine holds.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn choice(context: &Context) -> Result<NodeImage> {
    let debian = || -> Result<NodeImage> {
        Ok(NodeImage { reference: context.reference(Image::Node)?, debian: true })
    };
    match context.settings.cluster.node_image.as_str() {
        "debian" => debian(),
        "auto" if context.engine.has_image(KINDS_OWN).await? => {
            Ok(NodeImage { reference: KINDS_OWN.into(), debian: false })
        }
        "auto" => debian(),
        reference => Ok(NodeImage { reference: reference.into(), debian: false }),
    }
}

/// Every node image that the settings allow: a cluster that was made without a registry stays when one can be reached.
///
/// # Errors
/// When the inputs of the Debian one cannot be read.
pub fn candidates(context: &Context) -> Result<Vec<NodeImage>> {
    let debian = NodeImage { reference: context.reference(Image::Node)?, debian: true };
    let other = |reference: &str| NodeImage { reference: reference.into(), debian: false };
    Ok(match context.settings.cluster.node_image.as_str() {
        "debian" => vec![debian],
        "auto" => vec![debian, other(KINDS_OWN)],
        reference => vec![other(reference)],
    })
}

/// Whether the engine holds the node image.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn observe(context: &Context) -> Result<Condition> {
    let wanted = choice(context).await?;
    Ok(if context.engine.has_image(&wanted.reference).await? {
        Condition::Holds(wanted.reference)
    } else if !wanted.debian {
        Condition::Differs(format!("the engine has no `{}`: it is pulled", wanted.reference))
    } else if is_kept(context)? {
        Condition::Differs("it is loaded from the cache".into())
    } else {
        Condition::Differs(
            "kind's own is pulled where it can be, else it is made from Debian packages, which takes minutes"
                .into(),
        )
    })
}

/// Whether the node image need not be built: it is in the cache.
///
/// # Errors
/// When its inputs cannot be read.
pub fn is_kept(context: &Context) -> Result<bool> {
    Ok(archive(context)?.exists())
}

/// The archive of the node image in the cache.
fn archive(context: &Context) -> Result<PathBuf> {
    Ok(context.paths.cache.join("node").join(format!("{}.tar", context.fingerprint(Image::Node)?)))
}

/// Makes sure that the engine holds the node image.
///
/// # Errors
/// When it can neither be pulled nor built.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let wanted = choice(context).await?;
    if context.engine.has_image(&wanted.reference).await? {
        return Ok(Effect::unchanged(wanted.reference));
    }
    match context.settings.cluster.node_image.as_str() {
        "debian" => load_or_build(context, &wanted.reference).await,
        "auto" => match pull(context, KINDS_OWN).await {
            Ok(()) => Ok(Effect::changed(format!("pulled {KINDS_OWN}"))),
            Err(error) => {
                context
                    .progress
                    .detail("node-image", "kind's own cannot be pulled, so Debian packages are used");
                fs_err::write(context.log("node-image"), format!("{error:#}\n"))?;
                load_or_build(context, &wanted.reference).await
            }
        },
        reference => pull(context, reference).await.map(|()| Effect::changed(format!("pulled {reference}"))),
    }
}

async fn pull(context: &Context, reference: &str) -> Result<()> {
    let pulled = context.engine.pull(reference, |line| context.progress.detail("node-image", line));
    tokio::time::timeout(PULL_LIMIT, pulled)
        .await
        .with_context(|| format!("pulling `{reference}` took longer than {} s", PULL_LIMIT.as_secs()))?
}

async fn load_or_build(context: &Context, reference: &str) -> Result<Effect> {
    let archive = archive(context)?;
    if archive.exists() {
        context.progress.detail("node-image", "loading it from the cache");
        let loaded = context.engine.load_image(&archive).await;
        if loaded.is_ok() && context.engine.has_image(reference).await? {
            return Ok(Effect::changed(format!("loaded from `{}`", archive.display())));
        }
        // A damaged archive would fail every run; building anew costs minutes once.
        fs_err::remove_file(&archive)?;
    }
    let built = images::ensure(context, Image::Node, "node-image").await?;
    if let Some(folder) = archive.parent() {
        fs_err::create_dir_all(folder)?;
    }
    context.engine.save_image(reference, &archive).await?;
    Ok(Effect::changed(format!("{}; kept in the cache", built.note)))
}
