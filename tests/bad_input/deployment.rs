//! Mistakes in the deployment manifest.

use crate::support::{Case, Machine, SECRET, refusal, report};

const SOURCE: &str = include_str!("../../config/deployment.json");

/// Name, what is replaced, by what, what stands on the first such line (nothing where the mistake is noticed elsewhere),
/// what is told.
const CASES: [(&str, &str, &str, &str, &str); 41] = [
    ("a comma too much", "\"createOptions\": \"{}\"\n", "\"createOptions\": \"{}\",\n", "", "not JSON"),
    ("a brace too few", "\"$edgeHub\": {", "\"$edgeHub\": ", "", "not JSON"),
    (
        "a comment",
        "{\n  \"modulesContent\"",
        "{ // note\n  \"modulesContent\"",
        "// note",
        "comments are not allowed",
    ),
    ("single quotes", "\"1.0\"", "'1.0'", "'1.0'", "not JSON"),
    (
        "a key that stands twice",
        "\"version\": \"1.0\",",
        "\"version\": \"1.0\",\n\"version\": \"2\",",
        "\"2\"",
        "stands twice",
    ),
    ("an unknown key at the top", "\"modulesContent\"", "\"content\"", "\"content\"", "unknown"),
    ("no agent", "\"$edgeAgent\"", "\"$edgeAgnt\"", "modulesContent", "`$edgeAgnt` is there"),
    (
        "no desired properties",
        "\"properties.desired\"",
        "\"desired\"",
        "$edgeAgent",
        "`properties.desired` is missing",
    ),
    (
        "an unknown schema",
        "\"schemaVersion\": \"1.1\"",
        "\"schemaVersion\": \"3.0\"",
        "3.0",
        "\"1.0\" to \"1.1\"",
    ),
    (
        "a schema that is a number",
        "\"schemaVersion\": \"1.1\"",
        "\"schemaVersion\": 1.1",
        "1.1",
        "a text is needed",
    ),
    (
        "a runtime that is not Docker",
        "\"type\": \"docker\"",
        "\"type\": \"podman\"",
        "podman",
        "not one of \"docker\"",
    ),
    ("no runtime", "\"runtime\":", "\"runtme\":", "runtme", "did you mean `runtime`?"),
    (
        "a list of logins",
        "\"registryCredentials\": {}",
        "\"registryCredentials\": [\"s3cret-hunter2\"]",
        "registryC",
        "an object",
    ),
    (
        "a login without an address",
        "\"registryCredentials\": {}",
        "\"registryCredentials\": {\"r\": {\"username\": \"u\", \"password\": \"s3cret-hunter2\"}}",
        "registryC",
        "`address` is missing",
    ),
    (
        "a password that is a list",
        "\"registryCredentials\": {}",
        "\"registryCredentials\": {\"r\": {\"address\": \"a\", \"username\": \"u\", \"password\": [\"s3cret-hunter2\"]}}",
        "registryC",
        "a list where a text is needed",
    ),
    ("no system module", "\"edgeAgent\": {", "\"edgeagent\": {", "", "`edgeAgent` is missing"),
    ("no modules", "\"modules\": {", "\"module\": {", "\"module\"", "did you mean `modules`?"),
    ("no sensor", "\"tempSensor\": {", "\"sensor\": {", "\"modules\"", "whose telemetry is the proof"),
    (
        "a module called like the gateway",
        "\"tempSensor\": {",
        "\"edgeHub\": {}, \"tempSensor\": {",
        "tempSensor",
        "system module",
    ),
    (
        "a module with a slash",
        "\"tempSensor\": {",
        "\"a/b\": {}, \"tempSensor\": {",
        "tempSensor",
        "a module's name has",
    ),
    ("a module with a dot", "\"tempSensor\": {", "\"a.b\": {}, \"tempSensor\": {", "tempSensor", "has a dot"),
    (
        "two modules of one name",
        "\"tempSensor\": {",
        "\"TEMPSENSOR\": {},\n\"tempSensor\": {",
        "\"tempSensor\": {",
        "in another case",
    ),
    (
        "an unknown status",
        "\"status\": \"running\"",
        "\"status\": \"started\"",
        "started",
        "\"running\", \"stopped\"",
    ),
    (
        "a status in upper case",
        "\"status\": \"running\"",
        "\"status\": \"Running\"",
        "Running",
        "did you mean `running`?",
    ),
    (
        "an unknown policy",
        "\"restartPolicy\": \"always\"",
        "\"restartPolicy\": \"onfailure\"",
        "onf",
        "did you mean `on-failure`?",
    ),
    (
        "a pull policy of Kubernetes",
        "\"version\": \"1.0\"",
        "\"imagePullPolicy\": \"Always\"",
        "Always",
        "\"on-create\", \"never\"",
    ),
    (
        "an order that is a text",
        "\"version\": \"1.0\"",
        "\"startupOrder\": \"1\"",
        "startupOrder",
        "a whole number from 0",
    ),
    (
        "an order below 0",
        "\"version\": \"1.0\"",
        "\"startupOrder\": -1",
        "startupOrder",
        "-1 is not a whole number",
    ),
    (
        "an unknown key of a module",
        "\"version\": \"1.0\"",
        "\"restart\": \"1.0\"",
        "\"restart\"",
        "known here are",
    ),
    (
        "a variable without its value",
        "{ \"value\": \"-1\" }",
        "\"s3cret-hunter2\"",
        "MessageCount",
        "{\"value\": \"…\"}",
    ),
    (
        "a variable with a list",
        "{ \"value\": \"-1\" }",
        "{ \"value\": [\"s3cret-hunter2\"] }",
        "MessageCount",
        "a text, a number",
    ),
    ("no image", "\"image\": \"kedge/temperature-sensor\",", "", "", "`image` is missing"),
    ("an image in upper case", "kedge/temperature-sensor", "Kedge/Sensor", "Kedge/Sensor", "an image"),
    (
        "an image with a login",
        "kedge/temperature-sensor",
        "https://u:s3cret-hunter2@r/x",
        "https",
        "[redacted]",
    ),
    (
        "options that are not JSON",
        "\"createOptions\": \"{}\"",
        "\"createOptions\": \"{s3cret-hunter2\"",
        "{s3c",
        "not JSON",
    ),
    (
        "options that are a list",
        "\"createOptions\": \"{}\"",
        "\"createOptions\": \"[]\"",
        "\"[]\"",
        "no object",
    ),
    (
        "a part of options that is missing",
        "\"createOptions\": \"{}\"",
        "\"createOptions01\": \"{}\"",
        "Options01",
        "`createOptions` comes before",
    ),
    (
        "a route without a sink",
        "INTO $upstream",
        "",
        "upstream\":",
        "FROM <source> [WHERE <condition>] INTO <sink>",
    ),
    ("a route to nowhere", "INTO $upstream", "INTO $cloud", "$cloud", "there is no sink \"$cloud\""),
    (
        "a route to no module",
        "INTO $upstream",
        "INTO BrokeredEndpoint(\\\"/modules/x/inputs/i\\\")",
        "Brokered",
        "no module `x`",
    ),
    ("a time that is a text", "7200", "\"2 h\"", "2 h", "a text where a whole number"),
];

