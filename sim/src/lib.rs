//! Everything that KEdge needs to prove a deployment without an Azure account: a local IoT Hub that
//! verifies its clients, a small edge runtime, and the simulated temperature sensor.

pub mod mqtt;
pub mod secret;
