//! What a user gets wrong, typed and edited, through the real program: exit code, place, what to do, nothing made, and no
//! secret told. Nothing here needs an engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod config;
mod deployment;
mod device;
mod engine;
mod events;
mod kubeconfig;
mod machine;
mod packages;
mod settings;
mod support;