fn settings(machine: &Machine, manifest: &str) -> (String, String) {
    let manifest = machine.write("files/deployment.json", manifest);
    let profile = machine.write("kedge.toml", format!("[device]\ndeployment = \"{manifest}\"\n"));
    (profile, manifest)
}

#[test]
fn each_mistake_is_told_with_its_line_and_nothing_is_made() {
    report(CASES.iter().filter_map(|&(name, from, to, at, told)| {
        assert!(SOURCE.contains(from), "{name}");
        let machine = Machine::bare();
        let text = SOURCE.replacen(from, to, 1);
        let (profile, manifest) = settings(&machine, &text);
        assert!(text.contains(at), "{name}");
        Case { name, text, at, told }.failure(&machine, &manifest, &["up", "--profile", &profile])
    }));
}

#[test]
fn all_mistakes_of_all_files_are_told_together() {
    let machine = Machine::bare();
    let text = SOURCE
        .replace("\"running\"", "\"runing\"")
        .replace("7200", "-5")
        .replace("kedge/temperature-sensor", "A")
        .replace("\"value\": \"-1\"", &format!("\"val\": \"{SECRET}\""));
    let (_, manifest) = settings(&machine, &text);
    let config = machine.write("files/config.toml", "hostname = \"other\"\n[provisioning]\n");
    let settings = format!("[device]\ndeployment = \"{manifest}\"\nconfig = \"{config}\"\n");
    let profile = machine.write("kedge.toml", settings);
    let told = refusal(&mut machine.xtask(&["e2e", "--profile", &profile]), 3);
    assert_eq!(told.matches("is not one of \"running\"").count(), 2, "{told}");
    assert_eq!(told.matches("deployment.json:").count(), 6, "{told}");
    assert_eq!(told.matches("config.toml:").count(), 2, "{told}");
    assert!(machine.is_untouched());
}

#[test]
fn more_than_a_twin_takes_is_refused() {
    let machine = Machine::bare();
    let modules: String = (0..60)
        .map(|n| format!("\"m{n}\": {{\"type\": \"docker\", \"settings\": {{\"image\": \"i\"}}, \"version\": \"{}\"}},", "x".repeat(700)))
        .collect();
    let text = SOURCE.replacen("\"modules\": {", &format!("\"modules\": {{{modules}"), 1);
    let text = text.replacen("\"version\": \"1.0\"", &format!("\"version\": \"{}\"", "x".repeat(5000)), 1);
    let (profile, _) = settings(&machine, &text);
    let told = refusal(&mut machine.xtask(&["up", "--profile", &profile]), 3);
    for expected in [
        "61 modules, and IoT Hub allows 50",
        "at most 32768",
        "5000 bytes, and a text in a twin has at most 4096",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[test]
fn a_manifest_that_cannot_be_read_is_told_by_its_name() {
    let machine = Machine::bare();
    for (manifest, expected) in [
        ("no/such.json".to_owned(), "no/such.json: there is no such file"),
        (machine.path("").to_str().unwrap().to_owned(), "this is a folder"),
        ("/dev/zero".to_owned(), "/dev/zero: this is not a regular file"),
        (machine.write("files/empty.json", ""), "the file is empty"),
        (machine.write("files/bytes.json", b"\xff\xfe"), "bytes.json:1:1: this is not UTF-8 text"),
    ] {
        let profile = machine.write("kedge.toml", format!("[device]\ndeployment = \"{manifest}\"\n"));
        for command in ["up", "plan"] {
            let told = refusal(&mut machine.xtask(&[command, "--profile", &profile]), 3);
            assert!(told.contains(expected), "{manifest}: {told}");
        }
    }
    assert!(machine.is_untouched());
}
