//! What passes through the gateway to its clients: inputs, methods, twins, and sessions that are kept.

use kedge_sim::edge::board::LinkState;
use kedge_sim::mqtt::packet::{PubAck, Publish, Subscribe, SubscribeReasonCode};
use kedge_sim::mqtt::{Connection, Packet, QoS};
use kedge_sim::tls::ClientStream;
use kedge_sim::topics::{HubTopic, PropertyBag};
use serde_json::{Value, json};

use crate::gateway::{Login, in_place_of_the_sensor};
use crate::world::{DEVICE, Edge, SENSOR, World, within_limit};

/// A client of the gateway, which keeps what it was sent while it waited for something else.
pub(crate) struct Client {
    connection: Connection<ClientStream>,
    waiting: Vec<Publish>,
    last_id: u16,
}

impl Client {
    pub(crate) fn new(connection: Connection<ClientStream>) -> Self {
        Self { connection, waiting: Vec::new(), last_id: 0 }
    }

    async fn read(&mut self) -> Packet {
        within_limit(self.connection.read()).await.expect("a packet").unwrap().expect("the connection stays")
    }

    async fn until(&mut self, is_it: impl Fn(&Packet) -> bool) -> Packet {
        loop {
            match self.read().await {
                packet if is_it(&packet) => return packet,
                Packet::Publish(publish) => self.waiting.push(publish),
                _ => {}
            }
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) {
        let mut subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
        self.last_id += 1;
        subscribe.pkid = self.last_id;
        self.connection.write(&Packet::Subscribe(subscribe)).await.unwrap();
        let Packet::SubAck(answer) = self.until(|packet| matches!(packet, Packet::SubAck(_))).await else {
            panic!()
        };
        assert_eq!(answer.return_codes, [SubscribeReasonCode::Success(QoS::AtLeastOnce)], "{filter}");
    }

    /// Publishes, and waits for the acknowledgement.
    pub(crate) async fn publish(&mut self, topic: &str, body: &str) {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, body);
        self.last_id += 1;
        let id = self.last_id;
        publish.pkid = id;
        self.connection.write(&Packet::Publish(publish)).await.unwrap();
        self.until(|packet| matches!(packet, Packet::PubAck(ack) if ack.pkid == id)).await;
    }

    /// The next publish, without an acknowledgement.
    pub(crate) async fn next(&mut self) -> Publish {
        if !self.waiting.is_empty() {
            return self.waiting.remove(0);
        }
        loop {
            if let Packet::Publish(publish) = self.read().await {
                return publish;
            }
        }
    }

    pub(crate) async fn acknowledge(&mut self, publish: &Publish) {
        self.connection.write(&Packet::PubAck(PubAck::new(publish.pkid))).await.unwrap();
    }

    /// True when the gateway has taken everything before.
    pub(crate) async fn ping(&mut self) {
        self.connection.write(&Packet::PingReq).await.unwrap();
        self.until(|packet| matches!(packet, Packet::PingResp)).await;
    }
}

pub(crate) async fn as_sensor(edge: &Edge) -> Client {
    Client::new(in_place_of_the_sensor(edge).await)
}

async fn again_as_sensor(edge: &Edge) -> Client {
    let (code, connection) = Login::of_sensor(edge).await.connect(edge).await;
    assert_eq!(code, kedge_sim::mqtt::packet::ConnectReturnCode::Success);
    Client::new(connection)
}

fn telemetry(bag: &str) -> String {
    format!("devices/{DEVICE}/modules/{SENSOR}/messages/events/{bag}")
}

