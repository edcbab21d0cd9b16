//! The Device Provisioning Service, on the same listeners as the hub.
//!
//! A device that has only an id scope and a proof of who it is registers here and is told its hub and its id. Who may
//! register is an enrolment, of one device or of a group, in the JSON form of the service interface. The hub that
//! devices are assigned to is always this one.

mod enrollment;
mod errors;
mod mqtt;
mod registration;
mod rest;

pub(super) use mqtt::{End, is_registration, serve};
pub(super) use registration::Provisioning;
pub(super) use rest::{device_routes, service_routes};

use std::fmt;

use crate::random;

/// Registration ids have at most this many characters.
const MAX_ID: usize = 128;

/// Checks a registration id or the id of a group: letters, digits and some punctuation, which is not at an end.
fn is_valid_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let at_ends = [id.as_bytes().first(), id.as_bytes().last()];
    id.len() <= MAX_ID
        && id.bytes().all(allowed)
        && at_ends.into_iter().all(|byte| byte.is_some_and(u8::is_ascii_alphanumeric))
}

/// Ids are compared without regard to case.
fn canonical(id: &str) -> String {
    id.to_ascii_lowercase()
}

/// A random id in the form of a UUID. Without randomness it is all zeros, which only makes a log harder to read.
fn new_uuid() -> String {
    let mut bytes = random::bytes::<16>().unwrap_or_default();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let part = |range: std::ops::Range<usize>| Hex(bytes.get(range).unwrap_or_default()).to_string();
    [part(0..4), part(4..6), part(6..8), part(8..10), part(10..16)].join("-")
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_the_service_allows() {
        for id in ["a", "Reg-1", "a.b_c:d-e", &"x".repeat(MAX_ID)] {
            assert!(is_valid_id(id), "{id:?}");
        }
        for id in ["", "-a", "a.", "a b", "a/b", "ä", "a$", &"x".repeat(MAX_ID + 1)] {
            assert!(!is_valid_id(id), "{id:?}");
        }
    }

    #[test]
    fn uuids_have_the_form_of_version_4_and_differ() {
        let (one, two) = (new_uuid(), new_uuid());
        assert_ne!(one, two);
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(one.as_bytes()[14], b'4');
    }
}
