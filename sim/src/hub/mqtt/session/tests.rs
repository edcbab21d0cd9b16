//! Tests of the session without a socket.

use serde_json::json;

use super::*;
use crate::hub::store::{Ack, Change, CloudDraft, DeviceSpec, ModuleSpec, Precondition, Telemetry};
use crate::mqtt::packet::{Connect, SubscribeFilter};
use crate::topics::MAX_MESSAGE;
use crate::topics::TopicError;

mod cloud;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// The edge devices `d`, with a module `m`, and `e`.
fn state() -> State {
    let mut state = State::default();
    let store = &mut state.store;
    for device in ["d", "e"] {
        let spec = DeviceSpec { iot_edge: Some(true), ..DeviceSpec::default() };
        store.create_device(device, spec, NOW).unwrap();
    }
    store.create_module("d", "m", ModuleSpec::default(), NOW).unwrap();
    state
}

/// The telemetry that was stored.
fn telemetry(state: &State) -> Vec<&Telemetry> {
    let changes = state.store.changes().iter();
    changes
        .filter_map(|change| if let Change::Telemetry(message) = change { Some(&**message) } else { None })
        .collect()
}

fn session(client_id: &str) -> Session {
    session_of(client_id, true, &mut state())
}

fn session_of(client_id: &str, clean: bool, state: &mut State) -> Session {
    Session::open(Identity::from_client_id(client_id).unwrap(), 1, clean, state)
}

fn publish(topic: &str, payload: &str) -> Packet {
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
    publish.pkid = 5;
    Packet::Publish(publish)
}

fn subscribe(session: &mut Session, filters: &[(&str, QoS)]) -> Vec<SubscribeReasonCode> {
    let filters = filters.iter().map(|&(path, qos)| SubscribeFilter::new(path.into(), qos));
    let mut packet = Subscribe::new_many(filters);
    packet.pkid = 3;
    let reaction = session.on_packet(Packet::Subscribe(packet), &mut State::default(), NOW).unwrap();
    let [Packet::SubAck(ack)] = reaction.replies.as_slice() else { panic!("no SUBACK: {reaction:?}") };
    assert_eq!(ack.pkid, 3);
    ack.return_codes.clone()
}

fn with_twin_responses(client_id: &str) -> Session {
    let mut session = session(client_id);
    subscribe(&mut session, &[("$iothub/twin/res/#", QoS::AtMostOnce)]);
    session
}

fn body(packet: &Packet) -> (String, Value) {
    let Packet::Publish(publish) = packet else { panic!("no PUBLISH: {packet:?}") };
    let body = if publish.payload.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&publish.payload).unwrap()
    };
    (publish.topic.clone(), body)
}

fn refusal(client_id: &str, packet: Packet) -> Refusal {
    let mut state = state();
    let refusal = session(client_id).on_packet(packet, &mut state, NOW).unwrap_err();
    assert_eq!(telemetry(&state), [] as [&Telemetry; 0], "a refused message was stored");
    refusal
}

#[test]
fn telemetry_is_acknowledged_when_it_is_stored() {
    let mut state = state();
    let packet = publish("devices/d/modules/m/messages/events/%24.on=out&a=1", "{}");
    let reaction = session("d/m").on_packet(packet, &mut state, NOW).unwrap();
    assert_eq!(reaction.replies, [Packet::PubAck(PubAck::new(5))]);
    assert!(reaction.stored);
    let messages = telemetry(&state);
    assert_eq!(messages[0].origin, Identity::module("d", "m").unwrap());
    assert_eq!((messages[0].properties.get("$.on"), &messages[0].body[..]), (Some("out"), &b"{}"[..]));
}

#[test]
fn a_message_of_qos_0_is_stored_without_an_acknowledgement_and_retain_becomes_a_property() {
    let mut state = state();
    let mut publish = Publish::new("devices/d/messages/events/", QoS::AtMostOnce, "x");
    publish.retain = true;
    let reaction = session("d").on_packet(Packet::Publish(publish), &mut state, NOW).unwrap();
    assert_eq!((reaction.replies.len(), reaction.stored), (0, true));
    let messages = telemetry(&state);
    assert_eq!(messages[0].properties.get("mqtt-retain"), Some("true"));
}

