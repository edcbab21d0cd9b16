//! Measurements: repeated, summed up by their median, and held against what the project wants of itself.
//!
//! What is timed is the program as a user starts it, in a process of its own. Nothing here judges a test: figures
//! depend on the machine, so they are told and not asserted.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// What a quantity should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// Anything: it is told for comparison.
    None,
}

/// One quantity, measured several times.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// `s`, `MB`, `%` and the like.
    pub unit: &'static str,
    /// What it should be.
    pub goal: Goal,
    /// Every value, in the order of measurement.
    pub values: Vec<f64>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<&'static str>,
}

impl Measure {
    /// A quantity that should be small, without values so far.
    pub fn new(name: impl Into<String>, unit: &'static str, most: f64) -> Self {
        Self { goal: Goal::AtMost(most), ..Self::told(name, unit) }
    }

    /// A quantity that should be large.
    pub fn at_least(name: impl Into<String>, unit: &'static str, least: f64) -> Self {
        Self { goal: Goal::AtLeast(least), ..Self::told(name, unit) }
    }

    /// A quantity that is told for comparison.
    pub fn told(name: impl Into<String>, unit: &'static str) -> Self {
        Self { name: name.into(), unit, goal: Goal::None, values: Vec::new(), missing: None }
    }

    /// A quantity that cannot be measured here, and why.
    pub fn missing(name: impl Into<String>, unit: &'static str, reason: &'static str) -> Self {
        Self { missing: Some(reason), ..Self::told(name, unit) }
    }

    /// The same quantity with one more value.
    #[must_use]
    pub fn with(mut self, value: f64) -> Self {
        self.values.push(value);
        self
    }

    /// The value in the middle; `None` when there is none.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(f64::midpoint(lower, upper))
    }

    /// Whether the median is what it should be.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.median().is_some_and(|median| match self.goal {
            Goal::AtMost(most) => median <= most,
            Goal::AtLeast(least) => median >= least,
            Goal::None => true,
        })
    }

    /// One line of the table.
    #[must_use]
    pub fn row(&self) -> String {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let Some(median) = self.median() else {
            let reason = self.missing.map(|reason| format!(": {reason}")).unwrap_or_default();
            return format!("{:44} not measured{reason}", self.name);
        };
        let (unit, count) = (self.unit, self.values.len());
        let [median, least, most] = [median, least, most].map(figure);
        let row = format!("{:44} {median:>8} {unit:2} {least:>8} {most:>8} {count:>4}", self.name);
        let verdict = |over: &'static str| if self.is_met() { "ok" } else { over };
        match self.goal {
            Goal::AtMost(goal) => format!("{row} {:>8} {unit:2} {}", figure(goal), verdict("OVER")),
            Goal::AtLeast(goal) => format!("{row} {:>8} {unit:2} {}", figure(goal), verdict("UNDER")),
            Goal::None => row,
        }
    }
}

/// As it is shown: of large numbers, nobody needs the decimals.
fn figure(value: f64) -> String {
    format!("{value:.*}", if value < 10_000.0 { 2 } else { 0 })
}

/// The heading above the rows.
#[must_use]
pub fn heading() -> String {
    format!("{:44} {:>8}    {:>8} {:>8} {:>4} {:>8}", "measure", "median", "least", "most", "runs", "goal")
}

/// The figures that the report of one `e2e` run gives.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFigures {
    /// The wall time, in seconds.
    pub wall: f64,
    /// How much longer that is than the longest chain of its steps, in percent of the chain.
    pub above_critical_path: f64,
    /// From the manifests being applied to the first of the proving messages at the hub, in seconds.
    pub first_telemetry: f64,
    /// The clean-up, in seconds.
    pub down: f64,
}

impl RunFigures {
    /// Reads `report.json` of a run of `e2e`.
    ///
    /// # Errors
    /// When the report lacks something: it is of another command, or of a run that failed.
    pub fn of(report: &Value) -> Result<Self> {
        let seconds =
            |value: &Value, what: &str| value.as_f64().with_context(|| format!("the report has no {what}"));
        let wall = seconds(&report["seconds"], "wall time")?;
        let path = seconds(&report["criticalPath"]["seconds"], "critical path")?;
        let applied = time(&step(report, "deploy")?["ended"])?;
        let arrived = time(&report["messages"][0]["enqueuedTimeUtc"])?;
        Ok(Self {
            wall,
            above_critical_path: (wall / path - 1.0) * 100.0,
            first_telemetry: arrived.duration_since(applied).as_secs_f64(),
            down: seconds(&step(report, "down")?["seconds"], "clean-up")?,
        })
    }
}

