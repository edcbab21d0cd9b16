//! What the hub has acknowledged is there after a `kill -9`.

use std::path::Path;
use std::time::Duration;

use kedge_sim::http::{HttpClient, Request};
use kedge_sim::hub::DEFAULT_ID_SCOPE;
use kedge_sim::identity::Identity;
use kedge_sim::mqtt::{Client, Incoming, Options};
use kedge_sim::pki::{CertificateAuthority, Validity};
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::secret::Secret;
use kedge_sim::service::{CloudToDeviceMessage, ServiceClient, TelemetryFilter};
use kedge_sim::tls::{self, Endpoint, Trust};
use kedge_sim::topics::{ClientTopic, HubTopic, Subscription};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::harness::{DEVICE, HUB, manifest, token, within};
use crate::program::{configure, start};

/// The program, listening.
struct Program {
    child: Child,
    service: ServiceClient,
    https: Endpoint,
    mqtt: Endpoint,
    ca_pem: String,
}

async fn launch(folder: &Path, ca_pem: &str, owner_key: &SharedAccessKey) -> Program {
    let (child, mut lines) = start(folder);
    let line = within(lines.next_line()).await.unwrap().expect("a first line");
    let address = |name: &str| {
        let rest = line.split(&format!("{name}=")).nth(1).expect("an address");
        Endpoint::at(HUB, rest.split_whitespace().next().unwrap().parse().unwrap())
    };
    let service = ServiceClient::new(address("https"), HUB, owner_key.clone(), Some(ca_pem)).unwrap();
    // The log has to be read on, or the program would wait.
    let (https, mqtt) = (address("https"), address("mqtt"));
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Program { child, service, https, mqtt, ca_pem: ca_pem.to_owned() }
}

impl Program {
    async fn connect(&self, connection_string: &Secret) -> (Client, Incoming) {
        self.connect_with(connection_string, false).await
    }

    async fn connect_with(
        &self,
        connection_string: &Secret,
        manual_acknowledgements: bool,
    ) -> (Client, Incoming) {
        let key = connection_string.expose().rsplit_once("SharedAccessKey=").unwrap().1;
        let key = SharedAccessKey::from_base64(key).unwrap();
        let identity = Identity::device(DEVICE).unwrap();
        let options = Options {
            client_id: identity.client_id(),
            username: identity.username(HUB),
            password: Secret::new(token(&identity.resource(HUB), &key)),
            keep_alive: Duration::from_secs(60),
            max_packet: 1024 * 1024,
            clean_session: false,
            manual_acknowledgements,
        };
        let tls = tls::client_config(Trust::Only(&self.ca_pem)).unwrap();
        let stream = within(tls::connect(&self.mqtt, tls)).await.unwrap();
        within(Client::connect(stream, &options)).await.unwrap()
    }

    async fn kill(mut self) {
        within(self.child.kill()).await.unwrap();
    }
}

async fn report(client: &Client, incoming: &mut Incoming, patch: &Value) -> u64 {
    client.subscribe(vec![Subscription::TwinResponses.to_string()]).await.unwrap();
    let topic = ClientTopic::ReportedPatch { request_id: "1".into() };
    within(client.publish(topic.to_string(), patch.to_string().into())).await.unwrap();
    let answer = within(incoming.next()).await.unwrap();
    match HubTopic::parse(&answer.topic) {
        Ok(HubTopic::TwinResponse { status: 204, version: Some(version), .. }) => version,
        other => panic!("{other:?}"),
    }
}

/// Publishes until the hub is gone; gives the number of messages that were acknowledged, which are the first ones.
async fn publish_without_end(client: Client, acknowledged: tokio::sync::watch::Sender<u64>) {
    for number in 0_u64.. {
        let topic = format!("devices/{DEVICE}/messages/events/n={number}");
        let Ok(delivery) = client.start_publish(topic, "x".into()).await else { return };
        let acknowledged = acknowledged.clone();
        tokio::spawn(async move {
            if delivery.await.is_ok() {
                acknowledged.send_modify(|count| *count = (*count).max(number + 1));
            }
        });
    }
}

