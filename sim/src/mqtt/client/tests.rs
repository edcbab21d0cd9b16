use bytes::Bytes;
use rumqttc::mqttbytes::v4::{ConnAck, PubAck, SubAck, SubscribeReasonCode};
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::mqtt::driver::MAX_IN_FLIGHT;

const LIMIT: usize = 4096;

fn options() -> Options {
    Options {
        client_id: "d/m".to_owned(),
        username: "hub/d/m".to_owned(),
        password: Secret::new("token"),
        keep_alive: Duration::from_secs(30),
        max_packet: LIMIT,
        clean_session: true,
        manual_acknowledgements: false,
    }
}

/// The server's end of a connection, driven by the test.
struct Server(Connection<DuplexStream>);

impl Server {
    async fn read(&mut self) -> Packet {
        self.0.read().await.expect("read").expect("a packet")
    }

    async fn write(&mut self, packet: Packet) {
        self.0.write(&packet).await.expect("written");
    }

    async fn read_publish(&mut self) -> packet::Publish {
        loop {
            match self.read().await {
                Packet::Publish(publish) => return publish,
                Packet::PingReq => {}
                other => panic!("expected a publish, got {other:?}"),
            }
        }
    }
}

async fn connect_with(answer: Packet) -> (Server, Result<(Client, Incoming), ClientError>) {
    let (ours, theirs) = duplex(64 * 1024);
    let mut server = Server(Connection::new(theirs, LIMIT));
    let options = options();
    let (connected, ()) = tokio::join!(Client::connect(ours, &options), async {
        let Packet::Connect(connect) = server.read().await else { panic!("no CONNECT") };
        assert_eq!((connect.client_id.as_str(), connect.keep_alive), ("d/m", 30));
        assert_eq!(connect.clean_session, options.clean_session);
        assert_eq!(connect.login.expect("a login").password, "token");
        server.write(answer).await;
    });
    (server, connected)
}

async fn connect() -> (Server, Client, Incoming) {
    let accepted = Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false));
    let (mut server, connected) = connect_with(accepted).await;
    let (client, incoming) = connected.expect("connected");
    assert_eq!(server.read().await, Packet::PingReq, "the first ping tests the connection at once");
    server.write(Packet::PingResp).await;
    (server, client, incoming)
}

#[tokio::test]
async fn a_refusal_carries_the_servers_code() {
    for (code, is_final) in
        [(ConnectReturnCode::NotAuthorized, true), (ConnectReturnCode::ServiceUnavailable, false)]
    {
        let (_server, connected) = connect_with(Packet::ConnAck(ConnAck::new(code, false))).await;
        let error = connected.expect_err("refused");
        assert!(matches!(error, ClientError::Refused(refused) if refused == code), "{error}");
        assert_eq!(error.is_refusal(), is_final);
    }
    let (_server, connected) = connect_with(Packet::PingResp).await;
    assert!(matches!(connected, Err(ClientError::Unexpected(_))));
}

#[tokio::test]
async fn a_publish_is_done_when_its_own_acknowledgement_arrives() {
    let (mut server, client, _incoming) = connect().await;
    let first = client.start_publish("a".to_owned(), Bytes::from_static(b"1")).await.expect("queued");
    let second = client.start_publish("b".to_owned(), Bytes::from_static(b"2")).await.expect("queued");
    let (one, two) = (server.read_publish().await, server.read_publish().await);
    assert_eq!((one.topic.as_str(), two.topic.as_str()), ("a", "b"));
    server.write(Packet::PubAck(PubAck::new(two.pkid))).await;
    second.await.expect("acknowledged");
    drop(server);
    assert!(matches!(first.await, Err(ClientError::Closed)), "no acknowledgement, no success");
}

#[tokio::test]
async fn a_packet_that_cannot_be_sent_fails_alone() {
    let (mut server, client, _incoming) = connect().await;
    let large = client.publish("t".to_owned(), vec![0; 2 * LIMIT].into()).await;
    assert!(matches!(large, Err(ClientError::Connection(Error::TooLarge { .. }))));
    let small = client.start_publish("t".to_owned(), Bytes::new()).await.expect("queued");
    let id = server.read_publish().await.pkid;
    server.write(Packet::PubAck(PubAck::new(id))).await;
    small.await.expect("acknowledged");
}

#[tokio::test]
async fn subscriptions_are_granted_or_refused() {
    let (mut server, client, _incoming) = connect().await;
    for (codes, granted) in [
        (vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)], true),
        (vec![SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Failure], false),
    ] {
        let (result, ()) = tokio::join!(client.subscribe(vec!["a/#".to_owned()]), async {
            let Packet::Subscribe(subscribe) = server.read().await else { panic!("no SUBSCRIBE") };
            server.write(Packet::SubAck(SubAck::new(subscribe.pkid, codes.clone()))).await;
        });
        assert_eq!(result.is_ok(), granted);
    }
}

#[tokio::test]
async fn publishes_of_the_server_arrive_in_order_and_are_acknowledged() {
    let (mut server, _client, mut incoming) = connect().await;
    for id in [5, 6] {
        let mut publish = packet::Publish::new(format!("t/{id}"), QoS::AtLeastOnce, *b"x");
        publish.pkid = id;
        server.write(Packet::Publish(publish)).await;
        assert_eq!(incoming.next().await.expect("a publish").topic, format!("t/{id}"));
        assert_eq!(server.read().await, Packet::PubAck(PubAck::new(id)));
    }
    drop(server);
    assert!(matches!(incoming.next().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_caller_that_takes_nothing_loses_the_connection() {
    let (mut server, client, mut incoming) = connect().await;
    for _ in 0..=INCOMING_QUEUE {
        server.write(Packet::Publish(packet::Publish::new("t", QoS::AtMostOnce, *b"x"))).await;
    }
    client.closed().await;
    let error = loop {
        if let Err(error) = incoming.next().await {
            break error;
        }
    };
    assert!(matches!(error, ClientError::Overflow), "{error}");
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_left() {
    let (mut server, client, mut incoming) = connect().await;
    server.write(Packet::PingReq).await;
    assert!(matches!(incoming.next().await, Err(ClientError::Unexpected(_))));
    client.closed().await;
    assert!(matches!(client.publish("t".to_owned(), Bytes::new()).await, Err(ClientError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left_after_one_and_a_half_keep_alive_times() {
    let (_server, _client, mut incoming) = connect().await;
    let began = tokio::time::Instant::now();
    assert!(matches!(incoming.next().await, Err(ClientError::Silent)));
    assert!(began.elapsed() <= Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_last_handle_says_goodbye() {
    let (mut server, client, incoming) = connect().await;
    drop((client, incoming));
    assert_eq!(server.read().await, Packet::Disconnect);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_says_goodbye_to_a_server_that_acknowledges_nothing() {
    let (mut server, client, _incoming) = connect().await;
    for _ in 0..=MAX_IN_FLIGHT {
        drop(client.start_publish("t".to_owned(), Bytes::new()).await.expect("queued"));
    }
    for _ in 0..MAX_IN_FLIGHT {
        server.read_publish().await;
    }
    drop(client);
    assert_eq!(server.read().await, Packet::Disconnect, "what is above the window is not sent");
}
