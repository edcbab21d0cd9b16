//! JSON with places: a strict parser, and a checker that walks the tree and collects what is wrong.
//!
//! What is told about a value of the wrong type is its type, never the value: it may be a password in a wrong place.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use jsonc_parser::ast::{ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use crate::problems::{Collector, Position, did_you_mean, nearest, shown};

/// Parses JSON; when it is none, that is told, and `None` given back.
pub(super) fn parse<'a>(text: &'a str, problems: &mut Collector<'_>) -> Option<Value<'a>> {
    let strict = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let value = match parse_to_ast(text, &CollectOptions::default(), &strict) {
        Ok(parsed) => parsed.value,
        Err(error) => {
            problems.at(error.range().start, format!("not JSON: {}", lower_first(&error.kind().to_string())));
            return None;
        }
    };
    // What the hub reads has to pass the stricter of the two parsers.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let at = Position { line: error.line(), column: error.column().max(1) };
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or_default();
        problems.push(Some(at), format!("not JSON: {what}"));
        return None;
    }
    value
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// A value and how to get there.
#[derive(Debug, Clone)]
pub(super) struct Node<'t> {
    /// Names from the top, joined by dots.
    pub(super) path: String,
    pub(super) value: &'t Value<'t>,
}

/// A property of an object.
#[derive(Debug, Clone)]
pub(super) struct Property<'t> {
    pub(super) name: &'t str,
    /// Where the name stands.
    pub(super) at: usize,
    pub(super) node: Node<'t>,
}

/// An object.
#[derive(Debug, Clone)]
pub(super) struct Object<'t> {
    pub(super) path: String,
    pub(super) at: usize,
    properties: &'t [ObjectProp<'t>],
}

impl<'t> Node<'t> {
    /// The place of the value.
    pub(super) fn at(&self) -> usize {
        self.value.start()
    }

    pub(super) fn as_object(&self) -> Option<Object<'t>> {
        let object = self.value.as_object()?;
        Some(Object { path: self.path.clone(), at: self.at(), properties: &object.properties })
    }

    pub(super) fn as_text(&self) -> Option<&'t str> {
        self.value.as_string_lit().map(|literal| literal.value.as_ref())
    }
}

impl<'t> Object<'t> {
    pub(super) fn get(&self, name: &str) -> Option<Node<'t>> {
        self.properties().find(|property| property.name == name).map(|property| property.node)
    }

    pub(super) fn properties(&self) -> impl Iterator<Item = Property<'t>> + use<'t> {
        let path = self.path.clone();
        self.properties.iter().map(move |property| {
            let name = property.name.as_str();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            Property { name, at: property.name.start(), node: Node { path, value: &property.value } }
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'t str> {
        self.properties.iter().map(|property| property.name.as_str())
    }
}

/// Walks the tree and collects what is wrong.
#[derive(Debug)]
pub(super) struct Checker<'a> {
    pub(super) problems: Collector<'a>,
}

