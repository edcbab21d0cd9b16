//! The settings file: every line that can be used is taken, and everything that is wrong is told with its place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fields::{FIELDS, IMAGES, Kind, Refusal, Value, set_image};
use super::{Origin, Resolved};
use crate::problems::{Collector, Position, Problem, did_you_mean, shown, shown_value_of};

/// Reads the text of the file that is called `name`.
pub(super) fn parse(name: &str, text: &str) -> (Resolved, Vec<Problem>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        name,
        text,
        resolved: Resolved::default(),
        problems: Collector::new(name, text),
        broken_lines: Vec::new(),
    };
    for error in &errors {
        let line = reader.problems.not_toml(error);
        reader.broken_lines.push(line);
    }
    for (key, value) in document.get_ref() {
        reader.section(key, value);
    }
    (reader.resolved, reader.problems.finish())
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    resolved: Resolved,
    problems: Collector<'a>,
    /// Lines that are not TOML; what the parser makes of them is not to be trusted.
    broken_lines: Vec<usize>,
}

impl Reader<'_> {
    fn section(&mut self, key: &Spanned<impl AsRef<str>>, value: &Spanned<DeValue<'_>>) {
        let section = key.get_ref().as_ref();
        if self.is_broken(&key.span()) {
            return;
        }
        let is_known = sections().any(|known| known == section);
        match value.get_ref() {
            DeValue::Table(table) if is_known => {
                for (key, value) in table {
                    self.setting(section, key, value);
                }
            }
            DeValue::Table(_) => {
                let hint = did_you_mean(section, sections());
                let known = sections().collect::<Vec<_>>().join("], [");
                self.problems
                    .at(key.span().start, format!("unknown section [{section}]{hint} There are [{known}]"));
            }
            _ if is_known => {
                let what = format!("{section} is a section: write [{section}] once, and its settings below");
                self.problems.at(key.span().start, what);
            }
            _ => self.unknown(section, section, key.span(), &value.span()),
        }
    }

    fn setting(&mut self, section: &str, key: &Spanned<impl AsRef<str>>, value: &Spanned<DeValue<'_>>) {
        if self.is_broken(&key.span()) || self.is_broken(&value.span()) {
            return;
        }
        let name = format!("{section}.{}", key.get_ref().as_ref());
        if section == IMAGES {
            return self.image(&name, key, value);
        }
        let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
            return self.unknown(&name, key.get_ref().as_ref(), key.span(), &value.span());
        };
        match typed(field.kind(), value.get_ref())
            .and_then(|value| field.set(&mut self.resolved.settings, &value))
        {
            Ok(()) => {
                let origin = self.origin(&key.span());
                self.resolved.origins.0.insert(name, origin);
            }
            Err(refusal) => {
                let written = shown(self.written(&value.span()));
                let kind = match refusal {
                    Refusal::Type => format!(" is {},", kind_of(value.get_ref())),
                    Refusal::Value => String::new(),
                };
                let separator = if kind.is_empty() { ":" } else { "" };
                let what = format!("{name} = {written}{separator}{kind} use {}", field.allowed);
                self.problems.at(value.span().start, what);
            }
        }
    }

    /// An entry of the section in which the keys are the user's.
    fn image(&mut self, name: &str, key: &Spanned<impl AsRef<str>>, value: &Spanned<DeValue<'_>>) {
        let reference = typed(Kind::Text, value.get_ref()).unwrap_or(Value::Number(0));
        match set_image(&mut self.resolved.settings, key.get_ref().as_ref(), &reference) {
            Ok(()) => {
                let origin = self.origin(&key.span());
                self.resolved.origins.0.insert(name.to_owned(), origin);
            }
            Err(what) => self.problems.at(key.span().start, format!("[{IMAGES}] {what}")),
        }
    }

    fn origin(&self, at: &Range<usize>) -> Origin {
        let line = Position::of(self.text, at.start).line;
        Origin::File { file: self.name.to_owned(), line }
    }

    /// A key that is nowhere, or is in another section.
    fn unknown(&mut self, name: &str, key: &str, at: Range<usize>, value: &Range<usize>) {
        let written = shown_value_of(name, self.written(value));
        let elsewhere = FIELDS.iter().find(|field| field.section_and_key().1 == key);
        let hint = match elsewhere {
            Some(field) => format!("; did you mean `{}`, in [{}]?", field.name, field.section_and_key().0),
            None => did_you_mean(name, FIELDS.iter().map(|field| field.name)),
        };
        let what = format!("unknown setting `{name}` = {written}{hint} `cargo xtask config` lists all");
        self.problems.at(at.start, what);
    }

    fn is_broken(&self, span: &Range<usize>) -> bool {
        let lines = Position::of(self.text, span.start).line..=Position::of(self.text, span.end).line;
        self.broken_lines.iter().any(|broken| lines.contains(broken))
    }

    /// The value as it stands in the file.
    fn written(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }
}