#[test]
fn the_gateway_may_speak_for_modules_of_its_device() {
    let mut state = state();
    let packet = publish("devices/d/modules/$edgeHub/messages/events/%24.cdid=d&%24.cmid=m&a=1", "x");
    session("d/$edgeHub").on_packet(packet, &mut state, NOW).unwrap();
    let messages = telemetry(&state);
    assert_eq!(messages[0].origin, Identity::module("d", "m").unwrap());
    assert_eq!(messages[0].properties.to_string(), "a=1");
}

#[test]
fn nobody_else_may_speak_for_another() {
    let spoofed = |topic: &str, bag: &str| publish(&format!("{topic}/messages/events/{bag}"), "x");
    let module = "devices/d/modules/m";
    for bag in ["%24.cdid=d&%24.cmid=m", "%24.cdid=d", "%24.cmid=m"] {
        assert_eq!(refusal("d/m", spoofed(module, bag)), Refusal::Impersonation, "{bag}");
    }
    let gateway = "devices/d/modules/$edgeHub";
    for bag in ["%24.cdid=e&%24.cmid=m", "%24.cdid=d", "%24.cmid=m"] {
        assert_eq!(refusal("d/$edgeHub", spoofed(gateway, bag)), Refusal::Impersonation, "{bag}");
    }
    let unknown = refusal("d/$edgeHub", spoofed(gateway, "%24.cdid=d&%24.cmid=x"));
    assert_eq!(unknown, Refusal::Store(StoreError::ModuleNotFound("d".into(), "x".into())));
}

#[test]
fn topics_of_others_and_unknown_topics_are_refused() {
    for topic in [
        "devices/d/messages/events/",
        "devices/d/modules/$edgeHub/messages/events/",
        "devices/e/modules/m/messages/events/",
    ] {
        assert_eq!(refusal("d/m", publish(topic, "x")), Refusal::ForeignTopic, "{topic}");
    }
    assert_eq!(refusal("d/m", publish("a/b", "x")), Refusal::Topic(TopicError::Unknown));
    assert_eq!(refusal("d", publish("$iothub/twin/GET/", "")), Refusal::Topic(TopicError::RequestId));
}

#[test]
fn qos_2_and_too_large_messages_and_packets_of_a_server_are_refused() {
    let topic = "devices/d/messages/events/";
    let mut exactly_once = Publish::new(topic, QoS::ExactlyOnce, "x");
    exactly_once.pkid = 1;
    assert_eq!(refusal("d", Packet::Publish(exactly_once)), Refusal::ExactlyOnce);
    let fits = "x".repeat(MAX_MESSAGE - topic.len());
    assert_eq!(refusal("d", publish(topic, &format!("{fits}x"))), Refusal::TooLarge);
    assert!(session("d").on_packet(publish(topic, &fits), &mut state(), NOW).is_ok());
    for packet in
        [Packet::Connect(Connect::new("d")), Packet::PingResp, Packet::SubAck(SubAck::new(1, vec![]))]
    {
        assert_eq!(refusal("d", packet), Refusal::UnexpectedPacket);
    }
}

#[test]
fn a_message_of_the_largest_size_is_taken_also_through_the_gateway() {
    let body = "x".repeat(MAX_MESSAGE - "devices/d/modules/m/messages/events/".len());
    let topic = "devices/d/modules/$edgeHub/messages/events/%24.cdid=d&%24.cmid=m";
    assert!(topic.len() + body.len() > MAX_MESSAGE);
    assert!(session("d/$edgeHub").on_packet(publish(topic, &body), &mut state(), NOW).is_ok());
    let body = "x".repeat(MAX_MESSAGE + 1);
    assert_eq!(refusal("d/$edgeHub", publish(topic, &body)), Refusal::TooLarge);
}

