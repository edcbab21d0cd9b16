//! Connection strings of devices. Their parts are `Name=value`, separated by `;`, in any order.
//!
//! The runtime leaves out what it does not know, and says of a string that lacks something only that it could not parse its
//! file. Here each part is looked at, because what else stands in it mostly tells that the string is for something else.

use kedge_sim::sas::SharedAccessKey;

use super::{Device, Given, Review, key, names};
use crate::problems::nearest;

const HOST_NAME: &str = "HostName";
const DEVICE_ID: &str = "DeviceId";
const KEY: &str = "SharedAccessKey";
const NEEDED: [&str; 3] = [HOST_NAME, DEVICE_ID, KEY];

/// Parts that no string of an edge device has, and what they mean.
const OTHERS: [(&str, &str); 9] = [
    (
        "SharedAccessKeyName",
        "it is of a shared access policy, for services; the one of the device is needed: `az iot hub device-identity \
         connection-string show`",
    ),
    ("ModuleId", "this is the string of a module; the one of its edge device is needed"),
    (
        "GatewayHostName",
        "it leads a device behind a gateway to that; an edge device connects to its hub: leave out this part",
    ),
    ("SharedAccessSignature", "this is a token, which ends soon; the key of the device is needed"),
    (
        "x509",
        "the device proves itself by a certificate; use `cargo xtask device x509` with that and its key",
    ),
    ("Endpoint", "this is the string of an Event Hub or a Service Bus; the one of a device is needed"),
    ("EntityPath", "this is the string of an Event Hub; the one of a device is needed"),
    ("AccountKey", "this is the string of a storage account; the one of a device is needed"),
    ("AccountName", "this is the string of a storage account; the one of a device is needed"),
];

/// Reads the string.
pub(super) fn read(review: &mut Review, given: &Given) -> Option<(Device, SharedAccessKey)> {
    let text = match given.text() {
        Some("") => return refuse(review, given, "it is empty; a connection string of the device is needed"),
        None => return refuse(review, given, "it is not text; a connection string of the device is needed"),
        Some(text) if text.lines().count() > 1 => {
            return refuse(review, given, "it has more than one line; a connection string is one");
        }
        Some(text) if text.starts_with(['"', '\'']) => {
            return refuse(review, given, "it begins with a quotation mark; leave out the marks");
        }
        Some(text) => text,
    };
    if !text.contains(';') && key::from_text(text).is_ok() {
        let what =
            "this is a key alone; use `cargo xtask device sas` with it, or bring the whole connection string";
        return refuse(review, given, what);
    }
    let parts = Parts::of(text);
    parts.check(review, &given.place);
    let part = |name: &str| {
        let value = parts.value(name)?;
        Some(Given::new(format!("{}, {name}", given.place), value))
    };
    let host_name = part(HOST_NAME).and_then(|given| names::host_name(review, &given));
    let device_id = part(DEVICE_ID).and_then(|given| names::device_id(review, &given));
    let key = part(KEY).and_then(|given| {
        let key = key::from_text(given.text().unwrap_or_default());
        key.map_err(|problem| review.problem(&given.place, problem)).ok()
    });
    Some((Device { host_name: host_name?, device_id: device_id? }, key?))
}

fn refuse<T>(review: &mut Review, given: &Given, problem: &str) -> Option<T> {
    review.problem(&given.place, problem);
    None
}

