//! The deployment manifest, by the schemas 1.0 and 1.1 of IoT Edge: everything that the hub, the agent or the module's
//! engine would refuse later is told before anything is changed.

mod hub;
mod limits;
mod module;
mod route;

use jsonc_parser::ast::Value;

use super::json::{self, Checker, Node, Object};
use crate::edge_config::SENSOR_MODULE;
use crate::problems::{Collector, Problem};

const DESIRED: &str = "properties.desired";
/// IoT Hub's limit for a deployment.
const MOST_MODULES: usize = 50;
/// The login at KEdge's own registry, which it adds to the others.
const OWN_LOGIN: &str = "kedge";

/// Tells what is wrong with the manifest in `text`.
pub(super) fn check(file: &str, text: &str) -> Vec<Problem> {
    let mut checker = Checker { problems: Collector::new(file, text) };
    match json::parse(text, &mut checker.problems) {
        Some(root) => manifest(&mut checker, &root),
        None if text.trim().is_empty() => checker.problems.push(None, "the file is empty"),
        None => {}
    }
    checker.problems.finish()
}

fn manifest(checker: &mut Checker<'_>, root: &Value<'_>) {
    checker.no_duplicates(root);
    let root = Node { path: String::new(), value: root };
    let Some(root) = root.as_object() else {
        return checker.problems.at(root.at(), "the manifest is no JSON object");
    };
    checker.only(&root, &["modulesContent"]);
    let Some(content) = checker.required(&root, "modulesContent") else { return };
    let Some(content) = checker.object(&content) else { return };
    let agent = desired(checker, &content, "$edgeAgent");
    let modules = agent.as_ref().and_then(|desired| agent_desired(checker, desired));
    let names: Vec<_> = modules.iter().flat_map(Object::names).collect();
    if let Some(desired) = desired(checker, &content, "$edgeHub") {
        hub::check(checker, &desired, &names);
    }
    for property in content.properties().filter(|property| !property.name.starts_with('$')) {
        module::name(checker, property.name, property.at, &property.node.path);
        let _properties = desired(checker, &content, property.name);
    }
    let is_system = |name: &str| matches!(name, "$edgeAgent" | "$edgeHub");
    for property in content.properties().filter(|it| it.name.starts_with('$') && !is_system(it.name)) {
        checker.wrong(
            property.at,
            &property.node.path,
            "there are only $edgeAgent and $edgeHub with a dollar",
        );
    }
}

/// The desired properties of a module, checked against the limits of every twin.
fn desired<'t>(checker: &mut Checker<'_>, content: &Object<'t>, module: &str) -> Option<Object<'t>> {
    let module = checker.required(content, module)?;
    let object = checker.object(&module)?;
    checker.only(&object, &[DESIRED]);
    let properties = checker.required(&object, DESIRED)?;
    // The path that people have in mind begins with the module.
    let properties =
        Node { path: module.path.rsplit('.').next().unwrap_or_default().to_owned(), ..properties };
    let object = checker.object(&properties)?;
    limits::check(checker, &properties);
    Some(object)
}

/// The desired properties of `$edgeAgent`; gives the modules back.
fn agent_desired<'t>(checker: &mut Checker<'_>, desired: &Object<'t>) -> Option<Object<'t>> {
    checker.only(desired, &["schemaVersion", "runtime", "systemModules", "modules", "integrity"]);
    let minor = schema_version(checker, desired, 1);
    if let Some(runtime) = checker.required(desired, "runtime") {
        self::runtime(checker, &runtime);
    }
    if let Some(system) = checker.required(desired, "systemModules")
        && let Some(system) = checker.object(&system)
    {
        checker.only(&system, &["edgeAgent", "edgeHub"]);
        for name in ["edgeAgent", "edgeHub"] {
            if let Some(definition) = checker.required(&system, name) {
                module::definition(checker, &definition, minor);
            }
        }
    }
    let modules = checker.required(desired, "modules")?;
    let modules = checker.object(&modules)?;
    self::modules(checker, &modules, minor);
    Some(modules)
}

/// `1.minor`, with or without a third part; gives the minor version back.
fn schema_version(checker: &mut Checker<'_>, desired: &Object<'_>, newest: u32) -> Option<u32> {
    let node = checker.required(desired, "schemaVersion")?;
    let text = checker.text(&node)?;
    let mut parts = text.split('.');
    let is_first = parts.next() == Some("1");
    let minor =
        parts.next().and_then(|minor| minor.parse().ok()).filter(|minor| *minor <= newest && is_first);
    if minor.is_none() || parts.count() > 1 {
        let what = format!("there are the versions \"1.0\" to \"1.{newest}\"");
        checker.wrong(node.at(), &node.path, what);
    }
    minor
}

fn runtime(checker: &mut Checker<'_>, runtime: &Node<'_>) {
    let Some(runtime) = checker.object(runtime) else { return };
    checker.only(&runtime, &["type", "settings"]);
    if let Some(kind) = checker.required(&runtime, "type") {
        checker.one_of(&kind, &["docker"]);
    }
    let Some(settings) = checker.required(&runtime, "settings") else { return };
    let Some(settings) = checker.object(&settings) else { return };
    checker.only(&settings, &["minDockerVersion", "loggingOptions", "registryCredentials"]);
    for name in ["minDockerVersion", "loggingOptions"] {
        if let Some(node) = settings.get(name) {
            checker.text(&node);
        }
    }
    let Some(logins) = settings.get("registryCredentials") else { return };
    for login in checker.object(&logins).iter().flat_map(Object::properties) {
        if login.name == OWN_LOGIN {
            checker.wrong(
                login.at,
                &login.node.path,
                "KEdge adds the login of its own registry by this name",
            );
        }
        let Some(fields) = checker.object(&login.node) else { continue };
        let names = ["address", "username", "password"];
        checker.only(&fields, &names);
        for name in names {
            if let Some(field) = checker.required(&fields, name)
                && checker.text(&field).is_some_and(|text| text.trim().is_empty())
            {
                checker.wrong(field.at(), &field.path, "empty");
            }
        }
    }
}

