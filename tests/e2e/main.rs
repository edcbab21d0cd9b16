//! The real thing: engine, cluster, registry, hub, pod, telemetry. `cargo xtask test` runs these tests, one
//! after the other; plain `cargo test` leaves them out, because they need a container engine and minutes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod arrival;
mod azure_image;
mod bundle;
mod converge;
mod deploy;
mod dockerd;
mod harness;
mod host;
mod obstacles;
mod packages;
mod provisioning;
mod sdk;
#[path = "../arrival/stand_in.rs"]
mod stand_in;
mod whole;
