//! Tests of the queues and of feedback.

use super::*;
use crate::hub::store::{DeviceSpec, Precondition};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn store() -> Store {
    let mut store = Store::default();
    for device in ["d", "e"] {
        store.create_device(device, DeviceSpec::default(), NOW).unwrap();
    }
    store
}

fn draft(id: &str, ack: Ack) -> CloudDraft {
    let properties = [("$.mid", id), ("a", "1")].into_iter().collect();
    let (message_id, body) = (Some(id.to_owned()), Bytes::from_static(b"body"));
    CloudDraft { properties, message_id, ack, expiry: None, body }
}

fn after(secs: i64) -> Timestamp {
    Timestamp::from_second(secs).unwrap()
}

fn send(store: &mut Store, now: Timestamp) -> Option<CloudMessage> {
    store.send_cloud_message("d", now, |_| Some(1))
}

fn count(store: &Store) -> usize {
    store.device("d").unwrap().record.cloud_message_count
}

/// Ids and outcomes of all feedback.
fn feedback(store: &mut Store, now: Timestamp) -> Vec<(String, Outcome)> {
    let Some((token, records)) = store.lock_feedback(now) else { return Vec::new() };
    store.settle_feedback(&token, true, now).unwrap();
    records.into_iter().map(|record| (record.original_message_id.unwrap(), record.status_code)).collect()
}

#[test]
fn messages_are_sent_in_order_and_stay_until_they_are_confirmed() {
    let mut store = store();
    for id in ["1", "2"] {
        store.enqueue_cloud_message("d", draft(id, Ack::Full), NOW).unwrap();
    }
    let (first, second) = (send(&mut store, NOW).unwrap(), send(&mut store, NOW).unwrap());
    assert_eq!((first.message_id.as_deref(), second.message_id.as_deref()), (Some("1"), Some("2")));
    assert_eq!((first.delivery_count, first.properties().get("a")), (1, Some("1")));
    assert!(send(&mut store, NOW).is_none());
    store.confirm_cloud_message("d", first.sequence, NOW);
    store.confirm_cloud_message("d", first.sequence, NOW);
    assert_eq!((count(&store), feedback(&mut store, NOW)), (1, vec![("1".into(), Outcome::Success)]));
    store.release_cloud_messages("d", NOW);
    let mut former = None;
    let again = store.send_cloud_message("d", NOW, |id| {
        former = id;
        id
    });
    assert_eq!((again.unwrap().delivery_count, former), (2, Some(1)));
}

#[test]
fn what_is_delivered_too_often_is_given_up() {
    let mut store = store();
    store.enqueue_cloud_message("d", draft("1", Ack::Negative), NOW).unwrap();
    for delivery in 1..=MAX_DELIVERIES {
        assert_eq!(send(&mut store, NOW).unwrap().delivery_count, delivery);
        store.release_cloud_messages("d", NOW);
    }
    assert!(send(&mut store, NOW).is_none());
    assert_eq!(feedback(&mut store, NOW), [("1".into(), Outcome::DeliveryCountExceeded)]);
}

#[test]
fn messages_expire_unless_a_client_has_them() {
    let mut store = store();
    let short = CloudDraft { expiry: Some(after(10)), ..draft("short", Ack::Full) };
    store.enqueue_cloud_message("d", short, NOW).unwrap();
    store.enqueue_cloud_message("d", draft("long", Ack::Full), NOW).unwrap();
    let eternal = CloudDraft { expiry: Some(Timestamp::MAX), ..draft("eternal", Ack::Full) };
    store.enqueue_cloud_message("d", eternal, NOW).unwrap();
    assert_eq!(store.sweep_cloud_messages(after(9)), ["d"]);
    assert_eq!((count(&store), feedback(&mut store, after(9))), (3, vec![]));
    store.sweep_cloud_messages(after(10));
    assert_eq!(feedback(&mut store, after(10)), [("short".into(), Outcome::Expired)]);
    assert_eq!(send(&mut store, after(11)).unwrap().message_id.as_deref(), Some("long"));
    store.sweep_cloud_messages(after(48 * 3600));
    assert_eq!(feedback(&mut store, NOW), [("eternal".into(), Outcome::Expired)]);
    store.release_cloud_messages("d", after(48 * 3600));
    assert!(send(&mut store, after(48 * 3600)).is_none());
    assert_eq!(store.sweep_cloud_messages(after(48 * 3600)), [] as [&str; 0]);
}

