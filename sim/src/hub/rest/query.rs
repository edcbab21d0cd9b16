//! `/devices/query`: the few queries by which tools look for devices and modules.
//!
//! `SELECT * FROM devices[.modules] [WHERE {field} = '{text}' [AND …]]`, with the fields `deviceId`, `moduleId`,
//! `status`, `connectionState` and `capabilities.iotEdge`. Anything else is refused by name, never answered wrongly.

use axum::extract::State;
use axum::response::Response;
use hyper::header::HeaderMap;
use serde::Deserialize;

use super::error::ApiError;
use super::paging::Paging;
use super::request::JsonBody;
use super::{SharedHub, view};
use crate::hub::store::{Device, Module, Status};
use crate::identity::Identity;

const MAX_QUERY: usize = 4096;

#[derive(Deserialize)]
pub(super) struct QueryBody {
    query: String,
}

/// Answers with twins, page by page.
pub(super) async fn run(
    State(hub): State<SharedHub>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<QueryBody>,
) -> Result<Response, ApiError> {
    let query = Query::parse(&body.query).map_err(ApiError::bad_request)?;
    let paging = Paging::of(&headers).map_err(ApiError::bad_request)?;
    let store = &hub.state().store;
    let all = store.devices().flat_map(|device| {
        let itself = [None].into_iter().filter(|_| !query.modules);
        let modules = device.modules.values().map(Some).filter(|_| query.modules);
        itself.chain(modules).map(move |module| (device, module))
    });
    let found = all.filter(|&(device, module)| query.fits(device, module));
    Ok(paging.answer("twin", found, |(device, module)| {
        let identity = match module {
            Some(module) => Identity::module(&device.id, &module.id),
            None => Identity::device(&device.id),
        };
        view::twin(&identity.ok()?, store).ok()
    }))
}

/// A query that was understood.
#[derive(Debug, PartialEq)]
struct Query {
    modules: bool,
    conditions: Vec<(Field, Literal)>,
}

/// What can be asked for. It is looked up in the registry, so that only the twins that fit are made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    DeviceId,
    ModuleId,
    Status,
    ConnectionState,
    IotEdge,
}

#[derive(Debug, PartialEq)]
enum Literal {
    Text(String),
    Flag(bool),
}

impl Field {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("devices.").unwrap_or(text);
        let known = [
            ("deviceId", Self::DeviceId),
            ("moduleId", Self::ModuleId),
            ("status", Self::Status),
            ("connectionState", Self::ConnectionState),
            ("capabilities.iotEdge", Self::IotEdge),
        ];
        known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, field)| field)
    }

    /// A field of another type, or that is not there, has no value.
    fn has(self, expected: &Literal, device: &Device, module: Option<&Module>) -> bool {
        let text = match self {
            Self::DeviceId => device.id.as_str(),
            Self::ModuleId => module.map_or("", |module| &module.id),
            Self::Status => match device.status {
                Status::Enabled => "enabled",
                Status::Disabled => "disabled",
            },
            Self::ConnectionState => {
                view::connection_state(module.map_or(&device.record, |module| &module.record))
            }
            Self::IotEdge => return module.is_none() && *expected == Literal::Flag(device.iot_edge),
        };
        matches!(expected, Literal::Text(expected) if expected == text)
    }
}

impl Query {
    fn fits(&self, device: &Device, module: Option<&Module>) -> bool {
        self.conditions.iter().all(|(field, expected)| field.has(expected, device, module))
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_QUERY {
            return Err("the query is too long".to_owned());
        }
        let words = words(text)?;
        let mut words = words.iter().map(String::as_str).peekable();
        let mut expect = |keyword: &str| match words.next() {
            Some(word) if word.eq_ignore_ascii_case(keyword) => Ok(()),
            other => Err(unsupported(other, &format!("{keyword} is expected"))),
        };
        expect("SELECT")?;
        expect("*")?;
        expect("FROM")?;
        let modules = match words.next() {
            Some(word) if word.eq_ignore_ascii_case("devices") => false,
            Some(word) if word.eq_ignore_ascii_case("devices.modules") => true,
            other => return Err(unsupported(other, "devices or devices.modules is expected")),
        };
        let mut conditions = Vec::new();
        let mut keyword = "WHERE";
        while let Some(word) = words.next() {
            if !word.eq_ignore_ascii_case(keyword) {
                return Err(unsupported(Some(word), &format!("{keyword} or the end is expected")));
            }
            keyword = "AND";
            let field = words.next();
            let known = field.and_then(Field::parse).ok_or_else(|| unsupported(field, "an unknown field"))?;
            match words.next() {
                Some("=") => {}
                other => return Err(unsupported(other, "only = is supported")),
            }
            let value = words.next();
            let literal = value.and_then(literal).ok_or_else(|| unsupported(value, "not a value"))?;
            conditions.push((known, literal));
        }
        Ok(Self { modules, conditions })
    }
}

