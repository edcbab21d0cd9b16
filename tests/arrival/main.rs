//! Reading telemetry from an Event Hub, played by another implementation of AMQP 1.0 than the one that reads. It comes from
//! Debian's packages and is left out by `cargo test`; `cargo xtask test` runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod stand_in;

use std::time::Duration;

use serde_json::json;
use stand_in::{ENTITY, StandIn, at, message};
use xtask::arrival::{ReadError, Reader};

const WAIT: Duration = Duration::from_secs(5);

async fn refused(setting: serde_json::Value) -> String {
    let hub = StandIn::start(setting).await;
    match hub.open().await.unwrap_err() {
        ReadError::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

async fn numbers(reader: &mut Reader, count: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let page = reader.page(WAIT).await.unwrap();
        assert!(!page.is_empty(), "only {seen:?} arrived");
        seen.extend(page.iter().map(|message| message.offset));
    }
    seen
}

#[tokio::test]
#[ignore = "needs Qpid Proton"]
async fn what_the_module_has_sent_since_is_read_from_all_partitions() {
    let mut messages: Vec<_> = (1..=300).map(|number| message("2", number, at(number))).collect();
    messages.push(message("0", 1001, at(3)));
    messages[7]["device"] = json!("other");
    messages[8]["module"] = json!("other");
    messages[9]["device"] = json!("");
    let hub = StandIn::start(json!({"messages": messages})).await;
    let mut reader = hub.open_since(at(5)).await.unwrap();
    let seen = numbers(&mut reader, 293).await;
    assert_eq!(seen, (5..=300).filter(|number| ![8, 9, 10].contains(number)).collect::<Vec<_>>());
    assert_eq!(reader.page(Duration::from_millis(200)).await, Ok(vec![]), "nothing else");
    assert_eq!(reader.note, None);
}

#[tokio::test]
#[ignore = "needs Qpid Proton"]
async fn a_message_has_what_the_device_gave_it() {
    let hub = StandIn::start(json!({"messages": [message("1", 42, at(1))]})).await;
    let message = hub.open().await.unwrap().page(WAIT).await.unwrap().remove(0);
    assert_eq!((message.device_id.as_str(), message.module_id.as_deref()), ("device", Some("tempSensor")));
    assert_eq!(message.enqueued_time_utc.as_millisecond(), at(1));
    assert_eq!(message.properties["sequenceNumber"], "42");
    assert_eq!(message.system_properties["iothub-message-source"], "Telemetry");
    assert_eq!(message.body.as_deref(), Some("{\"number\":42}"));
}

#[tokio::test]
#[ignore = "needs Qpid Proton"]
async fn partitions_are_found_by_number_where_the_hub_does_not_tell_them() {
    let messages = [message("0", 1, at(1)), message("3", 2, at(1))];
    let hub = StandIn::start(json!({"management": false, "messages": messages})).await;
    let mut reader = hub.open().await.unwrap();
    let mut seen = numbers(&mut reader, 2).await;
    seen.sort_unstable();
    assert_eq!(seen, [1, 2]);
    let note = reader.note.unwrap();
    assert!(note.contains("does not tell its partitions (500 The service was unable"), "{note}");
}

#[tokio::test]
#[ignore = "needs Qpid Proton"]
async fn a_connection_that_ends_is_told_and_can_be_made_again() {
    // In the last partition that is opened, so that the end comes when all are.
    let messages: Vec<_> = (1..=5).map(|number| message("3", number, at(1))).collect();
    let hub = StandIn::start(json!({"drop_after": 3, "messages": messages})).await;
    let mut reader = hub.open().await.unwrap();
    let error = loop {
        if let Err(error) = reader.page(WAIT).await {
            break error;
        }
    };
    let ReadError::Passing(why) = &error else { panic!("{error:?}") };
    assert!(why.contains("has ended the connection") && why.contains("The service is restarting"), "{why}");
    assert_eq!(numbers(&mut hub.open().await.unwrap(), 5).await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
#[ignore = "needs Qpid Proton"]
async fn each_refusal_is_told_with_what_to_look_at() {
    let cases = [
        (
            json!({"key_text": "another"}),
            "does not know the policy `service` with this key: 401 InvalidSignature",
        ),
        (json!({"policy": "owner"}), "does not know the policy `service` with this key"),
        (json!({"listen": false}), "has no right to read `plant`"),
        (json!({"entity": "other"}), "has no event hub `plant`: 404 The messaging entity could not be found"),
        (json!({"groups": ["kedge"]}), "has no event hub `plant` with a consumer group `$Default`"),
        (json!({"crowded": true}), "as many readers of the consumer group `$Default` as it allows"),
    ];
    assert_eq!(ENTITY, "plant");
    for (setting, expected) in cases {
        let why = refused(setting.clone()).await;
        assert!(why.contains(expected) && why.contains("127.0.0.1"), "{setting}: {why}");
        assert!(!why.contains("TrackingId") && !why.contains(stand_in::KEY), "{why}");
    }
}

#[tokio::test]
#[ignore = "needs Qpid Proton"]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let hub = StandIn::start(json!({})).await;
    let error = hub.open_as_a_stranger().await.unwrap_err();
    let ReadError::Refused(why) = error else { panic!("{error:?}") };
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
#[ignore = "needs Qpid Proton"]
async fn nobody_at_the_port_may_pass() {
    let mut hub = StandIn::start(json!({})).await;
    hub.stop().await;
    let error = hub.open().await.unwrap_err();
    assert!(
        matches!(&error, ReadError::Passing(why) if why.contains("cannot be reached at its port")),
        "{error:?}"
    );
}
