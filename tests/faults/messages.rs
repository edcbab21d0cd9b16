//! Messages that are sent to the hub past the edge.

use kedge_sim::http::{HttpClient, Method, Request, StatusCode};
use kedge_sim::sas::{SharedAccessKey, sign, unix_seconds};
use kedge_sim::service::ServiceClient;
use kedge_sim::tls::{Endpoint, Trust, client_config};
use serde_json::{Value, json};

use crate::harness::state_of;
use crate::world::{HUB, NAME};

/// Somebody who sends over HTTPS.
pub(crate) struct Sender {
    client: HttpClient,
    path: String,
    key: SharedAccessKey,
}

impl Sender {
    /// A device that is made for this.
    pub(crate) async fn device(service: &ServiceClient, id: &str) -> Self {
        let connection = service.register_device(id).await.unwrap();
        let key = connection.expose().split_once("SharedAccessKey=").unwrap().1.to_owned();
        Self {
            client: client(),
            path: format!("devices/{id}"),
            key: SharedAccessKey::from_base64(&key).unwrap(),
        }
    }

    /// A module that is there, as which the hub's owner can send.
    pub(crate) async fn module(device: &str, module: &str) -> Self {
        let path = format!("devices/{device}/modules/{module}");
        let connections: Value = serde_json::from_str(&read("connections.json")).unwrap();
        let owner = connections["owner"].as_str().unwrap().split_once("SharedAccessKey=").unwrap().1;
        let owner = SharedAccessKey::from_base64(owner).unwrap();
        let token = sign(HUB, &owner, in_a_minute(), Some("iothubowner"));
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("/{path}?api-version=2021-04-12"))
            .header("authorization", token)
            .body(Default::default());
        let answer = client().send(request.unwrap()).await.unwrap();
        let found: Value = serde_json::from_slice(answer.body()).unwrap();
        let key = found["authentication"]["symmetricKey"]["primaryKey"]
            .as_str()
            .unwrap_or_else(|| panic!("{found}"));
        Self { client: client(), path, key: SharedAccessKey::from_base64(key).unwrap() }
    }

    /// Sends a message of the sensor's schema.
    pub(crate) async fn send(&self, number: u64) {
        let body = json!({
            "machine": { "temperature": 21.5, "pressure": 1.05 },
            "ambient": { "temperature": 20.9, "humidity": 25 },
            "timeCreated": jiff::Timestamp::now().to_string(),
        });
        // In a batch, names keep their capital letters, which those of headers do not.
        let properties = json!({
            "iothub-app-sequenceNumber": number.to_string(),
            "iothub-app-batchId": "past-the-edge",
            "iothub-contenttype": "application/json",
            "iothub-contentencoding": "utf-8",
        });
        let batch = json!([{ "body": body.to_string(), "base64Encoded": false, "properties": properties }]);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/{}/messages/events?api-version=2021-04-12", self.path))
            .header("authorization", sign(&format!("{HUB}/{}", self.path), &self.key, in_a_minute(), None))
            .header("content-type", "application/vnd.microsoft.iothub.json")
            .body(batch.to_string().into());
        let answer = self.client.send(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }
}

fn in_a_minute() -> u64 {
    unix_seconds(jiff::Timestamp::now()) + 60
}

fn read(name: &str) -> String {
    fs_err::read_to_string(state_of(NAME).join(name)).unwrap()
}

fn client() -> HttpClient {
    let connections: Value = serde_json::from_str(&read("connections.json")).unwrap();
    let address = connections["hub"]["https"].as_str().unwrap().parse().unwrap();
    let trust = client_config(Trust::SystemAnd(Some(&read("hub-ca.pem")))).unwrap();
    HttpClient::new(Endpoint::at(HUB, address), trust)
}
