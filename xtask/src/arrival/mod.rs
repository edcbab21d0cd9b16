//! Arrival at the user's IoT Hub: what it says has arrived is read from its Event-Hub-compatible endpoint, with the
//! connection string that the user gives, or that `az` can ask for.
//!
//! Microsoft's own client is not used, because it takes no shared access key; the library underneath it is.

pub mod az;
mod connection_string;
mod message;
mod reader;
mod request;
mod trouble;

pub use self::connection_string::{ConnectionStringError, EventHub};
pub use self::reader::{ReadError, Reader, Sender};
