//! Variables of the environment with secrets, which are for this program alone.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::{Mutex, PoisonError};

static WITHHELD: Mutex<BTreeSet<OsString>> = Mutex::new(BTreeSet::new());

/// Keeps a variable from every child that is started from now on.
pub fn withhold(variable: &OsStr) {
    WITHHELD.lock().unwrap_or_else(PoisonError::into_inner).insert(variable.to_owned());
}

/// The variables that no child gets.
pub(super) fn all() -> BTreeSet<OsString> {
    WITHHELD.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    #[tokio::test]
    async fn a_variable_with_a_secret_is_not_handed_on() {
        let read = async || {
            Process::new("look", "sh").args(["-c", "echo \"$CARGO_PKG_NAME\""]).read().await.unwrap()
        };
        assert_eq!(read().await, "xtask\n");
        withhold(OsStr::new("CARGO_PKG_NAME"));
        assert_eq!(read().await, "\n");
    }
}
