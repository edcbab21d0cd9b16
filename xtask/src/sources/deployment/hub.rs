//! The desired properties of `$edgeHub`: routes, and how long messages are kept.

use super::super::json::{Checker, Node, Object};
use super::{route, schema_version};

/// Tells what is wrong; `modules` are those that routes can begin and end at.
pub(super) fn check(checker: &mut Checker<'_>, desired: &Object<'_>, modules: &[&str]) {
    let known = ["schemaVersion", "routes", "storeAndForwardConfiguration", "mqttBroker", "integrity"];
    checker.only(desired, &known);
    let minor = schema_version(checker, desired, 3);
    if let Some(routes) = checker.required(desired, "routes") {
        for property in checker.object(&routes).iter().flat_map(Object::properties) {
            self::route(checker, &property.node, minor, modules);
        }
    }
    if let Some(store) = checker.required(desired, "storeAndForwardConfiguration") {
        self::store(checker, &store);
    }
}

/// A text, or from version 1.1 on an object with the text and how it is treated.
fn route(checker: &mut Checker<'_>, node: &Node<'_>, minor: Option<u32>, modules: &[&str]) {
    let Some(fields) = node.as_object() else {
        match node.as_text() {
            Some(text) => self::text(checker, node, text, modules),
            None => checker.wrong_type(node, "a text or an object"),
        }
        return;
    };
    if minor == Some(0) {
        checker.wrong(node.at(), &node.path, "a route that is an object needs the schemaVersion \"1.1\"");
    }
    checker.only(&fields, &["route", "priority", "timeToLiveSecs"]);
    if let Some(node) = checker.required(&fields, "route")
        && let Some(text) = checker.text(&node)
    {
        self::text(checker, &node, text, modules);
    }
    if let Some(priority) = fields.get("priority") {
        checker.integer(&priority, 0..=9);
    }
    if let Some(seconds) = fields.get("timeToLiveSecs") {
        checker.integer(&seconds, 0..=i64::from(u32::MAX));
    }
}

fn text(checker: &mut Checker<'_>, node: &Node<'_>, text: &str, modules: &[&str]) {
    if let Err(problem) = route::check(text, modules) {
        checker.wrong(node.at(), &node.path, problem);
    }
}

fn store(checker: &mut Checker<'_>, node: &Node<'_>) {
    let Some(store) = checker.object(node) else { return };
    checker.only(&store, &["timeToLiveSecs", "storeLimits"]);
    if let Some(seconds) = checker.required(&store, "timeToLiveSecs") {
        // Less than none is for ever.
        checker.integer(&seconds, -1..=i64::from(i32::MAX));
    }
    if let Some(limits) = store.get("storeLimits")
        && let Some(limits) = checker.object(&limits)
    {
        checker.only(&limits, &["maxSizeBytes"]);
        if let Some(bytes) = checker.required(&limits, "maxSizeBytes") {
            checker.integer(&bytes, 1..=i64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problems::Collector;
    use crate::sources::json;

    fn problems(version: &str, rest: &str) -> String {
        let text = format!("{{\"schemaVersion\":\"{version}\",{rest}}}");
        let mut checker = Checker { problems: Collector::new("d", &text) };
        let value = json::parse(&text, &mut checker.problems).unwrap();
        let node = Node { path: "$edgeHub".into(), value: &value };
        check(&mut checker, &node.as_object().unwrap(), &["m"]);
        checker.problems.finish().iter().map(|problem| format!("{problem}\n")).collect()
    }

    fn with_route(route: &str) -> String {
        problems(
            "1.1",
            &format!(r#""routes":{{"r":{route}}},"storeAndForwardConfiguration":{{"timeToLiveSecs":1}}"#),
        )
    }

    #[test]
    fn routes_of_both_kinds_are_fine() {
        assert_eq!(with_route(r#""FROM /* INTO $upstream""#), "");
        assert_eq!(with_route(r#"{"route":"FROM /* INTO $upstream","priority":9,"timeToLiveSecs":0}"#), "");
    }

    #[test]
    fn each_mistake_is_told() {
        let cases = [
            ("1", "$edgeHub.routes.r: a number where a text or an object is needed"),
            (r#""INTO $upstream""#, "FROM <source> [WHERE <condition>] INTO <sink>"),
            (r#"{"priority":1}"#, "`route` is missing"),
            (r#"{"route":1}"#, "a number where a text is needed"),
            (r#"{"route":"FROM /* INTO $upstream","priority":10}"#, "10 is not a whole number from 0 to 9"),
            (r#"{"route":"FROM /* INTO $upstream","priority":1.5}"#, "1.5 is not a whole number"),
            (r#"{"route":"FROM /* INTO $upstream","timeToLiveSecs":-1}"#, "-1 is not a whole number"),
            (r#"{"route":"FROM /* INTO $upstream","ttl":1}"#, "$edgeHub.routes.r.ttl: unknown"),
        ];
        for (route, expected) in cases {
            let problems = with_route(route);
            assert!(problems.contains(expected), "{route}: {problems}");
        }
        let store = |store: &str| {
            problems("1.2", &format!(r#""routes":{{}},"storeAndForwardConfiguration":{store}"#))
        };
        assert_eq!(store(r#"{"timeToLiveSecs":-1,"storeLimits":{"maxSizeBytes":1}}"#), "");
        assert!(store("{}").contains("`timeToLiveSecs` is missing"));
        assert!(store(r#"{"timeToLiveSecs":"7200"}"#).contains("a text where a whole number from -1"));
        assert!(store(r#"{"timeToLiveSecs":3000000000}"#).contains("3000000000 is not a whole number"));
        assert!(
            problems("1.0", r#""routes":{"r":{"route":"FROM /* INTO $upstream"}}"#)
                .contains("needs the schemaVersion")
        );
        assert!(problems("1.4", r#""routes":{}"#).contains("the versions \"1.0\" to \"1.3\""));
    }
}
