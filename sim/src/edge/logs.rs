//! Logs of modules as edgeAgent gives them out: chosen, read line by line, and put into the form that is asked for.
//!
//! A line may begin with the engine's time, a syslog level such as `<6>`, and a time of its own; what
//! follows is its text. What is gathered is bounded, however large a log is.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::TryStreamExt as _;
use jiff::{SpanRelativeTo, Timestamp};
use regex::Regex;
use serde::Serialize;

use super::engine::{EngineError, LogFrame, LogStream};
use crate::identity::Identity;

/// The level of a line that names none.
const DEFAULT_LEVEL: u8 = 6;
/// Length of `2026-01-02 03:04:05.678 +00:00`, the time that the runtime's own modules write.
const OWN_TIME: usize = 30;

/// Which lines are taken.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only lines of this level.
    pub level: Option<u8>,
    /// Only lines whose text matches.
    pub regex: Option<Regex>,
}

impl Filter {
    fn takes(&self, line: &Line<'_>) -> bool {
        self.level.is_none_or(|level| line.level == level)
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(line.text))
    }
}

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The lines as they were written.
    Text,
    /// An array of objects.
    Json,
}

/// Why a log cannot be given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The engine has no such log.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It is larger than the limit.
    #[error("the log is larger than {0} bytes")]
    TooLarge(usize),
    /// It cannot be written, which memory always can.
    #[error("the log cannot be encoded: {0}")]
    Encoding(String),
}

/// A line that was read.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    level: u8,
    time: Option<Timestamp>,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        let mut rest = line;
        let first = rest.split_whitespace().next().unwrap_or_default();
        let mut time = if rest.starts_with(first) { first.parse::<Timestamp>().ok() } else { None };
        if time.is_some() {
            rest = &rest[first.len()..];
        }
        rest = rest.trim_start();
        let mut level = DEFAULT_LEVEL;
        if let [b'<', digit @ b'0'..=b'9', b'>', ..] = rest.as_bytes() {
            level = digit - b'0';
            rest = rest[3..].trim_start();
        }
        if let Some((own, after)) = own_time(rest) {
            time = time.or(Some(own));
            rest = after.trim_start();
        }
        let text = rest.lines().next().unwrap_or_default();
        Self { level, time, text: if text.is_empty() { line } else { text } }
    }
}

fn own_time(text: &str) -> Option<(Timestamp, &str)> {
    let (time, rest) = text.split_at_checked(OWN_TIME)?;
    let time = Timestamp::strptime("%Y-%m-%d %H:%M:%S%.f %:z", time).ok()?;
    rest.starts_with(char::is_whitespace).then_some((time, rest))
}

/// A line as an object, with the fields in the order of edgeAgent.
#[derive(Serialize)]
struct Message<'a> {
    iothub: &'a str,
    device: &'a str,
    id: &'a str,
    stream: &'static str,
    loglevel: u8,
    text: &'a str,
    timestamp: Option<String>,
}

/// Whose log it is.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Host name of the IoT Hub.
    pub hub: &'a str,
    /// Device and module.
    pub identity: &'a Identity,
}

/// Gathers a log in the form that is asked for; at most `limit` bytes of it.
pub async fn gather(
    mut frames: LogStream,
    origin: Origin<'_>,
    filter: &Filter,
    form: Form,
    compressed: bool,
    limit: usize,
) -> Result<Vec<u8>, LogError> {
    let mut output = Output::new(compressed, limit);
    let mut separator = "[";
    while let Some(LogFrame { is_error, text }) = frames.try_next().await? {
        let full = String::from_utf8_lossy(&text);
        let line = Line::read(&full);
        if !filter.takes(&line) {
            continue;
        }
        match form {
            Form::Text => output.write(full.as_bytes())?,
            Form::Json => {
                let message = Message {
                    iothub: origin.hub,
                    device: origin.identity.device_id(),
                    id: origin.identity.module_id().unwrap_or_default(),
                    stream: if is_error { "stderr" } else { "stdout" },
                    loglevel: line.level,
                    text: line.text,
                    timestamp: line.time.map(|time| time.to_string().replace('Z', "+00:00")),
                };
                let message =
                    serde_json::to_vec(&message).map_err(|error| LogError::Encoding(error.to_string()))?;
                output.write(std::mem::replace(&mut separator, ",").as_bytes())?;
                output.write(&message)?;
            }
        }
    }
    if form == Form::Json {
        output.write(if separator == "[" { b"[]" } else { b"]" })?;
    }
    output.finish()
}

/// Bytes up to a limit, compressed when that is asked for.
struct Output {
    bytes: Bytes,
    limit: usize,
}

enum Bytes {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Output {
    fn new(compressed: bool, limit: usize) -> Self {
        let bytes = match compressed {
            true => Bytes::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
            false => Bytes::Plain(Vec::new()),
        };
        Self { bytes, limit }
    }

    fn write(&mut self, part: &[u8]) -> Result<(), LogError> {
        let length = match &mut self.bytes {
            Bytes::Plain(bytes) => {
                bytes.extend_from_slice(part);
                bytes.len()
            }
            Bytes::Gzip(encoder) => {
                encoder.write_all(part).map_err(|error| LogError::Encoding(error.to_string()))?;
                encoder.get_ref().len()
            }
        };
        if length > self.limit { Err(LogError::TooLarge(self.limit)) } else { Ok(()) }
    }

    fn finish(self) -> Result<Vec<u8>, LogError> {
        let bytes = match self.bytes {
            Bytes::Plain(bytes) => bytes,
            Bytes::Gzip(encoder) => {
                encoder.finish().map_err(|error| LogError::Encoding(error.to_string()))?
            }
        };
        if bytes.len() > self.limit { Err(LogError::TooLarge(self.limit)) } else { Ok(bytes) }
    }
}

/// Reads a point in time as the management API does: RFC 3339, a time ago such as `1d` or `2 hours`, or Unix seconds.
#[must_use]
pub fn point_in_time(text: &str, now: Timestamp) -> Option<i32> {
    let seconds = |time: Timestamp| i32::try_from(time.as_second()).ok();
    if let Ok(time) = text.parse::<Timestamp>() {
        return seconds(time);
    }
    if let Ok(unix) = text.parse() {
        return Some(unix);
    }
    let ago = text.parse::<jiff::Span>().ok()?.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    seconds(now.checked_sub(ago).ok()?)
}

#[cfg(test)]
mod tests;
