//! The MQTT interface of the provisioning service: a connection on which one device registers.
//!
//! The user name, `{id scope}/registrations/{registration id}/api-version=…`, tells such a connection from one to the
//! hub. Requests are publishes; their answers come on the topic that the device has subscribed to, with the status
//! and the time to wait in the topic.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::errors::DpsError;
use super::registration::{Proven, authenticate, operation, register};
use super::rest::{RETRY_AFTER_SECS, RegistrationBody};
use crate::hub::Hub;
use crate::hub::authority::Credential;
use crate::json::read_object_if_any;
use crate::mqtt::packet::{
    ConnAck, Connect, ConnectReturnCode, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode, UnsubAck,
};
use crate::mqtt::{Connection, Error, Packet, QoS};
use crate::percent;
use crate::x509::ClientCertificate;

const RESPONSES: &str = "$dps/registrations/res/#";
const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/";
const QUERY: &str = "$dps/registrations/GET/iotdps-get-operationstatus/";
/// A device that is silent for longer is gone; it has little to do here.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const MAX_REQUEST_ID: usize = 128;
const MAX_BODY: usize = 16 * 1024;

/// Why such a connection ended.
#[derive(Debug, thiserror::Error)]
pub(in crate::hub) enum End {
    #[error("the device closed it")]
    Closed,
    #[error("it is silent or does not read")]
    Silent,
    #[error("the device broke the protocol")]
    Protocol,
    #[error("the registration is refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Connection(#[from] Error),
}

/// True for a device that wants to register.
pub(in crate::hub) fn is_registration(connect: &Connect) -> bool {
    connect.login.as_ref().is_some_and(|login| read_username(&login.username).is_some())
}

/// `{id scope}/registrations/{registration id}` and whatever follows. No hub has a device of this name and module.
fn read_username(username: &str) -> Option<(&str, &str)> {
    let (scope, rest) = username.split_once("/registrations/")?;
    let (registration_id, version) = rest.split_once('/')?;
    let version = version.trim_start_matches('?');
    (!scope.contains('/') && version.starts_with("api-version=")).then_some((scope, registration_id))
}

/// Answers the CONNECT of such a device, and its requests until it leaves.
pub(in crate::hub) async fn serve<S>(
    hub: &Hub,
    connection: &mut Connection<S>,
    connect: &Connect,
    certificate: Option<&ClientCertificate>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut device, code) = match Device::accept(hub, connect, certificate) {
        Ok(device) => (Ok(device), ConnectReturnCode::Success),
        Err((error, code)) => (Err(End::Refused(format!("{error:?}"))), code),
    };
    if let Err(end) = write(connection, &Packet::ConnAck(ConnAck::new(code, false))).await {
        return end;
    }
    let device = match &mut device {
        Ok(device) => device,
        Err(_) => return device.err().unwrap_or(End::Protocol),
    };
    loop {
        let packet = match timeout(SILENCE_LIMIT, connection.read()).await {
            Ok(Ok(Some(packet))) => packet,
            Ok(Ok(None)) => return End::Closed,
            Ok(Err(error)) => return error.into(),
            Err(_) => return End::Silent,
        };
        let replies = match device.on_packet(packet) {
            Ok(replies) => replies,
            Err(end) => return end,
        };
        // What an answer tells has to be committed before.
        let receipt = hub.state().store.receipt();
        if hub.storage.writer.committed(receipt).await.is_err() {
            return End::Closed;
        }
        for packet in &replies {
            if let Err(end) = write(connection, packet).await {
                return end;
            }
        }
    }
}

async fn write<S>(connection: &mut Connection<S>, packet: &Packet) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Ok(timeout(WRITE_LIMIT, connection.write(packet)).await.map_err(|_| End::Silent)??)
}

/// A device that is registering.
struct Device<'a> {
    hub: &'a Hub,
    scope: String,
    registration_id: String,
    password: String,
    certificate: Option<&'a ClientCertificate>,
    subscribed: Option<QoS>,
    last_packet_id: u16,
}

