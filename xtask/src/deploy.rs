//! To a cluster of somebody else.

pub mod target;
