//! One invocation at a time changes a deployment: the lock, and who holds it.
//!
//! The kernel keeps the lock and frees it with the process, however that ends. Who holds it is written into the file for
//! the others to read, and is told only of a process that is still the one that wrote it.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::exit::Busy;
use crate::paths::private_folder;
use crate::process::quote;

/// More than a holder writes.
const MOST_BYTES: u64 = 4096;

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

/// Who holds a lock.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    /// When the process began, in the kernel's ticks: another process may get the same number later.
    began: u64,
    command: String,
    since: Timestamp,
}

impl Lock {
    /// Takes the lock of the deployment `name`, which is the file `path`.
    ///
    /// # Errors
    /// [`Busy`] when another process holds it; else when the file cannot be made.
    pub fn take(path: &Path, name: &str) -> Result<Self> {
        private_folder(path.parent().unwrap_or(path))?;
        let options =
            fs_err::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let mut file = options?.into_file();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Busy(described(name, holder(&mut file))).into()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("failed to lock `{}`", path.display()));
            }
        }
        // Whoever reads in between finds the one before, which has ended.
        if let Some(holder) = Holder::this() {
            let written = file.set_len(0).and_then(|()| file.write_all(holder.to_text().as_bytes()));
            written.with_context(|| format!("failed to write `{}`", path.display()))?;
        }
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // This process may go on for long without the lock. One that cannot be emptied is judged by its process.
        let _ = self.0.set_len(0);
    }
}

impl Holder {
    fn this() -> Option<Self> {
        let pid = std::process::id();
        let command = std::env::args_os().skip(1).map(|arg| quote(&arg)).collect::<Vec<_>>().join(" ");
        Some(Self { pid, began: began(pid)?, command, since: Timestamp::now() })
    }

    fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// Who holds the lock, if the file says so and that process is still there.
fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    let holder: Holder = serde_json::from_str(&text).ok()?;
    (began(holder.pid) == Some(holder.began)).then_some(holder)
}

/// When a process began, in the kernel's ticks since the machine did.
fn began(pid: u32) -> Option<u64> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses, and may have some itself.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn described(name: &str, holder: Option<Holder>) -> String {
    let Some(holder) = holder else { return format!("`{name}`") };
    let Holder { pid, command, since, .. } = holder;
    format!(
        "`{name}`: process {pid}, `cargo xtask {command}`, since {}",
        since.strftime("%Y-%m-%d %H:%M:%SZ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        Lock::take(path, "lab").unwrap_err().downcast::<Busy>().unwrap().to_string()
    }

    #[test]
    fn who_holds_a_lock_is_told_and_after_that_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/lab.lock");
        let lock = Lock::take(&path, "lab").unwrap();
        let told = refusal(&path);
        let pid = std::process::id();
        assert!(
            told.contains(&format!("`lab`: process {pid}, `cargo xtask ")) && told.contains("since 2"),
            "{told}"
        );
        drop(lock);
        assert_eq!(fs_err::read(&path).unwrap(), b"");
        drop(Lock::take(&path, "lab").unwrap());
    }

    #[test]
    fn one_that_has_ended_is_never_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.lock");
        let lock = Lock::take(&path, "lab").unwrap();
        let bare = "another `cargo xtask` is at work on `lab`; wait for its end";
        let mut stale = Holder::this().unwrap();
        stale.began += 1;
        for text in [stale.to_text(), "{".into(), "\u{0}".into(), String::new(), "x".repeat(10_000)] {
            fs_err::write(&path, text).unwrap();
            assert_eq!(refusal(&path), bare);
        }
        drop(lock);
        // Nor does what a killed one has left keep anybody from working.
        fs_err::write(&path, stale.to_text()).unwrap();
        drop(Lock::take(&path, "lab").unwrap());
    }
}
