//! Reading a file that a user names or edits, whatever it turns out to be: a folder, a device, a pipe, something huge or
//! something that is not text. Nothing here blocks, and nothing reads without a limit.

use std::io::Read;
use std::path::Path;

use crate::problems::{Position, Problem};

/// Far more than any of these files needs.
pub(crate) const LIMIT: u64 = 1024 * 1024;

/// Reads the file, which is called `name` in the problem that there may be.
///
/// # Errors
/// When it is not a readable text of at most 1 MiB.
pub fn read(path: &Path, name: &str) -> Result<String, Problem> {
    String::from_utf8(read_bytes(path, name)?).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let what = "this is not UTF-8 text; save the file as UTF-8".into();
        Problem { file: name.to_owned(), at: Some(Position::of(&text, valid)), text: what }
    })
}

/// The same for a file that need not be text.
///
/// # Errors
/// When it is not a readable file of at most 1 MiB.
pub fn read_bytes(path: &Path, name: &str) -> Result<Vec<u8>, Problem> {
    let problem = |text: String| Problem { file: name.to_owned(), at: None, text };
    let failed = |error: std::io::Error| problem(reason(&error));
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(problem("this is a folder; a file is needed".into()));
    }
    if !metadata.is_file() {
        return Err(problem("this is not a regular file".into()));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LIMIT {
        return Err(problem("this is larger than 1 MiB, so it cannot be the right file".into()));
    }
    Ok(bytes)
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied: you may not read this file".into(),
        _ => format!("failed to read this file: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        read(path, "f").unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_a_file_is_refused_without_being_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(refusal(folder.path()), "f: this is a folder; a file is needed");
        assert_eq!(refusal(Path::new("/dev/zero")), "f: this is not a regular file");
        assert_eq!(refusal(&folder.path().join("none")), "f: there is no such file");
    }

    #[test]
    fn only_text_of_a_sensible_size_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs_err::write(&path, b"ab\ncd\xff").unwrap();
        assert_eq!(refusal(&path), "f:2:3: this is not UTF-8 text; save the file as UTF-8");
        let large = vec![b'#'; 1024 * 1024];
        fs_err::write(&path, &large).unwrap();
        assert_eq!(read(&path, "f").unwrap().len(), large.len());
        fs_err::write(&path, [large, vec![b'#']].concat()).unwrap();
        assert!(refusal(&path).contains("larger than 1 MiB"));
    }
}