impl<'a> Device<'a> {
    fn accept(
        hub: &'a Hub,
        connect: &Connect,
        certificate: Option<&'a ClientCertificate>,
    ) -> Result<Self, (DpsError, ConnectReturnCode)> {
        let refuse = |reason, code| (DpsError::Unauthorized(reason), code);
        let login = connect.login.as_ref();
        let names = login.and_then(|login| Some((login, read_username(&login.username)?)));
        let (login, (scope, registration_id)) =
            names.ok_or_else(|| refuse("no user name", ConnectReturnCode::BadUserNamePassword))?;
        if !connect.client_id.eq_ignore_ascii_case(registration_id) {
            return Err(refuse("the client id is another one", ConnectReturnCode::BadClientId));
        }
        let device = Self {
            hub,
            scope: scope.to_owned(),
            registration_id: registration_id.to_owned(),
            password: login.password.clone(),
            certificate,
            subscribed: None,
            last_packet_id: 0,
        };
        device.prove().map_err(|error| (error, ConnectReturnCode::NotAuthorized))?;
        Ok(device)
    }

    /// The proof is looked at for each request, because a token expires and an enrolment may change.
    fn prove(&self) -> Result<Proven, DpsError> {
        let password = Some(self.password.as_str()).filter(|password| !password.is_empty());
        let credential = Credential::read(password, self.certificate)?;
        let state = self.hub.state();
        authenticate(self.hub, &state.store, &self.scope, &self.registration_id, &credential, self.hub.now())
    }

    fn on_packet(&mut self, packet: Packet) -> Result<Vec<Packet>, End> {
        match packet {
            Packet::Subscribe(subscribe) => Ok(vec![self.on_subscribe(&subscribe)]),
            Packet::Unsubscribe(unsubscribe) => {
                if unsubscribe.topics.iter().any(|topic| topic == RESPONSES) {
                    self.subscribed = None;
                }
                Ok(vec![Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))])
            }
            Packet::Publish(publish) => self.on_publish(&publish),
            Packet::PubAck(_) => Ok(Vec::new()),
            Packet::PingReq => Ok(vec![Packet::PingResp]),
            Packet::Disconnect => Err(End::Closed),
            _ => Err(End::Protocol),
        }
    }

    fn on_subscribe(&mut self, subscribe: &Subscribe) -> Packet {
        let codes = subscribe.filters.iter().map(|filter| match filter.path.as_str() {
            RESPONSES => {
                let qos = if filter.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                self.subscribed = Some(qos);
                SubscribeReasonCode::Success(qos)
            }
            _ => SubscribeReasonCode::Failure,
        });
        let codes = codes.collect();
        Packet::SubAck(SubAck::new(subscribe.pkid, codes))
    }

    fn on_publish(&mut self, publish: &Publish) -> Result<Vec<Packet>, End> {
        if publish.qos == QoS::ExactlyOnce || publish.payload.len() > MAX_BODY {
            return Err(End::Protocol);
        }
        let request = Request::parse(&publish.topic).ok_or(End::Protocol)?;
        let mut replies = Vec::new();
        if publish.qos == QoS::AtLeastOnce {
            replies.push(Packet::PubAck(PubAck::new(publish.pkid)));
        }
        let (status, body) = match self.answer(&request, &publish.payload) {
            Ok((true, body)) => (202, body),
            Ok((false, body)) => (200, body),
            Err(error) => (error.status().as_u16(), error.body()),
        };
        replies.extend(self.reply(status, &request.id, &body));
        Ok(replies)
    }

    /// The body of the answer, and whether the device has to ask again.
    fn answer(&self, request: &Request, payload: &[u8]) -> Result<(bool, Value), DpsError> {
        if self.hub.faults.is_throttling() {
            return Err(DpsError::Throttled);
        }
        let proven = self.prove()?;
        match &request.operation_id {
            None => {
                let body: RegistrationBody = read_object_if_any(payload)
                    .map_err(|error| DpsError::Invalid(format!("the body is invalid: {error}")))?;
                body.check(&self.registration_id)?;
                let registered = register(self.hub, &mut self.hub.state(), proven, Timestamp::now());
                registered.map(|body| (true, body))
            }
            Some(id) => {
                let state = self.hub.state();
                let answer = operation(self.hub, &state.store, &self.registration_id, id)?;
                Ok((answer.assigning, answer.body))
            }
        }
    }

    /// Nothing is sent to a device that has not subscribed to answers.
    fn reply(&mut self, status: u16, request_id: &str, body: &Value) -> Option<Packet> {
        let qos = self.subscribed?;
        let request_id = percent::encode(request_id);
        let wait = if matches!(status, 202 | 429) {
            format!("&retry-after={RETRY_AFTER_SECS}")
        } else {
            String::new()
        };
        let topic = format!("$dps/registrations/res/{status}/?$rid={request_id}{wait}");
        let mut publish = Publish::new(topic, qos, body.to_string());
        if qos == QoS::AtLeastOnce {
            // Few are ever in flight, so that an id is free again long before it comes round.
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            publish.pkid = self.last_packet_id;
        }
        Some(Packet::Publish(publish))
    }
}

