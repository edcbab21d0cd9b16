//! The connection string of the endpoint at which an IoT Hub hands out telemetry as an Event Hub does.

use kedge_sim::secret::Secret;
use kedge_sim::tls::Endpoint;

/// AMQP over TLS.
const PORT: u16 = 5671;
/// How to get the right one; `NAME` is the hub's.
const HOW: &str =
    "`az iot hub connection-string show --default-eventhub --policy-name service --hub-name NAME` prints it";

/// The endpoint, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHub {
    /// Host and port.
    pub endpoint: Endpoint,
    /// The Event-Hub-compatible name.
    pub entity: String,
    /// The shared access policy.
    pub policy: String,
    /// Its key: the text as it stands, which Event Hubs sign with undecoded.
    pub key: Secret,
}

/// A connection string that cannot be used. No value of it is told.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// It is another of the many kinds of connection strings.
    #[error("the connection string is {0}, not the Event-Hub-compatible one; {HOW}")]
    OtherKind(&'static str),
    /// It is incomplete.
    #[error("the Event-Hub-compatible connection string lacks {}; {HOW}", .0.join(" and "))]
    Missing(Vec<&'static str>),
    /// A part is there and means nothing.
    #[error("in the Event-Hub-compatible connection string, {0}")]
    Malformed(&'static str),
}

impl EventHub {
    /// The text without the key.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        text.replace(self.key.expose(), "[redacted]")
    }

    /// Reads `Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…`.
    ///
    /// # Errors
    /// [`ConnectionStringError`], which names the parts and shows none of them.
    pub fn parse(text: &Secret) -> Result<Self, ConnectionStringError> {
        use ConnectionStringError::{Malformed, Missing, OtherKind};
        // What `az` prints without `--output tsv` has quotes around it.
        let text = text.expose().trim().trim_matches('"');
        let part = |name: &str| {
            let parts = text.split(';').filter_map(|part| part.split_once('='));
            let mut found = parts.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
        };
        if part("DeviceId").is_some() {
            return Err(OtherKind("that of a device"));
        }
        if part("HostName").is_some() {
            return Err(OtherKind("the IoT Hub's own"));
        }
        if part("AccountName").is_some() {
            return Err(OtherKind("that of a storage account"));
        }
        const NAMES: [&str; 4] = ["Endpoint", "SharedAccessKeyName", "SharedAccessKey", "EntityPath"];
        let [Some(endpoint), Some(policy), Some(key), Some(entity)] = NAMES.map(part) else {
            return Err(Missing(NAMES.into_iter().filter(|name| part(name).is_none()).collect()));
        };
        let endpoint = self::endpoint(endpoint).ok_or(Malformed("Endpoint is no address like sb://HOST/"))?;
        if entity.contains(['/', '?', '#']) || entity.contains(char::is_whitespace) {
            return Err(Malformed("EntityPath is not the name of an event hub"));
        }
        Ok(Self { endpoint, entity: entity.to_owned(), policy: policy.to_owned(), key: Secret::new(key) })
    }
}

fn endpoint(text: &str) -> Option<Endpoint> {
    let (_, rest) = text.split_once("://").filter(|(scheme, _)| ["sb", "amqps"].contains(scheme))?;
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (rest, PORT),
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_plain)).then(|| Endpoint::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "Endpoint=sb://ihsuprod1.servicebus.windows.net/;SharedAccessKeyName=service;\
                        SharedAccessKey=czNjcmV0czNjcmV0=;EntityPath=iothub-ehub-plant-1";

    fn parse(text: &str) -> Result<EventHub, ConnectionStringError> {
        EventHub::parse(&Secret::new(text))
    }

    #[test]
    fn the_parts_are_told_apart() {
        for text in [FINE, &format!("\"{FINE}\"\n"), &FINE.replace("Endpoint", "endpoint")] {
            let hub = parse(text).unwrap();
            assert_eq!(hub.endpoint, Endpoint::new("ihsuprod1.servicebus.windows.net", 5671));
            assert_eq!((hub.entity.as_str(), hub.policy.as_str()), ("iothub-ehub-plant-1", "service"));
            assert_eq!(hub.key.expose(), "czNjcmV0czNjcmV0=", "the `=` at its end is part of the key");
            assert!(!format!("{hub:?}").contains("czNj"));
        }
        let port = parse(&FINE.replace(".net/", ".net:15671")).unwrap().endpoint.port;
        assert_eq!(port, 15671);
    }

    #[test]
    fn what_is_wrong_is_named_and_not_shown() {
        let device = "HostName=h.azure-devices.net;DeviceId=d;SharedAccessKey=czNjcmV0";
        let service = "HostName=h.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey=czNjcmV0";
        let cases = [
            (device.to_owned(), "is that of a device, not the Event-Hub-compatible one; `az iot hub"),
            (service.to_owned(), "is the IoT Hub's own, not"),
            ("AccountName=a;AccountKey=czNjcmV0".to_owned(), "is that of a storage account"),
            (FINE.replace("SharedAccessKey=", "SharedAcessKey="), "lacks SharedAccessKey;"),
            (
                "Endpoint=sb://h/;SharedAccessKey=czNjcmV0".to_owned(),
                "lacks SharedAccessKeyName and EntityPath;",
            ),
            (
                "czNjcmV0".to_owned(),
                "lacks Endpoint and SharedAccessKeyName and SharedAccessKey and EntityPath;",
            ),
            (FINE.replace("sb://", "https://"), "Endpoint is no address"),
            (FINE.replace(".net/", ".net:0"), "Endpoint is no address"),
            (FINE.replace("sb://ihsuprod1", "sb://ihs uprod1"), "Endpoint is no address"),
            (FINE.replace("iothub-ehub", "iothub/ehub"), "EntityPath is not the name"),
        ];
        for (text, expected) in cases {
            let told = parse(&text).unwrap_err().to_string();
            assert!(told.contains(expected), "{text}: {told}");
            assert!(!told.contains("czNj") && !told.contains("ihsuprod"), "{told}");
        }
    }
}
