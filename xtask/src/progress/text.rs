//! Text that fits a terminal: nothing in it acts on the terminal, and no line is wider than it. Pure.

use std::time::Duration;

use console::{measure_text_width, truncate_str};

/// What stands for what was cut off.
const CUT: &str = "…";
/// Levels of a sparkline, lowest first.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The line as it can be shown anywhere: without escape sequences, control characters, and marks that turn the direction of
/// writing around. Of a line that was overwritten, what stood there last.
#[must_use]
pub fn plain(line: &str) -> String {
    let line = line.trim_end_matches(['\r', '\n']);
    let last = line.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or_default();
    let mut shown = String::with_capacity(last.len());
    let mut rest = last.chars();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' => skip_sequence(&mut rest),
            // The same as ESC [, in one character.
            '\u{9b}' => skip_until_final(&mut rest),
            '\t' => shown.push(' '),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            character if character.is_control() => {}
            character => shown.push(character),
        }
    }
    shown
}

/// The same for text of several lines.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// Passes over what follows ESC.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => skip_until_final(rest),
        // Titles, links and the like go on until BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(character) = rest.next() {
                match character {
                    '\u{7}' | '\u{9c}' => return,
                    '\u{1b}' => {
                        rest.next();
                        return;
                    }
                    _ => {}
                }
            }
        }
        // A character set is named by one more character.
        Some('(' | ')' | '*' | '+' | '#' | '%' | ' ') => {
            rest.next();
        }
        _ => {}
    }
}

/// Passes over the parameters of a sequence and its last character.
fn skip_until_final(rest: &mut std::str::Chars<'_>) {
    rest.find(|character| ('\u{40}'..='\u{7e}').contains(character));
}

/// The text in at most `width` columns; what does not fit is cut off with `…`.
pub(super) fn fit(text: &str, width: usize) -> String {
    if width == 0 { String::new() } else { truncate_str(text, width, CUT).into_owned() }
}

/// The text in lines of at most `width` columns, broken between words. A longer word, such as a path, stays whole.
pub(super) fn wrap(text: &str, columns: usize) -> String {
    let wrapped = text.split('\n').map(|line| {
        if width(line) <= columns {
            return line.to_owned();
        }
        let mut lines = vec![String::new()];
        for word in line.split(' ') {
            match lines.last_mut() {
                Some(last) if last.is_empty() => last.push_str(word),
                Some(last) if width(last) + 1 + width(word) <= columns => last.extend([" ", word]),
                _ => lines.push(word.to_owned()),
            }
        }
        lines.join("\n")
    });
    wrapped.collect::<Vec<_>>().join("\n")
}

/// How many columns the text takes.
pub(super) fn width(text: &str) -> usize {
    measure_text_width(text)
}

/// The values as a line of blocks, each the higher the greater it is among them; of more than `width`, the last ones.
pub(super) fn sparkline(values: &[f64], width: usize) -> String {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let shown = &finite[finite.len().saturating_sub(width)..];
    let least = shown.iter().copied().fold(f64::INFINITY, f64::min);
    let most = shown.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let level = |value: f64| {
        // Halved first, for the difference of two finite numbers need not be finite.
        let range = most / 2.0 - least / 2.0;
        if range <= 0.0 {
            return LEVELS[3];
        }
        let part = (value / 2.0 - least / 2.0) / range;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
        let index = (part * 7.0).round().clamp(0.0, 7.0) as usize;
        LEVELS[index]
    };
    shown.iter().map(|value| level(*value)).collect()
}

/// A duration in at most five columns, as people read it: `7s`, `3m12s`, `2h05m`.
#[must_use]
pub fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) if hours < 48 => format!("{hours}h{minutes:02}m"),
        (hours, ..) => format!("{}d", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_is_left() {
        let cases = [
            ("plain", "plain"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("a\u{1b}]0;title\u{7}b", "ab"),
            ("a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\b", "alinkb"),
            ("a\u{1b}(Bb\u{1b}7c\u{1b}=d", "abcd"),
            ("a\u{9b}2Jb\u{8}\u{7}\0c\u{7f}", "abc"),
            ("10 %\r50 %\r100 %\r\n", "100 %"),
            ("50 %\r", "50 %"),
            ("a\tb", "a b"),
            ("\u{202e}txt.exe", "txt.exe"),
            ("a\u{1b}", "a"),
            ("a\u{1b}[", "a"),
            ("a\u{1b}[12;", "a"),
            ("a\u{1b}]never ends", "a"),
            ("Grüße 日本 🙂", "Grüße 日本 🙂"),
            ("", ""),
        ];
        for (raw, shown) in cases {
            assert_eq!(plain(raw), shown, "{raw:?}");
        }
        assert_eq!(plain_lines("a\u{1b}[1m\nb\r\n\nc"), "a\nb\n\nc");
    }

    #[test]
    fn text_is_cut_by_the_columns_that_it_takes() {
        assert_eq!(fit("temperature", 20), "temperature");
        assert_eq!(fit("temperature", 5), "temp…");
        assert_eq!(fit("日本語日本語", 5), "日本…");
        assert_eq!((fit("ab", 1), fit("ab", 0), fit("", 3)), ("…".into(), String::new(), String::new()));
        for columns in 0..30 {
            assert!(width(&fit("Grüße aus 日本 🙂 und mehr", columns)) <= columns, "{columns}");
        }
    }

    #[test]
    fn sentences_are_broken_between_words() {
        assert_eq!(wrap("press Ctrl-C again to stop", 12), "press Ctrl-C\nagain to\nstop");
        assert_eq!(
            wrap("report: target/kedge/runs/1/report.json", 20),
            "report:\ntarget/kedge/runs/1/report.json"
        );
        assert_eq!(wrap("  a  b\nc", 80), "  a  b\nc");
        assert_eq!((wrap("", 0), wrap("a b", 0)), (String::new(), "a\nb".into()));
    }

    #[test]
    fn a_sparkline_goes_from_the_least_to_the_greatest() {
        assert_eq!(sparkline(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 8), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[21.0, 21.0], 8), "▄▄");
        assert_eq!(sparkline(&[0.0, 9.0, 1.0, 5.0], 2), "▁█");
        assert_eq!(sparkline(&[f64::NAN, f64::INFINITY, 1.0], 8), "▄");
        assert_eq!(sparkline(&[f64::MIN, f64::MAX], 8), "▁█");
        assert_eq!((sparkline(&[], 8), sparkline(&[1.0], 0)), (String::new(), String::new()));
    }

    #[test]
    fn times_stay_short() {
        let told = |seconds| elapsed(Duration::from_secs(seconds));
        assert_eq!((told(0), told(59), told(60)), ("0s".into(), "59s".into(), "1m00s".into()));
        assert_eq!((told(3599), told(7500)), ("59m59s".into(), "2h05m".into()));
        assert_eq!(told(u64::MAX).len(), format!("{}d", u64::MAX / 86_400).len());
    }
}
