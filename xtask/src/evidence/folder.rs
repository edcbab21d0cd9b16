//! The folder into which evidence is put: each source is bounded in time and size, and one that cannot be read leaves a line.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::redact::redact;
use crate::context::Context;
use crate::provisioning::Redaction;

/// How long a source may take.
pub(super) const LIMIT: Duration = Duration::from_secs(6);
/// How much of a source is kept, from its end.
pub(super) const MOST_BYTES: usize = 512 * 1024;

/// Where evidence is put, without secrets.
pub(super) struct Folder<'a> {
    context: &'a Context,
    path: PathBuf,
    /// What the tool has not made itself and could find out.
    found: Redaction,
    missing: Mutex<Vec<String>>,
}

impl<'a> Folder<'a> {
    /// An empty folder below that of the run.
    pub(super) fn make(context: &'a Context, found: Redaction) -> Result<Self> {
        let path = context.run_folder.join(super::FOLDER);
        fs_err::create_dir_all(&path)?;
        Ok(Self { context, path, found, missing: Mutex::default() })
    }

    /// Keeps what a source gives as the file `name`; what cannot be read is noted with the reason. Gives what was read,
    /// as it was.
    pub(super) async fn keep(
        &self,
        name: &str,
        source: impl Future<Output = Result<String>>,
    ) -> Option<String> {
        let text = self.ask(name, source).await?;
        match self.write(name, &text) {
            Ok(()) => Some(text),
            Err(error) => {
                self.miss(name, &format!("{error:#}"));
                None
            }
        }
    }

    /// What a source gives, within its time; what cannot be read is noted as the lack of `name`.
    pub(super) async fn ask<T>(&self, name: &str, source: impl Future<Output = Result<T>>) -> Option<T> {
        match tokio::time::timeout(LIMIT, source).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => self.miss(name, &format!("{error:#}")),
            Err(_) => self.miss(name, &format!("did not answer within {} s", LIMIT.as_secs())),
        }
        None
    }

    /// Notes why something is not there.
    pub(super) fn miss(&self, name: &str, reason: &str) {
        let reason = self.redact(reason).split_whitespace().collect::<Vec<_>>().join(" ");
        self.missing().push(format!("{name}: {reason}"));
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        Ok(fs_err::write(path, self.redact(last(text, MOST_BYTES)))?)
    }

    fn redact(&self, text: &str) -> String {
        redact(text, &|text: &str| self.found.apply(&self.context.redact(text)))
    }

    /// Writes the list of what is missing, also when it is empty: then nothing is.
    pub(super) fn close(&self) -> Result<()> {
        let mut lines = self.missing().clone();
        lines.sort();
        let text = if lines.is_empty() { "nothing is missing\n".into() } else { lines.join("\n") + "\n" };
        Ok(fs_err::write(self.path.join(super::MISSING), text)?)
    }

    fn missing(&self) -> MutexGuard<'_, Vec<String>> {
        // A panic elsewhere leaves at worst an incomplete list.
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a text, from the beginning of a line.
pub(super) fn last(text: &str, most: usize) -> &str {
    let Some(cut) = text.len().checked_sub(most).filter(|cut| *cut > 0) else { return text };
    let from = text.as_bytes()[cut..].iter().position(|byte| *byte == b'\n').map_or(cut, |at| cut + at + 1);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_begins_with_a_line() {
        for (text, most, expected) in [
            ("", 3, ""),
            ("one\ntwo\n", 100, "one\ntwo\n"),
            ("one\ntwo\n", 8, "one\ntwo\n"),
            ("one\ntwo\n", 6, "two\n"),
            ("äää", 3, "ä"),
            ("one", 0, ""),
        ] {
            assert_eq!(last(text, most), expected, "{text:?} {most}");
        }
    }
}