fn step<'a>(report: &'a Value, id: &str) -> Result<&'a Value> {
    let mut steps = report["steps"].as_array().into_iter().flatten();
    steps.find(|step| step["id"] == id).with_context(|| format!("the report has no step `{id}`"))
}

fn time(value: &Value) -> Result<Timestamp> {
    value.as_str().context("the report lacks a time")?.parse().context("the report has a time that is none")
}

/// The report of the newest run.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn newest_report(runs: &Path) -> Result<Value> {
    let mut folders = Vec::new();
    for entry in fs_err::read_dir(runs)? {
        folders.push(entry?.path());
    }
    let newest = folders.into_iter().max().context("there is no run")?;
    let text = fs_err::read_to_string(newest.join("report.json"))?;
    serde_json::from_str(&text).with_context(|| format!("`{}` has no readable report", newest.display()))
}

/// How long `work` takes, in seconds.
///
/// # Errors
/// Those of `work`.
pub async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<f64> {
    let started = Instant::now();
    work.await?;
    Ok(started.elapsed().as_secs_f64())
}

/// Resident memory in megabytes, from the text of `/proc/<pid>/status`.
///
/// # Errors
/// When the text does not tell.
pub fn resident_megabytes(status: &str) -> Result<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS in the process's status")?;
    let kilobytes: f64 =
        line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is not a number")?;
    Ok(kilobytes * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_median_is_in_the_middle() {
        let mut measure = Measure::new("down", "s", 10.0);
        assert_eq!(measure.median(), None);
        measure.values = vec![9.0, 1.0, 2.0];
        assert_eq!(measure.median(), Some(2.0));
        measure.values.push(3.0);
        assert_eq!(measure.median(), Some(2.5));
        assert!(measure.is_met());
        assert!(measure.row().ends_with("ok"), "{}", measure.row());
        measure.goal = Goal::AtMost(2.0);
        assert!(measure.row().ends_with("OVER"), "{}", measure.row());
        measure.goal = Goal::AtLeast(3.0);
        assert!(measure.row().ends_with("UNDER"), "{}", measure.row());
        measure.goal = Goal::None;
        assert!(measure.is_met() && measure.row().ends_with("   4"), "{}", measure.row());
        let fast = Measure::at_least("messages", "/s", 0.5).with(290_541.67).row();
        assert!(fast.contains(" 290542 /s   290542   290542    1     0.50 /s ok"), "{fast}");
    }

    #[test]
    fn what_could_not_be_measured_is_told_with_its_reason() {
        let row = Measure::missing("a broker", "/s", "it is not installed").row();
        assert!(row.starts_with("a broker ") && row.ends_with(" not measured: it is not installed"), "{row}");
        assert!(Measure::told("a hub", "/s").row().ends_with(" not measured"));
    }

    #[test]
    fn figures_come_from_the_report() {
        let report = json!({
            "seconds": 22.0, "criticalPath": { "seconds": 20.0 },
            "steps": [
                { "id": "deploy", "seconds": 1.0, "ended": "2026-01-01T00:00:10Z" },
                { "id": "down", "seconds": 1.5, "ended": "2026-01-01T00:00:22Z" },
            ],
            "messages": [{ "enqueuedTimeUtc": "2026-01-01T00:00:17.5Z" }],
        });
        let figures = RunFigures::of(&report).unwrap();
        assert!((figures.above_critical_path - 10.0).abs() < 1e-9);
        assert!((figures.first_telemetry - 7.5).abs() < 1e-9);
        assert!((figures.down - 1.5).abs() < 1e-9);
        assert!(RunFigures::of(&json!({ "seconds": 1.0 })).is_err());
    }

    #[test]
    fn memory_is_read_from_the_process() {
        assert!((resident_megabytes("Name:\tx\nVmRSS:\t    1000 kB\n").unwrap() - 1.024).abs() < 1e-9);
        assert!(resident_megabytes("Name:\tx\n").is_err());
    }
}
