//! What `$edgeAgent` reports, field by field as the real one does.
//!
//! Two things differ: passwords of registries stay on the device, and the system modules, whose work
//! the daemon itself does, have the daemon's start time and no image id.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{common, shortened};
use crate::edge::board::{ModuleState, RuntimeState};
use crate::edge::deployment::{Deployment, ModuleSpec, RuntimeSettings};

/// Version of the schema.
const SCHEMA_VERSION: &str = "1.0";
/// Characters of a string of a twin in the real agent; longer create options are split.
const CHUNK: usize = 512;
/// Parts of the create options; the number of a part has two digits.
const MAX_CHUNKS: usize = 100;
/// A time that never was, as .NET writes it.
const NEVER: &str = "0001-01-01T00:00:00";

/// What `$edgeAgent` reports.
#[must_use]
pub fn edge_agent(state: &RuntimeState) -> Value {
    let mut reported = common(&state.reported_status());
    reported["schemaVersion"] = json!(SCHEMA_VERSION);
    reported["runtime"] = runtime(state.current.as_deref());
    let specs = state.current.iter().flat_map(|deployment| &deployment.system_modules);
    let system: Map<String, Value> =
        specs.map(|(name, spec)| (name.clone(), system_module(name, spec, state.started))).collect();
    reported["systemModules"] = Value::Object(system);
    let modules: Map<String, Value> =
        state.modules.iter().map(|(name, state)| (name.clone(), module(state))).collect();
    reported["modules"] = Value::Object(modules);
    reported
}

fn runtime(deployment: Option<&Deployment>) -> Value {
    let platform = json!({
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "version": env!("CARGO_PKG_VERSION"),
    });
    match deployment {
        Some(Deployment { runtime, .. }) => {
            json!({"type": "docker", "settings": settings(runtime), "platform": platform})
        }
        None => json!({"type": "", "platform": platform}),
    }
}

fn settings(runtime: &RuntimeSettings) -> Value {
    let credentials: Map<String, Value> = runtime
        .registry_credentials
        .iter()
        .map(|(name, credential)| {
            let shown = json!({
                "address": credential.address,
                "username": credential.username,
                "password": "[redacted]",
            });
            (name.clone(), shown)
        })
        .collect();
    json!({
        "minDockerVersion": runtime.min_docker_version,
        "loggingOptions": runtime.logging_options,
        "registryCredentials": credentials,
    })
}

fn module(state: &ModuleState) -> Value {
    let observed = state.observed.as_ref();
    let time = |time: Option<&String>| json!(dotnet_time(time.and_then(|text| text.parse().ok())));
    let mut reported = specified(&state.spec);
    reported["version"] = json!(state.spec.version);
    reported["settings"]["imageHash"] = json!(observed.map_or("", |module| &module.image_id));
    reported["runtimeStatus"] = json!(state.status);
    reported["statusDescription"] = json!(shortened(&state.description));
    reported["exitCode"] = json!(observed.and_then(|module| module.exit_code).unwrap_or_default());
    reported["lastStartTimeUtc"] = time(observed.and_then(|module| module.started_at.as_ref()));
    reported["lastExitTimeUtc"] = time(observed.and_then(|module| module.finished_at.as_ref()));
    reported["restartCount"] = json!(state.restarts);
    reported["lastRestartTimeUtc"] = json!(dotnet_time(state.last_restart));
    reported
}

/// The daemon itself does the work of both, so both run whenever this is reported.
fn system_module(name: &str, spec: &ModuleSpec, started: Timestamp) -> Value {
    let mut reported = specified(spec);
    reported["settings"]["imageHash"] = json!("");
    reported["runtimeStatus"] = json!("running");
    reported["statusDescription"] = json!("running");
    reported["exitCode"] = json!(0);
    reported["lastStartTimeUtc"] = json!(dotnet_time(Some(started)));
    reported["lastExitTimeUtc"] = json!(NEVER);
    if name == "edgeAgent" {
        // The real one has no say in these.
        if let Some(map) = reported.as_object_mut() {
            map.remove("status");
            map.remove("restartPolicy");
        }
    } else {
        reported["restartCount"] = json!(0);
        reported["lastRestartTimeUtc"] = json!(NEVER);
    }
    reported
}

