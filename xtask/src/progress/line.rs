//! The lines of the live view, laid out for the width of the terminal. Pure.

use std::time::Duration;

use super::text::{elapsed, fit, sparkline, width};

/// The pictures of something that goes on.
const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// How long each is shown, in milliseconds.
const FRAME: u128 = 120;
/// A terminal of fewer columns gets no columns.
const NARROW: usize = 60;
/// The columns of a step's name.
pub(super) const NAME: usize = 14;
/// The most blocks of a sparkline.
const BLOCKS: usize = 30;
/// The most columns of the bar of overall progress.
const BAR: usize = 24;

/// A running step: its name, its time, what it is for, and what it told last.
pub(super) fn running(columns: usize, name: &str, time: Duration, purpose: &str, last: &str) -> String {
    let frame = frame(time);
    let clock = elapsed(time);
    if columns < NARROW {
        // Of what there is no room for, the last line matters more than the purpose.
        let words = if last.is_empty() { purpose } else { last };
        return fit(&format!("{frame} {name} {clock} {words}"), columns);
    }
    let words = if last.is_empty() { purpose.to_owned() } else { format!("{purpose}: {last}") };
    fit(&format!("  {frame} {name:NAME$} {clock:>6}  {words}"), columns)
}

/// A step that has ended: when, how and with which note. A narrow terminal has no room for when.
pub(super) fn ended(
    columns: usize,
    clock: &str,
    name: &str,
    word: &str,
    took: Duration,
    note: &str,
) -> String {
    let separator = if note.is_empty() { "" } else { "  " };
    if columns < NARROW {
        return fit(&format!("{name} {word} in {}{separator}{note}", elapsed(took)), columns);
    }
    fit(&format!("{clock} {name:NAME$} {word} in {:.1} s{separator}{note}", took.as_secs_f64()), columns)
}

/// All steps together.
pub(super) fn overall(columns: usize, done: usize, total: usize, time: Duration) -> String {
    let words = format!("{done}/{total} steps, {}", elapsed(time));
    let room = columns.saturating_sub(width(&words) + 4).min(BAR);
    if columns < NARROW || total == 0 {
        return fit(&words, columns);
    }
    let filled = (room * done.min(total)) / total;
    fit(&format!("  {}{}  {words}", "━".repeat(filled), "─".repeat(room - filled)), columns)
}

/// The temperatures that have arrived, as blocks, and the last one.
pub(super) fn telemetry(columns: usize, values: &[f64]) -> String {
    let Some(last) = values.iter().rev().find(|value| value.is_finite()) else { return String::new() };
    let words = format!("{last:.1} °C, {} at the hub", values.len());
    let short = format!("{last:.1} °C");
    if columns < NARROW {
        let room = columns.saturating_sub(width(&short) + 1).min(BLOCKS);
        return fit(format!("{} {short}", sparkline(values, room)).trim_start(), columns);
    }
    let room = columns.saturating_sub(NAME + 13 + width(&words)).min(BLOCKS);
    fit(&format!("    {:NAME$}         {} {words}", "temperature", sparkline(values, room)), columns)
}

fn frame(time: Duration) -> char {
    let index = time.as_millis() / FRAME % 10;
    FRAMES.iter().copied().nth(usize::try_from(index).unwrap_or_default()).unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(72);

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        for columns in 1..200 {
            for line in [
                running(columns, "push-edge", TIME, "push the edge image", "Schicht 3/7 日本 🙂"),
                running(columns, "inner-engine-and-more", TIME, "look", ""),
                overall(columns, 7, 18, TIME),
                overall(columns, 0, 0, TIME),
                telemetry(columns, &values),
                ended(columns, "  72.0s", "push-edge", "unchanged", TIME, "sha256:b018065e8d87"),
            ] {
                assert!(width(&line) <= columns, "{columns}: {line}");
                assert!(!line.contains('\n'));
            }
        }
    }

    #[test]
    fn a_wide_terminal_has_columns_and_a_narrow_one_what_matters() {
        let wide = running(80, "push-edge", TIME, "push the edge image", "layer 3");
        assert_eq!(
            &wide[wide.find("push").unwrap()..],
            "push-edge       1m12s  push the edge image: layer 3"
        );
        let narrow = running(26, "push-edge", TIME, "push the edge image", "layer 3");
        assert_eq!(&narrow[narrow.find("push").unwrap()..], "push-edge 1m12s layer 3");
        assert_eq!(ended(20, "   1.0s", "push-sensor", "done", TIME, ""), "push-sensor done in…");
        assert_eq!(
            ended(usize::MAX, "   1.0s", "hub", "done", TIME, "n"),
            "   1.0s hub            done in 72.0 s  n"
        );
        assert_eq!(overall(20, 7, 18, TIME), "7/18 steps, 1m12s");
        assert_eq!(overall(80, 6, 12, TIME), "  ━━━━━━━━━━━━────────────  6/12 steps, 1m12s");
        assert_eq!(overall(80, 9, 3, TIME).matches('─').count(), 0);
    }

    #[test]
    fn the_last_temperature_stands_at_the_end() {
        assert_eq!(telemetry(20, &[21.0, 22.5]), "▁█ 22.5 °C");
        assert!(telemetry(80, &[21.0, 22.5]).ends_with("▁█ 22.5 °C, 2 at the hub"));
        assert_eq!((telemetry(80, &[]), telemetry(80, &[f64::NAN])), (String::new(), String::new()));
    }
}