#[test]
fn an_identity_that_was_deleted_meanwhile_is_refused() {
    let gone = Refusal::Store(StoreError::DeviceNotFound("x".into()));
    assert_eq!(refusal("x", publish("devices/x/messages/events/", "x")), gone);
    assert_eq!(refusal("x", publish("$iothub/twin/GET/?$rid=1", "")), gone);
    assert_eq!(refusal("x", publish("$iothub/twin/PATCH/properties/reported/?$rid=1", "{}")), gone);
}

#[test]
fn the_twin_is_read_and_reported() {
    let (mut state, mut session) = (state(), with_twin_responses("d/m"));
    let report = |rid, body| publish(&format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}"), body);
    let reaction = session.on_packet(report(1, r#"{"a":1,"b":{"c":2}}"#), &mut state, NOW).unwrap();
    assert_eq!(reaction.replies[0], Packet::PubAck(PubAck::new(5)));
    assert_eq!(body(&reaction.replies[1]), ("$iothub/twin/res/204/?$rid=1&$version=2".into(), Value::Null));
    session.on_packet(report(2, r#"{"b":null}"#), &mut state, NOW).unwrap();
    let reaction = session.on_packet(publish("$iothub/twin/GET/?$rid=3", ""), &mut state, NOW).unwrap();
    let expected = json!({"desired": {"$version": 1}, "reported": {"a": 1, "$version": 3}});
    assert_eq!(body(&reaction.replies[1]), ("$iothub/twin/res/200/?$rid=3".into(), expected));
}

#[test]
fn a_bad_report_is_answered_with_400_and_changes_nothing() {
    let (mut state, mut session) = (state(), with_twin_responses("d"));
    for report in ["", "[]", "{", r#"{"a.b":1}"#, "\u{0}"] {
        let packet = publish("$iothub/twin/PATCH/properties/reported/?$rid=1", report);
        let reaction = session.on_packet(packet, &mut state, NOW).unwrap();
        assert_eq!(body(&reaction.replies[1]).0, "$iothub/twin/res/400/?$rid=1", "{report:?}");
    }
    assert_eq!(state.store.twin(&Identity::device("d").unwrap()).unwrap().reported.version(), 1);
}

#[test]
fn without_a_subscription_there_is_no_answer() {
    let mut session = session("d");
    let reaction = session.on_packet(publish("$iothub/twin/GET/?$rid=1", ""), &mut state(), NOW).unwrap();
    assert_eq!(reaction.replies, [Packet::PubAck(PubAck::new(5))]);
    let change = DesiredChange { identity: Identity::device("d").unwrap(), version: 2, patch: Object::new() };
    assert_eq!(session.on_event(Event::Desired(change)), Ok(None));
}

#[test]
fn desired_changes_are_sent_with_their_version_and_fresh_packet_ids() {
    let (mut state, mut session) = (state(), session("d"));
    subscribe(&mut session, &[("$iothub/twin/PATCH/properties/desired/#", QoS::AtLeastOnce)]);
    let identity = Identity::device("d").unwrap();
    for (version, pkid) in [(2, 1), (3, 2)] {
        let patch = json!({"a": version}).as_object().unwrap().clone();
        let change = state.store.patch_desired(&identity, patch, &Precondition::Any, NOW).unwrap();
        let packet = session.on_event(Event::Desired(change)).unwrap().unwrap();
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        assert_eq!(body(&packet), (topic, json!({"a": version, "$version": version})));
        assert!(matches!(packet, Packet::Publish(publish) if publish.pkid == pkid));
    }
}

#[test]
fn unacknowledged_messages_are_bounded_and_their_ids_are_not_used_again() {
    let (mut state, mut session) = (state(), session("d"));
    subscribe(&mut session, &[("$iothub/twin/PATCH/properties/desired/#", QoS::AtLeastOnce)]);
    let change = DesiredChange { identity: Identity::device("d").unwrap(), version: 2, patch: Object::new() };
    session.last_packet_id = u16::MAX - 1;
    session.in_flight.insert(1, None);
    let send = |session: &mut Session| match session.on_event(Event::Desired(change.clone()))? {
        Some(Packet::Publish(publish)) => Ok(publish.pkid),
        other => panic!("no PUBLISH: {other:?}"),
    };
    assert_eq!((send(&mut session), send(&mut session)), (Ok(u16::MAX), Ok(2)));
    while session.in_flight.len() < MAX_IN_FLIGHT {
        send(&mut session).unwrap();
    }
    assert_eq!(send(&mut session), Err(Refusal::TooManyInFlight(MAX_IN_FLIGHT)));
    session.on_packet(Packet::PubAck(PubAck::new(2)), &mut state, NOW).unwrap();
    assert!(send(&mut session).is_ok());
}

#[test]
fn subscriptions_are_granted_up_to_qos_1_and_only_to_ones_own_topics() {
    let mut session = session("d/m");
    let codes = subscribe(
        &mut session,
        &[
            ("$iothub/twin/res/#", QoS::AtMostOnce),
            ("$iothub/methods/POST/#", QoS::ExactlyOnce),
            ("devices/d/modules/m/inputs/#", QoS::AtLeastOnce),
            ("devices/d/modules/n/inputs/#", QoS::AtLeastOnce),
            ("devices/d/messages/devicebound/#", QoS::AtLeastOnce),
            ("#", QoS::AtLeastOnce),
        ],
    );
    let granted = SubscribeReasonCode::Success;
    let expected = [granted(QoS::AtMostOnce), granted(QoS::AtLeastOnce), granted(QoS::AtLeastOnce)];
    assert_eq!(codes[..3], expected);
    assert_eq!(
        codes[3..],
        [SubscribeReasonCode::Failure, SubscribeReasonCode::Failure, SubscribeReasonCode::Failure]
    );
}

#[test]
fn a_client_unsubscribes_pings_and_says_goodbye() {
    let (mut state, mut session) = (state(), with_twin_responses("d"));
    let mut unsubscribe = Unsubscribe::new("$iothub/twin/res/#");
    unsubscribe.pkid = 9;
    let reaction = session.on_packet(Packet::Unsubscribe(unsubscribe), &mut state, NOW).unwrap();
    assert_eq!(reaction.replies, [Packet::UnsubAck(UnsubAck::new(9))]);
    let reaction = session.on_packet(publish("$iothub/twin/GET/?$rid=1", ""), &mut state, NOW).unwrap();
    assert_eq!(reaction.replies.len(), 1);
    assert_eq!(session.on_packet(Packet::PingReq, &mut state, NOW).unwrap().replies, [Packet::PingResp]);
    assert!(session.on_packet(Packet::Disconnect, &mut state, NOW).unwrap().disconnected);
}

#[test]
fn a_method_is_called_and_answered() {
    let mut state = state();
    let identity = Identity::from_client_id("d/m").unwrap();
    let ticket = state.connect(&identity, NOW);
    let mut session = Session::open(identity.clone(), ticket.connection_id, true, &mut state);
    assert!(state.connections.call(&identity, "ping", "1".into()).is_err());
    let mut packet = Subscribe::new("$iothub/methods/POST/#", QoS::AtMostOnce);
    packet.pkid = 3;
    session.on_packet(Packet::Subscribe(packet), &mut state, NOW).unwrap();
    let mut answer = state.connections.call(&identity, "ping", "1".into()).unwrap();
    let mut events = state.connections.take(&identity, ticket.connection_id).unwrap();
    let call = session.on_event(events.pop_front().unwrap()).unwrap().unwrap();
    assert_eq!(body(&call), ("$iothub/methods/POST/ping/?$rid=1".into(), json!(1)));
    let packet = publish("$iothub/methods/res/200/?$rid=1", "2");
    session.on_packet(packet, &mut state, NOW).unwrap();
    assert_eq!(answer.try_recv().unwrap(), MethodAnswer { status: 200, payload: "2".into() });
}
