use std::io::Read as _;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::*;

fn frames(lines: &[&str]) -> LogStream {
    let frames: Vec<_> = lines
        .iter()
        .map(|line| Ok(LogFrame { is_error: line.contains("oops"), text: format!("{line}\n").into() }))
        .collect();
    futures_util::stream::iter(frames).boxed()
}

async fn gathered(
    lines: &[&str],
    filter: &Filter,
    form: Form,
    compressed: bool,
) -> Result<Vec<u8>, LogError> {
    let identity = Identity::module("d", "m").unwrap();
    let origin = Origin { hub: "hub.test", identity: &identity };
    gather(frames(lines), origin, filter, form, compressed, 1000).await
}

#[test]
fn a_line_has_a_level_a_time_and_a_text() {
    for (line, level, time, text) in [
        ("plain text\n", 6, None, "plain text"),
        ("<4> careful\n", 4, None, "careful"),
        (
            "<6> 2026-01-02 03:04:05.678 +00:00 [INF] - Up\n",
            6,
            Some("2026-01-02T03:04:05.678Z"),
            "[INF] - Up",
        ),
        (
            "2026-01-02T03:04:05.000000001Z <3> 2020-01-02 03:04:05.678 +01:00 oops\n",
            3,
            Some("2026-01-02T03:04:05.000000001Z"),
            "oops",
        ),
        ("2026-01-02T03:04:05.000000001Z two words", 6, Some("2026-01-02T03:04:05.000000001Z"), "two words"),
        ("<12> no level", 6, None, "<12> no level"),
        ("<é> no level", 6, None, "<é> no level"),
        (
            "2026-01-02 03:04:05.678 é no time of its own",
            6,
            None,
            "2026-01-02 03:04:05.678 é no time of its own",
        ),
        ("\n", 6, None, "\n"),
        ("", 6, None, ""),
    ] {
        let time = time.map(|time| time.parse().unwrap());
        assert_eq!(Line::read(line), Line { level, time, text }, "{line:?}");
    }
}

#[tokio::test]
async fn text_is_what_was_written() {
    let lines = ["<6> one", "<4> two", "three"];
    let all = gathered(&lines, &Filter::default(), Form::Text, false).await.unwrap();
    assert_eq!(all, b"<6> one\n<4> two\nthree\n");
    let filter = Filter { level: Some(6), regex: Some(Regex::new("^t").unwrap()) };
    assert_eq!(gathered(&lines, &filter, Form::Text, false).await.unwrap(), b"three\n");
    let zipped = gathered(&lines, &Filter::default(), Form::Text, true).await.unwrap();
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(zipped.as_slice()).read_to_end(&mut text).unwrap();
    assert_eq!(text, all);
}

#[tokio::test]
async fn json_is_an_array_of_messages() {
    let lines = ["2026-01-02T03:04:05.000000001Z <3> oops", "plain"];
    let bytes = gathered(&lines, &Filter::default(), Form::Json, false).await.unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&bytes).unwrap(),
        json!([
            {"iothub": "hub.test", "device": "d", "id": "m", "stream": "stderr", "loglevel": 3, "text": "oops",
                "timestamp": "2026-01-02T03:04:05.000000001+00:00"},
            {"iothub": "hub.test", "device": "d", "id": "m", "stream": "stdout", "loglevel": 6, "text": "plain",
                "timestamp": null},
        ])
    );
    assert!(bytes.starts_with(br#"[{"iothub":"hub.test","device":"d","id":"m","stream":"#));
    assert_eq!(gathered(&[], &Filter::default(), Form::Json, false).await.unwrap(), b"[]");
}

#[tokio::test]
async fn a_log_beyond_the_limit_is_refused_and_not_gathered() {
    let line = "x".repeat(400);
    let lines = [line.as_str(); 3];
    for form in [Form::Text, Form::Json] {
        let error = gathered(&lines, &Filter::default(), form, false).await.unwrap_err();
        assert_eq!(error, LogError::TooLarge(1000));
        assert!(gathered(&lines, &Filter::default(), form, true).await.unwrap().len() < 1000);
    }
    let broken = futures_util::stream::iter([Err(EngineError { message: "gone".to_owned() })]).boxed();
    let identity = Identity::module("d", "m").unwrap();
    let origin = Origin { hub: "h", identity: &identity };
    let error = gather(broken, origin, &Filter::default(), Form::Text, false, 1).await.unwrap_err();
    assert_eq!(error.to_string(), "gone");
}

#[test]
fn a_point_in_time_is_a_date_or_a_time_ago_or_a_number() {
    let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let day = i32::try_from(now.as_second()).unwrap();
    for (text, expected) in [
        ("2026-01-02T00:00:01Z", Some(day + 1)),
        ("2026-01-02T01:00:00+01:00", Some(day)),
        ("1d", Some(day - 86_400)),
        ("2 hours", Some(day - 7_200)),
        ("1h 30m", Some(day - 5_400)),
        ("1700000000", Some(1_700_000_000)),
        ("yesterday", None),
        ("", None),
        ("99999999999", None),
    ] {
        assert_eq!(point_in_time(text, now), expected, "{text:?}");
    }
}
