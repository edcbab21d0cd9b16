//! A client's session after its CONNECT, as a state machine: packets in, packets out, no clock and no socket.
//!
//! Sessions are not kept over connections: `session present` is always 0, and a client subscribes anew, which the
//! SDKs do in any case.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::message::{Message, Refusal, check_limits};
use crate::hub::State;
use crate::hub::connections::{Event, MethodAnswer, MethodCall};
use crate::hub::store::{DesiredChange, Object, StoreError, with_version};
use crate::identity::Identity;
use crate::mqtt::packet::{PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, Unsubscribe};
use crate::mqtt::{Packet, QoS};
use crate::topics::{ClientTopic, HubTopic, Subscription};

/// QoS 1 messages that may wait for the client's acknowledgement.
const MAX_IN_FLIGHT: usize = 64;

/// What a packet leads to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reaction {
    pub(super) replies: Vec<Packet>,
    /// A message was stored.
    pub(super) stored: bool,
    /// The client said goodbye.
    pub(super) disconnected: bool,
}

impl Reaction {
    fn reply(packet: Packet) -> Self {
        Self { replies: vec![packet], ..Self::default() }
    }
}

/// The state of a session.
#[derive(Debug)]
pub(super) struct Session {
    identity: Identity,
    connection_id: u64,
    subscriptions: BTreeMap<Subscription, QoS>,
    in_flight: BTreeSet<u16>,
    last_packet_id: u16,
}

