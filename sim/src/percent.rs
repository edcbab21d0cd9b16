//! Percent encoding of names and values in paths, tokens and topics, as Python's `quote(…, safe="")` does it:
//! everything but letters, digits and `-._~` is escaped, so the result fits any of them.

use std::borrow::Cow;
use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A dollar sign is allowed in a path, and the identity service of IoT Edge leaves it as it is.
const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED.remove(b'$');

/// The encoded text.
pub(crate) fn encode(text: &str) -> impl Display {
    utf8_percent_encode(text, ESCAPED)
}

/// The text as a segment of a path, with `$` as it is.
pub(crate) fn encode_segment(text: &str) -> impl Display {
    utf8_percent_encode(text, ESCAPED_IN_PATH)
}

/// The decoded text, when it is UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().map(Cow::into_owned).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        let text = "aZ09-._~ $/%+ü";
        let encoded = encode(text).to_string();
        assert_eq!(encoded, "aZ09-._~%20%24%2F%25%2B%C3%BC");
        assert_eq!(decode(&encoded).as_deref(), Some(text));
        assert_eq!(encode_segment(text).to_string(), "aZ09-._~%20$%2F%25%2B%C3%BC");
    }

    #[test]
    fn broken_escapes_stay_and_broken_utf8_is_refused() {
        assert_eq!(decode("a%x%2").as_deref(), Some("a%x%2"));
        assert_eq!(decode("%ff"), None);
    }
}
