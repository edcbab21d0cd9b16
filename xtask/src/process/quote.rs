//! Words as they would be typed in a shell.

use std::ffi::OsStr;

/// The word as one would type it in a shell.
#[must_use]
pub fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
        let quoted = |word: &str| quote(OsStr::new(word));
        assert_eq!(quoted("--tail=5"), "--tail=5");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("two words; $HOME"), "'two words; $HOME'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
