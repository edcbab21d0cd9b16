use serde_json::json;

use super::*;

fn quickstart() -> Value {
    json!({
        "schemaVersion": "1.0",
        "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25", "loggingOptions": "",
            "registryCredentials": {"r": {"address": "registry:5000", "username": "u", "password": "secret"}}}},
        "systemModules": {
            "edgeAgent": {"type": "docker", "settings": {"image": "agent:1", "createOptions": ""}, "env": {}},
            "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always", "env": {},
                "settings": {"image": "hub:1", "createOptions": "{\"HostConfig\":{}}"}}},
        "modules": {"tempSensor": {"version": "1.0", "type": "docker", "status": "running",
            "restartPolicy": "always", "settings": {"image": "registry:5000/sensor:1", "createOptions": ""}}},
        "$version": 3
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut deployment = quickstart();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    deployment.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
    deployment
}

fn error_for(desired: &Value) -> DeploymentError {
    Deployment::parse(desired).unwrap_err()
}

const SENSOR: &str = "/modules/tempSensor";

#[test]
fn the_quickstart_deployment_is_read_with_the_defaults_of_the_real_agent() {
    let deployment = Deployment::parse(&quickstart()).unwrap();
    assert_eq!(deployment.version, 3);
    let (agent, hub) = (&deployment.system_modules["edgeAgent"], &deployment.system_modules["edgeHub"]);
    assert_eq!((hub.image.as_str(), hub.startup_order), ("hub:1", u32::MAX));
    assert_eq!((agent.status, agent.startup_order), (DesiredStatus::Running, 0));
    assert_eq!(deployment.runtime.min_docker_version, "v1.25");
    let sensor = &deployment.modules["tempSensor"];
    assert_eq!((sensor.image.as_str(), sensor.version.as_str()), ("registry:5000/sensor:1", "1.0"));
    assert_eq!((sensor.status, sensor.restart_policy), (DesiredStatus::Running, RestartPolicy::Always));
    assert_eq!((sensor.pull_policy, sensor.startup_order), (PullPolicy::OnCreate, u32::MAX));
    assert!(sensor.create_options.is_empty());
}

#[test]
fn credentials_belong_to_a_registry_and_are_not_printed() {
    let deployment = Deployment::parse(&quickstart()).unwrap();
    assert_eq!(deployment.credential_for("registry:5000/a/b@sha256:0").unwrap().username, "u");
    for image in ["registry:5001/a", "registry/a", "a", "library/a:1"] {
        assert_eq!(deployment.credential_for(image), None, "{image}");
    }
    assert!(!format!("{deployment:?}").contains("secret"));
    let misplaced = with("/runtime/settings/registryCredentials/r", json!("u:secret"));
    assert!(!error_for(&misplaced).to_string().contains("secret"));
    assert_eq!(registry_of("library/nginx"), "docker.io");
    assert_eq!(registry_of("localhost/nginx"), "localhost");
}

#[test]
fn create_options_may_be_split_into_parts() {
    let settings = json!({"image": "i", "createOptions": "{\"Hostname\":", "createOptions01": "\"h", "createOptions02": "\"}"});
    let deployment = Deployment::parse(&with(&format!("{SENSOR}/settings"), settings)).unwrap();
    assert_eq!(deployment.modules["tempSensor"].create_options["Hostname"], "h");
    let gap = json!({"image": "i", "createOptions": "{", "createOptions02": "}"});
    let error = error_for(&with(&format!("{SENSOR}/settings"), gap));
    assert!(error.to_string().contains("createOptions01 is missing"), "{error}");
}

#[test]
fn variables_may_be_numbers_and_booleans() {
    let env = json!({"A": {"value": "text"}, "B": {"value": 5}, "C": {"value": true}});
    let deployment = Deployment::parse(&with(&format!("{SENSOR}/env"), env)).unwrap();
    let env = &deployment.modules["tempSensor"].env;
    assert_eq!([&env["A"], &env["B"], &env["C"]], ["text", "5", "true"]);
}

#[test]
fn what_has_no_meaning_here_is_named() {
    let names = |desired: &Value| Deployment::parse(desired).unwrap().ignored;
    assert_eq!(names(&quickstart()), [""; 0]);
    let mut desired = with("/integrity", json!({"signature": {}}));
    desired["systemModules"]["edgeHub"]["status"] = json!("stopped");
    desired["systemModules"]["edgeHub"]["env"] =
        json!({"UpstreamProtocol": {"value": "Mqtt"}, "OptimizeForPerformance": {"value": false}});
    desired["systemModules"]["edgeAgent"]["env"] = json!({"runtimeloglevel": {"value": "debug"}});
    let expected = ["integrity", "status of edgeHub", "env OptimizeForPerformance of edgeHub"];
    assert_eq!(names(&desired), expected);
    let deployment = Deployment::parse(&desired).unwrap();
    assert_eq!(deployment.system_variable("edgeAgent", "RuntimeLogLevel"), Some("debug"));
    assert_eq!(deployment.system_variable("edgeHub", "RuntimeLogLevel"), None);
}

