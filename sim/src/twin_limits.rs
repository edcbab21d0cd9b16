//! What IoT Hub allows in a section of a twin: the hub refuses more, and the orchestrator tells it before.

/// The size of a section, as JSON.
pub const MAX_SECTION_BYTES: usize = 32 * 1024;
/// The size of the tags, as JSON.
pub const MAX_TAGS_BYTES: usize = 8 * 1024;
/// The levels of objects and arrays.
pub const MAX_DEPTH: usize = 10;
/// The length of a string.
pub const MAX_STRING_BYTES: usize = 4096;
const MAX_KEY_BYTES: usize = 1024;

/// Whether a property may be called that.
#[must_use]
pub fn is_key(key: &str) -> bool {
    let forbidden = |c: char| matches!(c, '.' | ' ' | '$') || c.is_control();
    !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.contains(forbidden)
}
