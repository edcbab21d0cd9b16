//! The hub over real TLS: a hub on free ports, and clients that know nothing of its inside.

#[cfg(test)]
mod device_scope;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod enrollments;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod identity_rest;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod mqtt_refusals;
#[cfg(test)]
mod mqtt_session;
#[cfg(test)]
mod program;
#[cfg(test)]
mod provisioning;
#[cfg(test)]
mod service_rest;
#[cfg(test)]
mod storage_trouble;
#[cfg(test)]
mod websockets;
#[cfg(test)]
mod x509;