/// What the deployment says of a module.
fn specified(spec: &ModuleSpec) -> Value {
    let env: Map<String, Value> =
        spec.env.iter().map(|(name, value)| (name.clone(), json!({"value": value}))).collect();
    let mut settings = create_options(spec);
    settings.insert("image".to_owned(), json!(spec.image));
    let mut reported = json!({
        "type": "docker",
        "status": spec.status.name(),
        "restartPolicy": spec.restart_policy.name(),
        "imagePullPolicy": spec.pull_policy.name(),
        "settings": settings,
        "env": env,
    });
    if spec.startup_order != u32::MAX {
        reported["startupOrder"] = json!(spec.startup_order);
    }
    reported
}

/// One string, split as it would be in a deployment.
fn create_options(spec: &ModuleSpec) -> Map<String, Value> {
    let text = Value::Object(spec.create_options.clone()).to_string();
    let characters: Vec<char> = text.chars().collect();
    let chunks = characters.chunks(CHUNK).take(MAX_CHUNKS).enumerate().map(|(index, chunk)| {
        let name = match index {
            0 => "createOptions".to_owned(),
            _ => format!("createOptions{index:02}"),
        };
        (name, Value::String(chunk.iter().collect()))
    });
    chunks.collect()
}

/// With the precision of .NET, which is 100 ns.
fn dotnet_time(time: Option<Timestamp>) -> String {
    let time = time.and_then(|time| {
        let nanoseconds = time.as_nanosecond();
        Timestamp::from_nanosecond(nanoseconds - nanoseconds.rem_euclid(100)).ok()
    });
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::edge::board::ConfigStatus;
    use crate::edge::planner::{ContainerState, ObservedModule};

    fn deployment() -> Deployment {
        let large = format!("{{\"Cmd\":[\"{}\"]}}", "x".repeat(600));
        let (first, second) = large.split_at(512);
        Deployment::parse(&json!({
            "$version": 7, "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25", "registryCredentials":
                {"r": {"address": "a", "username": "u", "password": "hidden"}}}},
            "systemModules": {
                "edgeAgent": {"type": "docker", "settings": {"image": "agent:1", "createOptions": "{}"}},
                "edgeHub": {"type": "docker", "status": "running", "env": {"A": {"value": "b"}},
                    "settings": {"image": "hub:1", "createOptions": "{\"Tty\": true}"}}},
            "modules": {"m": {"type": "docker", "version": "1.0", "status": "running", "startupOrder": 3,
                "env": {"E": {"value": 5}}, "settings":
                    {"image": "i:1", "createOptions": first, "createOptions01": second}}},
        }))
        .unwrap()
    }

    fn state() -> RuntimeState {
        let current = deployment();
        let observed = ObservedModule {
            digest: None,
            image: "i:1".to_owned(),
            image_id: "sha256:1".to_owned(),
            state: ContainerState::Exited,
            started_at: Some("2026-01-02T03:04:05.123456789Z".to_owned()),
            finished_at: None,
            exit_code: Some(3),
        };
        let module = ModuleState {
            spec: current.modules["m"].clone(),
            status: "backoff",
            description: "exited with status 3".to_owned(),
            error: None,
            observed: Some(observed),
            restarts: 2,
            last_restart: Some("2026-01-02T03:04:00Z".parse().unwrap()),
        };
        RuntimeState {
            current: Some(Arc::new(current)),
            deployment: ConfigStatus { version: 7, status: 200, description: String::new() },
            modules: [("m".to_owned(), module)].into(),
            modules_version: 7,
            last_version: 7,
            ..RuntimeState::default()
        }
    }

    #[test]
    fn a_module_is_reported_in_full() {
        let mut module = edge_agent(&state())["modules"]["m"].take();
        let settings = module["settings"].take();
        let expected = json!({
            "type": "docker", "version": "1.0", "status": "running", "restartPolicy": "always",
            "imagePullPolicy": "on-create", "startupOrder": 3, "env": {"E": {"value": "5"}}, "settings": null,
            "runtimeStatus": "backoff", "statusDescription": "exited with status 3", "exitCode": 3,
            "lastStartTimeUtc": "2026-01-02T03:04:05.1234567Z", "lastExitTimeUtc": "0001-01-01T00:00:00",
            "restartCount": 2, "lastRestartTimeUtc": "2026-01-02T03:04:00Z",
        });
        assert_eq!(module, expected);
        assert_eq!((&settings["image"], &settings["imageHash"]), (&json!("i:1"), &json!("sha256:1")));
        let parts = ["createOptions", "createOptions01"].map(|part| settings[part].as_str().unwrap());
        assert_eq!(parts[0].len(), 512);
        assert_eq!(parts.concat(), format!("{{\"Cmd\":[\"{}\"]}}", "x".repeat(600)));
    }

    #[test]
    fn the_runtime_and_the_system_modules_are_reported() {
        let reported = edge_agent(&state());
        assert_eq!(reported["schemaVersion"], "1.0");
        assert_eq!(reported["version"]["build"], "");
        let platform = reported["runtime"]["platform"].as_object().unwrap();
        assert!(["os", "architecture", "version"].iter().all(|key| platform.contains_key(*key)));
        let settings = &reported["runtime"]["settings"];
        assert_eq!(settings["minDockerVersion"], "v1.25");
        assert_eq!(settings["registryCredentials"]["r"]["username"], "u");
        assert!(!reported.to_string().contains("hidden"));
        let system = &reported["systemModules"];
        assert_eq!(system["edgeAgent"]["settings"]["createOptions"], "{}");
        assert_eq!(system["edgeAgent"]["startupOrder"], 0);
        assert_eq!(system["edgeAgent"].get("restartPolicy"), None);
        assert_eq!(system["edgeHub"]["settings"]["createOptions"], "{\"Tty\":true}");
        assert_eq!(
            (&system["edgeHub"]["env"]["A"]["value"], &system["edgeHub"]["status"]),
            (&json!("b"), &json!("running"))
        );
    }

    #[test]
    fn a_refused_deployment_leaves_the_version_of_the_one_in_force() {
        let fresh = edge_agent(&RuntimeState::default());
        assert_eq!(
            (&fresh["lastDesiredStatus"]["code"], &fresh["lastDesiredVersion"]),
            (&json!(406), &json!(0))
        );
        let deployment = ConfigStatus { version: 8, status: 412, description: "schema".to_owned() };
        let refused = edge_agent(&RuntimeState { deployment, ..state() });
        assert_eq!(refused["lastDesiredStatus"], json!({"code": 412, "description": "schema"}));
        assert_eq!(refused["lastDesiredVersion"], 7);
        let deployment = ConfigStatus { version: 8, status: 200, description: String::new() };
        let pending = edge_agent(&RuntimeState { deployment: deployment.clone(), ..state() });
        assert_eq!(pending["lastDesiredStatus"]["code"], 200);
        assert_eq!(pending["lastDesiredVersion"], 7);
        let unmet = Some("too old".to_owned());
        let too_old = edge_agent(&RuntimeState { deployment, unmet, ..state() });
        assert_eq!(too_old["lastDesiredStatus"], json!({"code": 500, "description": "too old"}));
        let deployment = ConfigStatus { version: 8, status: 400, description: "€".repeat(5000) };
        let long = edge_agent(&RuntimeState { deployment, ..state() });
        assert_eq!(long["lastDesiredStatus"]["description"], "€".repeat(super::super::MAX_TEXT));
    }
}
