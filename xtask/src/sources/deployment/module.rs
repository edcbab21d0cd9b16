//! A module of the deployment: what the agent makes a container of.

use kedge_sim::identity::MAX_ID_LEN;

use super::super::json::{Checker, Node, Object};
use crate::image_reference;
use crate::problems::shown;

const KEYS: [&str; 8] =
    ["version", "type", "status", "restartPolicy", "startupOrder", "imagePullPolicy", "env", "settings"];
const CREATE_OPTIONS: &str = "createOptions";

/// A module's name becomes the id of an identity, and the name of a container and of a socket.
pub(super) fn name(checker: &mut Checker<'_>, name: &str, at: usize, path: &str) {
    let first_is_plain = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if !first_is_plain || !is_plain || name.len() > MAX_ID_LEN {
        let what =
            "a module's name has 1 to 128 letters, digits, `_` and `-`, and begins with a letter or digit";
        checker.wrong(at, path, what);
    }
    if ["edgeAgent", "edgeHub"].iter().any(|system| system.eq_ignore_ascii_case(name)) {
        checker.wrong(at, path, "this is the name of a system module");
    }
}

/// The definition of a module; `minor` is that of the schema's version.
pub(super) fn definition(checker: &mut Checker<'_>, node: &Node<'_>, minor: Option<u32>) {
    let Some(module) = checker.object(node) else { return };
    checker.only(&module, &KEYS);
    if let Some(kind) = checker.required(&module, "type") {
        checker.one_of(&kind, &["docker"]);
    }
    let choices: [(&str, &[&str]); 3] = [
        ("status", &["running", "stopped"]),
        ("restartPolicy", &["always", "never", "on-failure", "on-unhealthy"]),
        ("imagePullPolicy", &["on-create", "never"]),
    ];
    for (name, allowed) in choices {
        if let Some(node) = module.get(name) {
            checker.one_of(&node, allowed);
        }
    }
    if let Some(version) = module.get("version") {
        checker.text(&version);
    }
    if let Some(order) = module.get("startupOrder") {
        checker.integer(&order, 0..=i64::from(u32::MAX));
        if minor == Some(0) {
            checker.wrong(order.at(), &order.path, "this needs the schemaVersion \"1.1\"");
        }
    }
    if let Some(env) = module.get("env") {
        self::env(checker, &env);
    }
    if let Some(settings) = checker.required(&module, "settings")
        && let Some(settings) = checker.object(&settings)
    {
        self::settings(checker, &settings);
    }
}

/// `{"NAME": {"value": …}}`; values are never shown, for they may be credentials.
fn env(checker: &mut Checker<'_>, env: &Node<'_>) {
    for variable in checker.object(env).iter().flat_map(Object::properties) {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            checker.wrong(variable.at, &variable.node.path, "a variable's name is not empty and has no `=`");
        }
        let Some(fields) = variable.node.as_object() else {
            checker.wrong_type(&variable.node, "an object like {\"value\": \"…\"}");
            continue;
        };
        checker.only(&fields, &["value"]);
        let Some(value) = checker.required(&fields, "value") else { continue };
        let is_scalar = value.as_text().is_some()
            || value.value.as_number_lit().is_some()
            || value.value.as_boolean_lit().is_some();
        if !is_scalar {
            checker.wrong_type(&value, "a text, a number, true or false");
        } else if value.as_text().is_some_and(|text| text.contains('\0')) {
            checker.wrong(value.at(), &value.path, "a variable's value has no zero byte");
        }
    }
}

