//! What goes to a client with QoS 1, until the client has acknowledged it.

use std::collections::BTreeMap;

use super::relay::Token;
use crate::mqtt::QoS;
use crate::mqtt::packet::Publish;

/// Packets that may be without the client's acknowledgement at once.
const MAX_IN_FLIGHT: usize = 32;

/// What is to be done when the client has a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnAcknowledgement {
    /// Nothing.
    Nothing,
    /// A message of an input leaves the store.
    Stored(u64),
    /// The hub is told.
    FromHub(Token),
}

/// The packets that a client has not acknowledged.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    packets: BTreeMap<u16, OnAcknowledgement>,
    last_id: u16,
}

impl InFlight {
    pub(super) fn has_room(&self) -> bool {
        self.packets.len() < MAX_IN_FLIGHT
    }

    /// Makes a publish ready to be sent; gives what is to be done at once, because QoS 0 has no acknowledgement.
    pub(super) fn enter(
        &mut self,
        publish: &mut Publish,
        qos: QoS,
        then: OnAcknowledgement,
    ) -> Option<OnAcknowledgement> {
        publish.qos = qos;
        // What the hub said of its own delivery, and retained messages, do not concern this one.
        (publish.dup, publish.retain) = (false, false);
        if qos == QoS::AtMostOnce {
            publish.pkid = 0;
            return Some(then);
        }
        publish.pkid = self.next_id();
        self.packets.insert(publish.pkid, then);
        None
    }

    /// The client has acknowledged a packet.
    pub(super) fn acknowledged(&mut self, id: u16) -> Option<OnAcknowledgement> {
        self.packets.remove(&id)
    }

    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.packets.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish() -> Publish {
        let mut publish = Publish::new("t", QoS::AtLeastOnce, *b"");
        (publish.pkid, publish.dup) = (77, true);
        publish
    }

    #[test]
    fn each_acknowledgement_counts_once_and_ids_never_collide() {
        let mut in_flight = InFlight { last_id: u16::MAX - 1, ..InFlight::default() };
        let mut ids = Vec::new();
        while in_flight.has_room() {
            let mut publish = publish();
            let then = OnAcknowledgement::Stored(ids.len() as u64);
            assert_eq!(in_flight.enter(&mut publish, QoS::AtLeastOnce, then), None);
            assert!(!publish.dup && publish.pkid != 0);
            ids.push(publish.pkid);
        }
        assert_eq!((ids.len(), ids[0], ids[1]), (MAX_IN_FLIGHT, u16::MAX, 1));
        assert_eq!(in_flight.acknowledged(ids[3]), Some(OnAcknowledgement::Stored(3)));
        assert_eq!(in_flight.acknowledged(ids[3]), None);
        assert!(in_flight.has_room());
    }

    #[test]
    fn without_an_acknowledgement_it_is_done_at_once() {
        let mut publish = publish();
        let then = OnAcknowledgement::Stored(5);
        assert_eq!(InFlight::default().enter(&mut publish, QoS::AtMostOnce, then), Some(then));
        assert_eq!((publish.pkid, publish.qos), (0, QoS::AtMostOnce));
    }
}