/// Names and values; a part without `=` has no name.
struct Parts<'a>(Vec<(Option<&'a str>, &'a str)>);

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        let split = |part: &'a str| match part.split_once('=') {
            Some((name, value)) => (Some(name.trim()), value.trim()),
            None => (None, part),
        };
        Self(parts.map(split).collect())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(other, _)| *other == Some(name));
        named.map(|(_, value)| *value).collect::<Vec<_>>().into_iter()
    }

    /// The first that is not empty.
    fn value(&self, name: &str) -> Option<&'a str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Tells what is missing, what is too much and what is written otherwise. An unknown name is not repeated: a key
    /// may stand in its place.
    fn check(&self, review: &mut Review, place: &str) {
        let mut is_for_something_else = false;
        for (number, (name, _)) in self.0.iter().enumerate() {
            let (number, name) = (number + 1, name.unwrap_or_default());
            if NEEDED.contains(&name) {
                continue;
            }
            let known = NEEDED.into_iter().chain(OTHERS.map(|(other, _)| other));
            let near =
                known.clone().find(|known| known.eq_ignore_ascii_case(name)).or_else(|| nearest(name, known));
            let other = OTHERS.iter().find(|(other, _)| Some(*other) == near);
            match (near, other) {
                (_, Some((other, meaning))) => {
                    is_for_something_else = true;
                    review.problem(&format!("{place}, {other}"), *meaning);
                }
                (Some(near), None) => review.problem(place, format!("part {number}: write `{near}=`")),
                (None, None) if name.is_empty() => {
                    review.problem(place, format!("part {number} has no name; each part is `Name=value`"));
                }
                (None, None) => {
                    let what =
                        "has an unknown name; a device's string has HostName, DeviceId and SharedAccessKey";
                    review.problem(place, format!("part {number} {what}"));
                }
            }
        }
        for name in NEEDED {
            match self.all(name).count() {
                // What the string is for has been told, and explains it.
                0 if is_for_something_else => {}
                0 => review.problem(place, format!("`{name}` is missing")),
                1 if self.value(name).is_none() => review.problem(place, format!("`{name}` is empty")),
                1 => {}
                count => review.problem(place, format!("`{name}` stands in it {count} times")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldY";

    fn told(text: &str) -> Vec<String> {
        let mut review = Review::default();
        let read = read(&mut review, &Given::new("cs", text));
        assert!(read.is_some() || !review.problems.is_empty(), "{text}");
        review.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_parts_are_read_in_any_order_and_without_padding() {
        for text in [
            format!("HostName=Hub.test;DeviceId=d;SharedAccessKey={GOOD}"),
            format!("SharedAccessKey={GOOD};DeviceId=d;HostName=hub.test;\n"),
            format!(" HostName = hub.test ; DeviceId=d ;SharedAccessKey={GOOD}= "),
        ] {
            let mut review = Review::default();
            let (device, key) = read(&mut review, &Given::new("cs", text.as_str())).unwrap();
            assert_eq!(device, Device { host_name: "hub.test".into(), device_id: "d".into() });
            assert_eq!(key.expose(), b"ABCDEFGHIJKLMNOPQRSTUVWX");
            assert_eq!(review.problems, []);
        }
    }

    #[test]
    fn each_mistake_is_told_and_no_value() {
        let with = |more: &str| format!("HostName=hub.test;DeviceId=d;SharedAccessKey={GOOD};{more}");
        let cases: [(String, &[&str]); 16] = [
            (String::new(), &["cs: it is empty"]),
            (format!("\"{}\"", with("")), &["cs: it begins with a quotation mark"]),
            (format!("{}\n{}", with(""), with("")), &["cs: it has more than one line"]),
            (GOOD.into(), &["cs: this is a key alone"]),
            (
                "x".into(),
                &[
                    "cs: part 1 has no name",
                    "cs: `HostName` is missing",
                    "cs: `DeviceId` is missing",
                    "cs: `SharedAccessKey` is missing",
                ],
            ),
            ("HostName=;DeviceId=d".into(), &["cs: `HostName` is empty", "cs: `SharedAccessKey` is missing"]),
            (with("DeviceId=e"), &["cs: `DeviceId` stands in it 2 times"]),
            (with("Colour=QUJD"), &["cs: part 4 has an unknown name"]),
            (with("GatewayHostName=g"), &["cs, GatewayHostName: it leads a device behind a gateway"]),
            (with("ModuleId=m"), &["cs, ModuleId: this is the string of a module"]),
            (
                format!("HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey={GOOD}"),
                &["cs, SharedAccessKeyName: it is of a shared access policy"],
            ),
            (
                "HostName=h;DeviceId=d;x509=true".into(),
                &["cs, x509: the device proves itself by a certificate"],
            ),
            (
                "Endpoint=sb://x;SharedAccessKeyName=n;EntityPath=p".into(),
                &["cs, Endpoint: ", "cs, SharedAccessKeyName: ", "cs, EntityPath: "],
            ),
            (
                format!("hostname=h;DeviceId=d;SharedAccesKey={GOOD}"),
                &[
                    "cs: part 1: write `HostName=`",
                    "cs: part 3: write `SharedAccessKey=`",
                    "cs: `HostName` is missing",
                    "cs: `SharedAccessKey` is missing",
                ],
            ),
            (
                "HostName=https://h;DeviceId=a b;SharedAccessKey=QUJD".into(),
                &[
                    "cs, HostName: leave out the scheme",
                    "cs, DeviceId: `a b` is not a device id",
                    "cs, SharedAccessKey: the key is too short",
                ],
            ),
            (
                format!("{GOOD}{GOOD}=;DeviceId=d"),
                &["cs: part 1 has an unknown name", "cs: `HostName`", "cs: `SharedAccessKey`"],
            ),
        ];
        for (text, expected) in cases {
            let told = told(&text);
            assert_eq!(told.len(), expected.len(), "{text}: {told:?}");
            assert!(
                told.iter().zip(expected).all(|(told, expected)| told.starts_with(expected)),
                "{text}: {told:?}"
            );
            assert!(!told.concat().contains("QUJD"), "{told:?}");
        }
    }
}