fn input(publish: &Publish) -> (String, PropertyBag) {
    match HubTopic::parse(&publish.topic) {
        Ok(HubTopic::ModuleInput { input, properties, .. }) => (input, properties),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn use_routes(world: &World, edge: &Edge, routes: &Value) {
    edge.running(SENSOR).await;
    world.service.patch_module_desired(DEVICE, "$edgeHub", &json!({"routes": routes})).await.unwrap();
    let twin = world.service.module_twin(DEVICE, "$edgeHub").await.unwrap();
    let version = twin["properties"]["desired"]["$version"].clone();
    let reported = world.reported("$edgeHub", |reported| reported["lastDesiredVersion"] == version).await;
    assert_eq!(reported["lastDesiredStatus"]["code"], 200, "{reported}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_an_input_once_and_again_until_it_is_acknowledged() {
    let (world, edge) = World::with_sensor().await;
    let to_itself = format!(
        "FROM /messages/* WHERE kind = 'loop' AND $body.n > 1 INTO BrokeredEndpoint(\"/modules/{SENSOR}/inputs/in\")"
    );
    use_routes(&world, &edge, &json!({"loop": to_itself})).await;
    let mut client = as_sensor(&edge).await;
    client
        .publish(&telemetry("kind=loop&%24.on=o&%24.ct=application%2Fjson&%24.ce=utf-8"), "{\"n\": 2}")
        .await;
    client.publish(&telemetry("kind=loop&%24.ct=application%2Fjson&%24.ce=utf-8"), "{\"n\": 1}").await;
    client
        .publish(&telemetry("kind=loop&%24.ct=application%2Fjson&%24.ce=utf-8&second="), "{\"n\": 3}")
        .await;
    client.subscribe(&format!("devices/{DEVICE}/modules/{SENSOR}/inputs/#")).await;
    let first = client.next().await;
    let (name, properties) = input(&first);
    assert_eq!(
        (name.as_str(), first.qos, first.payload.as_ref()),
        ("in", QoS::AtLeastOnce, &b"{\"n\": 2}"[..])
    );
    assert_eq!((properties.get("$.cdid"), properties.get("$.cmid")), (Some(DEVICE), Some(SENSOR)));
    assert_eq!((properties.get("kind"), properties.get("$.on")), (Some("loop"), None));
    let second = client.next().await;
    assert_eq!(second.payload.as_ref(), b"{\"n\": 3}");
    client.acknowledge(&first).await;
    client.ping().await;
    // The session is kept: what was not acknowledged comes without a new subscription.
    drop(client);
    let mut client = again_as_sensor(&edge).await;
    let again = client.next().await;
    assert_eq!((again.payload, again.topic), (second.payload, second.topic));
    let left = edge.state(|state| state.store.usage.messages == 1).await;
    assert_eq!(left.store.usage.expired, 0);
    drop(client);
    // Also after a restart of the gateway.
    let engine = edge.stop().await;
    let edge = world.start_edge(engine).await;
    // The sensor itself would take the message.
    edge.engine.gateway().await.cut();
    edge.running(SENSOR).await;
    let mut client = again_as_sensor(&edge).await;
    let again = client.next().await;
    assert_eq!(again.payload.as_ref(), b"{\"n\": 3}");
    client.acknowledge(&again).await;
    edge.state(|state| state.store.usage.messages == 0).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_is_called_at_the_hub_is_answered_by_the_module_also_after_an_outage() {
    let (world, edge) = World::with_sensor().await;
    let mut client = as_sensor(&edge).await;
    client.subscribe("$iothub/methods/POST/#").await;
    for round in 0..2 {
        let payload = json!({"n": round});
        let call = world.call(SENSOR, "reset", &payload);
        let answer = async {
            let publish = client.next().await;
            let Ok(HubTopic::MethodCall { name, request_id }) = HubTopic::parse(&publish.topic) else {
                panic!()
            };
            assert_eq!((name.as_str(), publish.payload), ("reset", json!({"n": round}).to_string().into()));
            client.publish(&format!("$iothub/methods/res/207/?$rid={request_id}"), "{\"done\":true}").await;
        };
        let ((status, body), ()) = tokio::join!(call, answer);
        assert_eq!((status, body), (207, json!({"done": true})));
        world.mqtt.cut();
        edge.state(|state| state.edge_hub != LinkState::Connected).await;
        world.mqtt.mend();
        edge.state(|state| state.edge_hub == LinkState::Connected).await;
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_question_does_not_take_the_answer_to_the_modules() {
    let (world, edge) = World::with_sensor().await;
    let mut client = as_sensor(&edge).await;
    client.subscribe("$iothub/twin/res/#").await;
    client.subscribe("$iothub/twin/PATCH/properties/desired/#").await;
    // Only after an outage the gateway asks for itself.
    for has_outage in [false, true] {
        if has_outage {
            world.mqtt.cut();
            edge.state(|state| state.edge_hub != LinkState::Connected).await;
            world.mqtt.mend();
            let change = client.next().await;
            client.acknowledge(&change).await;
            assert!(change.topic.starts_with("$iothub/twin/PATCH/"), "{}", change.topic);
        }
        client.publish("$iothub/twin/GET/?$rid=kedge-gateway", "").await;
        let answer = client.next().await;
        client.acknowledge(&answer).await;
        assert_eq!(answer.topic, "$iothub/twin/res/200/?$rid=kedge-gateway");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_a_module_reports_is_a_notice_for_the_routes_that_want_it() {
    let (world, edge) = World::with_sensor().await;
    use_routes(
        &world,
        &edge,
        &json!({
            "upstream": "FROM /twinChangeNotifications WHERE twin_change_includes(mine) INTO $upstream",
        }),
    )
    .await;
    let mut client = as_sensor(&edge).await;
    client.subscribe("$iothub/twin/res/#").await;
    for (id, patch) in [(1, "{\"other\": 1}"), (2, "{\"mine\": 5}")] {
        client.publish(&format!("$iothub/twin/PATCH/properties/reported/?$rid={id}"), patch).await;
        let answer = client.next().await;
        assert!(answer.topic.starts_with(&format!("$iothub/twin/res/204/?$rid={id}")), "{}", answer.topic);
        client.acknowledge(&answer).await;
    }
    world.reported(SENSOR, |reported| reported["mine"] == 5).await;
    let is_notice = |message: &kedge_sim::service::TelemetryMessage| {
        message.body.as_deref() == Some("{\"mine\": 5}") && message.module_id.as_deref() == Some(SENSOR)
    };
    let messages = world.telemetry(|messages| messages.iter().any(is_notice)).await;
    assert!(!messages.iter().any(|message| message.body.as_deref() == Some("{\"other\": 1}")));
    edge.stop().await;
}
