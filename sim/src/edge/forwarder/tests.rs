use std::time::Duration;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::*;
use crate::edge::spool::Parcel;
use crate::http::HttpClient;
use crate::mqtt::packet::{ConnAck, ConnectReturnCode, PubAck, Publish};
use crate::mqtt::{Connection, MAX_PACKET, Options, Packet};
use crate::secret::Secret;

const PREFIX: &str = "devices/d/modules/$edgeHub/messages/events/";

/// A client, and the hub that it is connected to, which acknowledges nothing by itself.
async fn connected() -> (Client, Connection<DuplexStream>) {
    let (ours, theirs) = duplex(1024 * 1024);
    let mut hub = Connection::new(theirs, MAX_PACKET);
    let options = Options {
        client_id: "d/$edgeHub".to_owned(),
        username: "u".to_owned(),
        password: Secret::new("p"),
        keep_alive: Duration::from_secs(30),
        clean_session: false,
        max_packet: MAX_PACKET,
        manual_acknowledgements: false,
    };
    let accept = async {
        assert!(matches!(hub.read().await, Ok(Some(Packet::Connect(_)))));
        hub.write(&Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await.unwrap();
    };
    let (client, ()) = tokio::join!(Client::connect(ours, &options), accept);
    (client.unwrap().0, hub)
}

/// What the hub receives next, until the client has gone.
async fn published(hub: &mut Connection<DuplexStream>) -> Option<Publish> {
    loop {
        match hub.read().await.unwrap()? {
            Packet::Publish(publish) => return Some(publish),
            Packet::PingReq | Packet::Disconnect => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn put(spool: &Spool, path: &str) {
    let body = bytes::Bytes::from_static(b"{}");
    let (endpoint, path) = (Endpoint::Upstream, path.to_owned());
    let parcel = Parcel { endpoint, priority: 1, expires: i64::MAX, path, body };
    let room = spool.try_room(parcel.size()).unwrap();
    spool.committed(spool.put(room, vec![parcel])).await.unwrap();
}

/// A scope that nobody is asked for.
async fn scope(spool: &Spool) -> Scope {
    let upstream = Arc::new(Upstream::of_nowhere());
    let http = HttpClient::new(upstream.link.endpoint.clone(), upstream.link.tls.clone());
    Scope::open(http, upstream, spool.clone()).await
}

#[tokio::test]
async fn before_a_renewal_the_hub_has_all_that_was_sent_and_nothing_new_is() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("messages.db")).unwrap();
    let scope = scope(&spool).await;
    let (client, mut hub) = connected().await;
    let (renew, renewal) = oneshot::channel::<()>();
    let (prefix, sent, acknowledged, suspicious) = (PREFIX, false, false, false);
    let mut sender = Sender { prefix, scope: &scope, sent, acknowledged, suspicious };
    put(&spool, "a=1").await;
    let sending = sender.empty(&spool, &client, async { renewal.await.unwrap() });
    let script = async {
        let first = published(&mut hub).await.unwrap();
        assert_eq!(first.topic, format!("{PREFIX}a=1"));
        renew.send(()).unwrap();
        // The sender has seen the renewal before there is more.
        yield_now().await;
        put(&spool, "a=2").await;
        hub.write(&Packet::PubAck(PubAck::new(first.pkid))).await.unwrap();
    };
    let (end, ()) = tokio::join!(sending, script);
    assert!(matches!(end, SessionEnd::Renewal), "{end:?}");
    assert_eq!(spool.usage().messages, 1, "the first message is done");
    drop(client);
    assert_eq!(published(&mut hub).await, None);
}
