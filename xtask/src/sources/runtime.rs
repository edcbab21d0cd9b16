//! The configuration of the IoT Edge runtime, as far as it can be judged from outside: no credential in it, known tables
//! and keys of the right type, and the host name that the pod has. No value is shown but the host name.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::plan::Shape;
use crate::problems::{Collector, Problem, did_you_mean, shown};
use crate::provisioning::FOLDER;
use crate::settings::{Hub, Runtime};

/// What can stand at the top, and of what type it is.
const KEYS: [(&str, &str); 24] = [
    ("hostname", "string"),
    ("trust_bundle_cert", "string"),
    ("allow_elevated_docker_permissions", "boolean"),
    ("auto_reprovisioning_mode", "string"),
    ("cloud_timeout_sec", "integer"),
    ("cloud_retries", "integer"),
    ("prefer_module_identity_cache", "boolean"),
    ("additional_info", "string"),
    ("imported_master_encryption_key", "string"),
    ("aziot_max_requests", "table"),
    ("iotedge_max_requests", "table"),
    ("localid", "table"),
    ("agent", "table"),
    ("connect", "table"),
    ("listen", "table"),
    ("watchdog", "table"),
    ("edge_ca", "table"),
    ("moby_runtime", "table"),
    ("image_garbage_collection", "table"),
    ("aziot_keys", "table"),
    ("preloaded_keys", "table"),
    ("preloaded_certs", "table"),
    ("cert_issuance", "table"),
    ("tpm", "table"),
];
/// What only Microsoft's runtime can do; the simulated one refuses it, because it would mean something else than what was
/// asked for.
const OF_THE_REAL: [&str; 2] = ["parent_hostname", "local_gateway_hostname"];
/// The protocols that the local hub speaks.
const LOCAL_PROTOCOLS: [&str; 2] = ["Mqtt", "MqttWs"];
/// Values that are fixed: the image and the agent are made for them.
const FIXED: [(&str, &str, &str); 2] = [("agent", "name", "edgeAgent"), ("agent", "type", "docker")];

/// Tells what is wrong with it for this runtime and this hub. `pod` is the host name of the pod, if it is known.
pub(super) fn check(file: &str, text: &str, pod: Option<&str>, shape: Shape) -> Vec<Problem> {
    let mut problems = Collector::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.not_toml(error);
    }
    // What is left of a file that is no TOML may be half of what was meant.
    if errors.is_empty() {
        for (key, value) in document.get_ref() {
            entry(key.get_ref(), key.span().start, value, (pod, shape), &mut problems);
        }
    }
    problems.finish()
}

/// Tells which files of the Secret it names that the Secret will not have: the pod would end at its start.
pub(super) fn undelivered(file: &str, text: &str, delivered: &BTreeSet<String>) -> Vec<Problem> {
    let mut problems = Collector::new(file, text);
    for (_, value) in DeTable::parse_recoverable(text).0.get_ref() {
        each_text(value, &mut |at, text| {
            let name = text.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/'));
            if let Some(name) = name.filter(|name| !delivered.contains(*name)) {
                let has = delivered.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let what = format!(
                    "the Secret will have no file \"{}\", but {has}; keys and certificates come with the credentials: `cargo \
                     xtask device --help`",
                    shown(name)
                );
                problems.at(at, what);
            }
        });
    }
    problems.finish()
}

/// Looks at every text in a value, and at where it is.
fn each_text(value: &Spanned<DeValue<'_>>, look: &mut dyn FnMut(usize, &str)) {
    match value.get_ref() {
        DeValue::String(text) => look(value.span().start, text),
        DeValue::Array(values) => values.iter().for_each(|value| each_text(value, look)),
        DeValue::Table(table) => table.values().for_each(|value| each_text(value, look)),
        _ => {}
    }
}

fn entry(
    key: &str,
    at: usize,
    value: &Spanned<DeValue<'_>>,
    (pod, shape): (Option<&str>, Shape),
    problems: &mut Collector<'_>,
) {
    let is_simulated = shape.runtime == Runtime::Simulated;
    if key == "provisioning" {
        let what =
            "[provisioning] is made by KEdge, so that no credential is in the project; remove this table";
        return problems.at(at, what);
    }
    if is_simulated && OF_THE_REAL.contains(&key) {
        return problems.at(at, format!("{key} is not supported by the simulated runtime"));
    }
    let more = OF_THE_REAL.map(|key| (key, "string"));
    let Some((_, wanted)) = KEYS.iter().chain(&more).find(|(known, _)| *known == key) else {
        let hint = did_you_mean(key, KEYS.iter().map(|(known, _)| *known));
        return problems.at(at, format!("unknown setting `{}`{hint}", shown(key)));
    };
    let value_at = value.span().start;
    let value = value.get_ref();
    if value.type_str() != *wanted {
        let (is, needed) = (in_words(value.type_str()), in_words(wanted));
        return problems.at(value_at, format!("{key} is {is}, and {needed} is needed"));
    }
    if key == "hostname" {
        host_name(value.as_str().unwrap_or_default(), value_at, pod, problems);
    }
    for (table, name, wanted) in FIXED.iter().filter(|(table, _, _)| *table == key) {
        if let Some(value) = value.get(*name).filter(|value| value.get_ref().as_str() != Some(wanted)) {
            problems.at(value.span().start, format!("{table}.{name}: only \"{wanted}\" is supported"));
        }
    }
    if shape == (Shape { hub: Hub::Local, runtime: Runtime::Azure }) {
        local_hub(key, at, value, problems);
    }
    if is_simulated && key == "edge_ca" && ["cert", "method"].iter().any(|name| value.get(*name).is_some()) {
        problems.at(at, "an Edge CA of your own is not supported by the simulated runtime");
    }
}

