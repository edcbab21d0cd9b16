//! Where things lie: the project, the user's cache, the state of a running deployment, the run folders.
//!
//! The tool writes nowhere else, but for the packages that it installs and `/lib/modules`, which kind wants. The state folder holds secrets and is private to its owner.

use std::env;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

/// There is no place for what belongs to the user.
#[derive(Debug, thiserror::Error)]
#[error("found no home folder; set {variable} to an absolute path")]
pub struct NoHome {
    variable: &'static str,
}

/// The folders of one invocation.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The root of the workspace.
    pub project: PathBuf,
    /// What is safe to delete when nothing is up: node image archives, the fetched `kind`, the engine's settings.
    pub cache: PathBuf,
    /// Kubeconfig and secrets of the deployment named in the settings; gone when it is.
    pub state: PathBuf,
}

impl Paths {
    /// Finds the folders for the deployment called `name`.
    ///
    /// # Errors
    /// [`NoHome`] when the user has no home folder and neither `XDG_CACHE_HOME` nor `XDG_STATE_HOME` says where to go.
    pub fn discover(name: &str) -> Result<Self> {
        Ok(Self {
            project: project()?,
            cache: user_folder("XDG_CACHE_HOME", ".cache")?,
            state: user_folder("XDG_STATE_HOME", ".local/state")?.join(name),
        })
    }

    /// The kubeconfig of the tool's own cluster; the user's is never touched.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// The folder with one sub-folder per run.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.project.join("target/kedge/runs")
    }

    /// The folder of the run that began then.
    #[must_use]
    pub fn run(&self, began: Timestamp) -> PathBuf {
        self.runs().join(began.strftime("%Y%m%dT%H%M%S%.3fZ").to_string())
    }
}

/// The root of the workspace.
///
/// # Errors
/// When the tool was built elsewhere.
pub fn project() -> Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(project.context("the orchestrator was not built inside the workspace")?.to_path_buf())
}

/// How `path` is shown: what is in the workspace, relative to it.
#[must_use]
pub fn shown(path: &Path, project: &Path) -> String {
    path.strip_prefix(project).unwrap_or(path).display().to_string()
}

fn user_folder(variable: &'static str, below_home: &str) -> Result<PathBuf> {
    let base = match env::var_os(variable).filter(|value| Path::new(value).is_absolute()) {
        Some(folder) => PathBuf::from(folder),
        None => {
            env::home_dir().filter(|home| home.is_absolute()).ok_or(NoHome { variable })?.join(below_home)
        }
    };
    Ok(base.join("kedge"))
}

/// Makes `folder` and its parents; the folder itself is readable by its owner alone.
///
/// # Errors
/// When the folder cannot be made.
pub fn private_folder(folder: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("failed to make the folder `{}`", folder.display()))
}

/// Writes a file that only its owner may read; it is whole or not there, and at no moment open to others.
///
/// # Errors
/// When the file cannot be written.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<()> {
    use std::io::Write;
    let parent = path.parent().unwrap_or(Path::new("."));
    private_folder(parent)?;
    let written = tempfile::NamedTempFile::new_in(parent).and_then(|mut file| {
        file.write_all(contents)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).with_context(|| format!("failed to write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_private_file_is_readable_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/secret");
        write_private(&path, b"first").unwrap();
        write_private(&path, b"second").unwrap();
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(fs_err::read(&path).unwrap(), b"second");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }
}
