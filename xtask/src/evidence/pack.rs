//! A run's folder in one file: a tar archive, compressed by Zstandard. What is in it already as evidence is without secrets;
//! the rest goes through redaction here.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::folder::{MOST_BYTES, last};
use super::{BUNDLE, FOLDER, MISSING};

/// More than a run leaves, and little enough to be a few megabytes when compressed.
const MOST_IN_ALL: usize = 24 * 1024 * 1024;
/// Fast, and nearly as small as it gets.
const LEVEL: i32 = 9;

/// Packs `folder` into `bundle`, and gives the size of that in bytes. The bundle is whole or not there.
///
/// # Errors
/// When a file cannot be read or the bundle not be written.
pub(super) fn pack(folder: &Path, bundle: &Path, redact: impl Fn(&str) -> String) -> Result<u64> {
    let parent = bundle.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = || -> Result<u64> {
        // Before there is a file of ours among them.
        let files = files(folder)?;
        let file = tempfile::NamedTempFile::new_in(parent)?;
        let mut archive = tar::Builder::new(zstd::Encoder::new(&file, LEVEL)?);
        let top = Path::new(folder.file_name().unwrap_or(folder.as_os_str()));
        let missing = add_files(&mut archive, &files, folder, top, redact)?;
        append(&mut archive, &top.join(MISSING), &missing)?;
        archive.into_inner()?.finish()?.flush()?;
        file.as_file().sync_all()?;
        let size = file.as_file().metadata()?.len();
        file.persist(bundle)?;
        Ok(size)
    };
    written().with_context(|| format!("failed to write `{}`", bundle.display()))
}

/// Adds every file, each from its end; gives the list of what is missing.
fn add_files(
    archive: &mut tar::Builder<impl Write>,
    files: &[PathBuf],
    folder: &Path,
    top: &Path,
    redact: impl Fn(&str) -> String,
) -> Result<String> {
    let (mut left, mut missing) = (MOST_IN_ALL, String::new());
    for path in files {
        let name = path.strip_prefix(folder)?;
        if name == Path::new(BUNDLE) {
            continue;
        }
        let bytes = fs_err::read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        if name == Path::new(FOLDER).join(MISSING) {
            missing.insert_str(0, &text);
            continue;
        }
        let text = last(&text, MOST_BYTES);
        if text.len() > left {
            missing.push_str(&format!("{}: the bundle would be too large\n", name.display()));
            continue;
        }
        left -= text.len();
        let text = if name.starts_with(FOLDER) { text.to_owned() } else { redact(text) };
        append(archive, &top.join(name), &text)?;
    }
    Ok(missing)
}

fn append(archive: &mut tar::Builder<impl Write>, name: &Path, text: &str) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default());
    Ok(archive.append_data(&mut header, name, text.as_bytes())?)
}

/// All files in the folder and below, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn unpacked(bundle: &Path) -> BTreeMap<String, String> {
        let file = fs_err::File::open(bundle).unwrap();
        let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
        let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn a_run_is_packed_with_a_list_of_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let bundle = run.join(BUNDLE);
        let write = |name: &str, text: &str| {
            let path = run.join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        write("report.json", "{\"key\": \"sesame\"}");
        write("evidence/edge/journal.log", "all is sesame");
        write("evidence/MISSING.txt", "hub/hub.log: it is gone\n");
        write("long.log", &"line\n".repeat(MOST_BYTES));
        for _ in 0..2 {
            let size = pack(&run, &bundle, |text| text.replace("sesame", "[redacted]")).unwrap();
            assert_eq!(size, fs_err::metadata(&bundle).unwrap().len());
        }
        let files = unpacked(&bundle);
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["run/MISSING.txt", "run/evidence/edge/journal.log", "run/long.log", "run/report.json"]
        );
        assert_eq!(files["run/report.json"], "{\"key\": \"[redacted]\"}");
        assert_eq!(files["run/evidence/edge/journal.log"], "all is sesame", "it was without secrets already");
        assert_eq!(files["run/MISSING.txt"], "hub/hub.log: it is gone\n");
        assert!(files["run/long.log"].len() <= MOST_BYTES);
    }

    #[test]
    fn a_bundle_that_cannot_be_written_is_told_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("none/bundle");
        let error = pack(folder.path(), &bundle, str::to_owned).unwrap_err();
        assert!(format!("{error:#}").contains("none/bundle"), "{error:#}");
    }
}
