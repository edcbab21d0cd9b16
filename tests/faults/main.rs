//! Every way to fail, caused for real: which layer is named, why, how soon, and that nothing is left behind.
//! `cargo xtask test --faults` runs these tests, one after the other; they take too long for every change.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the end-to-end tests use all of it")]
#[path = "../e2e/bundle.rs"]
mod bundle;
mod deployment;
#[allow(dead_code, reason = "the end-to-end tests use all of it")]
#[path = "../e2e/harness.rs"]
mod harness;
mod interruption;
mod messages;
mod verdicts;
mod world;
