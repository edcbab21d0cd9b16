//! A value that is never printed.
//!
//! Keys, tokens and connection strings are carried as [`Secret`], so that a log line or an error that shows a
//! structure by mistake shows `[redacted]`. There is no `Serialize`: whoever writes a secret to a file does it
//! on purpose, through [`Secret::expose`].

use std::fmt;

use serde::Deserialize;

/// Text that `Debug` and `Display` never show.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. The name makes every use easy to find.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// The message of a parser without the values that it quotes, which may be secrets in a wrong place.
pub fn without_quoted_text(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}\"…\"{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_redacted_in_debug_and_display() {
        let secret = Secret::new("c2VjcmV0");
        assert_eq!(format!("{secret} {secret:?} {:#?}", Some(&secret)).matches("c2VjcmV0").count(), 0);
        assert_eq!(secret.to_string(), "[redacted]");
        assert_eq!(secret.expose(), "c2VjcmV0");
    }

    #[test]
    fn a_secret_is_read_from_plain_text() {
        let secret: Secret = serde_json::from_str(r#""a key""#).unwrap();
        assert_eq!(secret.expose(), "a key");
    }

    #[test]
    fn what_a_parser_quotes_is_left_out() {
        let cleaned = without_quoted_text("invalid type: string \"a \"key\"\", expected a table");
        assert_eq!(cleaned, "invalid type: string \"…\", expected a table");
        for unchanged in ["missing field `source`", "one \" only", ""] {
            assert_eq!(without_quoted_text(unchanged), unchanged);
        }
    }
}
