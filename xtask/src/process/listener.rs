//! Somebody who hears what a child writes while it runs.

use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Longer than a line that anybody reads.
const MOST_BYTES: u64 = 4096;

/// Is told the last line.
#[derive(Clone)]
pub(super) struct Listener(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

impl Listener {
    pub(super) fn new(told: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    /// Tells the last line that has been written to the log behind `heard`, if there is one. Gives how far the log goes.
    pub(super) fn hear(&self, log: &Path, heard: u64) -> u64 {
        // One that cannot be read tells nothing, and the child goes on.
        let Ok((end, text)) = behind(log, heard) else { return heard };
        if let Some(line) = text.lines().rev().find(|line| !line.trim().is_empty()) {
            (self.0)(line);
        }
        end
    }
}

fn behind(log: &Path, heard: u64) -> std::io::Result<(u64, String)> {
    let mut file = fs_err::File::open(log)?;
    let end = file.metadata()?.len();
    if end <= heard {
        return Ok((heard, String::new()));
    }
    file.seek(SeekFrom::Start(heard.max(end.saturating_sub(MOST_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok((end, String::from_utf8_lossy(&bytes).into_owned()))
}