/// The names of the sections, some of them several times.
fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    let of_fields = FIELDS.iter().filter_map(move |field| {
        let (section, _) = field.section_and_key();
        let is_new = section != last;
        last = section;
        is_new.then_some(section)
    });
    of_fields.chain([IMAGES])
}

/// The value, if it has the type that is wanted.
fn typed(kind: Kind, value: &DeValue<'_>) -> Result<Value, Refusal> {
    let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned).ok_or(Refusal::Type);
    match value {
        DeValue::String(text) if kind == Kind::Text => Ok(Value::Text(text.clone().into_owned())),
        DeValue::Array(items) if kind == Kind::List => {
            let texts = items.iter().map(|item| text(item.get_ref()));
            texts.collect::<Result<_, _>>().map(Value::List)
        }
        DeValue::Integer(number) if kind == Kind::Number => {
            // What does not fit is a number all the same, and one that is not allowed.
            u64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Number)
                .map_err(|_| Refusal::Value)
        }
        _ => Err(Refusal::Type),
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Origin, Settings, fields};
    use std::path::Path;

    fn problems(text: &str) -> Vec<String> {
        parse("k.toml", text).1.iter().map(ToString::to_string).collect()
    }

    fn project_file() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/kedge.toml");
        fs_err::read_to_string(path).unwrap()
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(parse("k.toml", ""), (Resolved::default(), Vec::new()));
        assert_eq!(parse("k.toml", "\u{feff}# nothing\n[cluster]\n").1, []);
    }

    #[test]
    fn every_field_stands_in_the_file_of_the_repository_with_its_default_and_a_comment() {
        let text = project_file();
        let (resolved, problems) = parse("k.toml", &text);
        assert_eq!((resolved.settings, problems), (Settings::default(), Vec::new()));
        let lines: Vec<_> = text.lines().collect();
        for field in &fields::FIELDS {
            let Origin::File { line, .. } = resolved.origins.of(field.name) else {
                panic!("{} does not stand in config/kedge.toml", field.name)
            };
            assert!(lines[line - 2].starts_with("# "), "{} has no comment above it", field.name);
        }
    }

    #[test]
    fn all_impossible_values_are_told_at_once_in_the_order_of_the_file() {
        let problems = problems(
            "[cluster]\nname = \"My_Edge\"\nnode-image = \"\"\n[device]\nid = \"a b\"\n[hub]\nhost-name = \"hub..test\"\n\
             [deploy]\nnamespace = \"-x\"\n[registry]\nport = 0\n[verify]\nmessages = 0\ntime-limit = 0\n",
        );
        let beginnings = [
            "k.toml:2:8: cluster.name = \"My_Edge\": use 1 to 40",
            "k.toml:3:14: cluster.node-image = \"\": use \"auto\"",
            "k.toml:5:6: device.id = \"a b\": use",
            "k.toml:7:13: hub.host-name = \"hub..test\": use",
            "k.toml:9:13: deploy.namespace = \"-x\": use",
            "k.toml:11:8: registry.port = 0: use a whole number from 1 to 65535",
            "k.toml:13:12: verify.messages = 0: use",
            "k.toml:14:14: verify.time-limit = 0: use",
        ];
        assert_eq!(problems.len(), beginnings.len(), "{problems:#?}");
        for (problem, beginning) in problems.iter().zip(beginnings) {
            assert!(problem.starts_with(beginning), "{problem} / {beginning}");
        }
    }

    #[test]
    fn the_names_of_images_are_the_users() {
        let text = "[images]\n\"mcr.test/agent:1.6\" = \"factory.test:5000/agent:1\"\nsensor = 1\n\"a b\" = \"x\"\nc = \"D\"\n";
        let (resolved, problems) = parse("k.toml", text);
        assert_eq!(
            resolved.settings.images.into_iter().collect::<Vec<_>>(),
            [("mcr.test/agent:1.6".to_owned(), "factory.test:5000/agent:1".to_owned())]
        );
        let origin = Origin::File { file: "k.toml".into(), line: 2 };
        assert_eq!(resolved.origins.of("images.mcr.test/agent:1.6"), &origin);
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("k.toml:3:1: [images] `sensor` is not a text"), "{problems:?}");
    }

    #[test]
    fn a_list_is_a_list_of_texts() {
        let list = |text: &str| parse("k.toml", &format!("[runtime]\npreload = {text}\n"));
        assert_eq!(list("[\"a:1\", \"b:2\"]").0.settings.runtime.preload, ["a:1", "b:2"]);
        assert!(["[1]", "\"a:1\"", "[\"A:1\"]"].iter().all(|text| list(text).1.len() == 1));
    }

    #[test]
    fn a_wrong_type_is_told_in_words_of_everyday() {
        let cases = [
            ("port = \"x\"", "registry.port = \"x\" is a text, use a whole number from 1 to 65535"),
            ("port = 5001.0", "registry.port = 5001.0 is a number with a fraction, use"),
            ("port = 99999", "registry.port = 99999: use a whole number from 1 to 65535"),
            ("port = -1", "registry.port = -1: use a whole number from 1 to 65535"),
            ("port = 99999999999999999999999", "registry.port = 99999999999999999999999: use"),
            ("port = [1]", "registry.port = [1] is a list, use"),
            ("port = { a = 1 }", "registry.port = { a = 1 } is a table, use"),
            ("port = true", "registry.port = true is true or false, use"),
        ];
        for (line, expected) in cases {
            let problems = problems(&format!("[registry]\n{line}\n"));
            assert!(problems.len() == 1 && problems[0].contains(expected), "{line}: {problems:?}");
        }
        assert_eq!(parse("k", "[registry]\nport = 0x1388\n").0.settings.registry.port, 5000);
    }

    #[test]
    fn what_is_unknown_is_told_with_what_was_meant() {
        let cases = [
            ("[clutser]\n", "k.toml:1:2: unknown section [clutser]; did you mean `cluster`?"),
            (
                "[cluster]\nnmae = \"x\"\n",
                "k.toml:2:1: unknown setting `cluster.nmae` = \"x\"; did you mean `cluster.name`?",
            ),
            ("[cluster]\nport = 1\n", "did you mean `registry.port`, in [registry]?"),
            (
                "port = 1\n",
                "k.toml:1:1: unknown setting `port` = 1; did you mean `registry.port`, in [registry]?",
            ),
            ("cluster = \"x\"\n", "k.toml:1:1: cluster is a section: write [cluster] once"),
            ("[[cluster]]\nname = \"x\"\n", "cluster is a section: write [cluster] once"),
            ("[hub]\nconnection-string = \"abc\"\n", "unknown setting `hub.connection-string` = [redacted]"),
        ];
        for (text, expected) in cases {
            let problems = problems(text);
            assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:?}");
        }
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_place_beside_the_rest() {
        let problems = problems(
            "[cluster]\nname = \"edge\nnode-image = \"\"\n[registry]\nport =\n[verify]\nmessages = 0\n",
        );
        let joined = problems.join("\n");
        assert!(joined.contains("k.toml:2:") && joined.contains("not TOML"), "{joined}");
        assert!(joined.contains("k.toml:5:"), "{joined}");
        assert!(joined.contains("k.toml:7:12: verify.messages = 0"), "{joined}");
        assert!(!joined.contains("k.toml:2:8: cluster.name"), "{joined}");
    }

    #[test]
    fn a_setting_that_stands_twice_is_told() {
        let problems = problems("[cluster]\nname = \"a\"\nname = \"b\"\n");
        assert!(
            problems.len() == 1 && problems[0].starts_with("k.toml:3:1: not TOML: duplicate key"),
            "{problems:?}"
        );
    }
}