/// What Microsoft's runtime must not be told where it is to find the local hub.
fn local_hub(key: &str, at: usize, value: &DeValue<'_>, problems: &mut Collector<'_>) {
    if key == "trust_bundle_cert" {
        let what = "trust_bundle_cert is made by KEdge for the local hub, whose authority modules have to trust; give yours \
                    with the credentials: `cargo xtask device --help`";
        problems.at(at, what);
    }
    let protocol = value.get("env").and_then(|env| env.get_ref().get("UpstreamProtocol"));
    if let Some(protocol) = protocol.filter(|_| key == "agent")
        && !protocol.get_ref().as_str().is_some_and(|name| LOCAL_PROTOCOLS.contains(&name))
    {
        let what = "agent.env.UpstreamProtocol: the local hub speaks \"Mqtt\" and \"MqttWs\" alone";
        problems.at(protocol.span().start, what);
    }
}

fn host_name(name: &str, at: usize, pod: Option<&str>, problems: &mut Collector<'_>) {
    if let Some(pod) = pod.filter(|pod| *pod != name) {
        let what = format!(
            "hostname = \"{}\": the pod is called \"{}\", as `hostname` in manifests/kedgedeployment.yaml has it; modules \
             reach the gateway by that name",
            shown(name),
            shown(pod)
        );
        problems.at(at, what);
    }
}

fn in_words(kind: &str) -> &'static str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "float" => "a number with a fraction",
        "boolean" => "true or false",
        "datetime" => "a date or time",
        "array" => "a list",
        _ => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_for(text: &str, hub: Hub, runtime: Runtime) -> Vec<String> {
        let problems = check("c.toml", text, Some("kedge-edge"), Shape { hub, runtime });
        problems.iter().map(ToString::to_string).collect()
    }

    fn told(text: &str) -> Vec<String> {
        told_for(text, Hub::Local, Runtime::Simulated)
    }

    #[test]
    fn the_real_runtime_can_do_more() {
        for text in ["parent_hostname = \"p\"", "[edge_ca]\ncert = \"file:///x\"\npk = \"file:///y\""] {
            assert_eq!(told_for(text, Hub::Local, Runtime::Azure), [""; 0], "{text}");
            assert_eq!(told(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn the_real_runtime_is_not_led_away_from_the_local_hub() {
        let cases = [
            ("trust_bundle_cert = \"file:///x\"", "c.toml:1:1: trust_bundle_cert is made by KEdge"),
            (
                "[agent.env]\nUpstreamProtocol = \"Amqp\"",
                "c.toml:2:20: agent.env.UpstreamProtocol: the local hub",
            ),
        ];
        for (text, expected) in cases {
            let problems = told_for(text, Hub::Local, Runtime::Azure);
            assert!(problems.len() == 1 && problems[0].starts_with(expected), "{problems:?}");
            assert_eq!(told_for(text, Hub::Azure, Runtime::Azure), [""; 0]);
        }
        let text = "[agent.env]\nUpstreamProtocol = \"MqttWs\"";
        assert_eq!(told_for(text, Hub::Local, Runtime::Azure), [""; 0]);
    }

    #[test]
    fn the_configuration_of_the_repository_is_fine() {
        assert_eq!(told(include_str!("../../../config/config.toml")), [""; 0]);
        assert_eq!(told(""), [""; 0], "the host name is that of the machine, which is the pod");
    }

    #[test]
    fn a_file_that_the_secret_will_lack_is_told_with_its_place() {
        let delivered = BTreeSet::from(["config.toml".to_owned(), "device-key".to_owned()]);
        let text = "[preloaded_keys]\nk = \"file:///var/secrets/kedge/device-key\"\no = \"file:///etc/x\"\n\
                    [preloaded_certs]\nc = [\"file:///var/secrets/kedge/mine.pem\"]\n";
        let problems = undelivered("c.toml", text, &delivered);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let told = problems[0].to_string();
        let expected =
            "c.toml:5:6: the Secret will have no file \"mine.pem\", but config.toml, device-key; keys";
        assert!(told.starts_with(expected), "{told}");
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        let cases = [
            ("hostname = \"other\"", "c.toml:1:12: hostname = \"other\": the pod is called \"kedge-edge\""),
            ("hostname = 1", "c.toml:1:12: hostname is a whole number, and a text is needed"),
            ("hostnmae = \"x\"", "c.toml:1:1: unknown setting `hostnmae`; did you mean `hostname`?"),
            ("[moby_runtim]", "c.toml:1:2: unknown setting `moby_runtim`; did you mean `moby_runtime`?"),
            ("[provisioning]\nsource = \"manual\"", "c.toml:1:2: [provisioning] is made by KEdge"),
            (
                "provisioning = { connection_string = \"s3cret\" }",
                "c.toml:1:1: [provisioning] is made by KEdge",
            ),
            ("parent_hostname = \"p\"", "c.toml:1:1: parent_hostname is not supported"),
            ("agent = \"s3cret\"", "c.toml:1:9: agent is a text, and a table is needed"),
            ("[agent]\ntype = \"podman\"", "c.toml:2:8: agent.type: only \"docker\" is supported"),
            ("[edge_ca]\ncert = \"file:///x\"", "c.toml:1:2: an Edge CA of your own is not supported"),
            ("key = \"s3cret", "c.toml:1:"),
            ("[agent]\n[agent]", "c.toml:2:"),
        ];
        for (text, expected) in cases {
            let told = told(text);
            assert!(told.len() == 1 && told[0].starts_with(expected), "{text}: {told:?}");
            assert!(!told[0].contains("s3cret"), "{told:?}");
        }
    }
}