#[test]
fn a_fetched_message_is_settled_with_its_token_in_time() {
    let mut store = store();
    for id in ["1", "2", "3"] {
        store.enqueue_cloud_message("d", draft(id, Ack::Full), NOW).unwrap();
    }
    let mut settle = |token: &str, settlement, now| store.settle_cloud_message("d", token, settlement, now);
    assert_eq!(settle("none", Settlement::Complete, NOW), Err(StoreError::LockLost));
    let (token, first) = store.lock_cloud_message("d", NOW).unwrap();
    assert_eq!(store.settle_cloud_message("e", &token, Settlement::Complete, NOW), Err(StoreError::LockLost));
    store.settle_cloud_message("d", &token, Settlement::Abandon, NOW).unwrap();
    let (token, again) = store.lock_cloud_message("d", NOW).unwrap();
    assert_eq!((again.sequence, again.delivery_count), (first.sequence, 2));
    assert_eq!(store.lock_cloud_message("d", NOW).unwrap().1.message_id.as_deref(), Some("2"));
    store.settle_cloud_message("d", &token, Settlement::Reject, NOW).unwrap();
    let (token, third) = store.lock_cloud_message("d", NOW).unwrap();
    assert_eq!(third.message_id.as_deref(), Some("3"));
    let late = NOW + LOCK;
    assert_eq!(
        store.settle_cloud_message("d", &token, Settlement::Complete, late),
        Err(StoreError::LockLost)
    );
    assert_eq!(feedback(&mut store, late), [("1".into(), Outcome::Rejected)]);
    assert_eq!((count(&store), store.purge_cloud_messages("d", late)), (2, Ok(2)));
    let purged = ["2", "3"].map(|id| (id.to_owned(), Outcome::Purged));
    assert_eq!((count(&store), feedback(&mut store, late)), (0, purged.to_vec()));
}

#[test]
fn queues_are_bounded_and_go_with_their_device() {
    let mut store = store();
    let unknown = store.enqueue_cloud_message("x", draft("1", Ack::None), NOW).unwrap_err();
    assert_eq!(unknown, StoreError::DeviceNotFound("x".into()));
    for _ in 0..MAX_QUEUE {
        store.enqueue_cloud_message("d", draft("1", Ack::None), NOW).unwrap();
    }
    let full = store.enqueue_cloud_message("d", draft("1", Ack::None), NOW).unwrap_err();
    assert_eq!(full, StoreError::QueueFull("d".into()));
    store.enqueue_cloud_message("d", draft("1", Ack::None), after(3600)).expect("the others have expired");
    let large = CloudDraft { body: vec![0; MAX_QUEUED_BYTES].into(), ..CloudDraft::default() };
    assert_eq!(store.enqueue_cloud_message("e", large, NOW), Err(StoreError::QueuesFull));
    store.delete_device("d", &Precondition::Any).unwrap();
    assert_eq!(store.cloud.bytes, 0);
    store.create_device("d", DeviceSpec::default(), NOW).unwrap();
    assert!(send(&mut store, NOW).is_none());
}

#[test]
fn senders_hear_only_what_they_asked_for() {
    let wanted = |ack: Ack| [Outcome::Success, Outcome::Expired].map(|outcome| ack.wants(outcome));
    assert_eq!(wanted(Ack::None), [false, false]);
    assert_eq!(wanted(Ack::Positive), [true, false]);
    assert_eq!(wanted(Ack::Negative), [false, true]);
    assert_eq!(wanted(Ack::Full), [true, true]);
}

#[test]
fn feedback_that_is_not_confirmed_is_given_out_again() {
    let mut store = store();
    store.enqueue_cloud_message("d", draft("1", Ack::Full), NOW).unwrap();
    store.purge_cloud_messages("d", NOW).unwrap();
    let (token, records) = store.lock_feedback(NOW).unwrap();
    let generation = &store.device("d").unwrap().record.generation_id;
    assert_eq!((&records[0].device_id, &records[0].device_generation_id), (&"d".to_owned(), generation));
    assert!(store.lock_feedback(NOW).is_none());
    store.settle_feedback(&token, false, NOW).unwrap();
    let (token, _) = store.lock_feedback(NOW).unwrap();
    assert_eq!(store.settle_feedback("other", true, NOW), Err(StoreError::LockLost));
    assert_eq!(store.settle_feedback(&token, true, after(60)), Err(StoreError::LockLost));
    let (token, _) = store.lock_feedback(after(60)).unwrap();
    store.settle_feedback(&token, true, after(60)).unwrap();
    assert!(store.lock_feedback(after(999)).is_none());
}