impl Checker<'_> {
    /// Tells that something is wrong with what `path` leads to.
    pub(super) fn wrong(&mut self, at: usize, path: &str, what: impl AsRef<str>) {
        self.problems.at(at, format!("{}: {}", shown(path), what.as_ref()));
    }

    /// The value, which has to be an object.
    pub(super) fn object<'t>(&mut self, node: &Node<'t>) -> Option<Object<'t>> {
        let object = node.as_object();
        if object.is_none() {
            self.wrong_type(node, "an object");
        }
        object
    }

    /// The value, which has to be a text.
    pub(super) fn text<'t>(&mut self, node: &Node<'t>) -> Option<&'t str> {
        let text = node.as_text();
        if text.is_none() {
            self.wrong_type(node, "a text");
        }
        text
    }

    /// The value, which has to be a whole number within the range.
    pub(super) fn integer(&mut self, node: &Node<'_>, range: RangeInclusive<i64>) {
        let (low, high) = (range.start(), range.end());
        let Some(number) = node.value.as_number_lit() else {
            return self.wrong_type(node, &format!("a whole number from {low} to {high}"));
        };
        if !number.value.parse().is_ok_and(|number| range.contains(&number)) {
            let what = format!("{} is not a whole number from {low} to {high}", shown(number.value));
            self.wrong(node.at(), &node.path, what);
        }
    }

    /// The value, which has to be one of a few texts.
    pub(super) fn one_of(&mut self, node: &Node<'_>, allowed: &[&str]) {
        let Some(text) = self.text(node) else { return };
        if !allowed.contains(&text) {
            let all = allowed.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ");
            let hint = did_you_mean(text, allowed.iter().copied());
            let what = format!("\"{}\" is not one of {all}{hint}", shown(text));
            self.wrong(node.at(), &node.path, what);
        }
    }

    /// The property, which has to be there.
    pub(super) fn required<'t>(&mut self, object: &Object<'t>, name: &str) -> Option<Node<'t>> {
        let node = object.get(name);
        if node.is_none() {
            let hint = nearest(name, object.names()).map(|other| format!("; `{}` is there", shown(other)));
            let hint = hint.unwrap_or_default();
            let path = if object.path.is_empty() { "the manifest" } else { &object.path };
            self.wrong(object.at, path, format!("`{name}` is missing{hint}"));
        }
        node
    }

    /// The object may have no other properties than these.
    pub(super) fn only(&mut self, object: &Object<'_>, known: &[&str]) {
        for property in object.properties().filter(|property| !known.contains(&property.name)) {
            let hint = did_you_mean(property.name, known.iter().copied());
            let what = format!("unknown, known here are {}{hint}", known.join(", "));
            self.wrong(property.at, &property.node.path, what);
        }
    }

    /// No object may have two properties of the same name: which one counts is not defined.
    pub(super) fn no_duplicates(&mut self, value: &Value<'_>) {
        match value {
            Value::Object(object) => {
                let mut seen = HashSet::new();
                for property in &object.properties {
                    let name = property.name.as_str().to_owned();
                    if seen.contains(&name) {
                        let what = format!("`{}` stands twice in the same object", shown(&name));
                        self.problems.at(property.name.start(), what);
                    }
                    seen.insert(name);
                    self.no_duplicates(&property.value);
                }
            }
            Value::Array(array) => array.elements.iter().for_each(|element| self.no_duplicates(element)),
            _ => {}
        }
    }

    pub(super) fn wrong_type(&mut self, node: &Node<'_>, wanted: &str) {
        self.wrong(node.at(), &node.path, format!("{} where {wanted} is needed", kind_of(node.value)));
    }
}

fn kind_of(value: &Value<'_>) -> &'static str {
    match value {
        Value::StringLit(_) => "a text",
        Value::NumberLit(_) => "a number",
        Value::BooleanLit(_) => "true or false",
        Value::Object(_) => "an object",
        Value::Array(_) => "a list",
        Value::NullKeyword(_) => "null",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let mut problems = Collector::new("f", text);
        assert!(parse(text, &mut problems).is_none(), "{text}");
        problems.finish().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_strict_json_is_taken() {
        for (text, place) in [
            ("{\n  \"a\": 1,\n}", "f:2:9"),
            ("{ \"a\": 1 // note\n}", "f:1:10"),
            ("{ a: 1 }", "f:1:3"),
            ("{ 'a': 1 }", "f:1:3"),
            ("{ \"a\": 01 }", "f:1:"),
            ("{ \"a\": NaN }", "f:1:8"),
            ("{ \"a\": 1 } {}", "f:1:12"),
            ("{ \"a\": \"open", "f:1:8"),
            ("\u{feff}{}", "f:1:1"),
        ] {
            let problem = problem(text);
            assert!(problem.starts_with(place) && problem.contains("not JSON"), "{text}: {problem}");
        }
        assert!(problem(&"[".repeat(100_000)).contains("not JSON"));
    }

    #[test]
    fn what_is_quoted_is_not_shown_in_an_error() {
        assert!(!problem("{ \"password\": \"hunter2\" \"x\" }").contains("hunter2"));
    }
}
