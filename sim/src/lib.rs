//! Everything that KEdge needs to prove a deployment without an Azure account: a local IoT Hub that
//! verifies its clients, a small edge runtime, and the simulated temperature sensor.

pub mod database;
pub mod edge;
pub mod http;
pub mod hub;
pub mod identity;
mod json;
pub mod load;
pub mod module_client;
pub mod mqtt;
mod percent;
pub mod pki;
pub mod process;
mod random;
pub mod retry;
pub mod sas;
pub mod secret;
pub mod sensor;
pub mod service;
pub mod tls;
pub mod topics;
pub mod twin_limits;
pub mod unix_http;
pub mod websocket;
pub mod x509;
