//! What is wrong with a file that a user edits: where, what, and what is allowed instead.
//!
//! All problems of a file are collected and told at once. What a file holds is shown in part only: a value that looks
//! like a credential is left out, because it may stand in the wrong place, and control characters are escaped.

use std::fmt;

/// Longer values are cut.
const LONGEST_VALUE: usize = 60;
/// What a credential has in it: connection strings, tokens, keys.
const CREDENTIALS: [&str; 5] = ["sharedaccess", "accountkey", "password", "private key", "sig="];
/// Names of settings whose values are credentials.
const CREDENTIAL_NAMES: [&str; 6] = ["password", "secret", "token", "connection", "key", "credential"];

/// Line and column, from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Position {
    /// The place of the byte at `offset`.
    #[must_use]
    pub fn of(text: &str, offset: usize) -> Self {
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it is shown.
    pub file: String,
    /// Where in the file, if it is not the file as a whole.
    pub at: Option<Position>,
    /// What is wrong, and what is allowed.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", printable(&self.file))?;
        if let Some(Position { line, column }) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", printable(&self.text))
    }
}

/// The problems, one on each line, for the text of an error.
#[must_use]
pub fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// Collects what is wrong with one file.
#[derive(Debug)]
pub struct Collector<'a> {
    file: &'a str,
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Collector<'a> {
    /// For the file that is shown as `file` and holds `text`.
    #[must_use]
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, problems: Vec::new() }
    }

    /// Something is wrong at the byte at `offset`.
    pub fn at(&mut self, offset: usize, problem: impl Into<String>) {
        self.push(Some(Position::of(self.text, offset)), problem);
    }

    /// The text is not TOML; gives back the line.
    pub fn not_toml(&mut self, error: &toml::de::Error) -> usize {
        let offset = error.span().map_or(self.text.len(), |span| span.start);
        // The whole of the parser's text would quote the line, which may hold a credential.
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        self.at(offset, format!("not TOML: {message}"));
        Position::of(self.text, offset).line
    }

    /// Something is wrong at a place that is known already, or with the file as a whole.
    pub fn push(&mut self, at: Option<Position>, problem: impl Into<String>) {
        self.problems.push(Problem { file: self.file.to_owned(), at, text: problem.into() });
    }

    /// The problems, in the order of the file.
    #[must_use]
    pub fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.at);
        self.problems.dedup();
        self.problems
    }
}

/// A value as it stands in a file, short enough to be shown, and without a credential.
#[must_use]
pub fn shown(value: &str) -> String {
    let lower = value.to_ascii_lowercase();
    let has_login = lower.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    if has_login || CREDENTIALS.iter().any(|credential| lower.contains(credential)) {
        return "[redacted]".to_owned();
    }
    match value.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// The value of a setting that nobody knows, which may be a credential by its name.
#[must_use]
pub fn shown_value_of(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    if CREDENTIAL_NAMES.iter().any(|credential| name.contains(credential)) {
        return "[redacted]".to_owned();
    }
    shown(value)
}

/// `; did you mean …?` when one of the known names is near.
#[must_use]
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

/// The known name that is nearest, if one is near.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let likeness = |other: &str| strsim::jaro_winkler(&name, &other.to_lowercase());
    let nearest = known.into_iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    nearest.filter(|nearest| likeness(nearest) > 0.8)
}

/// A terminal acts on control characters, and would show some others in another place.
fn printable(text: &str) -> String {
    let acts = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .flat_map(|c| if acts(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_from_one_and_in_characters() {
        let text = "one\ntwo ä three\n";
        assert_eq!(Position::of(text, 0), Position { line: 1, column: 1 });
        assert_eq!(Position::of(text, text.find("three").unwrap()), Position { line: 2, column: 7 });
        assert_eq!(Position::of(text, 999), Position { line: 3, column: 1 });
    }

    #[test]
    fn problems_stand_in_the_order_of_the_file() {
        let mut collector = Collector::new("f", "a\nb");
        collector.at(2, "second");
        collector.at(0, "first");
        collector.at(0, "first");
        assert_eq!(list(&collector.finish()), "\n  f:1:1: first\n  f:2:1: second");
    }

    #[test]
    fn what_may_be_a_credential_is_not_shown() {
        assert_eq!(shown("\"HostName=h;SharedAccessKey=a2V5\""), "[redacted]");
        assert_eq!(shown_value_of("registry-password", "\"hunter2\""), "[redacted]");
        assert_eq!(shown_value_of("workers", "3"), "3");
        assert_eq!(shown(&"x".repeat(99)).chars().count(), LONGEST_VALUE + 1);
    }

    #[test]
    fn only_a_near_name_is_proposed() {
        let known = ["node-image", "name"];
        assert_eq!(did_you_mean("nmae", known), "; did you mean `name`?");
        assert_eq!(did_you_mean("Node_Image", known), "; did you mean `node-image`?");
        assert_eq!(did_you_mean("colour", known), "");
    }

    #[test]
    fn a_file_cannot_act_on_the_terminal() {
        let problem = Problem { file: "a\u{1b}[2J".into(), at: None, text: "b\u{202e}\n".into() };
        assert_eq!(problem.to_string(), "a\\u{1b}[2J: b\\u{202e}\\n");
    }
}
