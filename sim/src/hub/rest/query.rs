//! `/devices/query`: the few queries by which tools look for devices and modules.
//!
//! `SELECT * FROM devices[.modules] [WHERE {field} = '{text}' [AND …]]`, with the fields `deviceId`, `moduleId`,
//! `status`, `connectionState` and `capabilities.iotEdge`. Anything else is refused by name, never answered wrongly.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::header::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::JsonBody;
use super::{SharedHub, view};
use crate::identity::Identity;

const PAGE_SIZE: HeaderName = HeaderName::from_static("x-ms-max-item-count");
const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
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
    let size = number(&headers, &PAGE_SIZE)?.filter(|&size| size > 0).unwrap_or(DEFAULT_PAGE).min(MAX_PAGE);
    let begin = number(&headers, &CONTINUATION)?.unwrap_or(0);
    let state = hub.state();
    let identities = state.store.devices().flat_map(|device| {
        let module = |id: &String| Identity::module(&device.id, id).ok();
        let modules = device.modules.keys().filter_map(module).filter(|_| query.modules);
        Identity::device(&device.id).ok().filter(|_| !query.modules).into_iter().chain(modules)
    });
    let twins = identities.filter_map(|identity| view::twin(&identity, &state.store).ok());
    let mut found: Vec<_> = twins.filter(|twin| query.fits(twin)).skip(begin).take(size + 1).collect();
    let has_more = found.len() > size;
    found.truncate(size);
    let mut response = ([(ITEM_TYPE, "twin")], Json(found)).into_response();
    if has_more {
        response.headers_mut().insert(CONTINUATION, (begin + size).into());
    }
    Ok(response)
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<usize>, ApiError> {
    let text = headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let number = text.filter(|text| !text.is_empty()).map(str::parse).transpose();
    number.map_err(|_| ApiError::bad_request(format!("{name} is not a number")))
}

/// A query that was understood.
#[derive(Debug, PartialEq)]
struct Query {
    modules: bool,
    /// JSON pointers and what stands there.
    conditions: Vec<(&'static str, Value)>,
}

impl Query {
    fn fits(&self, twin: &Value) -> bool {
        self.conditions.iter().all(|(pointer, expected)| twin.pointer(pointer) == Some(expected))
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
            let pointer = field.and_then(pointer).ok_or_else(|| unsupported(field, "an unknown field"))?;
            match words.next() {
                Some("=") => {}
                other => return Err(unsupported(other, "only = is supported")),
            }
            let value = words.next();
            conditions
                .push((pointer, value.and_then(literal).ok_or_else(|| unsupported(value, "not a value"))?));
        }
        Ok(Self { modules, conditions })
    }
}

/// The place of a field in a twin.
fn pointer(field: &str) -> Option<&'static str> {
    let field = field.strip_prefix("devices.").unwrap_or(field);
    let known = [
        ("deviceId", "/deviceId"),
        ("moduleId", "/moduleId"),
        ("status", "/status"),
        ("connectionState", "/connectionState"),
        ("capabilities.iotEdge", "/capabilities/iotEdge"),
    ];
    known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(field)).map(|(_, pointer)| pointer)
}

fn literal(word: &str) -> Option<Value> {
    if let Some(quote) = word.chars().next().filter(|quote| matches!(quote, '\'' | '"')) {
        return word.get(1..)?.strip_suffix(quote).map(|text| json!(text));
    }
    match word.to_ascii_lowercase().as_str() {
        "true" => Some(json!(true)),
        "false" => Some(json!(false)),
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
    use super::*;

    #[test]
    fn the_queries_of_tools_are_understood() {
        let cases = [
            ("SELECT * FROM devices", false, vec![]),
            ("select * from Devices", false, vec![]),
            ("SELECT * FROM devices.modules WHERE deviceId='d 1'", true, vec![("/deviceId", json!("d 1"))]),
            (
                "SELECT * FROM devices WHERE devices.deviceId = \"d\" AND capabilities.iotEdge = true",
                false,
                vec![("/deviceId", json!("d")), ("/capabilities/iotEdge", json!(true))],
            ),
        ];
        for (text, modules, conditions) in cases {
            assert_eq!(Query::parse(text), Ok(Query { modules, conditions }), "{text}");
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
