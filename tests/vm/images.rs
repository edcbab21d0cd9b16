//! The images that the machine's Docker holds: those of an edge on a plain engine, as this machine's engine has them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio_util::sync::CancellationToken;
use xtask::cli::Cli;
use xtask::context::Context;
use xtask::images::Image;
use xtask::paths::Paths;
use xtask::plan::Action;
use xtask::session::{Setup, carry_out};

/// A deployment of its own: another command may be at work on the one that settings mostly name.
const SETTINGS: &str = "[cluster]\nname = \"kedge-vm\"\n";
/// The base is only looked for, for the others stand for themselves.
const IMAGES: [Image; 5] = [Image::Base, Image::Registry, Image::Hub, Image::Edge, Image::TemperatureSensor];

/// Images that are in the engine.
pub(crate) struct Images {
    context: Arc<Context>,
    references: Vec<String>,
}

impl Images {
    /// Builds those that the engine does not have, as every command does.
    pub(crate) async fn built() -> Result<Self> {
        let settings = tempfile::NamedTempFile::new()?;
        fs_err::write(settings.path(), SETTINGS)?;
        let words = ["cargo xtask", "--yes", "--profile"].map(OsStr::new);
        let command = [settings.path().as_os_str(), OsStr::new("image"), OsStr::new("build")];
        let cli = Cli::try_parse_from(words.into_iter().chain(command))?;
        let goals = IMAGES.map(Action::Image);
        let context = carry_out(Setup::new(&cli.global)?, "image build", &goals).await?;
        let context = context.context("images are built in no dry run")?;
        // Nothing is deployed, so nothing has to be known of it.
        fs_err::remove_dir_all(&context.paths.state)?;
        let references = IMAGES.map(|image| context.reference(image));
        let references = references.into_iter().collect::<Result<_>>()?;
        Ok(Self { context, references })
    }

    pub(crate) fn references(&self) -> Vec<&str> {
        self.references.iter().map(String::as_str).collect()
    }

    /// Saves each as an archive in `folder`.
    pub(crate) async fn save(&self, folder: &Path) -> Result<()> {
        fs_err::create_dir_all(folder)?;
        for (index, reference) in self.references.iter().enumerate() {
            let archive = folder.join(format!("{index}.tar"));
            self.context.engine.save_image(reference, &archive).await?;
        }
        Ok(())
    }

    /// The folder in which costly things are kept.
    pub(crate) fn cache(&self) -> PathBuf {
        self.context.paths.cache.join("vm")
    }

    /// The folder with the statically linked programs.
    pub(crate) fn binaries(&self) -> PathBuf {
        self.context.binaries()
    }

    /// Cancelled by Ctrl-C.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.context.cancel
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.context.paths
    }

    /// The root of the workspace.
    pub(crate) fn project(&self) -> &Path {
        &self.context.paths.project
    }
}
