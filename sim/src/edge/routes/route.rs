//! One route: where messages come from, which of them, and where they go.

use serde_json::Value;

use crate::edge::condition::{Condition, Subject};
use crate::edge::spool::Endpoint;
use crate::identity::validate_id;
use crate::topics::{PropertyBag, system};

/// As in the real runtime, a route without a priority comes after all that have one.
const DEFAULT_PRIORITY: u32 = 2_000_000_000;
const MAX_PRIORITY: u64 = 9;
const TWIN_CHANGES: &str = "twinChangeNotifications";
/// First levels of the sources. The real gateway sends no lifecycle events either; their routes wait for nothing.
const SOURCES: [&str; 4] = ["messages", TWIN_CHANGES, "moduleLifecycleEvents", "deviceLifecycleEvents"];

/// Segments of a source; `*` stands for any one.
type Pattern = Vec<String>;

/// A place where messages go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sink {
    /// The hub.
    Upstream,
    /// An input of a module.
    Input {
        /// The module.
        module: String,
        /// Its input.
        input: String,
    },
}

impl Sink {
    /// Whose queue it is.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::Upstream => Endpoint::Upstream,
            Self::Input { module, .. } => Endpoint::Module(module.clone()),
        }
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Telemetry of a device or module.
    Telemetry,
    /// A notice that a client changed its reported properties.
    TwinChange,
}

/// A route.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Route {
    source: Pattern,
    condition: Option<Condition>,
    pub(super) sink: Sink,
    pub(super) priority: u32,
    pub(super) time_to_live_secs: Option<u32>,
}

impl Route {
    /// Reads the text form, or the object form of schema 1.1 and later. `None` for an empty text.
    pub(super) fn parse(value: &Value) -> Result<Option<Self>, String> {
        let text = value.as_str().or_else(|| value.get("route")?.as_str());
        let text = text.ok_or_else(|| "it has no text".to_owned())?;
        if text.trim().is_empty() && value.is_string() {
            return Ok(None);
        }
        let mut route = Self::parse_text(text)?;
        let number = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| format!("{name} is no whole number")),
        };
        if let Some(priority) = number("priority")? {
            route.priority = u32::try_from(priority)
                .ok()
                .filter(|_| priority <= MAX_PRIORITY)
                .ok_or_else(|| format!("the priority {priority} is not in the range 0 to {MAX_PRIORITY}"))?;
        }
        let seconds = number("timeToLiveSecs")?.filter(|&seconds| seconds > 0);
        route.time_to_live_secs = seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
        Ok(Some(route))
    }

    /// Reads `[SELECT *] FROM <source> [WHERE <condition>] INTO <sink>`; keywords in any case.
    fn parse_text(text: &str) -> Result<Self, String> {
        let grammar =
            || format!("\"{text}\" is not of the form FROM <source> [WHERE <condition>] INTO <sink>");
        let mut rest = text.trim();
        if let Some(after) = strip_keyword(rest, "SELECT") {
            rest = after.strip_prefix('*').ok_or_else(grammar)?.trim_start();
        }
        let rest = strip_keyword(rest, "FROM").ok_or_else(grammar)?;
        let (before, sink) = split_sink(rest).ok_or_else(grammar)?;
        let (source, condition) = match before.split_once(char::is_whitespace) {
            None => (before, None),
            Some((source, condition)) => {
                let condition = strip_keyword(condition.trim_start(), "WHERE").ok_or_else(grammar)?;
                (source, Some(condition.trim()))
            }
        };
        let source = parse_source(source)?;
        let twin_changes = source.first().is_some_and(|first| first.eq_ignore_ascii_case(TWIN_CHANGES));
        let condition = condition.map(|condition| Condition::parse(condition, twin_changes));
        Ok(Self {
            source,
            condition: condition.transpose().map_err(|error| error.to_string())?,
            sink: parse_sink(sink.trim()).ok_or_else(|| {
                format!(
                    "there is no sink {sink:?}; it is $upstream or BrokeredEndpoint(\"/modules/…/inputs/…\")"
                )
            })?,
            priority: DEFAULT_PRIORITY,
            time_to_live_secs: None,
        })
    }

    /// Whether it takes a message, whose properties say whom it is from.
    pub(super) fn takes(&self, kind: MessageKind, properties: &PropertyBag, subject: &Subject<'_>) -> bool {
        let path = match (kind, properties.get(system::CONNECTION_MODULE_ID)) {
            (MessageKind::TwinChange, _) => vec![TWIN_CHANGES],
            (MessageKind::Telemetry, None) => vec!["messages", "events"],
            (MessageKind::Telemetry, Some(module)) => {
                let mut path = vec!["messages", "modules", module];
                path.extend(
                    properties.get(system::OUTPUT_NAME).into_iter().flat_map(|output| ["outputs", output]),
                );
                path
            }
        };
        let begins = self.source.len() <= path.len()
            && self
                .source
                .iter()
                .zip(path)
                .all(|(pattern, segment)| pattern == "*" || pattern.eq_ignore_ascii_case(segment));
        begins && self.condition.as_ref().is_none_or(|condition| condition.holds(subject))
    }
}

/// Takes a keyword off, and the blanks behind it.
fn strip_keyword<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    let (word, rest) = text.split_at_checked(keyword.len())?;
    (word.eq_ignore_ascii_case(keyword) && rest.starts_with(char::is_whitespace)).then(|| rest.trim_start())
}

/// Splits at the last `INTO` that stands alone; a condition may have the word in a string.
fn split_sink(text: &str) -> Option<(&str, &str)> {
    let mut places = text.char_indices().rev().map(|(place, _)| place);
    places.find_map(|place| {
        let sink = strip_keyword(&text[place..], "INTO")?;
        let before = &text[..place];
        before.ends_with(char::is_whitespace).then(|| (before.trim_end(), sink))
    })
}

fn parse_sink(text: &str) -> Option<Sink> {
    if text.eq_ignore_ascii_case("$upstream") {
        return Some(Sink::Upstream);
    }
    let (function, argument) = text.split_once('(')?;
    let argument = argument.trim_end().strip_suffix(')')?.trim();
    let quoted = |quote| argument.strip_prefix(quote)?.strip_suffix(quote);
    let path = quoted('"').or_else(|| quoted('\''))?.trim();
    let path = path.strip_prefix('/').unwrap_or(path);
    let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
    match segments[..] {
        ["modules", module, "inputs", input]
            if function.trim().eq_ignore_ascii_case("BrokeredEndpoint")
                && validate_id(module).is_ok()
                && !input.is_empty()
                && !input.contains(['+', '#', '\0']) =>
        {
            Some(Sink::Input { module: module.to_owned(), input: input.to_owned() })
        }
        _ => None,
    }
}

/// A source selects what begins with it; a `*` at its end changes nothing.
fn parse_source(source: &str) -> Result<Pattern, String> {
    let path = source.strip_prefix('/').ok_or_else(|| format!("the source \"{source}\" has no leading /"))?;
    let mut pattern: Pattern = path.trim_end_matches('/').split('/').map(ToOwned::to_owned).collect();
    if pattern.last().is_some_and(|last| last == "*") {
        pattern.pop();
    }
    let known = |first: &String| SOURCES.iter().any(|source| source.eq_ignore_ascii_case(first));
    let all_named = pattern.iter().all(|segment| !segment.is_empty());
    if all_named && pattern.first().is_none_or(|first| first == "*" || known(first)) {
        Ok(pattern)
    } else {
        Err(format!("there is no source \"{source}\""))
    }
}
