//! MQTT 3.1.1, as the hub, the gateway and the clients of this crate speak it.
//!
//! The packet codec is `rumqttc`'s; [`Connection`] puts it on any byte stream with a size limit and
//! typed errors, and [`Client`] is the client side of a connection.

mod client;
mod connection;
mod driver;
mod strict;

pub use client::{Client, ClientError, Incoming, Options};
pub use connection::{Connection, Error, Reader, Writer};
pub use rumqttc::mqttbytes::QoS;
pub use rumqttc::mqttbytes::v4 as packet;
pub use rumqttc::mqttbytes::v4::Packet;

/// The packet of the largest message, which is one that the gateway of an edge device forwards: it writes a topic of its
/// own for the body. The few bytes beside topic and body are the header.
pub const MAX_PACKET: usize = crate::topics::MAX_MESSAGE + crate::topics::MAX_TOPIC_LEN + 16;
