//! A value that is never printed.
