//! The routes of `$edgeHub`: which messages of modules go to the hub.
//!
//! A route that this runtime cannot follow (a condition, a module's input as its sink) is left out
//! and named in the reported status; the others work. Only a structure that cannot be read at all
//! is refused as a whole.

use serde_json::Value;

use super::deployment::DeploymentError;

/// Two hours, as in the real runtime.
const DEFAULT_TIME_TO_LIVE_SECS: u32 = 7200;
const SCHEMA_MINORS: [&str; 4] = ["0", "1", "2", "3"];
/// First levels of the sources that carry messages; the others carry notices that nobody produces here.
const MESSAGES: &str = "messages";
const NOTICES: [&str; 3] = ["twinChangeNotifications", "moduleLifecycleEvents", "deviceLifecycleEvents"];

/// The routes in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    upstream: Vec<Pattern>,
    /// How long messages are kept, and how many.
    pub store: StoreSettings,
    /// What could not be followed, one sentence for each route.
    pub problems: Vec<String>,
}

/// `storeAndForwardConfiguration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSettings {
    /// How long a message is kept, when its route says nothing else.
    pub time_to_live_secs: u32,
    /// How much is kept, when there is a limit of the user's own.
    pub max_bytes: Option<u64>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { time_to_live_secs: DEFAULT_TIME_TO_LIVE_SECS, max_bytes: None }
    }
}

impl StoreSettings {
    fn parse(configuration: Option<&Value>) -> Result<Self, DeploymentError> {
        let configuration = match configuration {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(configuration) => configuration,
        };
        let malformed = |what: &str| {
            DeploymentError::Malformed(format!("storeAndForwardConfiguration: {what} is no whole number"))
        };
        let number = |value: Option<&Value>, name: &str| match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| malformed(name)),
        };
        let seconds = number(configuration.get("timeToLiveSecs"), "timeToLiveSecs")?;
        let limits = configuration.get("storeLimits").and_then(|limits| limits.get("maxSizeBytes"));
        Ok(Self {
            time_to_live_secs: seconds
                .map_or(DEFAULT_TIME_TO_LIVE_SECS, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            max_bytes: number(limits, "maxSizeBytes")?,
        })
    }
}

/// Segments of a source; `*` stands for one segment, or at the end for the rest.
type Pattern = Vec<String>;

impl Routes {
    /// Reads the `desired` part of the twin of `$edgeHub`.
    pub fn parse(desired: &Value) -> Result<Self, DeploymentError> {
        let malformed = |message: &str| DeploymentError::Malformed(message.to_owned());
        let desired = desired.as_object().ok_or_else(|| malformed("the desired properties are no object"))?;
        if desired.keys().all(|key| key.starts_with('$')) {
            return Err(DeploymentError::Empty);
        }
        let version = desired.get("schemaVersion").and_then(Value::as_str).unwrap_or_default();
        let minor = version.strip_prefix("1.").and_then(|rest| rest.split('.').next());
        if !minor.is_some_and(|minor| SCHEMA_MINORS.contains(&minor)) {
            return Err(DeploymentError::SchemaVersion(version.to_owned()));
        }
        let store = StoreSettings::parse(desired.get("storeAndForwardConfiguration"))?;
        let mut routes = Self { store, ..Self::default() };
        let described = match desired.get("routes") {
            None | Some(Value::Null) => return Ok(routes),
            Some(Value::Object(described)) => described,
            Some(_) => return Err(malformed("the routes are no object")),
        };
        for (name, value) in described {
            let text = value.as_str().or_else(|| value.get("route")?.as_str());
            match text.ok_or_else(|| "it has no text".to_owned()).and_then(parse_route) {
                Ok(pattern) => routes.upstream.push(pattern),
                Err(problem) => routes.problems.push(format!("route {name}: {problem}")),
            }
        }
        Ok(routes)
    }

    /// Whether a message of this module's output goes to the hub.
    #[must_use]
    pub fn lead_upstream(&self, module: &str, output: Option<&str>) -> bool {
        let mut path = vec![MESSAGES, "modules", module];
        if let Some(output) = output {
            path.extend(["outputs", output]);
        }
        self.upstream.iter().any(|pattern| matches(pattern, &path))
    }
}

fn matches(pattern: &[String], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([last], _) if last == "*" => true,
        ([first, pattern @ ..], [segment, path @ ..]) => {
            (first == "*" || first == segment) && matches(pattern, path)
        }
        _ => false,
    }
}

