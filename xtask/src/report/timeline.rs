//! The steps over time, as a drawing: a bar each, the critical path in another colour.

use std::fmt::Write as _;

use super::text::escape;
use super::{Report, StepReport};

const WIDTH: f64 = 900.0;
const NAMES: f64 = 156.0;
/// Beside the last bar, for its time.
const MARGIN: f64 = 84.0;
const ROW: f64 = 22.0;

/// The drawing; nothing without steps that took time.
pub(super) fn timeline(report: &Report) -> String {
    let begun = |step: &&StepReport| step.result != "skipped" || step.was_stopped();
    let steps: Vec<_> = report.steps.iter().filter(begun).collect();
    let Some(start) = steps.iter().map(|step| step.started).min() else { return String::new() };
    let since = |time: jiff::Timestamp| time.duration_since(start).as_secs_f64().max(0.0);
    let whole = steps.iter().map(|step| since(step.ended)).fold(0.1, f64::max);
    let scale = (WIDTH - NAMES - MARGIN) / whole;
    let height = ROW * (steps.len() as f64 + 1.5);
    let mut svg = format!(
        "<div class=\"wide\"><svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"Steps over {whole:.1} seconds\">\n"
    );
    for tick in ticks(whole) {
        let x = NAMES + tick * scale;
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{:.1}\"/><text class=\"axis\" x=\"{x:.1}\" \
             y=\"{:.1}\">{tick} s</text>",
            height - ROW,
            height - 6.0
        );
    }
    for (row, step) in steps.iter().enumerate() {
        let class = if step.result == "failed" {
            "failed"
        } else if step.was_stopped() {
            "stopped"
        } else if report.critical_path.steps.contains(&step.id) {
            "critical"
        } else {
            "other"
        };
        let (x, y) = (NAMES + since(step.started) * scale, row as f64 * ROW + 4.0);
        let width = (step.seconds * scale).max(1.5);
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text><rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" \
             width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\"/><text class=\"time\" x=\"{:.1}\" y=\"{:.1}\">{:.1} s</text>",
            NAMES - 8.0,
            y + 12.0,
            escape(&step.id),
            ROW - 8.0,
            x + width + 4.0,
            y + 12.0,
            step.seconds
        );
    }
    let failed = steps.iter().any(|step| step.result == "failed");
    let legend = format!(
        "<p class=\"legend\"><span class=\"critical\"></span> critical path, {:.1} s of {:.1} s{}</p>\n",
        report.critical_path.seconds,
        report.seconds,
        if failed { " <span class=\"failed\"></span> failed" } else { "" }
    );
    svg + "</svg></div>\n" + &legend
}

/// Round seconds, at most ten of them.
pub(super) fn ticks(whole: f64) -> Vec<f64> {
    let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0];
    let step = steps.into_iter().find(|step| whole / step <= 10.0).unwrap_or(whole / 10.0);
    (0_u8..=10).map(|count| f64::from(count) * step).take_while(|tick| *tick <= whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_and_round() {
        assert_eq!(ticks(25.0), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]);
        assert!(ticks(1e9).len() <= 11 && ticks(0.1).len() <= 11);
    }
}
