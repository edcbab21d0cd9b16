//! Where a secret is read from: a file, standard input or a variable of the environment, and never an argument, which every
//! user of the machine can see.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use kedge_sim::secret::Secret;

use crate::exit::Usage;
use crate::problems::Problem;
use crate::process;
use crate::provisioning::{Given, UnusableCredentials, looks_like_a_secret};
use crate::text_file;

/// What stands in the help.
pub const VALUE: &str = "FILE|-|env:NAME";
const REFUSED: &str = "a secret is never an argument, where others can see it: give the name of a file, `-` for standard \
                       input, or `env:NAME` for a variable, and take this one for known to others";

/// Where something is read from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Input,
    /// A variable of the environment.
    Variable(OsString),
}

impl Source {
    /// What was typed. A secret in its place is refused and not repeated.
    ///
    /// # Errors
    /// [`Usage`].
    pub fn of(typed: &OsStr) -> Result<Self, Usage> {
        let text = typed.to_string_lossy();
        if text == "-" {
            return Ok(Self::Input);
        }
        let variable = text.strip_prefix("env:");
        if looks_like_a_secret(variable.unwrap_or(&text)) && !Path::new(typed).exists() {
            return Err(Usage(REFUSED.into()));
        }
        match variable {
            Some(name) if is_variable(name) => Ok(Self::Variable(name.into())),
            Some(_) => Err(Usage("behind `env:` stands the name of a variable, without `$`".into())),
            None => Ok(Self::File(typed.into())),
        }
    }

    /// Reads a secret that is a text, without the blanks at its ends.
    ///
    /// # Errors
    /// As [`Source::read`]; [`UnusableCredentials`] when it is not there, or no text.
    pub async fn read_text(&self) -> Result<Secret> {
        let problem = match self.read(true).await? {
            Ok(given) => match given.text() {
                Some("") => Problem { file: given.place, at: None, text: "it is empty".into() },
                Some(text) => return Ok(Secret::new(text)),
                None => Problem { file: given.place, at: None, text: "it is no text".into() },
            },
            Err(problem) => problem,
        };
        Err(UnusableCredentials { problems: vec![problem] }.into())
    }

    /// Reads it, and tells when others can read it as well.
    ///
    /// # Errors
    /// A [`Usage`] for a terminal, else a [`Problem`].
    pub async fn read(&self, is_secret: bool) -> Result<Result<Given, Problem>> {
        let place = match self {
            Self::File(path) => path.display().to_string(),
            Self::Input => "standard input".into(),
            Self::Variable(name) => format!("the variable {}", name.display()),
        };
        let problem = |text: &str| Problem { file: place.clone(), at: None, text: text.into() };
        let bytes = match self {
            Self::File(path) => text_file::read_bytes(path, &place).inspect(|_| {
                if is_secret {
                    warn_of_readers(path);
                }
            }),
            Self::Input if std::io::stdin().is_terminal() => {
                return Err(Usage(
                    "standard input is the terminal, which would show the secret: lead a file or a program into it, as in \
                     `read -rs KEY; printf %s \"$KEY\" | cargo xtask device …`"
                        .into(),
                )
                .into());
            }
            Self::Input => input().await?.map_err(|text| problem(&text)),
            Self::Variable(name) => {
                // What the tool starts has no business with it.
                process::withhold(name);
                let value = std::env::var_os(name);
                value.map(OsString::into_encoded_bytes).ok_or_else(|| problem("it is not set"))
            }
        };
        Ok(bytes.map(|bytes| Given::new(place, bytes)))
    }
}

/// Refuses what stands where nothing belongs: a secret in it must not be repeated, as the parser of the command line would.
///
/// # Errors
/// [`Usage`].
pub fn refuse_stray(stray: &[OsString]) -> Result<(), Usage> {
    match stray.first() {
        None => Ok(()),
        Some(_) => Err(Usage(REFUSED.into())),
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn warn_of_readers(path: &Path) {
    let mode = fs_err::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
    if mode & 0o044 != 0 {
        let path = process::quote(path.as_os_str());
        eprintln!("warning: {path}: other users may read this file; `chmod 600 {path}` takes that from them");
    }
}

/// Reads standard input to its end, in a thread that does not hinder the end of the program.
async fn input() -> Result<Result<Vec<u8>, String>> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(text_file::LIMIT + 1).read_to_end(&mut bytes);
        let _ = send.send(read.map(|_| bytes));
    });
    let bytes = match receive.await? {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Err(format!("it cannot be read: {error}"))),
    };
    let is_too_long = bytes.len() as u64 > text_file::LIMIT;
    Ok(if is_too_long {
        Err("this is more than 1 MiB, so it cannot be the right thing".into())
    } else {
        Ok(bytes)
    })
}

/// Nothing says where the secret is.
pub fn missing_source() -> Usage {
    Usage(format!(
        "`--from {VALUE}` is missing: a file, standard input or a variable from which the secret is read"
    ))
}

/// Standard input can be read once.
pub fn only_one_input() -> Usage {
    Usage("only one thing can come from standard input (`-`)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Source, String> {
        Source::of(OsStr::new(text)).map_err(|usage| usage.to_string())
    }

    #[test]
    fn a_source_is_a_file_or_standard_input_or_a_variable() {
        assert_eq!(of("-"), Ok(Source::Input));
        assert_eq!(of("env:DEVICE_KEY"), Ok(Source::Variable("DEVICE_KEY".into())));
        assert_eq!(of("/run/secrets/key"), Ok(Source::File("/run/secrets/key".into())));
        assert!(of("env:$KEY").unwrap_err().contains("without `$`"));
        assert!(of("env:").is_err());
    }

    #[test]
    fn a_secret_in_the_place_of_its_source_is_refused_and_not_repeated() {
        let key = "kR7Zq0WmT2xY9bLpVd4sNgAh+uJ6cE1f";
        for text in [
            key.to_owned(),
            format!("env:{key}"),
            format!("HostName=h;DeviceId=d;SharedAccessKey={key}"),
            "-----BEGIN PRIVATE KEY-----".into(),
        ] {
            let told = of(&text).unwrap_err();
            assert!(told.contains("never an argument") && !told.contains(key), "{told}");
        }
    }
}
