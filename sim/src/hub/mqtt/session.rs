//! A client's session after its CONNECT, as a state machine: packets in, packets out, no clock and no socket.
//!
//! A session that is not clean outlives its connection: its subscriptions are kept, and messages from services that
//! the client has not confirmed are sent again with their old packet ids. Nothing else is sent twice, as in IoT Hub.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::message::{Message, Refusal, check_limits};
use crate::hub::State;
use crate::hub::connections::{Event, MethodAnswer, MethodCall};
use crate::hub::store::{CloudMessage, DesiredChange, Object, StoreError, with_version};
use crate::identity::Identity;
use crate::mqtt::packet::{PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, Unsubscribe};
use crate::mqtt::{Packet, QoS};
use crate::topics::{ClientTopic, HubTopic, PropertyBag, Subscription};

/// QoS 1 messages that may wait for the client's acknowledgement.
const MAX_IN_FLIGHT: usize = 64;
/// Of these, messages from services; the others wait in their queue.
const MAX_CLOUD_IN_FLIGHT: usize = 32;

/// What a packet leads to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reaction {
    /// To be sent when everything so far is committed.
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
    /// It outlives the connection.
    is_kept: bool,
    /// It began before this connection.
    is_resumed: bool,
    subscriptions: BTreeMap<Subscription, QoS>,
    /// Packet ids that are not free, and the message from a service that was sent with one.
    in_flight: BTreeMap<u16, Option<u64>>,
    last_packet_id: u16,
}

impl Session {
    /// Begins a clean session, or goes on with one.
    pub(super) fn open(identity: Identity, connection_id: u64, clean: bool, state: &mut State) -> Self {
        // An identity that was accepted under this lock is registered.
        let kept = state.store.open_session(&identity, clean).unwrap_or_default();
        let is_resumed = kept.is_some();
        let qos = |qos| if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let kept = kept.unwrap_or_default().into_iter();
        let session = Self {
            identity,
            connection_id,
            is_kept: !clean,
            is_resumed,
            subscriptions: kept.map(|(subscription, granted)| (subscription, qos(granted))).collect(),
            in_flight: BTreeMap::new(),
            last_packet_id: 0,
        };
        session.note_subscriptions(state);
        session
    }

    /// True when the client need not subscribe again.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
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
            Packet::Subscribe(subscribe) => {
                let mut reaction = Reaction::reply(self.on_subscribe(&subscribe, state)?);
                reaction.replies.extend(self.deliver(state, now)?);
                Ok(reaction)
            }
            Packet::Unsubscribe(unsubscribe) => {
                Ok(Reaction::reply(self.on_unsubscribe(&unsubscribe, state)?))
            }
            Packet::PubAck(PubAck { pkid }) => {
                if let Some(Some(sequence)) = self.in_flight.remove(&pkid) {
                    state.store.confirm_cloud_message(self.identity.device_id(), sequence, now);
                }
                Ok(Reaction { replies: self.deliver(state, now)?, ..Reaction::default() })
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
            // Looked after by whoever empties the mailbox, with `deliver`.
            Event::CloudMessage => Ok(None),
        }
    }

    /// Sends messages from services that wait for the client, when it has subscribed.
    pub(super) fn deliver(&mut self, state: &mut State, now: Timestamp) -> Result<Vec<Packet>, Refusal> {
        let mut packets = Vec::new();
        let subscription = Subscription::CloudToDevice(self.identity.clone());
        let Some(&qos) = self.subscriptions.get(&subscription) else { return Ok(packets) };
        // IoT Hub has no queues for modules.
        if self.identity.module_id().is_some() {
            return Ok(packets);
        }
        let device = self.identity.device_id().to_owned();
        while self.in_flight.len() < MAX_CLOUD_IN_FLIGHT {
            let free_id = self.next_packet_id()?;
            let (is_resumed, in_flight) = (self.is_resumed, &self.in_flight);
            let mut is_repeated = false;
            let sent = state.store.send_cloud_message(&device, now, |former| {
                let former = former.filter(|id| is_resumed && !in_flight.contains_key(id));
                is_repeated = former.is_some();
                (qos == QoS::AtLeastOnce).then(|| former.unwrap_or(free_id))
            });
            let Some(message) = sent else { break };
            let (identity, properties) = (self.identity.clone(), delivered_properties(&message, &device));
            let topic = HubTopic::CloudToDevice { identity, properties };
            let mut publish = Publish::from_bytes(topic.to_string(), qos, message.body);
            match message.packet_id {
                Some(id) => {
                    (publish.pkid, publish.dup) = (id, is_repeated);
                    self.in_flight.insert(id, Some(message.sequence));
                }
                None => state.store.confirm_cloud_message(&device, message.sequence, now),
            }
            packets.push(Packet::Publish(publish));
        }
        Ok(packets)
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
        check_limits(&self.identity, publish)?;
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
            ClientTopic::TwinGet { request_id } | ClientTopic::ReportedPatch { request_id }
                if state.throttled =>
            {
                reaction.replies.extend(self.twin_response(429, request_id, None, &Value::Null)?);
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

    fn on_subscribe(&mut self, subscribe: &Subscribe, state: &mut State) -> Result<Packet, Refusal> {
        let mut grant = |filter: &str, wish: QoS| match Subscription::parse(filter) {
            Ok(subscription) if subscription.is_open_to(&self.identity) => {
                let granted = if wish == QoS::AtMostOnce { wish } else { QoS::AtLeastOnce };
                self.subscriptions.insert(subscription, granted);
                SubscribeReasonCode::Success(granted)
            }
            _ => SubscribeReasonCode::Failure,
        };
        let codes = subscribe.filters.iter().map(|filter| grant(&filter.path, filter.qos)).collect();
        self.keep(state)?;
        Ok(Packet::SubAck(SubAck::new(subscribe.pkid, codes)))
    }

    fn on_unsubscribe(&mut self, unsubscribe: &Unsubscribe, state: &mut State) -> Result<Packet, Refusal> {
        for subscription in unsubscribe.topics.iter().filter_map(|filter| Subscription::parse(filter).ok()) {
            self.subscriptions.remove(&subscription);
        }
        self.keep(state)?;
        Ok(Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid)))
    }

    /// Keeps the subscriptions, when the session is to be kept.
    fn keep(&self, state: &mut State) -> Result<(), Refusal> {
        self.note_subscriptions(state);
        if self.is_kept {
            let granted = self.subscriptions.iter();
            let subscriptions = granted.map(|(subscription, qos)| (subscription.clone(), *qos as u8));
            state.store.keep_session(&self.identity, &subscriptions.collect())?;
        }
        Ok(())
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
            self.in_flight.insert(publish.pkid, None);
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
            if !self.in_flight.contains_key(&self.last_packet_id) {
                return Ok(self.last_packet_id);
            }
        }
    }
}

/// The properties of a message from a service as the device sees them.
fn delivered_properties(message: &CloudMessage, device: &str) -> PropertyBag {
    let mut properties = message.properties();
    properties.set("$.to", format!("/devices/{device}/messages/devicebound"));
    properties.set("iothub-ack", message.ack.as_str());
    properties
}

#[cfg(test)]
mod tests;
