//! MQTT 3.1.1, as the hub, the gateway and the clients of this crate speak it.
//!
//! The packet codec is `rumqttc`'s; [`Connection`] puts it on any byte stream with a size limit and
//! typed errors, and [`Client`] is the client side of a connection.

mod client;
mod connection;
mod driver;

pub use client::{Client, ClientError, Incoming, Options};
pub use connection::{Connection, Error, Reader, Writer};
pub use rumqttc::mqttbytes::v4 as packet;
pub use rumqttc::mqttbytes::v4::Packet;
pub use rumqttc::mqttbytes::{Protocol, QoS};

/// The packet of the largest message of IoT Hub: the few bytes beside topic and body are its header.
pub const MAX_PACKET: usize = crate::topics::MAX_MESSAGE + 16;