fn modules(checker: &mut Checker<'_>, modules: &Object<'_>, minor: Option<u32>) {
    let count = modules.names().count();
    if count > MOST_MODULES {
        let what = format!("{count} modules, and IoT Hub allows {MOST_MODULES} in a deployment");
        checker.wrong(modules.at, &modules.path, what);
    }
    let mut seen: Vec<String> = Vec::new();
    for property in modules.properties() {
        module::name(checker, property.name, property.at, &property.node.path);
        let lower = property.name.to_lowercase();
        if seen.contains(&lower) && modules.names().filter(|name| *name == property.name).count() == 1 {
            let what =
                "another module has this name in another case, and both would be one name on the network";
            checker.wrong(property.at, &property.node.path, what);
        }
        seen.push(lower);
        module::definition(checker, &property.node, minor);
    }
    if modules.get(SENSOR_MODULE).is_none() {
        let what = format!("the module `{SENSOR_MODULE}`, whose telemetry is the proof, is missing");
        checker.wrong(modules.at, &modules.path, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn project_file() -> String {
        fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/deployment.json"))
            .unwrap()
    }

    /// The problems of the project's manifest with one text in it replaced.
    fn with(from: &str, to: &str) -> Vec<String> {
        let source = project_file();
        assert!(source.contains(from), "{from}");
        check("d.json", &source.replacen(from, to, 1)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_manifest_of_the_repository_is_fine() {
        assert_eq!(check("d.json", &project_file()), []);
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        let cases = [
            ("\"modulesContent\"", "\"moduleContent\"", "d.json:2:3: moduleContent: unknown"),
            ("\"$edgeHub\": {", "\"$edgehub\": {", "`$edgeHub` is missing; `$edgehub` is there"),
            (
                "\"schemaVersion\": \"1.1\"",
                "\"schemaVersion\": \"2.0\"",
                "d.json:5:26: $edgeAgent.schemaVersion",
            ),
            ("\"schemaVersion\": \"1.1\"", "\"schemaVersion\": 1.1", "a number where a text is needed"),
            ("\"runtime\": {", "\"run\": {", "`runtime` is missing"),
            (
                "\"registryCredentials\": {}",
                "\"registryCredentials\": []",
                "a list where an object is needed",
            ),
            (
                "\"registryCredentials\": {}",
                "\"registryCredentials\": {\"kedge\":{}}",
                "`password` is missing",
            ),
            ("\"type\": \"docker\"", "\"type\": \"Docker\"", "\"Docker\" is not one of \"docker\""),
            ("\"edgeHub\": {", "\"hub\": {", "$edgeAgent.systemModules: `edgeHub` is missing"),
            (
                "\"tempSensor\"",
                "\"sensor\"",
                "the module `tempSensor`, whose telemetry is the proof, is missing",
            ),
            ("\"tempSensor\"", "\"sensor\"", "there is no module `tempSensor`"),
            ("\"version\": \"1.0\"", "\"version\": \"1.0\", \"version\": \"1.1\"", "`version` stands twice"),
            (
                "\"modules\": {",
                "\"modules\": { \"TempSensor\": {},",
                "another module has this name in another case",
            ),
            ("\"$edgeHub\": {", "\"$other\": {}, \"$edgeHub\": {", "there are only $edgeAgent and $edgeHub"),
            (
                "\"$edgeHub\": {",
                "\"tempSensor\": {\"desired\": {}}, \"$edgeHub\": {",
                "known here are properties.desired",
            ),
        ];
        for (from, to, expected) in cases {
            let problems = with(from, to);
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{to}: {problems:#?}");
        }
    }

    #[test]
    fn what_is_not_an_object_at_all_is_told() {
        for (text, expected) in [
            ("", "d.json: the file is empty"),
            ("[]", "d.json:1:1: the manifest is no JSON object"),
            ("{}", "d.json:1:1: the manifest: `modulesContent` is missing"),
            ("{\"modulesContent\": 1}", "d.json:1:20: modulesContent: a number where an object is needed"),
        ] {
            let problems = check("d.json", text);
            assert_eq!(problems.first().map(ToString::to_string).as_deref(), Some(expected), "{problems:?}");
        }
    }

    #[test]
    fn more_modules_than_the_hub_allows_are_refused() {
        let more: String = (0..50).map(|n| format!("\"m{n}\": {{}}, ")).collect();
        let problems = with("\"modules\": {", &format!("\"modules\": {{ {more}"));
        assert!(problems.iter().any(|problem| problem.contains("51 modules")), "{problems:?}");
    }

    #[test]
    fn a_password_is_never_shown() {
        let logins = [
            r#"{"r": {"address": 1, "username": "u", "password": ["hunter2"]}}"#,
            r#"{"r": {"adress": "a", "username": "u", "password": {"p": "hunter2"}}}"#,
            r#"{"r": "hunter2"}"#,
            r#"["hunter2"]"#,
        ];
        for login in logins {
            let to = format!("\"registryCredentials\": {login}");
            let problems = with("\"registryCredentials\": {}", &to);
            assert!(!problems.is_empty() && !problems.join("\n").contains("hunter2"), "{problems:#?}");
        }
    }
}
