//! The limits of a twin, which hold for the desired properties of every module.

use jsonc_parser::ast::Value;
use kedge_sim::twin_limits::{MAX_DEPTH, MAX_SECTION_BYTES, MAX_STRING_BYTES, is_key};

use super::super::json::{Checker, Node, Object};
use crate::problems::shown;

/// Tells what a hub would refuse in the desired properties.
pub(super) fn check(checker: &mut Checker<'_>, desired: &Node<'_>) {
    walk(checker, desired, 1);
    let size = size(desired.value);
    if size > MAX_SECTION_BYTES {
        let what = format!("{size} bytes, and a twin's desired properties have at most {MAX_SECTION_BYTES}");
        checker.wrong(desired.at(), &desired.path, what);
    }
}

fn walk(checker: &mut Checker<'_>, node: &Node<'_>, depth: usize) {
    match node.value {
        Value::Object(_) | Value::Array(_) if depth > MAX_DEPTH => {
            checker.wrong(node.at(), &node.path, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        Value::Object(_) => {
            for property in node.as_object().iter().flat_map(Object::properties) {
                if !is_key(property.name) {
                    let what = format!(
                        "the name \"{}\" is empty, too long, or has a dot, a space, a dollar or a control character",
                        shown(property.name)
                    );
                    checker.wrong(property.at, &node.path, what);
                }
                // Options that are an object in the file are a text in the twin.
                let is_text = property.name == "createOptions" && node.path.starts_with("$edgeAgent.");
                if !is_text || property.node.as_text().is_some() {
                    walk(checker, &property.node, depth + 1);
                }
            }
        }
        Value::Array(array) => {
            for (index, value) in array.elements.iter().enumerate() {
                walk(checker, &Node { path: format!("{}[{index}]", node.path), value }, depth + 1);
            }
        }
        Value::StringLit(text) if text.value.len() > MAX_STRING_BYTES => {
            let what = format!(
                "{} bytes, and a text in a twin has at most {MAX_STRING_BYTES}; createOptions may be split into \
                 createOptions, createOptions01, …",
                text.value.len()
            );
            checker.wrong(node.at(), &node.path, what);
        }
        _ => {}
    }
}

/// Bytes of the value as the shortest JSON.
fn size(value: &Value<'_>) -> usize {
    let quoted = |text: &str| serde_json::to_string(text).map_or(usize::MAX / 4, |text| text.len());
    match value {
        Value::Object(object) => {
            let each = |property: &jsonc_parser::ast::ObjectProp<'_>| {
                quoted(property.name.as_str()) + 1 + size(&property.value)
            };
            object.properties.iter().map(each).sum::<usize>() + 1 + object.properties.len().max(1)
        }
        Value::Array(array) => {
            array.elements.iter().map(size).sum::<usize>() + 1 + array.elements.len().max(1)
        }
        Value::StringLit(text) => quoted(&text.value),
        Value::NumberLit(number) => number.value.len(),
        Value::BooleanLit(boolean) => {
            if boolean.value {
                4
            } else {
                5
            }
        }
        Value::NullKeyword(_) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problems::Collector;
    use crate::sources::json;

    fn problems(text: &str) -> String {
        let mut checker = Checker { problems: Collector::new("d", text) };
        let value = json::parse(text, &mut checker.problems).unwrap();
        check(&mut checker, &Node { path: "m".into(), value: &value });
        checker.problems.finish().iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn the_limits_are_those_of_the_hub() {
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert_eq!(problems(&nested(MAX_DEPTH)), "");
        assert!(problems(&nested(MAX_DEPTH + 1)).contains("nested deeper than 10 levels"));
        let text = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length));
        assert_eq!(problems(&text(MAX_STRING_BYTES)), "");
        assert!(problems(&text(MAX_STRING_BYTES + 1)).contains("m.a: 4097 bytes"));
        for key in ["", "a.b", "a b", "$a", "a\\n"] {
            assert!(problems(&format!("{{\"{key}\":1}}")).contains("is empty, too long"), "{key}");
        }
        let many: Vec<_> = (0..9).map(|n| format!("\"k{n}\":\"{}\"", "x".repeat(4000))).collect();
        assert!(problems(&format!("{{{}}}", many.join(","))).contains("36073 bytes"), "the size");
    }

    #[test]
    fn options_that_become_a_text_may_have_any_name_in_them() {
        let text = r#"{"modules":{"m":{"settings":{"createOptions":{"Labels":{"a.b":"c"}}}}}}"#;
        let told = |path: &str| {
            let mut checker = Checker { problems: Collector::new("d", text) };
            let value = json::parse(text, &mut checker.problems).unwrap();
            check(&mut checker, &Node { path: path.into(), value: &value });
            checker.problems.finish().len()
        };
        assert_eq!((told("$edgeAgent"), told("m")), (0, 1));
    }

    #[test]
    fn the_size_is_that_of_the_shortest_json() {
        for text in ["{}", "[]", "[1, 2.5, null]", r#"{ "a": [true, {"b\n": "ä"}], "c": false }"#] {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let mut problems = Collector::new("d", text);
            assert_eq!(size(&json::parse(text, &mut problems).unwrap()), value.to_string().len(), "{text}");
        }
    }
}
