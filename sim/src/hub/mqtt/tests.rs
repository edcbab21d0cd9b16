//! The timers of a connection, under a clock that the tests turn.

use std::sync::Arc;

use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::hub::authority::Authority;
use crate::hub::dps::Provisioning;
use crate::hub::store::{Authentication, DeviceSpec, Precondition, Retention, Storage};
use crate::mqtt::QoS;
use crate::mqtt::packet::{Connect, Subscribe};
use crate::sas::{CLOCK_SKEW_SECS, SharedAccessKey, sign, unix_seconds};

const HUB: &str = "hub.test";

fn key() -> SharedAccessKey {
    SharedAccessKey::from_bytes(vec![1; 32]).unwrap()
}

/// A hub with the device `d`.
struct TestHub {
    hub: Arc<Hub>,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for TestHub {
    type Target = Arc<Hub>;

    fn deref(&self) -> &Arc<Hub> {
        &self.hub
    }
}

fn hub() -> TestHub {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(HUB, SharedAccessKey::generate().unwrap(), None);
    let (store, storage) = Storage::open(folder.path(), Retention::default()).unwrap();
    let hub = Hub::new(authority, Provisioning::new("scope"), store, storage);
    let authentication = Some(Authentication::Sas { primary: key(), secondary: key() });
    let spec = DeviceSpec { authentication, ..DeviceSpec::default() };
    hub.state().store.create_device("d", spec, Timestamp::now()).unwrap();
    settle(&hub);
    TestHub { hub: Arc::new(hub), _folder: folder }
}

/// Waits for the database, whose thread the turned clock does not wait for.
fn settle(hub: &Hub) {
    let receipt = hub.state().store.receipt();
    while !hub.storage.writer.is_committed(receipt) {
        std::thread::yield_now();
    }
}

/// A server for one connection over a pipe of `capacity` bytes.
fn accept(hub: &Arc<Hub>, capacity: usize) -> (Connection<DuplexStream>, JoinHandle<()>) {
    let (ours, theirs) = duplex(capacity);
    let server = tokio::spawn(serve(
        hub.clone(),
        theirs,
        Peer { address: ([127, 0, 0, 1], 1).into(), certificate: None },
    ));
    (Connection::new(ours, MAX_PACKET), server)
}

async fn connect(
    hub: &Arc<Hub>,
    keep_alive: u16,
    token_life: u64,
) -> (Connection<DuplexStream>, JoinHandle<()>) {
    let (mut client, server) = accept(hub, 8 * 1024);
    let mut connect = Connect::new("d");
    connect.keep_alive = keep_alive;
    connect.set_login(
        format!("{HUB}/d/"),
        sign("hub.test/devices/d", &key(), unix_seconds(Timestamp::now()) + token_life, None),
    );
    client.write(&Packet::Connect(connect)).await.unwrap();
    let answer = client.read().await.unwrap();
    assert_eq!(answer, Some(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))));
    (client, server)
}

fn is_connected(hub: &Hub) -> bool {
    hub.state().store.device("d").unwrap().record.connected
}

/// Waits until the server has closed, and gives the seconds that it took on the turned clock.
async fn seconds_until_closed(client: &mut Connection<DuplexStream>) -> u64 {
    let started = Instant::now();
    while client.read().await.unwrap().is_some() {}
    started.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_dropped_after_one_and_a_half_times_its_keep_alive() {
    let hub = hub();
    let (mut client, server) = connect(&hub, 60, 3600).await;
    assert!(is_connected(&hub));
    tokio::time::advance(Duration::from_secs(80)).await;
    client.write(&Packet::PingReq).await.unwrap();
    assert_eq!(client.read().await.unwrap(), Some(Packet::PingResp));
    assert_eq!(seconds_until_closed(&mut client).await, 90);
    server.await.unwrap();
    assert!(!is_connected(&hub));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_connect_is_dropped() {
    let (mut client, server) = accept(&hub(), 1024);
    assert_eq!(seconds_until_closed(&mut client).await, CONNECT_TIMEOUT.as_secs());
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_when_its_token_expires() {
    let hub = hub();
    let (mut client, _server) = connect(&hub, 1177, 600).await;
    let seconds = seconds_until_closed(&mut client).await;
    let expected = 600 + CLOCK_SKEW_SECS;
    assert!((expected - 2..=expected).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_token_without_an_end_does_not_overflow_a_timer() {
    let hub = hub();
    let (mut client, _server) = accept(&hub, 8 * 1024);
    let mut connect = Connect::new("d");
    connect.set_login(format!("{HUB}/d/"), sign("hub.test/devices/d", &key(), u64::MAX, None));
    client.write(&Packet::Connect(connect)).await.unwrap();
    assert!(matches!(client.read().await.unwrap(), Some(Packet::ConnAck(_))));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_dropped() {
    let hub = hub();
    let (mut client, server) = connect(&hub, 1177, 3600).await;
    let mut subscribe = Subscribe::new("$iothub/twin/PATCH/properties/desired/#", QoS::AtMostOnce);
    subscribe.pkid = 1;
    client.write(&Packet::Subscribe(subscribe)).await.unwrap();
    assert!(matches!(client.read().await.unwrap(), Some(Packet::SubAck(_))));
    let patch = serde_json::json!({"a": "x".repeat(4000), "b": "x".repeat(4000), "c": "x".repeat(4000)});
    let identity = Identity::device("d").unwrap();
    {
        let (mut state, now) = (hub.state(), Timestamp::now());
        let patch = patch.as_object().unwrap().clone();
        let change = state.store.patch_desired(&identity, patch, &Precondition::Any, now).unwrap();
        drop(state);
        settle(&hub);
        hub.state().announce(change, now);
    }
    let started = Instant::now();
    server.await.unwrap();
    assert_eq!(started.elapsed(), WRITE_TIMEOUT);
    assert!(!is_connected(&hub));
}
