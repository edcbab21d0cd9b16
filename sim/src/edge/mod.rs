//! The simulated IoT Edge runtime: one daemon that does the work of the identity service, of
//! edgeAgent and of edgeHub, on the same files, sockets, topics and engine objects.

pub mod agent;
mod api;
pub mod backup;
pub mod board;
pub mod condition;
pub mod config;
mod connection_string;
pub mod container;
pub mod daemon;
pub mod deployment;
pub mod docker;
pub mod engine;
pub mod forwarder;
pub mod gateway;
pub mod health;
pub mod identity;
pub mod link;
pub mod logging;
pub mod logs;
pub mod management;
pub mod methods;
pub mod notify;
pub mod planner;
pub mod provisioning;
pub mod reported;
pub mod routes;
pub mod scope;
pub mod seal;
pub mod spool;
pub mod state;
pub mod steps;
pub mod supervisor;
pub mod workload;
