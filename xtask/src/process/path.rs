//! Where programs are.

use std::path::{Path, PathBuf};

/// Finds `program` on `PATH`.
#[must_use]
pub fn find_on_path(program: impl AsRef<Path>) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(&program)).find(|candidate| {
        fs_err::metadata(candidate).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}
