//! Text of anybody's in markup: nothing of it is markup, and what XML cannot hold is left out.

/// The text with what means something to HTML and XML written as references.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => {}
            control if control.is_control() => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(escape("<a href='x'>\"&\u{1b}[1m\u{0}\n"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;[1m\n");
        assert_eq!(escape("]]>\u{ffff}é"), "]]&gt;é");
    }
}