impl Session {
    pub(super) fn new(identity: Identity, connection_id: u64) -> Self {
        let (subscriptions, in_flight) = (BTreeMap::new(), BTreeSet::new());
        Self { identity, connection_id, subscriptions, in_flight, last_packet_id: 0 }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes a packet from the client. An error ends the connection.
    pub(super) fn on_packet(
        &mut self,
        packet: Packet,
        state: &mut State,
        now: Timestamp,
    ) -> Result<Reaction, Refusal> {
        match packet {
            Packet::Publish(publish) => self.on_publish(&publish, state, now),
            Packet::Subscribe(subscribe) => Ok(Reaction::reply(self.on_subscribe(&subscribe, state))),
            Packet::Unsubscribe(unsubscribe) => Ok(Reaction::reply(self.on_unsubscribe(&unsubscribe, state))),
            Packet::PubAck(PubAck { pkid }) => {
                self.in_flight.remove(&pkid);
                Ok(Reaction::default())
            }
            Packet::PingReq => Ok(Reaction::reply(Packet::PingResp)),
            Packet::Disconnect => Ok(Reaction { disconnected: true, ..Reaction::default() }),
            _ => Err(Refusal::UnexpectedPacket),
        }
    }

    /// Takes what concerns the client; gives the message to it, when it has subscribed.
    pub(super) fn on_event(&mut self, event: Event) -> Result<Option<Packet>, Refusal> {
        match event {
            Event::Desired(change) => self.on_change(change),
            Event::Method(MethodCall { request_id, name, payload }) => {
                self.publish(&Subscription::MethodCalls, &HubTopic::MethodCall { name, request_id }, payload)
            }
            Event::CloudMessage => Ok(None),
        }
    }

    fn on_change(&mut self, change: DesiredChange) -> Result<Option<Packet>, Refusal> {
        let topic = HubTopic::DesiredPatch { version: change.version };
        let body = Value::Object(with_version(change.patch, change.version));
        self.publish(&Subscription::DesiredPatches, &topic, body.to_string().into())
    }

    fn on_publish(
        &mut self,
        publish: &Publish,
        state: &mut State,
        now: Timestamp,
    ) -> Result<Reaction, Refusal> {
        check_limits(publish)?;
        let mut reaction = Reaction::default();
        // The acknowledgement stands before an answer, and is not sent when the message is refused.
        if publish.qos == QoS::AtLeastOnce {
            reaction.replies.push(Packet::PubAck(PubAck::new(publish.pkid)));
        }
        match ClientTopic::parse(&publish.topic)? {
            ClientTopic::Telemetry { identity, properties } => {
                let message = Message::new(&self.identity, &identity, properties, publish, &state.store)?;
                message.store(&mut state.store, now)?;
                reaction.stored = true;
            }
            ClientTopic::TwinGet { request_id } => {
                let twin = state.store.twin(&self.identity)?;
                let body =
                    json!({"desired": twin.desired.to_object(), "reported": twin.reported.to_object()});
                reaction.replies.extend(self.twin_response(200, request_id, None, &body)?);
            }
            ClientTopic::ReportedPatch { request_id } => {
                reaction.replies.extend(self.on_reported(request_id, &publish.payload, state, now)?);
            }
            ClientTopic::MethodResponse { status, request_id } => {
                let answer = MethodAnswer { status, payload: publish.payload.clone() };
                state.connections.answer(&self.identity, self.connection_id, &request_id, answer);
            }
        }
        Ok(reaction)
    }

    fn on_reported(
        &mut self,
        request_id: String,
        payload: &[u8],
        state: &mut State,
        now: Timestamp,
    ) -> Result<Option<Packet>, Refusal> {
        let refused = |error: &dyn std::error::Error| json!({ "message": error.to_string() });
        let patch: Object = match serde_json::from_slice(payload) {
            Ok(patch) => patch,
            Err(error) => return self.twin_response(400, request_id, None, &refused(&error)),
        };
        match state.store.patch_reported(&self.identity, patch, now) {
            Ok(version) => self.twin_response(204, request_id, Some(version), &Value::Null),
            Err(StoreError::Twin(error)) => self.twin_response(400, request_id, None, &refused(&error)),
            Err(error) => Err(error.into()),
        }
    }

    fn on_subscribe(&mut self, subscribe: &Subscribe, state: &mut State) -> Packet {
        let mut grant = |filter: &str, wish: QoS| match Subscription::parse(filter) {
            Ok(subscription) if subscription.is_open_to(&self.identity) => {
                let granted = if wish == QoS::AtMostOnce { wish } else { QoS::AtLeastOnce };
                self.subscriptions.insert(subscription, granted);
                SubscribeReasonCode::Success(granted)
            }
            _ => SubscribeReasonCode::Failure,
        };
        let codes = subscribe.filters.iter().map(|filter| grant(&filter.path, filter.qos)).collect();
        self.note_subscriptions(state);
        Packet::SubAck(SubAck::new(subscribe.pkid, codes))
    }

    fn on_unsubscribe(&mut self, unsubscribe: &Unsubscribe, state: &mut State) -> Packet {
        for subscription in unsubscribe.topics.iter().filter_map(|filter| Subscription::parse(filter).ok()) {
            self.subscriptions.remove(&subscription);
        }
        self.note_subscriptions(state);
        Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))
    }

    fn note_subscriptions(&self, state: &mut State) {
        let methods = self.subscriptions.contains_key(&Subscription::MethodCalls);
        state.connections.set_takes_methods(&self.identity, self.connection_id, methods);
    }

    fn twin_response(
        &mut self,
        status: u16,
        request_id: String,
        version: Option<u64>,
        body: &Value,
    ) -> Result<Option<Packet>, Refusal> {
        let topic = HubTopic::TwinResponse { status, request_id, version };
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.publish(&Subscription::TwinResponses, &topic, body)
    }

    /// The message to the client, when it has the subscription.
    fn publish(
        &mut self,
        subscription: &Subscription,
        topic: &HubTopic,
        body: Bytes,
    ) -> Result<Option<Packet>, Refusal> {
        let Some(&qos) = self.subscriptions.get(subscription) else { return Ok(None) };
        let mut publish = Publish::from_bytes(topic.to_string(), qos, body);
        if qos == QoS::AtLeastOnce {
            publish.pkid = self.next_packet_id()?;
        }
        Ok(Some(Packet::Publish(publish)))
    }

    /// A packet id that is neither 0 nor in flight. The set is far smaller than the range of ids.
    fn next_packet_id(&mut self) -> Result<u16, Refusal> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return Err(Refusal::TooManyInFlight(MAX_IN_FLIGHT));
        }
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if self.in_flight.insert(self.last_packet_id) {
                return Ok(self.last_packet_id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
