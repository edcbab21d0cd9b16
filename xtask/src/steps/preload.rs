//! Images of modules for the edge's image: in the engine, pulled if need be, and saved in the cache.

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::edge_config::images::mapped;
use crate::images::Image;
use crate::preload::{Preloaded, kept};

/// What has to be done before the image can be built, if anything.
pub(super) async fn missing(context: &Context, image: Image) -> Result<Option<String>> {
    for reference in wanted(context, image) {
        let kept = kept(&context.paths.cache, reference)?;
        match context.engine.image_id(reference).await? {
            None if kept.is_empty() => {
                return Ok(Some(format!("`{reference}` has to be pulled, to be in it")));
            }
            Some(id) if !matches!(kept.as_slice(), [one] if one.id == id) => {
                return Ok(Some(format!("it is to have the present `{reference}` in it")));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Saves what has not been saved yet, or is another image by now.
pub(super) async fn ensure(context: &Context, image: Image, step: &str) -> Result<()> {
    for reference in wanted(context, image) {
        let kept = kept(&context.paths.cache, reference)?;
        let id = match context.engine.image_id(reference).await? {
            Some(id) => id,
            // The archive does as well as the image.
            None if kept.len() == 1 => continue,
            None => pull(context, reference, step).await?,
        };
        if matches!(kept.as_slice(), [one] if one.id == id) {
            continue;
        }
        context.progress.detail(step, &format!("saving {reference}"));
        let image = Preloaded::new(&context.paths.cache, reference, &id);
        fs_err::create_dir_all(image.archive.parent().unwrap_or(&context.paths.cache))?;
        context.engine.save_image(reference, &image.archive).await?;
        for old in kept.iter().filter(|old| old.id != id) {
            fs_err::remove_file(&old.archive)?;
        }
        // The image of the edge may be known by what it was to be made of before.
        context.forget_fingerprints();
    }
    Ok(())
}

fn wanted(context: &Context, image: Image) -> &[String] {
    if image == Image::Edge { &context.settings.runtime.preload } else { &[] }
}

/// Pulls what the settings have in its place, and gives it the name by which the deployment will call it.
async fn pull(context: &Context, reference: &str, step: &str) -> Result<String> {
    let source = mapped(&context.settings.images, reference);
    let pulled = context.engine.pull(source, |line| context.progress.detail(step, line)).await;
    pulled.with_context(|| {
        format!("`{reference}` is to be preloaded, and the engine does not have it; pull or load it yourself if it needs a login")
    })?;
    if source != reference {
        context.engine.tag(source, reference).await?;
    }
    let id = context.engine.image_id(reference).await?;
    id.with_context(|| format!("the engine has lost `{reference}`"))
}
