//! Property tests: what is written is read back the same, whatever the names, the values and the order; and what is
//! not for somebody is refused to them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bags;
mod tokens;
mod topics;

use proptest::prelude::*;

/// Any id that IoT Hub allows.
fn id() -> impl Strategy<Value = String> {
    r"[A-Za-z0-9\-:.+%_#*?!(),=@$']{1,128}"
}

/// Any text, with the characters that mean something in a topic more often than by chance.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), r"[a-z$.%/?&=#+ \x00üß🦀]{0,24}"]
}

/// A request id as a client may choose it.
fn request_id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9-]{1,40}"
}