/// What a device asks by a publish.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    id: String,
    /// The operation that it asks for; without one it registers.
    operation_id: Option<String>,
}

impl Request {
    fn parse(topic: &str) -> Option<Self> {
        let (path, query) = topic.split_once('?')?;
        let value = |name: &str| {
            let mut parts = query.split('&').filter_map(|part| part.split_once('='));
            parts.find(|(key, _)| *key == name).and_then(|(_, value)| percent::decode(value))
        };
        let id = value("$rid").filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID)?;
        let operation_id = match path {
            REGISTER => None,
            QUERY => Some(value("operationId").filter(|id| !id.is_empty())?),
            _ => return None,
        };
        Some(Self { id, operation_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_of_the_sdks_are_told_from_those_of_the_hub() {
        for text in [
            "0ne1/registrations/Reg-1/api-version=2019-03-31&ClientVersion=azure-iot-device-provisioning-py%2F2.14.0",
            "0ne1/registrations/Reg-1/?api-version=2021-06-01",
        ] {
            assert_eq!(read_username(text), Some(("0ne1", "Reg-1")), "{text:?}");
        }
        for text in [
            "",
            "hub.test/d/?api-version=2021-04-12",
            "hub.test/d/registrations/x/api-version=1",
            "hub.test/registrations/m",
            "hub.test/registrations/m/",
            "/registrations/",
        ] {
            assert_eq!(read_username(text), None, "{text:?}");
        }
    }

    #[test]
    fn requests_are_read_from_topics() {
        let request = |id: &str, operation: Option<&str>| {
            Some(Request { id: id.to_owned(), operation_id: operation.map(str::to_owned) })
        };
        let cases = [
            ("$dps/registrations/PUT/iotdps-register/?$rid=1", request("1", None)),
            ("$dps/registrations/PUT/iotdps-register/?$rid=a%2Fb", request("a/b", None)),
            (
                "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=5.ab.cd",
                request("2", Some("5.ab.cd")),
            ),
            ("$dps/registrations/PUT/iotdps-register/", None),
            ("$dps/registrations/PUT/iotdps-register/?$rid=", None),
            ("$dps/registrations/PUT/iotdps-register/?$rid=%ff", None),
            ("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2", None),
            ("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=", None),
            ("$dps/registrations/DELETE/x/?$rid=1", None),
            ("devices/d/messages/events/?$rid=1", None),
        ];
        for (topic, expected) in cases {
            assert_eq!(Request::parse(topic), expected, "{topic:?}");
        }
        assert_eq!(Request::parse(&format!("{REGISTER}?$rid={}", "x".repeat(MAX_REQUEST_ID + 1))), None);
    }
}
