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
    from: From,
    to: PathBuf,
}

/// Where a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    /// A file or a folder.
    Path(PathBuf),
    /// A file of which the name in the context says what is in it, as a hash does. It may be too large to be read each time.
    Named(PathBuf),
    /// No file: this text.
    Text(String),
}

impl Source {
    /// The contents of the folder `from`, at the root of the context.
    pub fn folder(from: impl Into<PathBuf>) -> Self {
        Self::folder_at(from, "")
    }

    /// The contents of the folder `from`, below `to`.
    pub fn folder_at(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self { from: From::Path(from.into()), to: to.into() }
    }

    /// The file `from`, called `to`.
    pub fn file(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self { from: From::Path(from.into()), to: to.into() }
    }

    /// The file `from`, called `to`, of which that name says what is in it.
    pub fn named(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self { from: From::Named(from.into()), to: to.into() }
    }

    /// A file called `to` with this text.
    pub fn text(text: impl Into<String>, to: impl Into<PathBuf>) -> Self {
        Self { from: From::Text(text.into()), to: to.into() }
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
            field(&entry.identity()?);
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
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        match &entry.contents {
            Contents::File(path) | Contents::Named(path) => {
                let file = fs_err::File::open(path)?;
                header.set_size(file.metadata()?.len());
                archive.append_data(&mut header, &entry.name, file)
            }
            Contents::Link(path) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, &entry.name, fs_err::read_link(path)?)
            }
            Contents::Text(text) => {
                header.set_size(text.len() as u64);
                archive.append_data(&mut header, &entry.name, text.as_bytes())
            }
        }
        .with_context(|| format!("failed to pack `{}`", entry.name.display()))?;
    }
    archive.into_inner().and_then(|mut inner| inner.flush()).context("failed to pack the build context")
}

struct Entry {
    name: PathBuf,
    mode: u32,
    contents: Contents,
}

enum Contents {
    File(PathBuf),
    Named(PathBuf),
    Link(PathBuf),
    Text(String),
}

impl Entry {
    /// What tells it apart from another of the same name.
    fn identity(&self) -> Result<Vec<u8>> {
        Ok(match &self.contents {
            Contents::File(path) => fs_err::read(path)?,
            Contents::Named(path) => fs_err::metadata(path).map(|_| Vec::new())?,
            Contents::Link(path) => fs_err::read_link(path)?.into_os_string().into_encoded_bytes(),
            Contents::Text(text) => text.as_bytes().to_vec(),
        })
    }
}

/// All files of the sources in the order of their names in the context.
fn list(sources: &[Source]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for source in sources {
        let entry = |mode, contents| Entry { name: source.to.clone(), mode, contents };
        match &source.from {
            From::Path(path) => walk(path, &source.to, &mut entries)?,
            From::Named(path) => entries.push(entry(0o644, Contents::Named(path.clone()))),
            From::Text(text) => entries.push(entry(0o644, Contents::Text(text.clone()))),
        }
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        bail!("two files have the same place in the build context, `{}`", pair[0].name.display());
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
    let contents = if meta.is_symlink() { Contents::Link } else { Contents::File };
    entries.push(Entry { name: name.to_owned(), mode, contents: contents(path.to_owned()) });
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
    fn a_text_counts_and_of_a_file_that_is_named_after_its_content_the_name() {
        let folder = project();
        let run = folder.path().join("etc/run");
        let of = |source: Source| Fingerprint::of(&[source], &[]).unwrap();
        assert_ne!(of(Source::text("a", "x")), of(Source::text("b", "x")));
        let before = of(Source::named(&run, "0a.tar"));
        fs_err::write(&run, "other").unwrap();
        assert_eq!(before, of(Source::named(&run, "0a.tar")));
        assert_ne!(before, of(Source::named(&run, "0b.tar")));
        assert!(Fingerprint::of(&[Source::named("no/such", "0a.tar")], &[]).is_err());
        let mut bytes = Vec::new();
        pack(&[Source::named(&run, "0a.tar"), Source::text("a", "x")], &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let sizes: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
        assert_eq!(sizes, [5, 1]);
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
