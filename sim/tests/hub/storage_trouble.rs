//! The hub while its state cannot be written.

use kedge_sim::http::StatusCode;
use kedge_sim::mqtt::packet::{ConnectReturnCode, Publish};
use kedge_sim::mqtt::{ClientError, Packet, QoS};
use rusqlite::Connection;

use crate::harness::{DEVICE, TestHub, within};

#[tokio::test]
async fn what_cannot_be_written_is_not_acknowledged_until_it_can() {
    let (hub, key) = TestHub::with_device().await;
    let service = hub.service();
    let mut connection = hub.raw(DEVICE, &key).await;
    // The hub's own statements fail as they do on a full disk.
    let database = Connection::open(hub.state_folder().join("hub.db")).unwrap();
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON telemetry BEGIN SELECT RAISE(ABORT, 'no room'); END";
    database.execute_batch(trigger).unwrap();

    let mut publish = Publish::new(format!("devices/{DEVICE}/messages/events/"), QoS::AtLeastOnce, "x");
    publish.pkid = 7;
    connection.write(&Packet::Publish(publish)).await.unwrap();
    let health = within(async {
        loop {
            let health = service.health().await.unwrap();
            if health.storage_trouble.is_some() {
                return health;
            }
        }
    });
    let health = health.await;
    assert_eq!(health.status, "degraded");
    assert!(health.storage_trouble.unwrap().contains("no room"));
    let refused = service.register_device("other").await.unwrap_err();
    assert_eq!(refused.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    let refused = hub.connect(DEVICE, &key).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(ConnectReturnCode::ServiceUnavailable)), "{refused}");
    hub.assert_no_telemetry().await;

    database.execute_batch("DROP TRIGGER full").unwrap();
    let answer = within(connection.read()).await.unwrap();
    assert!(matches!(answer, Some(Packet::PubAck(ack)) if ack.pkid == 7));
    assert_eq!(hub.telemetry_after(0).await.len(), 1);
    assert_eq!(service.health().await.unwrap().storage_trouble, None);
    service.register_device("other").await.unwrap();
}
