//! Where a secret is read from: a file, standard input, or an environment variable. Never an argument, which every
//! process of the machine may read and every shell keeps.

use std::convert::Infallible;
use std::fmt;
use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::str::FromStr;

use kedge_sim::secret::Secret;

use crate::process;

/// More than any key or certificate chain has.
const MOST_BYTES: u64 = 256 * 1024;
const VARIABLE: &str = "env:";

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `-`: standard input.
    Stdin,
    /// `env:NAME`: an environment variable.
    Variable(String),
    /// Everything else: a file.
    File(PathBuf),
    /// What was typed is no place but the secret itself, which is not kept.
    Itself,
}

/// A secret that could not be read. Nothing of it is told.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct InputError {
    what: String,
    #[source]
    source: Option<std::io::Error>,
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let is_secret =
            ["SharedAccessKey", "AccountKey", "-----BEGIN"].iter().any(|mark| text.contains(mark));
        Ok(match text.strip_prefix(VARIABLE) {
            _ if is_secret => Self::Itself,
            _ if text == "-" => Self::Stdin,
            Some(name) => Self::Variable(name.to_owned()),
            None => Self::File(text.into()),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::Variable(name) => write!(f, "the environment variable `{name}`"),
            Self::File(path) => write!(f, "`{}`", path.display()),
            Self::Itself => f.write_str("the command line"),
        }
    }
}

impl Source {
    /// Reads the secret that is called `what`, as text without the space around it.
    ///
    /// # Errors
    /// When it is not there, is empty, too long, or no text.
    pub fn read(&self, what: &str) -> Result<Secret, InputError> {
        let error = |why: &str, source| {
            Err(InputError { what: format!("{what} could not be read from {self}: {why}"), source })
        };
        let bytes = match self {
            Self::Itself => {
                let why =
                    "an argument can be seen by others; give a file, `-` for standard input, or `env:NAME`";
                return error(why, None);
            }
            Self::Variable(name) => {
                // What the tool starts has no business with it.
                process::withhold(name.as_ref());
                match std::env::var_os(name) {
                    Some(value) => Ok(value.into_encoded_bytes()),
                    None => return error("it is not set", None),
                }
            }
            Self::Stdin if std::io::stdin().is_terminal() => {
                return error("it is a terminal; pipe the secret in", None);
            }
            Self::Stdin => read_all(std::io::stdin().lock()),
            // The path is told already.
            Self::File(path) => fs_err::File::open(path).map(fs_err::File::into_file).and_then(read_all),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(source) => return error("it cannot be read", Some(source)),
        };
        if bytes.len() as u64 > MOST_BYTES {
            return error("there is far more in it than a secret", None);
        }
        match String::from_utf8(bytes) {
            Ok(text) if text.trim().is_empty() => error("it is empty", None),
            Ok(text) => Ok(Secret::new(text.trim())),
            Err(_) => error("it is no text", None),
        }
    }
}

/// One byte more than is allowed, so that too much is noticed.
fn read_all(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse().unwrap_or(Source::Itself)
    }

    #[test]
    fn a_place_is_told_from_the_secret_itself() {
        assert_eq!(source("-"), Source::Stdin);
        assert_eq!(source("env:EVENTS"), Source::Variable("EVENTS".into()));
        assert_eq!(source("events.txt"), Source::File("events.txt".into()));
        let typed = source("Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=czNjcmV0");
        assert!(!format!("{typed} {typed:?}").contains("czNjcmV0"));
        let error = typed.read("the connection string").unwrap_err().to_string();
        assert!(error.contains("can be seen by others") && !error.contains("czNjcmV0"), "{error}");
    }

    #[test]
    fn a_file_is_read_without_the_space_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs_err::write(&path, "  s3cret\r\n").unwrap();
        let from = Source::File(path.clone());
        assert_eq!(from.read("the key").unwrap().expose(), "s3cret");
        for (contents, expected) in
            [(" \n".into(), "empty"), (vec![0xff], "no text"), (vec![b'a'; 300_000], "far more")]
        {
            fs_err::write(&path, contents).unwrap();
            let error = from.read("the key").unwrap_err().to_string();
            assert!(
                error.starts_with("the key could not be read from `") && error.contains(expected),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_its_place() {
        let error = source("env:KEDGE_NO_SUCH_VARIABLE").read("the key").unwrap_err().to_string();
        assert_eq!(
            error,
            "the key could not be read from the environment variable `KEDGE_NO_SUCH_VARIABLE`: it is not set"
        );
        assert!(source("/no/such/file").read("the key").is_err());
    }
}
