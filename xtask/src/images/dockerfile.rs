//! A Dockerfile with several targets, as it is sent for one of them.

use std::collections::BTreeSet;

/// A stage, with the comments in front of it.
struct Stage<'a> {
    name: &'a str,
    text: String,
}

/// The Dockerfile without the stages that `target` does not rest on. Docker's classic builder would build every one that
/// stands before it, also without the files that it is made of; and what is of no use must not name the image.
pub(super) fn for_target(text: &str, target: &str) -> String {
    let (preamble, stages) = stages(text);
    let mut needed = BTreeSet::from([target.to_owned()]);
    let mut kept = Vec::new();
    // A stage rests on earlier ones alone.
    for stage in stages.iter().rev() {
        if needed.contains(stage.name) {
            needed.extend(rests_on(&stage.text));
            kept.push(stage.text.as_str());
        }
    }
    kept.push(&preamble);
    kept.reverse();
    kept.concat()
}

/// What stands before the first stage, and the stages.
fn stages(text: &str) -> (String, Vec<Stage<'_>>) {
    let (mut preamble, mut stages, mut comments) = (String::new(), Vec::<Stage<'_>>::new(), String::new());
    for line in text.split_inclusive('\n') {
        let words: Vec<_> = line.split_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            comments.push_str(line);
            continue;
        }
        if words[0] == "FROM" {
            let name = if words.len() == 4 { words[3] } else { "" };
            stages.push(Stage { name, text: String::new() });
        }
        let place = stages.last_mut().map_or(&mut preamble, |stage| &mut stage.text);
        place.push_str(&std::mem::take(&mut comments));
        place.push_str(line);
    }
    stages.last_mut().map_or(&mut preamble, |stage| &mut stage.text).push_str(&comments);
    (preamble, stages)
}

/// The names of stages and images that a stage is made from.
fn rests_on(stage: &str) -> impl Iterator<Item = String> {
    let words = stage.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    let mut words = words.peekable();
    std::iter::from_fn(move || {
        let word = words.next()?;
        Some(match word.strip_prefix("--from=") {
            Some(name) => Some(name.to_owned()),
            None if word == "FROM" => words.peek().map(|name| (*name).to_owned()),
            None => None,
        })
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Of all.\nARG BASE\n\n# The root.\nFROM ${BASE} AS root\nRUN a\n\nFROM scratch AS common\n\
        COPY --from=root / /\n# The first.\nFROM common AS first\nCOPY --from=tools /x /\n# The second.\n\
        FROM common AS second\nRUN b\n";

    #[test]
    fn what_a_target_does_not_rest_on_is_left_out() {
        assert_eq!(
            for_target(TEXT, "second"),
            TEXT.replace("# The first.\nFROM common AS first\nCOPY --from=tools /x /\n", "")
        );
        assert_eq!(
            for_target(TEXT, "first"),
            TEXT.replace("# The second.\nFROM common AS second\nRUN b\n", "")
        );
        assert_eq!(
            for_target(TEXT, "root"),
            "# Of all.\nARG BASE\n\n# The root.\nFROM ${BASE} AS root\nRUN a\n"
        );
    }
}
