//! The parts as a table. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use super::Part;
use crate::progress::{elapsed, plain};

const HEADER: [&str; 5] = ["PART", "STATE", "RESTARTS", "AGE", "DETAIL"];

/// The table of the parts, with a header; each column is as wide as it has to be.
pub(super) fn of(parts: &[Part], now: Timestamp) -> String {
    let rows = parts.iter().map(|part| {
        let restarts = part.restarts.map_or_else(String::new, |count| count.to_string());
        let age = part.since.map_or_else(String::new, |since| elapsed(age(since, now)));
        [plain(&part.name), part.state.to_owned(), restarts, age, plain(&part.detail.replace('\n', "; "))]
    });
    let rows: Vec<_> = std::iter::once(HEADER.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3)];
    let mut table = String::new();
    for [name, state, restarts, age, detail] in &rows {
        let line = format!(
            "{name:0$}  {state:1$}  {restarts:>2$}  {age:>3$}  {detail}",
            widths[0], widths[1], widths[2], widths[3]
        );
        let _ = writeln!(table, "{}", line.trim_end());
    }
    table
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    // A clock that is ahead makes nothing older than it is.
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_below_their_header() {
        let now: Timestamp = "2025-01-01T01:00:00Z".parse().unwrap();
        let parts = [
            Part::new("engine", "up", "podman"),
            Part { restarts: Some(12), ..Part::new("tempSensor", "down", "a\nb\u{1b}[1m") }
                .since(Some("2025-01-01T00:00:00Z".parse().unwrap())),
            Part::new("hub", "absent", "").since(Some("2026-01-01T00:00:00Z".parse().unwrap())),
        ];
        let expected = "\
PART        STATE   RESTARTS    AGE  DETAIL
engine      up                       podman
tempSensor  down          12  1h00m  a; b
hub         absent               0s
";
        assert_eq!(of(&parts, now), expected);
    }
}
