//! The text of a route: `FROM <source> [WHERE <condition>] INTO <sink>`.

use crate::problems::{did_you_mean, shown};

/// First levels of sources that have nothing or anything below them.
const NOTICES: [&str; 3] = ["twinChangeNotifications", "moduleLifecycleEvents", "deviceLifecycleEvents"];

/// Checks a route between these modules.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(text: &str, modules: &[&str]) -> Result<(), String> {
    let grammar =
        || format!("\"{}\" is not of the form FROM <source> [WHERE <condition>] INTO <sink>", shown(text));
    let rest = after_keyword(text.trim(), "FROM").ok_or_else(grammar)?;
    let (before_sink, sink) = split_at_last_keyword(rest, "INTO").ok_or_else(grammar)?;
    let mut parts = before_sink.trim().splitn(2, char::is_whitespace);
    let source = parts.next().filter(|source| !source.is_empty()).ok_or_else(grammar)?;
    if let Some(condition) = parts.next().map(str::trim).filter(|condition| !condition.is_empty()) {
        let condition = after_keyword(condition, "WHERE").ok_or_else(grammar)?;
        self::condition(condition)?;
    }
    self::source(source, modules)?;
    self::sink(sink.trim(), modules)
}

/// What follows the keyword, in any case, at the beginning.
fn after_keyword<'t>(text: &'t str, keyword: &str) -> Option<&'t str> {
    let (first, rest) = text.split_once(char::is_whitespace)?;
    first.eq_ignore_ascii_case(keyword).then(|| rest.trim_start())
}

fn split_at_last_keyword<'t>(text: &'t str, keyword: &str) -> Option<(&'t str, &'t str)> {
    let lower = text.to_ascii_lowercase();
    let keyword = keyword.to_ascii_lowercase();
    let is_word = |start: usize| {
        let end = start + keyword.len();
        lower[..start].ends_with(char::is_whitespace) && lower[end..].starts_with(char::is_whitespace)
    };
    let start = lower.rmatch_indices(&keyword).map(|(start, _)| start).find(|start| is_word(*start))?;
    Some((&text[..start], &text[start + keyword.len()..]))
}

/// The language of conditions is the runtime's; what cannot be one is told.
fn condition(text: &str) -> Result<(), String> {
    let mut depth = 0_i32;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, _) => {}
        }
        if depth < 0 {
            break;
        }
    }
    if text.is_empty() || depth != 0 || quote.is_some() {
        return Err(
            "the condition after WHERE is empty, or a quote or parenthesis in it is not closed".into()
        );
    }
    Ok(())
}

fn source(source: &str, modules: &[&str]) -> Result<(), String> {
    let wrong = || {
        format!(
            "there is no source \"{}\"; sources are /*, /messages/*, /messages/modules/<module>/*, \
             /messages/modules/<module>/outputs/<output> and /twinChangeNotifications",
            shown(source)
        )
    };
    let path = source.strip_prefix('/').ok_or_else(wrong)?;
    let levels: Vec<_> = path.trim_end_matches('/').split('/').collect();
    if levels.iter().any(|level| level.is_empty()) {
        return Err(wrong());
    }
    match levels.as_slice() {
        ["*"] | ["messages"] | ["messages", "*"] | ["messages", "modules"] | ["messages", "modules", "*"] => {
            Ok(())
        }
        ["messages", "modules", module] | ["messages", "modules", module, "*" | "outputs"] => {
            known(module, modules)
        }
        ["messages", "modules", module, "outputs", _]
        | ["messages", "modules", module, "outputs", _, "*"] => known(module, modules),
        [notices, ..] if NOTICES.contains(notices) => Ok(()),
        _ => Err(wrong()),
    }
}

fn sink(sink: &str, modules: &[&str]) -> Result<(), String> {
    if sink.eq_ignore_ascii_case("$upstream") {
        return Ok(());
    }
    let wrong = || {
        format!(
            "there is no sink \"{}\"; sinks are $upstream and BrokeredEndpoint(\"/modules/<module>/inputs/<input>\")",
            shown(sink)
        )
    };
    let (name, argument) = sink.split_once('(').ok_or_else(wrong)?;
    let argument = argument.strip_suffix(')').ok_or_else(wrong)?.trim();
    let quoted = |quote| argument.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    let path = quoted('"').or_else(|| quoted('\'')).ok_or_else(wrong)?;
    if !name.trim().eq_ignore_ascii_case("BrokeredEndpoint") {
        return Err(wrong());
    }
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", "modules", module, "inputs", input] if !input.is_empty() => known(module, modules),
        _ => Err(wrong()),
    }
}

/// A route from or to a module that is not there never carries anything.
fn known(module: &str, modules: &[&str]) -> Result<(), String> {
    if module == "*" || modules.contains(&module) {
        return Ok(());
    }
    let hint = did_you_mean(module, modules.iter().copied());
    Err(format!("there is no module `{}` in the deployment{hint}", shown(module)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: [&str; 2] = ["tempSensor", "filter"];

    #[test]
    fn routes_of_the_documentation_are_taken() {
        for route in [
            "FROM /* INTO $upstream",
            "from /messages/* into $upstream",
            "FROM /messages/modules/* INTO $upstream",
            "FROM /messages/modules/tempSensor/* INTO $upstream",
            "FROM /messages/modules/tempSensor/outputs/* INTO $upstream",
            "FROM /messages/modules/tempSensor/outputs/out INTO BrokeredEndpoint(\"/modules/filter/inputs/in\")",
            "FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO $upstream",
            "FROM /messages/modules/filter/outputs/* WHERE sink = 'INTO x' AND (a > 1) INTO $upstream",
            "FROM /twinChangeNotifications INTO $upstream",
            "  FROM   /*\n INTO  $upstream ",
        ] {
            assert_eq!(check(route, &MODULES), Ok(()), "{route}");
        }
    }

    #[test]
    fn what_carries_nothing_is_refused() {
        for (route, expected) in [
            ("", "is not of the form"),
            ("FROM /*", "is not of the form"),
            ("FROM INTO $upstream", "is not of the form"),
            ("/* INTO $upstream", "is not of the form"),
            ("FROM /* TO $upstream", "is not of the form"),
            ("FROM /* WHEN x INTO $upstream", "is not of the form"),
            ("FROM /* WHERE (a INTO $upstream", "is not closed"),
            ("FROM /* WHERE a) INTO $upstream", "is not closed"),
            ("FROM /* WHERE a = 'b INTO $upstream", "is not closed"),
            ("FROM messages/* INTO $upstream", "no source \"messages/*\""),
            ("FROM /message/* INTO $upstream", "no source"),
            ("FROM /messages//x INTO $upstream", "no source"),
            (
                "FROM /messages/modules/tmpSensor/* INTO $upstream",
                "no module `tmpSensor` in the deployment; did you mean `tempSensor`?",
            ),
            ("FROM /* INTO $downstream", "no sink \"$downstream\""),
            ("FROM /* INTO $upstream twice", "no sink"),
            ("FROM /* INTO BrokeredEndpoint(/modules/filter/inputs/in)", "no sink"),
            ("FROM /* INTO BrokeredEndpoint(\"/modules/filter/outputs/o\")", "no sink"),
            ("FROM /* INTO BrokeredEndpoint(\"/modules/other/inputs/i\")", "no module `other`"),
            ("FROM /* INTO Endpoint(\"/modules/filter/inputs/i\")", "no sink"),
        ] {
            let problem = check(route, &MODULES).unwrap_err();
            assert!(problem.contains(expected), "{route}: {problem}");
        }
    }
}
