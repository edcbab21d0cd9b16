//! Messages from services, in sessions that are kept and in clean ones.

use super::*;

/// A message from a service to `d`.
fn enqueue(state: &mut State, id: &str) {
    let properties = [("$.mid", id), ("n", "1")].into_iter().collect();
    let draft = CloudDraft { properties, ack: Ack::Full, body: "hello".into(), ..CloudDraft::default() };
    state.store.enqueue_cloud_message("d", draft, NOW).unwrap();
}

const CLOUD_TO_DEVICE: &str = "devices/d/messages/devicebound/#";

/// The packet ids, the DUP flags and the message ids of what is delivered.
fn delivered(packets: &[Packet]) -> Vec<(u16, bool, String)> {
    let read = |packet: &Packet| match packet {
        Packet::Publish(publish) => match HubTopic::parse(&publish.topic) {
            Ok(HubTopic::CloudToDevice { properties, .. }) => {
                Some((publish.pkid, publish.dup, properties.get("$.mid").unwrap().to_owned()))
            }
            other => panic!("{other:?}"),
        },
        _ => None,
    };
    packets.iter().filter_map(read).collect()
}

fn subscribe_to_cloud(session: &mut Session, state: &mut State, qos: QoS) -> Vec<Packet> {
    let mut packet = Subscribe::new(CLOUD_TO_DEVICE, qos);
    packet.pkid = 3;
    session.on_packet(Packet::Subscribe(packet), state, NOW).unwrap().replies
}

#[test]
fn messages_from_services_wait_for_the_subscription_and_go_with_their_acknowledgement() {
    let mut state = state();
    enqueue(&mut state, "1");
    let mut session = session_of("d", true, &mut state);
    assert_eq!(session.deliver(&mut state, NOW).unwrap(), []);
    let replies = subscribe_to_cloud(&mut session, &mut state, QoS::AtLeastOnce);
    let Packet::Publish(publish) = &replies[1] else { panic!("{replies:?}") };
    assert_eq!(
        publish.topic,
        "devices/d/messages/devicebound/%24.mid=1&n=1&%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound&iothub-ack=full"
    );
    assert_eq!((&publish.payload[..], publish.pkid), (&b"hello"[..], 1));
    assert_eq!(session.deliver(&mut state, NOW).unwrap(), [], "it was sent already");
    session.on_packet(Packet::PubAck(PubAck::new(1)), &mut state, NOW).unwrap();
    assert_eq!(state.store.device("d").unwrap().record.cloud_message_count, 0);
}

#[test]
fn what_was_not_acknowledged_is_sent_again_in_a_kept_session_with_its_packet_id() {
    let mut state = state();
    for id in ["1", "2", "3"] {
        enqueue(&mut state, id);
    }
    let identity = Identity::device("d").unwrap();
    let mut session = session_of("d", false, &mut state);
    assert!(!session.is_resumed());
    subscribe_to_cloud(&mut session, &mut state, QoS::AtLeastOnce);
    session.on_packet(Packet::PubAck(PubAck::new(2)), &mut state, NOW).unwrap();
    enqueue(&mut state, "4");

    state.connect(&identity, NOW);
    let mut session = session_of("d", false, &mut state);
    assert!(session.is_resumed());
    let packets = session.deliver(&mut state, NOW).unwrap();
    let expected = [(1, true, "1"), (3, true, "3"), (4, false, "4")];
    assert_eq!(delivered(&packets), expected.map(|(id, dup, mid)| (id, dup, mid.to_owned())));
}

#[test]
fn a_clean_session_forgets_the_subscriptions_and_not_the_messages() {
    let mut state = state();
    enqueue(&mut state, "1");
    let identity = Identity::device("d").unwrap();
    let mut session = session_of("d", false, &mut state);
    subscribe_to_cloud(&mut session, &mut state, QoS::AtLeastOnce);
    state.connect(&identity, NOW);
    let mut session = session_of("d", true, &mut state);
    assert_eq!((session.is_resumed(), session.deliver(&mut state, NOW).unwrap()), (false, vec![]));
    let replies = subscribe_to_cloud(&mut session, &mut state, QoS::AtLeastOnce);
    assert_eq!(delivered(&replies), [(1, false, "1".to_owned())], "a new delivery in a new session");
    assert!(!session_of("d", false, &mut state).is_resumed(), "a clean session is not gone on with");
}

#[test]
fn unsubscribing_is_kept_too() {
    let mut state = state();
    let mut session = session_of("d", false, &mut state);
    subscribe_to_cloud(&mut session, &mut state, QoS::AtLeastOnce);
    let mut unsubscribe = Unsubscribe::new(CLOUD_TO_DEVICE);
    unsubscribe.pkid = 9;
    session.on_packet(Packet::Unsubscribe(unsubscribe), &mut state, NOW).unwrap();
    enqueue(&mut state, "1");
    let mut session = session_of("d", false, &mut state);
    assert_eq!((session.is_resumed(), session.deliver(&mut state, NOW).unwrap()), (true, vec![]));
}

#[test]
fn a_message_of_qos_0_is_gone_when_it_is_sent_and_a_module_gets_none_of_its_device() {
    let mut state = state();
    enqueue(&mut state, "1");
    let mut module = session_of("d/m", true, &mut state);
    let mut packet = Subscribe::new("devices/d/modules/m/messages/devicebound/#", QoS::AtLeastOnce);
    packet.pkid = 3;
    let replies = module.on_packet(Packet::Subscribe(packet), &mut state, NOW).unwrap().replies;
    assert_eq!(replies.len(), 1);
    let mut session = session_of("d", true, &mut state);
    let replies = subscribe_to_cloud(&mut session, &mut state, QoS::AtMostOnce);
    assert_eq!(delivered(&replies), [(0, false, "1".to_owned())]);
    assert_eq!(state.store.device("d").unwrap().record.cloud_message_count, 0);
}

#[test]
fn messages_in_flight_are_bounded_and_the_rest_follows() {
    let mut state = state();
    for id in 0..40 {
        enqueue(&mut state, &id.to_string());
    }
    let mut session = session_of("d", true, &mut state);
    let replies = subscribe_to_cloud(&mut session, &mut state, QoS::AtLeastOnce);
    assert_eq!(delivered(&replies).len(), MAX_CLOUD_IN_FLIGHT);
    let reaction = session.on_packet(Packet::PubAck(PubAck::new(1)), &mut state, NOW).unwrap();
    assert_eq!(delivered(&reaction.replies).len(), 1);
}
