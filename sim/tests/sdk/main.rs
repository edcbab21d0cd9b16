//! Microsoft's SDK for Python, unmodified, against the real programs on the ports that it knows.
//!
//! Everything listens on a loopback address of its own, so that nothing is in the way. The tests install the SDK and are left
//! out by `cargo test`; `cargo xtask test` runs them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod device;
mod gateway;
mod hub;
mod leaf;
#[path = "../../../tests/python/sdk.rs"]
mod python;
mod sdk;
