//! The files that an image is made of: hashed to name the image, packed for the builder.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// How many hexadecimal digits of the hash name an image.
const DIGITS: usize = 16;

/// A file or folder of the build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    from: PathBuf,
    to: PathBuf,
}

impl Source {
    /// The contents of the folder `from`, at the root of the context.
    pub fn folder(from: impl Into<PathBuf>) -> Self {
        Self::folder_at(from, "")
    }

    /// The contents of the folder `from`, below `to`.
    pub fn folder_at(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self { from: from.into(), to: to.into() }
    }

    /// The file `from`, called `to`.
    pub fn file(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self { from: from.into(), to: to.into() }
    }
}

/// The name that content gives itself: the beginning of a SHA-256, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Hashes names, modes and contents of the sources, and `settings` that shape the result as well.
    ///
    /// # Errors
    /// When a source cannot be read.
    pub fn of(sources: &[Source], settings: &[&str]) -> Result<Self> {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            // The length makes the sequence of fields unambiguous.
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for setting in settings {
            field(setting.as_bytes());
        }
        for entry in list(sources)? {
            field(entry.name.as_os_str().as_encoded_bytes());
            field(&entry.mode.to_le_bytes());
            field(&entry.contents()?);
        }
        let mut text = hex::encode(hash.finalize());
        text.truncate(DIGITS);
        Ok(Self(text))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes the sources as a tar archive. Owners and times are left out, so that equal content gives an equal
/// archive, and the builder's layer cache can work.
///
/// # Errors
/// When a source cannot be read or the archive not written.
pub fn pack(sources: &[Source], into: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(into);
    for entry in list(sources)? {
        let contents = entry.contents()?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_size(contents.len() as u64);
        if entry.link {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            let target = fs_err::read_link(&entry.path)?;
            archive.append_link(&mut header, &entry.name, target)
        } else {
            archive.append_data(&mut header, &entry.name, contents.as_slice())
        }
        .with_context(|| format!("failed to pack `{}`", entry.path.display()))?;
    }
    archive.into_inner().and_then(|mut inner| inner.flush()).context("failed to pack the build context")
}

struct Entry {
    path: PathBuf,
    name: PathBuf,
    mode: u32,
    link: bool,
}

impl Entry {
    fn contents(&self) -> Result<Vec<u8>> {
        if self.link {
            return Ok(fs_err::read_link(&self.path)?.into_os_string().into_encoded_bytes());
        }
        Ok(fs_err::read(&self.path)?)
    }
}

/// All files of the sources in the order of their names in the context.
fn list(sources: &[Source]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for source in sources {
        walk(&source.from, &source.to, &mut entries)?;
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        bail!(
            "`{}` and `{}` have the same place in the build context",
            pair[0].path.display(),
            pair[1].path.display()
        );
    }
    Ok(entries)
}

fn walk(path: &Path, name: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    let meta = fs_err::symlink_metadata(path)?;
    if meta.is_dir() {
        for child in fs_err::read_dir(path)? {
            let child = child?;
            walk(&child.path(), &name.join(child.file_name()), entries)?;
        }
        return Ok(());
    }
    if !meta.is_file() && !meta.is_symlink() {
        bail!("`{}` is neither a file nor a folder nor a link", path.display());
    }
    // Only the executable bit is content; the rest depends on the umask of whoever checked out.
    let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
    entries.push(Entry { path: path.to_owned(), name: name.to_owned(), mode, link: meta.is_symlink() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("etc")).unwrap();
        fs_err::write(folder.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        fs_err::write(folder.path().join("etc/run"), "#!/bin/sh\n").unwrap();
        folder
    }

    fn fingerprint(folder: &Path, settings: &[&str]) -> String {
        Fingerprint::of(&[Source::folder(folder)], settings).unwrap().to_string()
    }

    #[test]
    fn equal_content_has_an_equal_name() {
        let (one, other) = (project(), project());
        assert_eq!(fingerprint(one.path(), &["a"]), fingerprint(other.path(), &["a"]));
        assert_eq!(fingerprint(one.path(), &["a"]).len(), DIGITS);
    }

    #[test]
    fn content_name_mode_and_settings_all_count() {
        let folder = project();
        let first = fingerprint(folder.path(), &["a", "b"]);
        assert_ne!(first, fingerprint(folder.path(), &["ab", ""]));
        let script = folder.path().join("etc/run");
        fs_err::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let executable = fingerprint(folder.path(), &["a", "b"]);
        assert_ne!(first, executable);
        fs_err::rename(&script, folder.path().join("etc/ran")).unwrap();
        let renamed = fingerprint(folder.path(), &["a", "b"]);
        assert_ne!(executable, renamed);
        fs_err::write(folder.path().join("etc/ran"), "#!/bin/bash\n").unwrap();
        assert_ne!(renamed, fingerprint(folder.path(), &["a", "b"]));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Fingerprint::of(&[Source::file("no/such/kedge-hub", "bin/kedge-hub")], &[]).unwrap_err();
        assert!(error.to_string().contains("no/such/kedge-hub"), "{error}");
    }

    #[test]
    fn two_files_in_one_place_are_refused() {
        let folder = project();
        let sources =
            [Source::folder(folder.path()), Source::file(folder.path().join("etc/run"), "Dockerfile")];
        assert!(Fingerprint::of(&sources, &[]).unwrap_err().to_string().contains("same place"));
    }

    #[test]
    fn the_archive_holds_files_links_and_modes() {
        let folder = project();
        std::os::unix::fs::symlink("run", folder.path().join("etc/link")).unwrap();
        let mut bytes = Vec::new();
        pack(&[Source::folder_at(folder.path(), "rootfs")], &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(names, ["rootfs/Dockerfile", "rootfs/etc/link", "rootfs/etc/run"].map(PathBuf::from));
    }
}