#[test]
fn logging_options_are_those_of_the_engine() {
    let parsed = |text: &str| {
        let desired = with("/runtime/settings/loggingOptions", json!(text));
        Deployment::parse(&desired).map(|deployment| deployment.runtime.log_config)
    };
    for text in [
        r#"{"type":"json-file","config":{"max-size":"4m"}}"#,
        r#"{"Type":"json-file","Config":{"max-size":"4m"}}"#,
    ] {
        let log = parsed(text).unwrap().unwrap();
        assert_eq!((log.typ.as_deref(), log.config.unwrap()["max-size"].as_str()), (Some("json-file"), "4m"));
    }
    for text in ["", " ", "{}"] {
        assert_eq!(parsed(text).unwrap(), None, "{text:?}");
    }
    for text in ["json-file", r#"{"driver":"x"}"#, r#"{"config":{"max-size":4}}"#] {
        assert_eq!(parsed(text).unwrap_err().code(), 400, "{text}");
    }
}

#[test]
fn an_empty_twin_is_code_417() {
    assert_eq!(error_for(&json!({"$version": 1})).code(), 417);
    assert_eq!(error_for(&json!({})), DeploymentError::Empty);
}

#[test]
fn other_schema_versions_are_code_412() {
    for version in [json!("2.0"), json!("1.2"), json!("1.1.1"), json!("1.1.0.0"), json!("0.9")] {
        let error = error_for(&with("/schemaVersion", version.clone()));
        assert!(matches!(error, DeploymentError::SchemaVersion(_)), "{version}");
        assert_eq!(error.code(), 412);
        assert!(error.description().contains("is not compatible with the expected version 1.1.0"));
    }
    for version in [json!("1"), json!(""), json!("1.x"), json!("1.0.0.0.0"), json!(2), json!("-1.0")] {
        let error = error_for(&with("/schemaVersion", version.clone()));
        assert!(matches!(error, DeploymentError::NoSchemaVersion(_)), "{version}");
        assert_eq!(error.code(), 412);
    }
    for version in ["1.0", "1.1", "1.1.0", "1.0.5"] {
        assert!(Deployment::parse(&with("/schemaVersion", json!(version))).is_ok(), "{version}");
    }
}

#[test]
fn a_wrong_structure_is_code_400_and_names_the_module() {
    for (pointer, value, named) in [
        ("/runtime", json!({"type": "kubernetes"}), "the runtime"),
        ("/runtime", json!("docker"), "the deployment"),
        ("/schemaVersion", Value::Null, "schemaVersion is missing"),
        ("/systemModules", json!({}), "edgeAgent is missing"),
        ("/systemModules/other", json!({}), "system module other"),
        ("/modules", json!([]), "the deployment"),
        (SENSOR, json!({"type": "docker"}), "module tempSensor: missing field `settings`"),
        ("/modules/tempSensor/type", json!("process"), "module tempSensor"),
        ("/modules/tempSensor/status", json!("paused"), "paused"),
        ("/modules/tempSensor/status", Value::Null, "missing field `status`"),
        ("/systemModules/edgeHub/status", Value::Null, "system module edgeHub: missing field `status`"),
        ("/modules/tempSensor/restartPolicy", json!("sometimes"), "sometimes"),
        ("/modules/tempSensor/imagePullPolicy", json!("always"), "always"),
        ("/modules/tempSensor/startupOrder", json!(-1), "module tempSensor"),
        ("/modules/tempSensor/env", json!({"A": {"value": {}}}), "variable A"),
        ("/modules/tempSensor/env", json!({"A=B": {"value": "x"}}), "A=B"),
        ("/modules/tempSensor/env", json!({"A": {}}), "missing field `value`"),
        ("/modules/tempSensor/settings", json!({}), "settings.image"),
        ("/modules/tempSensor/settings", json!({"image": "a b"}), "settings.image"),
        ("/modules/tempSensor/settings", json!({"image": "i", "createOptions": "{"}), "not JSON"),
        ("/modules/tempSensor/settings", json!({"image": "i", "createOptions": "[]"}), "not a JSON object"),
        ("/modules/tempSensor/settings", json!({"image": "i", "createOptions": {}}), "not a string"),
    ] {
        let error = error_for(&with(pointer, value));
        assert_eq!(error.code(), 400, "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.description().starts_with("Agent configuration format is invalid."));
    }
    assert_eq!(error_for(&json!([])).code(), 400);
}

#[test]
fn names_that_cannot_be_a_container_or_a_file_are_refused() {
    let module = quickstart()["modules"]["tempSensor"].clone();
    for name in
        ["../x", ".", "..", "", "a/b", "a b", "-a", "edgeHub", "edgeagent", "$edgeHub", "ä", &"x".repeat(129)]
    {
        let error = error_for(&with("/modules", json!({name: module.clone()})));
        assert_eq!(error.code(), 400, "{name:?}");
    }
    let twice = json!({"a": module.clone(), "A": module});
    assert!(error_for(&with("/modules", twice)).to_string().contains("two modules"));
}
