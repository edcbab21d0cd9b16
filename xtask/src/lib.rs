//! The orchestrator of KEdge: builds the images, makes the cluster, the registry and the hub, deploys, and
//! proves that telemetry arrives. `ARCHITECTURE.md` is the map.

pub mod bench;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod connections;
pub mod context;
pub mod credentials;
pub mod edge;
pub mod edge_config;
pub mod engine;
pub mod engines;
pub mod evidence;
pub mod execute;
pub mod exit;
pub mod image_reference;
pub mod images;
pub mod inputs;
pub mod observe;
pub mod paths;
pub mod place;
pub mod plan;
pub mod preflight;
pub mod preview;
pub mod problems;
pub mod process;
pub mod progress;
pub mod report;
pub mod room;
pub mod session;
pub mod settings;
pub mod sources;
pub mod steps;
pub mod text_file;
pub mod verify;
pub mod wait;
