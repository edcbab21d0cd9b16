//! The temperature that was received over time, as a drawing.

use std::fmt::Write as _;

use crate::verify::Evidence;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 92.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 28.0;

/// The drawing; nothing without messages.
pub(super) fn temperature(messages: &[Evidence]) -> String {
    let Some(start) = messages.iter().map(|message| message.enqueued_time_utc).min() else {
        return String::new();
    };
    let point = |message: &Evidence| {
        (message.enqueued_time_utc.duration_since(start).as_secs_f64(), message.body.temperature())
    };
    let points: Vec<_> = messages.iter().map(point).filter(|(_, value)| value.is_finite()).collect();
    let whole = points.iter().map(|(time, _)| *time).fold(0.1, f64::max);
    let (least, most) =
        points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), (_, value)| {
            (least.min(*value), most.max(*value))
        });
    if points.is_empty() {
        return String::new();
    }
    // A line that is level stands in the middle.
    let margin = ((most - least) * 0.1).max(0.5);
    let (least, most) = (least - margin, most + margin);
    let x = |time: f64| LEFT + time / whole * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (most - value) / (most - least) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<div class=\"wide\"><svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Temperature of {} \
         messages\">\n",
        points.len()
    );
    for step in 0_u8..=4 {
        let value = least + (most - least) * f64::from(step) / 4.0;
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{2:.1}\" y2=\"{2:.1}\"/><text class=\"value\" x=\"{1:.1}\" \
             y=\"{3:.1}\">{4} °C</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(value),
            y(value) + 4.0,
            short(value)
        );
    }
    for tick in super::timeline::ticks(whole) {
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\">{tick} s</text>",
            x(tick),
            HEIGHT - 12.0
        );
    }
    let line: Vec<_> =
        points.iter().map(|(time, value)| format!("{:.1},{:.1}", x(*time), y(*value))).collect();
    let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", line.join(" "));
    for (time, value) in &points {
        let _ = writeln!(
            svg,
            "<circle class=\"point\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
            x(*time),
            y(*value)
        );
    }
    svg + "</svg></div>\n<p class=\"legend\">machine temperature by the time of arrival at the hub</p>\n"
}

/// A number in a few characters, whatever a sensor may say.
fn short(value: f64) -> String {
    if value.abs() < 10_000.0 { format!("{value:.1}") } else { format!("{value:.0e}") }
}