fn literal(word: &str) -> Option<Literal> {
    if let Some(quote) = word.chars().next().filter(|quote| matches!(quote, '\'' | '"')) {
        return word.get(1..)?.strip_suffix(quote).map(|text| Literal::Text(text.to_owned()));
    }
    match word.to_ascii_lowercase().as_str() {
        "true" => Some(Literal::Flag(true)),
        "false" => Some(Literal::Flag(false)),
        _ => None,
    }
}

/// Words, `=`, and texts with their quotes.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut rest) = (Vec::new(), text.trim());
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' => {
                let end = rest.char_indices().skip(1).find(|(_, char)| *char == first);
                end.map(|(place, _)| place + 1).ok_or("a text has no end")?
            }
            '=' => 1,
            _ => rest.find(|char: char| char.is_whitespace() || char == '=').unwrap_or(rest.len()),
        };
        let (word, behind) = rest.split_at(length);
        words.push(word.to_owned());
        rest = behind.trim_start();
    }
    Ok(words)
}

fn unsupported(word: Option<&str>, reason: &str) -> String {
    let place = word.map_or_else(|| "its end".to_owned(), |word| format!("{word:?}"));
    format!("the query is not supported at {place}: {reason}")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::hub::store::{DeviceSpec, Store};

    #[test]
    fn the_queries_of_tools_are_understood() {
        let text = |text: &str| Literal::Text(text.to_owned());
        let cases = [
            ("SELECT * FROM devices", false, vec![]),
            ("select * from Devices", false, vec![]),
            (
                "SELECT * FROM devices.modules WHERE deviceId='d 1'",
                true,
                vec![(Field::DeviceId, text("d 1"))],
            ),
            (
                "SELECT * FROM devices WHERE devices.deviceId = \"d\" AND capabilities.iotEdge = true",
                false,
                vec![(Field::DeviceId, text("d")), (Field::IotEdge, Literal::Flag(true))],
            ),
        ];
        for (text, modules, conditions) in cases {
            assert_eq!(Query::parse(text), Ok(Query { modules, conditions }), "{text}");
        }
    }

    #[test]
    fn conditions_are_about_what_the_registry_holds() {
        let mut store = Store::default();
        let spec =
            DeviceSpec { iot_edge: Some(true), status: Some(Status::Disabled), ..DeviceSpec::default() };
        store.create_device("d", spec, Timestamp::UNIX_EPOCH).unwrap();
        let device = store.device("d").unwrap();
        let cases = [
            ("deviceId = 'd'", true, true),
            ("deviceId = 'D'", false, false),
            ("moduleId = '$edgeHub'", false, true),
            ("status = 'disabled'", true, true),
            ("status = 'enabled'", false, false),
            ("status = true", false, false),
            ("connectionState = 'Disconnected'", true, true),
            ("capabilities.iotEdge = true", true, false),
            ("capabilities.iotEdge = 'true'", false, false),
            ("deviceId = 'd' AND status = 'enabled'", false, false),
        ];
        for (condition, for_device, for_module) in cases {
            let query = Query::parse(&format!("SELECT * FROM devices WHERE {condition}")).unwrap();
            let module = device.modules.get("$edgeHub");
            assert_eq!(query.fits(device, None), for_device, "{condition}");
            assert_eq!(query.fits(device, module), for_module, "{condition}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "SELECT",
            "SELECT deviceId FROM devices",
            "SELECT * FROM jobs",
            "SELECT * FROM devices WHERE",
            "SELECT * FROM devices WHERE tags.x = 1",
            "SELECT * FROM devices WHERE deviceId",
            "SELECT * FROM devices WHERE deviceId <> 'd'",
            "SELECT * FROM devices WHERE deviceId = d",
            "SELECT * FROM devices WHERE deviceId = 'd",
            "SELECT * FROM devices WHERE deviceId = '",
            "SELECT * FROM devices WHERE deviceId = 'a' OR deviceId = 'b'",
            "SELECT * FROM devices GROUP BY status",
            "SELECT * FROM devices WHERE 🦀 = 'ä'",
            &"x".repeat(MAX_QUERY + 1),
        ] {
            assert!(Query::parse(text).is_err(), "{text:?}");
        }
    }
}
