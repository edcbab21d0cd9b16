//! The simulated IoT Edge runtime: one daemon that does the work of the identity service, of
//! edgeAgent and of edgeHub, on the same files, sockets, topics and engine objects.

pub mod config;
mod connection_string;
pub mod container;
pub mod deployment;
pub mod docker;
pub mod engine;
pub mod identity;
pub mod planner;
pub mod state;
