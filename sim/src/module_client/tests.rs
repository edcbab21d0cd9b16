use std::time::Duration;

use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, PubAck, SubAck, SubscribeReasonCode, UnsubAck};
use serde_json::json;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::mqtt::{Connection, Packet, QoS, packet};

/// The hub's end of a connection: it grants, acknowledges, and shows the test what arrives.
pub(crate) struct Peer {
    published: mpsc::UnboundedReceiver<packet::Publish>,
    to_client: mpsc::UnboundedSender<packet::Publish>,
    pub(crate) filters: mpsc::UnboundedReceiver<String>,
    pub(crate) unsubscribed: mpsc::UnboundedReceiver<String>,
}

impl Peer {
    /// A client of `identity` that is connected to a peer.
    pub(crate) async fn with_client(identity: &Identity) -> (Self, ModuleClient, Notices) {
        let (ours, theirs) = duplex(1024 * 1024);
        let (publish, published) = mpsc::unbounded_channel();
        let (to_client, from_test) = mpsc::unbounded_channel();
        let (subscribe, filters) = mpsc::unbounded_channel();
        let (unsubscribe, unsubscribed) = mpsc::unbounded_channel();
        let connection = Connection::new(theirs, MAX_PACKET);
        tokio::spawn(serve(connection, publish, from_test, subscribe, unsubscribe));
        let options = Options {
            client_id: identity.client_id(),
            username: "u".to_owned(),
            password: Secret::new("p"),
            keep_alive: Duration::from_secs(30),
            max_packet: MAX_PACKET,
            clean_session: false,
            manual_acknowledgements: false,
        };
        let (client, incoming) = Client::connect(ours, &options).await.unwrap();
        let (client, notices) = ModuleClient::begin(client, incoming, identity).await.unwrap();
        (Self { published, to_client, filters, unsubscribed }, client, notices)
    }

    /// Calls a method of the client; the answer.
    pub(crate) async fn call(&mut self, method: &str, body: &str) -> (i32, Bytes) {
        self.send(&format!("$iothub/methods/POST/{method}/?$rid=7"), body);
        let answer = self.published().await;
        match ClientTopic::parse(&answer.topic).unwrap() {
            ClientTopic::MethodResponse { status, request_id } => {
                assert_eq!(request_id, "7");
                (status, answer.payload)
            }
            other => panic!("{other} answers no call"),
        }
    }

    /// Publishes to the client.
    pub(crate) fn send(&self, topic: &str, body: &str) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.to_client.send(packet::Publish::from_bytes(topic, QoS::AtMostOnce, body)).unwrap();
    }

    /// What the client publishes next.
    pub(crate) async fn published(&mut self) -> packet::Publish {
        self.published.recv().await.unwrap()
    }
}

async fn serve(
    mut connection: Connection<DuplexStream>,
    published: mpsc::UnboundedSender<packet::Publish>,
    mut to_client: mpsc::UnboundedReceiver<packet::Publish>,
    filters: mpsc::UnboundedSender<String>,
    unsubscribed: mpsc::UnboundedSender<String>,
) {
    loop {
        let packet = tokio::select! {
            packet = connection.read() => packet,
            Some(publish) = to_client.recv() => {
                connection.write(&Packet::Publish(publish)).await.unwrap();
                continue;
            }
        };
        let answer = match packet {
            Ok(Some(Packet::Connect(_))) => Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false)),
            Ok(Some(Packet::PingReq)) => Packet::PingResp,
            Ok(Some(Packet::Subscribe(subscribe))) => {
                let granted = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); subscribe.filters.len()];
                subscribe.filters.into_iter().for_each(|filter| drop(filters.send(filter.path)));
                Packet::SubAck(SubAck::new(subscribe.pkid, granted))
            }
            Ok(Some(Packet::Unsubscribe(unsubscribe))) => {
                unsubscribe.topics.into_iter().for_each(|filter| drop(unsubscribed.send(filter)));
                Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))
            }
            Ok(Some(Packet::Publish(publish))) => {
                let acknowledgement = Packet::PubAck(PubAck::new(publish.pkid));
                drop(published.send(publish));
                acknowledgement
            }
            _ => return,
        };
        if connection.write(&answer).await.is_err() {
            return;
        }
    }
}

fn module() -> Identity {
    Identity::module("d", "m").unwrap()
}

#[tokio::test]
async fn a_call_is_handed_over_and_its_answer_published() {
    let (mut peer, client, _notices) = Peer::with_client(&module()).await;
    let mut calls = client.method_calls().await.unwrap();
    let handler = tokio::spawn(async move {
        let call = calls.recv().await.unwrap();
        assert_eq!((call.name.as_str(), call.body.as_ref()), ("turn", b"[1]".as_slice()));
        call.answer(207, Bytes::from_static(b"{}")).await.unwrap();
        calls
    });
    assert_eq!(peer.call("turn", "[1]").await, (207, Bytes::from_static(b"{}")));
    let mut calls = handler.await.unwrap();
    drop(client);
    assert!(calls.recv().await.is_none(), "the calls end with the client");
}

#[tokio::test]
async fn messages_of_inputs_arrive_with_their_properties() {
    let (mut peer, client, _notices) = Peer::with_client(&module()).await;
    let mut inputs = client.inputs().await.unwrap();
    peer.send("devices/d/modules/m/inputs/control/level=3&%24.ct=application%2Fjson", "body");
    let message = inputs.recv().await.unwrap();
    assert_eq!((message.input.as_str(), message.body.as_ref()), ("control", b"body".as_slice()));
    assert_eq!(message.properties.get("level"), Some("3"));
    let mut filters = Vec::new();
    while let Ok(filter) = peer.filters.try_recv() {
        filters.push(filter);
    }
    assert!(filters.contains(&"devices/d/modules/m/inputs/#".to_owned()), "{filters:?}");
}

#[tokio::test]
async fn more_calls_than_the_queue_holds_are_dropped_and_more_inputs_end_the_connection() {
    let (peer, client, mut notices) = Peer::with_client(&module()).await;
    let mut calls = client.method_calls().await.unwrap();
    let _inputs = client.inputs().await.unwrap();
    for number in 0..=CALL_QUEUE {
        peer.send(&format!("$iothub/methods/POST/m{number}/?$rid=1"), "");
    }
    for number in 0..=INPUT_QUEUE {
        peer.send("devices/d/modules/m/inputs/i/", &number.to_string());
    }
    let end = notices.desired_changed().await.unwrap_err();
    assert!(matches!(end, ClientError::Overflow), "{end}");
    let mut count = 0;
    while calls.recv().await.is_some() {
        count += 1;
    }
    assert_eq!(count, CALL_QUEUE);
}

#[tokio::test]
async fn twin_answers_still_find_their_request_among_calls() {
    let (mut peer, client, _notices) = Peer::with_client(&module()).await;
    let _calls = client.method_calls().await.unwrap();
    let asking = tokio::spawn(async move { client.twin().await.map(|twin| twin.desired) });
    let asked = peer.published().await;
    let rid = asked.topic.split_once("$rid=").unwrap().1.to_owned();
    peer.send("$iothub/methods/POST/noise/?$rid=9", "");
    peer.send("$iothub/twin/res/200/?$rid=unknown", "{}");
    peer.send(&format!("$iothub/twin/res/200/?$rid={rid}"), r#"{"desired":{"a":1},"reported":{}}"#);
    assert_eq!(asking.await.unwrap().unwrap(), json!({"a": 1}));
}
