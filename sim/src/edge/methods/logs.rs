//! `GetModuleLogs`: the logs of the modules whose names match.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, Methods, PARSING, check_schema, payload};
use crate::edge::engine::{Engine, LogRequest};
use crate::edge::logs::{Filter, Form, LogError, Origin, gather, point_in_time};
use crate::identity::Identity;

/// A direct method carries 128 KB; the real agent leaves a little room.
const MAX_PAYLOAD: usize = 127_000;
/// A pattern that would need more memory is refused.
const MAX_REGEX: usize = 256 * 1024;
/// Items of one request.
const MAX_ITEMS: usize = 100;
const ALL_MODULES: &str = "all";

#[derive(Deserialize)]
struct Request {
    schemaversion: Option<Value>,
    items: Option<Items>,
    encoding: Option<String>,
    contenttype: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Items {
    Several(Vec<Item>),
    One(Item),
}

#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    filter: Option<RawFilter>,
}

#[derive(Deserialize, Default)]
struct RawFilter {
    tail: Option<i64>,
    since: Option<String>,
    until: Option<String>,
    loglevel: Option<i64>,
    regex: Option<String>,
}

/// An item that was understood.
struct Selection {
    /// `None` for all modules.
    names: Option<Regex>,
    request: LogRequest,
    filter: Filter,
}

impl<E: Engine> Methods<E> {
    pub(super) async fn logs(&self, body: &[u8]) -> Result<Value, Failure> {
        let request: Request = payload(body)?;
        let (form, compressed) =
            (form(request.contenttype.as_deref())?, compressed(request.encoding.as_deref())?);
        let items = match request.items {
            Some(Items::Several(items)) => items,
            Some(Items::One(item)) => vec![item],
            None => return Err(Failure::argument(format!("{PARSING}items is missing"))),
        };
        if items.len() > MAX_ITEMS {
            return Err(Failure::argument(format!("{PARSING}more than {MAX_ITEMS} items")));
        }
        let now = Timestamp::now();
        let selections: Vec<_> =
            items.into_iter().map(|item| selection(item, form, now)).collect::<Result<_, _>>()?;
        check_schema(request.schemaversion.as_ref(), "logs upload request schema")?;
        let modules = self.engine.modules().await.map_err(|error| Failure::internal(error.message))?;
        let (mut logs, mut room) = (Vec::new(), MAX_PAYLOAD);
        // The first item that a module matches decides about it.
        for name in modules.keys() {
            let matches =
                |selection: &&Selection| selection.names.as_ref().is_none_or(|names| names.is_match(name));
            let Some(selection) = selections.iter().find(matches) else { continue };
            let log = self.log(name, selection, form, compressed, room).await?;
            room = room.saturating_sub(log.len());
            logs.push(match compressed {
                true => json!({"id": name, "payloadBytes": STANDARD.encode(log), "payload": null}),
                false => json!({"id": name, "payloadBytes": null, "payload": String::from_utf8_lossy(&log)}),
            });
        }
        Ok(Value::Array(logs))
    }

    async fn log(
        &self,
        name: &str,
        selection: &Selection,
        form: Form,
        compressed: bool,
        room: usize,
    ) -> Result<Vec<u8>, Failure> {
        let device = self.upstream.identities.device_id();
        let identity =
            Identity::module(device, name).map_err(|error| Failure::internal(error.to_string()))?;
        let origin = Origin { hub: &self.upstream.link.hub_name, identity: &identity };
        let frames = self.engine.logs(name, selection.request);
        let frames = frames.map_err(|error| Failure::internal(error.message))?;
        let log = gather(frames, origin, &selection.filter, form, compressed, room).await;
        let log = log.map_err(|error| match error {
            LogError::TooLarge(_) => Failure::argument(format!(
                "The payload is too large for a direct method. GetModuleLogs supports up to {MAX_PAYLOAD} bytes of \
                 logs. Try reducing the size of the logs by setting the 'tail', 'since' and 'from' fields in log \
                 options filter."
            )),
            other => Failure::internal(other.to_string()),
        })?;
        tracing::info!("Received {} bytes of logs for {name}", log.len());
        Ok(log)
    }
}

fn form(content_type: Option<&str>) -> Result<Form, Failure> {
    match content_type.map(str::to_ascii_lowercase).as_deref() {
        None | Some("text") => Ok(Form::Text),
        Some("json") => Ok(Form::Json),
        Some(other) => {
            Err(Failure::argument(format!("{PARSING}contentType \"{other}\" is neither text nor json")))
        }
    }
}

fn compressed(encoding: Option<&str>) -> Result<bool, Failure> {
    match encoding.map(str::to_ascii_lowercase).as_deref() {
        None | Some("none") => Ok(false),
        Some("gzip") => Ok(true),
        Some(other) => {
            Err(Failure::argument(format!("{PARSING}encoding \"{other}\" is neither none nor gzip")))
        }
    }
}

fn selection(item: Item, form: Form, now: Timestamp) -> Result<Selection, Failure> {
    if item.id.trim().is_empty() {
        return Err(Failure::argument(format!("{PARSING}id is missing")));
    }
    let names = match item.id.eq_ignore_ascii_case(ALL_MODULES) {
        true => None,
        // The real agent reads this pattern only when it looks for modules.
        false => Some(pattern(&item.id, true).map_err(Failure::argument)?),
    };
    let raw = item.filter.unwrap_or_default();
    let time = |name: &str, text: Option<&str>| match text.map(|text| point_in_time(text, now)) {
        Some(None) => Err(Failure::internal(format!("invalid parameter: {name}"))),
        time => Ok(time.flatten()),
    };
    let tail = raw.tail.map(u64::try_from).transpose();
    let request = LogRequest {
        follow: false,
        tail: tail.map_err(|_| Failure::internal("invalid parameter: tail"))?,
        since: time("since", raw.since.as_deref())?,
        until: time("until", raw.until.as_deref())?,
        timestamps: form == Form::Json,
    };
    let regex = raw.regex.map(|regex| pattern(&regex, false)).transpose();
    let filter = Filter {
        // No line has a level that is no digit.
        level: raw.loglevel.map(|level| u8::try_from(level).unwrap_or(u8::MAX)),
        regex: regex.map_err(|error| Failure::argument(format!("{PARSING}{error}")))?,
    };
    Ok(Selection { names, request, filter })
}

fn pattern(text: &str, ignore_case: bool) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).case_insensitive(ignore_case).size_limit(MAX_REGEX).build();
    built.map_err(|error| error.to_string())
}
