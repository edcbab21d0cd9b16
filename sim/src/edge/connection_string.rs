//! Device connection strings, by the rules of the real configuration tool.
//!
//! Parts are separated by `;`, names are compared as written, unknown parts are ignored, and the
//! base64 padding of the key is optional. No error repeats any part of the text.

use crate::sas::SharedAccessKey;

/// What a device connection string says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConnectionString {
    pub(super) hub_hostname: String,
    pub(super) device_id: String,
    pub(super) key: SharedAccessKey,
}

impl ConnectionString {
    /// Reads the text; the error says which part is missing or wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Ok(Self {
            hub_hostname: part(text, "HostName")?.to_owned(),
            device_id: part(text, "DeviceId")?.to_owned(),
            key: parse_key(part(text, "SharedAccessKey")?)?,
        })
    }
}

fn part<'a>(text: &'a str, name: &str) -> Result<&'a str, String> {
    text.split(';')
        .filter_map(|part| part.trim().split_once('='))
        .find_map(|(key, value)| (key == name && !value.is_empty()).then_some(value))
        .ok_or_else(|| format!("required parameter \"{name}\" is missing"))
}

/// Reads a base64 key, with or without its padding.
pub(super) fn parse_key(text: &str) -> Result<SharedAccessKey, String> {
    let unpadded = text.trim().trim_end_matches('=');
    let padded = format!("{unpadded}{}", "=".repeat((4 - unpadded.len() % 4) % 4));
    SharedAccessKey::from_base64(&padded).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What may stand on the right of `=`: anything but the separator, and no blanks at its ends.
    fn value() -> impl Strategy<Value = String> {
        r"[A-Za-z0-9\-:.+%_#*?!(),@$'=]{1,40}"
    }

    proptest! {
        #[test]
        fn parts_are_read_in_any_order_beside_others(
            host in value(), device in value(), key in vec(any::<u8>(), 1..64), padded in any::<bool>(),
            others in vec(("[a-z]{1,12}", value()), 0..4), seed in any::<prop::sample::Index>(), blank in "[ \t]?",
        ) {
            let key = SharedAccessKey::from_bytes(key).unwrap();
            let text = key.to_base64().expose().to_owned();
            let text = if padded { text.as_str() } else { text.trim_end_matches('=') };
            let mut parts =
                vec![format!("HostName={host}"), format!("DeviceId={device}"), format!("SharedAccessKey={text}")];
            parts.extend(others.iter().map(|(name, value)| format!("{name}={value}")));
            let first = seed.index(parts.len());
            parts.rotate_left(first);
            let read = ConnectionString::parse(&parts.join(&format!("{blank};{blank}")));
            let expected = ConnectionString { hub_hostname: host, device_id: device, key };
            prop_assert_eq!(read, Ok(expected));
        }

        #[test]
        fn any_text_is_read_or_refused_and_its_key_not_repeated(text in any::<String>(), key in "[!?~*]{4,20}") {
            let _ = ConnectionString::parse(&text);
            let error = ConnectionString::parse(&format!("{text};HostName=h;DeviceId=d;SharedAccessKey={key}"));
            if let Err(error) = error {
                prop_assert!(!error.contains(&key), "{}", error);
            }
        }
    }

    #[test]
    fn the_usual_form_is_read_and_unknown_parts_are_ignored() {
        let text = "HostName=Hub.test:9443;DeviceId=d;x509=true;SharedAccessKey=a2V5;nonsense";
        let read = ConnectionString::parse(text).unwrap();
        assert_eq!((read.hub_hostname.as_str(), read.device_id.as_str()), ("Hub.test:9443", "d"));
        assert_eq!(read.key.to_base64().expose(), "a2V5");
    }

    #[test]
    fn the_padding_of_the_key_is_optional() {
        for text in ["a2V5cw==", "a2V5cw", " a2V5cw= "] {
            assert_eq!(parse_key(text).unwrap().to_base64().expose(), "a2V5cw==", "{text:?}");
        }
    }

    #[test]
    fn a_missing_part_is_named() {
        for (text, name) in [
            ("DeviceId=d;SharedAccessKey=a2V5", "HostName"),
            ("HostName=h;DeviceId=;SharedAccessKey=a2V5", "DeviceId"),
            ("HostName=h;DeviceId=d", "SharedAccessKey"),
            ("", "HostName"),
        ] {
            let error = ConnectionString::parse(text).unwrap_err();
            assert_eq!(error, format!("required parameter \"{name}\" is missing"));
        }
    }

    #[test]
    fn a_bad_key_is_refused_without_being_repeated() {
        let error = ConnectionString::parse("HostName=h;DeviceId=d;SharedAccessKey=ö!secret").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
