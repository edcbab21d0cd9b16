//! Looking for a key where it must not be, in each form in which it travels.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use assert_cmd::Command;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use xtask::wait::{Observation, wait_for};

use crate::harness::{LIMIT, engine, files};

/// A key that is found wherever it is.
pub(crate) struct Marked {
    forms: Vec<String>,
}

impl Marked {
    pub(crate) fn new(key: &[u8]) -> Self {
        let text = STANDARD.encode(key);
        let escaped = |plus, slash, equals| text.replace('+', plus).replace('/', slash).replace('=', equals);
        let forms = vec![
            String::from_utf8(key.to_vec()).unwrap(),
            STANDARD_NO_PAD.encode(key),
            URL_SAFE_NO_PAD.encode(key),
            escaped("%2B", "%2F", "%3D"),
            escaped("%2b", "%2f", "%3d"),
            hex::encode(key),
            STANDARD_NO_PAD.encode(&text),
        ];
        assert!(text.contains('+') && text.contains('/') && text.contains('='), "{text}");
        Self { forms }
    }

    pub(crate) fn forms(&self) -> &[String] {
        &self.forms
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        self.forms.iter().any(|form| text.contains(form))
    }

    pub(crate) fn is_not_in(&self, place: &str, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "there is nothing in {place}");
        assert!(!self.is_in(bytes), "the key is in {place}");
    }

    /// No file of the folder has it.
    pub(crate) fn is_not_in_folder(&self, what: &str, folder: &Path) {
        self.is_in_no_file_but(what, folder, &[]);
    }

    /// Of the files of the folder, only these have it.
    pub(crate) fn is_in_no_file_but(&self, what: &str, folder: &Path, expected: &[&str]) {
        let files = files(folder);
        assert!(!files.is_empty(), "{what} has no files");
        let having = files.iter().filter(|path| self.is_in(&fs_err::read(path).unwrap()));
        let mut having: Vec<_> =
            having.map(|path| path.strip_prefix(folder).unwrap().to_str().unwrap()).collect();
        having.sort_unstable();
        assert_eq!(having, expected, "{what}");
    }

    /// No layer of an image has it. The engine writes the layers as they are, not compressed.
    pub(crate) fn is_not_in_image(&self, reference: &str) {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        let [archive, patterns] =
            [archive, folder.path().join("forms")].map(|path| path.to_str().unwrap().to_owned());
        engine(&["save", "--output", &archive, reference]);
        fs_err::write(&patterns, self.forms.join("\n")).unwrap();
        let count = |patterns: &str| {
            let mut grep = Command::new("grep");
            grep.args(["--count", "--text", "--fixed-strings", "--file", patterns, &archive])
                .env("LC_ALL", "C");
            String::from_utf8(grep.output().unwrap().stdout).unwrap().trim().parse::<u64>().unwrap()
        };
        assert_eq!(count(&patterns), 0, "the key is in a layer of {reference}");
        // The layers can be read: what stands in the entrypoint is found.
        fs_err::write(&patterns, "kedge-credentials").unwrap();
        assert!(count(&patterns) > 0, "the layers of {reference} are compressed");
    }

    /// No process of this machine has it in its environment or its arguments while `work` goes on.
    pub(crate) fn is_in_no_process_during(&self, work: impl FnOnce() + Send) {
        let looks = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let work = scope.spawn(work);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let look = || async {
                for path in processes() {
                    // One that has ended meanwhile cannot be read.
                    let Ok(bytes) = fs_err::read(&path) else { continue };
                    if self.is_in(&bytes) {
                        return Observation::Failed(format!("the key is in {}", path.display()));
                    }
                    looks.fetch_add(1, Ordering::Relaxed);
                }
                if work.is_finished() {
                    Observation::Ready(())
                } else {
                    Observation::NotYet("it runs".into())
                }
            };
            runtime.block_on(wait_for("the end of the command", LIMIT, look)).unwrap();
            work.join().unwrap();
        });
        assert!(looks.into_inner() > 0, "no process was looked at");
    }
}

/// Environments and arguments of all processes but this one.
fn processes() -> impl Iterator<Item = PathBuf> {
    let own = std::process::id().to_string();
    let folders = fs_err::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let others = folders.filter(move |path| path.file_name().is_some_and(|name| *name != *own));
    others.flat_map(|path| ["environ", "cmdline"].map(|name| path.join(name)))
}
