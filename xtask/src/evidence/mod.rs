//! What is kept of a failed run, without secrets, before anything is cleaned up: what its parts have written, and how engine,
//! cluster and machine are. When the report is there as well, all of it is packed into one file to be handed on.

mod edge;
mod folder;
mod hub;
mod machine;
mod objects;
mod pack;
pub mod redact;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::folder::Folder;
use self::redact::redact;
use crate::context::Context;
use crate::paths::shown;

/// The folder of evidence within that of the run.
const FOLDER: &str = "evidence";
/// What could not be read, and why.
const MISSING: &str = "MISSING.txt";
/// The packed run.
const BUNDLE: &str = "bundle.tar.zst";
/// How long reading may take as a whole.
const LIMIT: Duration = Duration::from_secs(16);
/// How many lines of each log are kept.
const LINES: u16 = 2000;

/// Collects the evidence into the run's folder. What cannot be read is noted there: the failure itself matters more.
pub async fn collect(context: &Context) {
    let purpose = "keep what the parts have written, before anything is cleaned up";
    // Boxed, for all that is read at once is too much for the stack.
    let work = Box::pin(async { gather(context).await.map(|()| String::new()) });
    if let Err(error) = context.progress.show("evidence", purpose, work).await {
        context.progress.say(&context.redact(&format!("the evidence is not whole: {error:#}")));
    }
}

async fn gather(context: &Context) -> Result<()> {
    let folder = Folder::make(context, hub::secrets(context).await)?;
    let all = async {
        tokio::join!(
            Box::pin(machine::keep(&folder, context)),
            Box::pin(machine::keep_engine(&folder, context)),
            Box::pin(machine::keep_nodes(&folder, context)),
            Box::pin(objects::keep(&folder, context)),
            Box::pin(hub::keep(&folder, context)),
            Box::pin(edge::keep(&folder, context)),
        )
    };
    if tokio::time::timeout(LIMIT, all).await.is_err() {
        folder.miss("what else there is", &format!("was not read within {} s", LIMIT.as_secs()));
    }
    folder.close()
}

/// Packs the run's folder, and says where the bundle is. That it cannot be made is told, and does not hide how the run went.
pub async fn pack(context: &Context) {
    let bundle = context.run_folder.join(BUNDLE);
    if let Err(error) = pack_to(context, &bundle).await {
        context.progress.say(&format!("the bundle could not be made: {error:#}"));
    }
}

/// Packs the run's folder into the file `bundle`, and says where it is.
///
/// # Errors
/// When the file cannot be written.
pub async fn pack_to(context: &Context, bundle: &Path) -> Result<()> {
    let (packing, to) = (context.clone(), bundle.to_owned());
    let packed = move || {
        let redact = |text: &str| redact(text, &|text: &str| packing.redact(text));
        pack::pack(&packing.run_folder, &to, redact)
    };
    let size = tokio::task::spawn_blocking(packed).await.context("the bundle was not finished")??;
    let name = shown(bundle, &context.paths.project);
    context.progress.say(&format!(
        "bundle: {name} ({} kB, without what is known or looks like a secret)",
        size.div_ceil(1000)
    ));
    Ok(())
}

/// Where the bundle of a run is, unless it is wanted elsewhere.
#[must_use]
pub fn bundle(context: &Context) -> PathBuf {
    context.run_folder.join(BUNDLE)
}
