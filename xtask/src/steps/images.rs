//! Images in the engine: the Debian base, and those that a Dockerfile builds on it.

use std::fs::File;
use std::io::{BufWriter, Seek as _, Write};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::engine::Build;
use crate::execute::Effect;
use crate::images::Image;
use crate::inputs::{Fingerprint, Source, pack};
use crate::plan::Condition;
use crate::preflight::is_root;
use crate::steps::preload;

/// What the base image is made with. Documentation and translations are left out, now and by every later
/// `apt-get install`, because the options stay in the image.
pub const MMDEBSTRAP: [&str; 13] = [
    "--variant=minbase",
    // With `usr-is-merged` in the place of `usrmerge`, fifty megabytes of perl stay out.
    "--include=ca-certificates,usr-is-merged",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    "--aptopt=Apt::Install-Recommends \"false\"",
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-include=/usr/share/locale/locale.alias",
    "--dpkgopt=path-exclude=/usr/share/lintian/*",
    "bookworm",
];
/// The same Debian for those who may not assemble it.
const DEBIANS_OWN: &str = "docker.io/library/debian:bookworm-slim";
const BASE_DOCKERFILE: &str = "FROM scratch\nADD base.tar /\nCMD [\"/bin/bash\"]\n";
/// With this begins the line in which a script of ours tells why it cannot go on.
const REFUSAL: &str = "kedge: ";
const BASE_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What an image is to be made of does not go together; the builder's log has the rest.
#[derive(Debug, thiserror::Error)]
#[error("the {image} image cannot be built: {reason}")]
pub struct Refused {
    image: Image,
    reason: String,
}

/// The hash of the base image's inputs.
///
/// # Errors
/// Never in practice; the signature is that of the other images.
pub fn base_fingerprint() -> Result<Fingerprint> {
    let mut settings = MMDEBSTRAP.to_vec();
    settings.push(BASE_DOCKERFILE);
    Fingerprint::of(&[], &settings)
}

/// Whether the engine has an image of the present inputs.
///
/// # Errors
/// When an input cannot be read, or the engine not be asked.
pub async fn observe(context: &Context, image: Image) -> Result<Condition> {
    if let Some(reason) = preload::missing(context, image).await? {
        return Ok(Condition::Differs(reason));
    }
    let reference = context.reference(image)?;
    Ok(if context.engine.has_image(&reference).await? {
        Condition::Holds(reference)
    } else {
        Condition::Differs(format!("the engine has no `{reference}`, which is named after its inputs"))
    })
}

/// Makes the Debian base image with the machine's own package sources.
///
/// # Errors
/// When Debian's packages cannot be had, or the engine refuses the image.
pub async fn ensure_base(context: &Context) -> Result<Effect> {
    let reference = context.reference(Image::Base)?;
    if context.engine.has_image(&reference).await? {
        return Ok(Effect::unchanged(reference));
    }
    if !is_root() {
        let pulled =
            context.engine.pull(DEBIANS_OWN, |line| context.progress.detail("image-base", line)).await;
        pulled.context("run this as root to assemble the base image from Debian packages instead")?;
        context.engine.tag(DEBIANS_OWN, &reference).await?;
        return Ok(Effect::changed(format!("pulled {DEBIANS_OWN}")));
    }
    let folder = temporary_folder(context).context("failed to make a folder for the base image")?;
    let root = folder.path().join("base.tar");
    context
        .process("image-base", "download Debian 12", "mmdebstrap")
        .args(MMDEBSTRAP)
        .args([&root])
        .limit(BASE_LIMIT)
        .run()
        .await?;
    let build = Build {
        context: packed(
            context,
            &[Source::text(BASE_DOCKERFILE, "Dockerfile"), Source::file(root, "base.tar")],
        )?,
        reference: reference.clone(),
        target: None,
        from_nothing: false,
        args: vec![],
    };
    context.engine.build(build, |line| context.progress.detail("image-base", line)).await?;
    Ok(Effect::changed(format!("made {reference}")))
}

/// A folder in the cache, where there is room, and where what a killed run has left is found and removed.
fn temporary_folder(context: &Context) -> std::io::Result<tempfile::TempDir> {
    let parent = context.paths.cache.join("temporary");
    if parent.exists() {
        fs_err::remove_dir_all(&parent)?;
    }
    fs_err::create_dir_all(&parent)?;
    tempfile::tempdir_in(parent)
}

/// A build context, in a file of the cache that is gone with its handle: it may be larger than memory.
fn packed(context: &Context, sources: &[Source]) -> Result<File> {
    fs_err::create_dir_all(&context.paths.cache)?;
    let mut file =
        tempfile::tempfile_in(&context.paths.cache).context("failed to make a file for a build context")?;
    pack(sources, BufWriter::new(&file))?;
    file.rewind().context("failed to pack the build context")?;
    Ok(file)
}

/// Builds an image from its Dockerfile unless one of the same inputs exists. `step` is shown and logged.
///
/// # Errors
/// When an input is missing or the build fails.
pub async fn ensure(context: &Context, image: Image, step: &str) -> Result<Effect> {
    preload::ensure(context, image, step).await?;
    let reference = context.reference(image)?;
    if context.engine.has_image(&reference).await? {
        return Ok(Effect::unchanged(reference));
    }
    build(context, image, step, &reference, false).await?;
    let megabytes = context.engine.image_size(&reference).await? / 1_000_000;
    Ok(Effect::changed(format!("built, {megabytes} MB")))
}

/// Builds an image from nothing under another name, which goes again: to see how long that takes.
///
/// # Errors
/// When an input is missing or the build fails.
pub async fn rebuild(context: &Context, image: Image, step: &str) -> Result<()> {
    let reference = format!("{}-from-nothing", context.reference(image)?);
    build(context, image, step, &reference, true).await?;
    context.engine.remove_image(&reference).await
}

async fn build(
    context: &Context,
    image: Image,
    step: &str,
    reference: &str,
    from_nothing: bool,
) -> Result<()> {
    let recipe = context.recipe(image)?.with_context(|| format!("the {image} image has no Dockerfile"))?;
    let mut args = recipe.args;
    if recipe.on_base {
        args.push(("BASE_IMAGE", context.reference(Image::Base)?));
    }
    let build = Build {
        context: packed(context, &recipe.sources)?,
        reference: reference.to_owned(),
        target: recipe.target,
        from_nothing,
        args,
    };
    let mut log = fs_err::OpenOptions::new().create(true).append(true).open(context.log(step))?;
    let mut refusal = None;
    let built = context.engine.build(build, |line| {
        // A full disk fails the build itself; its log is not worth another error.
        let _ = writeln!(log, "{line}");
        context.progress.detail(step, line);
        if let Some(reason) = line.strip_prefix(REFUSAL) {
            refusal = Some(reason.to_owned());
        }
    });
    match (built.await, refusal) {
        (Err(_), Some(reason)) => Err(Refused { image, reason }.into()),
        (built, _) => built,
    }
}