#[tokio::test]
async fn parents_authorities_enrollments_and_tags_are_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (ca_pem, owner_key) = configure(folder.path());
    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    let device_ca = CertificateAuthority::generate("devices").unwrap();
    program.service.register_edge_device(DEVICE).await.unwrap();
    let leaf = program.service.register_leaf_device("leaf", DEVICE).await.unwrap();
    program.service.put_device_authority("devices", device_ca.certificate_pem()).await.unwrap();
    let x509 = json!({"caReferences": {"primary": "devices"}});
    let group = json!({
        "attestation": {"type": "x509", "x509": x509},
        "initialTwin": {"tags": {"site": "a"}},
    });
    program.service.put_enrollment_group("factory", &group).await.unwrap();
    program.kill().await;

    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    assert_eq!(program.service.connection_string("leaf").await.unwrap(), Some(leaf));
    let certificate = device_ca.issue_client("reg-1", Validity::for_next(Duration::from_secs(3600))).unwrap();
    let tls = tls::client_config_as(Trust::Only(&ca_pem), Some(&certificate)).unwrap();
    let path = format!("/{DEFAULT_ID_SCOPE}/registrations/reg-1");
    let http = HttpClient::new(program.https.clone(), tls);
    let request = Request::put(format!("{path}/register?api-version=2021-06-01")).body("{}".into()).unwrap();
    let answer: Value = serde_json::from_slice(within(http.send(request)).await.unwrap().body()).unwrap();
    program.kill().await;

    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    let operation = answer["operationId"].as_str().expect("an operation");
    let poll = format!("{path}/operations/{operation}?api-version=2021-06-01");
    let tls = tls::client_config_as(Trust::Only(&ca_pem), Some(&certificate)).unwrap();
    let http = HttpClient::new(program.https.clone(), tls);
    let answer = within(http.send(Request::get(poll).body("".into()).unwrap())).await.unwrap();
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(answer["registrationState"]["deviceId"], "reg-1", "{answer}");
    assert_eq!(program.service.device_twin("reg-1").await.unwrap()["tags"], json!({"site": "a"}));
    let leaf = program.service.device_twin("leaf").await.unwrap();
    assert!(leaf["deviceScope"].as_str().is_some_and(|scope| scope.contains(DEVICE)), "{leaf}");
    program.kill().await;
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (ca_pem, owner_key) = configure(folder.path());
    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    let connection_string = program.service.register_edge_device(DEVICE).await.unwrap();
    let deployment = manifest(&json!({"sensor": {}}));
    program.service.apply_configuration_content(DEVICE, &deployment).await.unwrap();
    program.service.patch_module_desired(DEVICE, "sensor", &json!({"a": 1})).await.unwrap();
    let (client, mut incoming) = program.connect(&connection_string).await;
    assert_eq!(report(&client, &mut incoming, &json!({"r": 1})).await, 2);
    let device = program.service.device(DEVICE).await.unwrap();
    let modules = program.service.modules(DEVICE).await.unwrap();

    let (acknowledged, mut count) = tokio::sync::watch::channel(0);
    let publisher = tokio::spawn(publish_without_end(client, acknowledged));
    within(count.wait_for(|count| *count > 1000)).await.unwrap();
    program.kill().await;
    within(publisher).await.unwrap();
    let acknowledged = *count.borrow_and_update();

    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    let known = program.service.connection_string(DEVICE).await.unwrap().expect("the device");
    assert_eq!(known, connection_string);
    let after = program.service.device(DEVICE).await.unwrap();
    assert_eq!((after.generation_id, after.etag), (device.generation_id, device.etag));
    assert_eq!(program.service.modules(DEVICE).await.unwrap(), modules);
    let twin = program.service.module_twin(DEVICE, "sensor").await.unwrap();
    assert_eq!(twin["properties"]["desired"]["$version"], 2);
    let twin = program.service.patch_module_desired(DEVICE, "sensor", &json!({"b": 2})).await.unwrap();
    let desired = &twin["properties"]["desired"];
    assert_eq!((&desired["a"], &desired["b"], &desired["$version"]), (&json!(1), &json!(2), &json!(3)));
    let (client, mut incoming) = program.connect(&connection_string).await;
    assert_eq!(report(&client, &mut incoming, &json!({"r": 2})).await, 3);

    let (mut numbers, mut offsets) = (Vec::new(), Vec::new());
    loop {
        let after = offsets.last().copied().unwrap_or_default();
        let page =
            program.service.telemetry(&TelemetryFilter::default(), after, Duration::ZERO).await.unwrap();
        if page.messages.is_empty() {
            break;
        }
        offsets.extend(page.messages.iter().map(|message| message.offset));
        numbers.extend(page.messages.iter().map(|message| message.properties["n"].parse::<u64>().unwrap()));
    }
    assert!(numbers.len() as u64 >= acknowledged, "{} of {acknowledged}", numbers.len());
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!(offsets, (1..=offsets.len() as u64).collect::<Vec<_>>());
    within(client.publish(format!("devices/{DEVICE}/messages/events/"), "y".into())).await.unwrap();
    let last = offsets.len() as u64;
    let page = program.service.telemetry(&TelemetryFilter::default(), last, Duration::ZERO).await.unwrap();
    assert_eq!(page.messages[0].offset, last + 1);
    program.kill().await;
}