/// Reads `FROM <source> [WHERE <condition>] INTO <sink>`; keywords in any case.
fn parse_route(text: &str) -> Result<Pattern, String> {
    let grammar = || format!("\"{text}\" is not of the form FROM <source> INTO <sink>");
    let words: Vec<&str> = text.split_whitespace().collect();
    let keyword = |index: usize, keyword: &str| {
        words.get(index).is_some_and(|word: &&str| word.eq_ignore_ascii_case(keyword))
    };
    let source = words.get(1).filter(|_| keyword(0, "FROM")).ok_or_else(grammar)?;
    if keyword(2, "WHERE") {
        return Err("conditions are not supported by the simulated runtime".to_owned());
    }
    let sink = words.get(3).filter(|_| keyword(2, "INTO")).ok_or_else(grammar)?;
    if sink.to_ascii_lowercase().starts_with("brokeredendpoint") {
        return Err("inputs of modules as a sink are not supported by the simulated runtime".to_owned());
    }
    if words.len() != 4 || !sink.eq_ignore_ascii_case("$upstream") {
        return Err(grammar());
    }
    parse_source(source)
}

fn parse_source(source: &str) -> Result<Pattern, String> {
    let path = source.strip_prefix('/').ok_or_else(|| format!("the source \"{source}\" has no leading /"))?;
    let pattern: Pattern = path.trim_end_matches('/').split('/').map(ToOwned::to_owned).collect();
    match pattern.first().map(String::as_str) {
        Some("*" | MESSAGES) if pattern.iter().all(|segment| !segment.is_empty()) => Ok(pattern),
        Some(notices) if NOTICES.contains(&notices) => {
            Err(format!("the source \"{source}\" is not supported by the simulated runtime"))
        }
        _ => Err(format!("there is no source \"{source}\"")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn routes(text: &str) -> Routes {
        Routes::parse(&json!({"schemaVersion": "1.1", "routes": {"r": text}})).unwrap()
    }

    #[test]
    fn sources_select_messages() {
        let sensor = ("sensor", Some("temperature"));
        for (source, selected, not_selected) in [
            ("/*", vec![sensor, ("other", None)], vec![]),
            ("/messages/*", vec![sensor, ("other", None)], vec![]),
            ("/messages/modules/*", vec![sensor, ("other", None)], vec![]),
            ("/messages/modules/sensor/*", vec![sensor, ("sensor", None)], vec![("sensor2", None)]),
            (
                "/messages/modules/sensor/outputs/*",
                vec![sensor],
                vec![("sensor", None), ("other", Some("x"))],
            ),
            ("/messages/modules/sensor/outputs/temperature", vec![sensor], vec![("sensor", Some("x"))]),
            ("/messages/modules/*/outputs/temperature", vec![sensor], vec![("sensor", Some("x"))]),
            ("/messages/modules/sensor/", vec![("sensor", None)], vec![sensor]),
        ] {
            let routes = routes(&format!("from {source} Into $UPSTREAM"));
            assert_eq!(routes.problems, Vec::<String>::new(), "{source}");
            for (module, output) in selected {
                assert!(routes.lead_upstream(module, output), "{source} {module} {output:?}");
            }
            for (module, output) in not_selected {
                assert!(!routes.lead_upstream(module, output), "{source} {module} {output:?}");
            }
        }
        assert!(!Routes::default().lead_upstream("sensor", None), "without a route nothing leaves");
    }

    #[test]
    fn what_cannot_be_followed_is_named_and_the_rest_works() {
        let desired = json!({"schemaVersion": "1.0", "routes": {
            "good": {"route": "FROM /messages/modules/a/* INTO $upstream", "priority": 1},
            "input": "FROM /* INTO BrokeredEndpoint(\"/modules/b/inputs/x\")",
            "condition": "FROM /* WHERE temperature > 20 INTO $upstream",
            "notices": "FROM /twinChangeNotifications INTO $upstream",
            "source": "FROM /other/* INTO $upstream",
            "relative": "FROM messages INTO $upstream",
            "double": "FROM //x INTO $upstream",
            "sink": "FROM /* INTO upstream",
            "long": "FROM /* INTO $upstream please",
            "empty": "", "number": 5, "short": "FROM",
        }});
        let routes = Routes::parse(&desired).unwrap();
        assert!(routes.lead_upstream("a", None) && !routes.lead_upstream("b", None));
        let mut named: Vec<_> =
            routes.problems.iter().filter_map(|text| text.split([' ', ':']).nth(1)).collect();
        named.sort_unstable();
        let expected = [
            "condition",
            "double",
            "empty",
            "input",
            "long",
            "notices",
            "number",
            "relative",
            "short",
            "sink",
            "source",
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn the_codes_are_those_of_the_real_runtime() {
        for (desired, code) in [
            (json!({"$version": 1}), 417),
            (json!({"schemaVersion": "2.0"}), 412),
            (json!({"schemaVersion": "1.4"}), 412),
            (json!({"routes": {}}), 412),
            (json!({"schemaVersion": "1.0", "routes": []}), 400),
            (json!("x"), 400),
        ] {
            assert_eq!(Routes::parse(&desired).unwrap_err().code(), code, "{desired}");
        }
        assert_eq!(Routes::parse(&json!({"schemaVersion": "1.3"})), Ok(Routes::default()));
    }
}