fn settings(checker: &mut Checker<'_>, settings: &Object<'_>) {
    let is_part = |name: &str| {
        let number = name.strip_prefix(CREATE_OPTIONS);
        number.is_some_and(|number| number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut known = vec!["image", CREATE_OPTIONS];
    known.extend(settings.names().filter(|name| is_part(name)));
    checker.only(settings, &known);
    if let Some(image) = checker.required(settings, "image")
        && let Some(reference) = checker.text(&image)
        && let Err(reason) = image_reference::check(reference)
    {
        checker.wrong(image.at(), &image.path, format!("\"{}\": {reason}", shown(reference)));
    }
    create_options(checker, settings);
}

/// One text or object, or a text in several numbered parts: a string of a twin has a limited length.
fn create_options(checker: &mut Checker<'_>, settings: &Object<'_>) {
    let mut parts: Vec<_> =
        settings.properties().filter(|property| property.name.starts_with(CREATE_OPTIONS)).collect();
    parts.sort_by_key(|part| part.name);
    let Some(first) = parts.first().map(|part| part.node.clone()) else { return };
    if parts.len() == 1 && first.as_object().is_some() && first.path.ends_with(CREATE_OPTIONS) {
        return;
    }
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let expected =
            if index == 0 { CREATE_OPTIONS.to_owned() } else { format!("{CREATE_OPTIONS}{index:02}") };
        if part.name != expected {
            let what = format!("`{expected}` comes before this, and is missing");
            return checker.wrong(part.at, &part.node.path, what);
        }
        let Some(value) = part.node.as_text() else {
            return checker.wrong_type(&part.node, "a text with JSON, or in one part an object,");
        };
        text.push_str(value);
    }
    if text.trim().is_empty() {
        return;
    }
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(serde_json::Value::Object(_) | serde_json::Value::Null) => {}
        Ok(_) => checker.wrong(first.at(), &first.path, "the JSON in it is no object"),
        Err(error) => {
            let message = error.to_string();
            let what = message.split(" at line ").next().unwrap_or_default();
            let what = format!("the text in it is not JSON: {what}, at its character {}", error.column());
            checker.wrong(first.at(), &first.path, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problems::Collector;
    use crate::sources::json;

    fn problems(module: &str) -> String {
        let mut checker = Checker { problems: Collector::new("d", module) };
        let value = json::parse(module, &mut checker.problems).unwrap();
        definition(&mut checker, &Node { path: "m".into(), value: &value }, Some(0));
        checker.problems.finish().iter().map(|problem| format!("{problem}\n")).collect()
    }

    fn with_settings(settings: &str) -> String {
        problems(&format!("{{\"type\":\"docker\",\"settings\":{{{settings}}}}}"))
    }

    #[test]
    fn a_module_with_everything_is_fine() {
        let module = r#"{"version":"1","type":"docker","status":"stopped","restartPolicy":"on-unhealthy",
            "imagePullPolicy":"never","env":{"A":{"value":"x"},"B":{"value":1.5},"C":{"value":true}},
            "settings":{"image":"a/b:1","createOptions":"{\"Host","createOptions01":"Config\":{}}"}}"#;
        assert_eq!(problems(module), "");
        assert_eq!(with_settings(r#""image":"a","createOptions":{"HostConfig":{}}"#), "");
        assert_eq!(with_settings(r#""image":"a","createOptions":"""#), "");
    }

    #[test]
    fn each_mistake_is_told() {
        let cases = [
            (r#"{"settings":{"image":"a"}}"#, "m: `type` is missing"),
            (r#"{"type":"docker"}"#, "m: `settings` is missing"),
            (r#"{"type":"docker","stauts":"running","settings":{"image":"a"}}"#, "did you mean `status`?"),
            (
                r#"{"type":"docker","status":"runing","settings":{"image":"a"}}"#,
                "m.status: \"runing\" is not one of",
            ),
            (r#"{"type":"docker","restartPolicy":"sometimes","settings":{"image":"a"}}"#, "m.restartPolicy"),
            (r#"{"type":"docker","imagePullPolicy":"always","settings":{"image":"a"}}"#, "m.imagePullPolicy"),
            (r#"{"type":"docker","startupOrder":-1,"settings":{"image":"a"}}"#, "-1 is not a whole number"),
            (r#"{"type":"docker","startupOrder":4294967296,"settings":{"image":"a"}}"#, "4294967296 is not"),
            (
                r#"{"type":"docker","startupOrder":1,"settings":{"image":"a"}}"#,
                "needs the schemaVersion \"1.1\"",
            ),
            (r#"{"type":"docker","version":1,"settings":{"image":"a"}}"#, "m.version: a number where a text"),
            (r#"{"type":"docker","env":[],"settings":{"image":"a"}}"#, "m.env: a list where an object"),
            (
                r#"{"type":"docker","env":{"A":"s3cret"},"settings":{"image":"a"}}"#,
                "an object like {\"value\"",
            ),
            (
                r#"{"type":"docker","env":{"A":{"val":"s3cret"}},"settings":{"image":"a"}}"#,
                "m.env.A: `value` is missing",
            ),
            (
                r#"{"type":"docker","env":{"A":{"value":["s3cret"]}},"settings":{"image":"a"}}"#,
                "a text, a number",
            ),
            (r#"{"type":"docker","env":{"A=B":{"value":"s3cret"}},"settings":{"image":"a"}}"#, "has no `=`"),
        ];
        for (module, expected) in cases {
            let problems = problems(module);
            assert!(problems.contains(expected) && !problems.contains("s3cret"), "{module}: {problems}");
        }
    }

    #[test]
    fn image_and_create_options_are_what_the_engine_takes() {
        let cases = [
            (r#""createOptions":"{}""#, "`image` is missing"),
            (r#""image":"Kedge/Sensor""#, "m.settings.image: \"Kedge/Sensor\""),
            (r#""image":"https://user:hunter2@r/x""#, "m.settings.image: \"[redacted]\""),
            (r#""image":"a","createOptions":"{""#, "the text in it is not JSON: EOF"),
            (r#""image":"a","createOptions":"[1]""#, "the JSON in it is no object"),
            (r#""image":"a","createOptions":1"#, "a number where a text with JSON"),
            (r#""image":"a","createOptions01":"{}""#, "`createOptions` comes before this, and is missing"),
            (
                r#""image":"a","createOptions":"{","createOptions02":"}""#,
                "`createOptions01` comes before this",
            ),
            (r#""image":"a","createoptions":"{}""#, "did you mean `createOptions`?"),
            (r#""image":"a","auth":{}"#, "m.settings.auth: unknown"),
        ];
        for (settings, expected) in cases {
            let problems = with_settings(settings);
            assert!(problems.contains(expected) && !problems.contains("hunter2"), "{settings}: {problems}");
        }
    }

    #[test]
    fn a_name_is_one_for_identity_container_and_socket() {
        let told = |name: &str| {
            let mut checker = Checker { problems: Collector::new("d", "") };
            super::name(&mut checker, name, 0, name);
            checker.problems.finish().len()
        };
        assert!(["tempSensor", "a", "1-b_c"].iter().all(|name| told(name) == 0));
        let long = "x".repeat(129);
        for name in ["", "-a", "a/b", "a b", "a.b", "ä", "edgeHub", "EDGEAGENT", &long] {
            assert_eq!(told(name), 1, "{name}");
        }
    }
}