/// The id of the message to the device that comes next, and whether it came before.
async fn next_message(client: &Client, incoming: &mut Incoming, acknowledge: bool) -> (String, bool) {
    let publish = within(incoming.next()).await.unwrap();
    let Ok(HubTopic::CloudToDevice { properties, .. }) = HubTopic::parse(&publish.topic) else {
        panic!("{}", publish.topic)
    };
    if acknowledge {
        client.acknowledge(publish.pkid).await.unwrap();
    }
    (properties.get("$.mid").unwrap().to_owned(), publish.dup)
}

/// Returns when the hub has committed all that the client has sent before.
async fn settle(client: &Client) {
    within(client.publish(format!("devices/{DEVICE}/messages/events/"), "x".into())).await.unwrap();
}

#[tokio::test]
async fn messages_to_a_device_its_subscriptions_and_feedback_are_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (ca_pem, owner_key) = configure(folder.path());
    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    let device = program.service.register_edge_device(DEVICE).await.unwrap();
    let (client, mut incoming) = program.connect_with(&device, true).await;
    let filters =
        [Subscription::CloudToDevice(Identity::device(DEVICE).unwrap()), Subscription::DesiredPatches];
    client.subscribe(filters.map(|filter| filter.to_string()).to_vec()).await.unwrap();
    let send = async |program: &Program, id: &str| {
        let (message_id, ack) = (Some(id.to_owned()), Some("full".to_owned()));
        let message = CloudToDeviceMessage { body: "x".into(), message_id, ack, ..Default::default() };
        program.service.send_cloud_to_device(DEVICE, &message).await.unwrap();
    };
    for id in ["taken", "delivered"] {
        send(&program, id).await;
        let acknowledge = id == "taken";
        let received = next_message(&client, &mut incoming, acknowledge).await;
        assert_eq!(received, (id.to_owned(), false));
    }
    settle(&client).await;
    program.kill().await;
    drop((client, incoming));

    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    send(&program, "waiting").await;
    program.kill().await;

    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    let (client, mut incoming) = program.connect_with(&device, true).await;
    for (id, came_before) in [("delivered", true), ("waiting", false)] {
        let received = next_message(&client, &mut incoming, true).await;
        assert_eq!(received, (id.to_owned(), came_before), "without another SUBSCRIBE");
    }
    settle(&client).await;
    program.service.patch_device_desired(DEVICE, &json!({"rate": 5})).await.unwrap();
    let patch = within(incoming.next()).await.unwrap();
    assert!(matches!(HubTopic::parse(&patch.topic), Ok(HubTopic::DesiredPatch { .. })), "{}", patch.topic);
    let mut told = Vec::new();
    for _ in 0..2 {
        let Some(batch) = program.service.feedback().await.unwrap() else { break };
        told.extend(batch.records.iter().filter_map(|record| record.original_message_id.clone()));
        program.service.complete_feedback(&batch).await.unwrap();
    }
    assert_eq!(told, ["taken", "delivered", "waiting"]);
    program.kill().await;
    drop((client, incoming));

    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    assert_eq!(program.service.feedback().await.unwrap(), None, "it was confirmed");
    let twin = program.service.device_twin(DEVICE).await.unwrap();
    assert_eq!(twin["cloudToDeviceMessageCount"], 0);
    program.kill().await;
}

#[tokio::test]
async fn a_second_hub_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ca_pem, owner_key) = configure(folder.path());
    let program = launch(folder.path(), &ca_pem, &owner_key).await;
    let (mut second, mut lines) = start(folder.path());
    assert_eq!(within(second.wait()).await.unwrap().code(), Some(1));
    let mut log = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        log.push_str(&line);
    }
    assert!(log.contains("another hub uses the state folder"), "{log}");
    program.kill().await;
}
