//! Load: what publishes as fast as a server takes it, for measurements, and a producer that never forgets what was
//! acknowledged, for proofs that nothing is lost.

pub mod generator;
pub mod ledger;
pub mod producer;

pub use generator::{Clients, Figures, Target};
pub use ledger::Ledger;
pub use producer::Producer;
