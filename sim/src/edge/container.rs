//! The container of a module: the deployment's options with what the runtime adds.
//!
//! Environment, labels, bind and network are those that edgeAgent gives its modules; tools and SDKs
//! rely on them. What the runtime needs wins over the author's options, everything else is kept.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use bollard::models::{ContainerCreateBody, HostConfigLogConfig, NetworkingConfig};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::deployment::ModuleSpec;
use crate::secret::without_quoted_text;

/// Label by which the runtime knows its containers, with the value of the real one.
pub const OWNER_LABEL: &str = "net.azure-devices.edge.owner";
/// Value of [`OWNER_LABEL`].
pub const OWNER: &str = "Microsoft.Azure.Devices.Edge.Agent";
/// Label with the digest of the container's description.
pub const DIGEST_LABEL: &str = "io.kedge.module-digest";
/// Where a module finds its workload API.
pub const WORKLOAD_SOCKET: &str = "/var/run/iotedge/workload.sock";
/// Version of the workload API that modules are told to use.
pub const API_VERSION: &str = "2022-08-03";

/// What a container needs besides the module's own description.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Module id.
    pub name: &'a str,
    /// Generation of the module identity.
    pub generation_id: &'a str,
    /// Device id.
    pub device_id: &'a str,
    /// Host name of the IoT Hub.
    pub hub_hostname: &'a str,
    /// Host name of the device, at which the gateway is found.
    pub hostname: &'a str,
    /// Address of the gateway in the modules' network.
    pub gateway: IpAddr,
    /// The modules' network.
    pub network: &'a str,
    /// The module's workload socket on this host.
    pub workload_socket: &'a Path,
    /// Logging of containers whose options have none.
    pub log_config: Option<&'a HostConfigLogConfig>,
    /// Variables that modules get from edgeAgent, unless they have their own.
    pub inherited: &'a [(&'static str, String)],
}

/// The options cannot be given to the engine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("createOptions: {0}")]
pub struct OptionsError(String);

/// The description of the container, with its digest in a label.
pub fn describe(spec: &ModuleSpec, context: Context<'_>) -> Result<ContainerCreateBody, OptionsError> {
    let mut body: ContainerCreateBody = serde_json::from_value(Value::Object(spec.create_options.clone()))
        // A value that stands in the wrong place may be a password.
        .map_err(|error| OptionsError(without_quoted_text(&error.to_string())))?;
    refuse_unknown(&spec.create_options, &body)?;
    body.image = Some(spec.image.clone());
    let mut variables = environment(body.env.take().unwrap_or_default(), spec, context);
    body.env = Some(as_list(&variables));
    let host = body.host_config.get_or_insert_default();
    let bind = format!("{}:{WORKLOAD_SOCKET}", context.workload_socket.display());
    host.binds.get_or_insert_default().push(bind);
    host.extra_hosts.get_or_insert_default().push(format!("{}:{}", context.hostname, context.gateway));
    if host.log_config.is_none() {
        host.log_config = context.log_config.cloned();
    }
    if host.network_mode.is_none() {
        host.network_mode = Some(context.network.to_owned());
        let endpoints = body.networking_config.get_or_insert_default();
        join_network(endpoints, context.network);
    }
    // The runtime itself restarts modules, by their policy.
    host.restart_policy = None;
    let digest = digest(&body, spec)?;
    // What is inherited comes after the digest: a new log level of edgeAgent makes no module anew.
    for (name, value) in context.inherited {
        variables.entry((*name).to_owned()).or_insert_with(|| value.clone());
    }
    body.env = Some(as_list(&variables));
    let labels = body.labels.get_or_insert_default();
    labels.extend(runtime_labels(spec));
    labels.insert(DIGEST_LABEL.to_owned(), digest);
    Ok(body)
}

/// Digest that [`describe`] put into the labels.
#[must_use]
pub fn digest_of(body: &ContainerCreateBody) -> Option<String> {
    body.labels.as_ref()?.get(DIGEST_LABEL).cloned()
}

fn join_network(config: &mut NetworkingConfig, network: &str) {
    let endpoints = config.endpoints_config.get_or_insert_default();
    endpoints.entry(network.to_owned()).or_default();
}

/// An option that the engine's model does not know would be dropped without a word.
fn refuse_unknown(options: &Map<String, Value>, body: &ContainerCreateBody) -> Result<(), OptionsError> {
    let understood = serde_json::to_value(body).map_err(|error| OptionsError(error.to_string()))?;
    let empty = Map::new();
    let host_config = |map: &Map<String, Value>| map.get("HostConfig").and_then(Value::as_object).cloned();
    let understood = understood.as_object().unwrap_or(&empty);
    let unknown = unknown_key(options, understood).or_else(|| {
        unknown_key(&host_config(options)?, &host_config(understood)?).map(|key| format!("HostConfig.{key}"))
    });
    match unknown {
        Some(key) => Err(OptionsError(format!("\"{key}\" is not an option of the container engine"))),
        None => Ok(()),
    }
}

fn unknown_key(options: &Map<String, Value>, understood: &Map<String, Value>) -> Option<String> {
    options
        .iter()
        .find(|(key, value)| !value.is_null() && !understood.contains_key(*key))
        .map(|(key, _)| key.clone())
}

fn environment(options: Vec<String>, spec: &ModuleSpec, context: Context<'_>) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for variable in options {
        let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
        variables.insert(name.to_owned(), value.to_owned());
    }
    variables.extend(spec.env.clone());
    for (name, value) in [
        ("IOTEDGE_WORKLOADURI", format!("unix://{WORKLOAD_SOCKET}").as_str()),
        ("IOTEDGE_AUTHSCHEME", "sasToken"),
        ("IOTEDGE_MODULEGENERATIONID", context.generation_id),
        ("IOTEDGE_IOTHUBHOSTNAME", context.hub_hostname),
        ("IOTEDGE_DEVICEID", context.device_id),
        ("IOTEDGE_MODULEID", context.name),
        ("IOTEDGE_APIVERSION", API_VERSION),
        ("IOTEDGE_GATEWAYHOSTNAME", context.hostname),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    variables
}

fn as_list(variables: &BTreeMap<String, String>) -> Vec<String> {
    variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn runtime_labels(spec: &ModuleSpec) -> impl Iterator<Item = (String, String)> {
    let labels = [
        (OWNER_LABEL, Some(OWNER)),
        ("io.kedge.owner", Some("kedge")),
        ("net.azure-devices.edge.original-image", Some(spec.image.as_str())),
        ("net.azure-devices.edge.restartPolicy", Some(spec.restart_policy.name())),
        ("net.azure-devices.edge.desiredStatus", Some(spec.status.name())),
        ("net.azure-devices.edge.version", Some(spec.version.as_str())),
    ];
    labels.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
}

/// Of everything but the desired status, as the real agent compares modules.
fn digest(body: &ContainerCreateBody, spec: &ModuleSpec) -> Result<String, OptionsError> {
    let value = serde_json::to_value(body).map_err(|error| OptionsError(error.to_string()))?;
    let ModuleSpec { version, restart_policy, pull_policy, startup_order, .. } = spec;
    let value = json!([value, version, restart_policy.name(), pull_policy.name(), startup_order]);
    let hash = Sha256::digest(value.to_string().as_bytes());
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::edge::deployment::{DesiredStatus, PullPolicy, RestartPolicy};

    fn spec(options: Value) -> ModuleSpec {
        let Value::Object(create_options) = options else { panic!("an object") };
        ModuleSpec {
            version: "1.0".to_owned(),
            image: "image:1".to_owned(),
            create_options,
            env: BTreeMap::from([("MessageCount".to_owned(), "7".to_owned())]),
            status: DesiredStatus::Running,
            restart_policy: RestartPolicy::Always,
            pull_policy: PullPolicy::OnCreate,
            startup_order: 0,
        }
    }

    fn context() -> Context<'static> {
        Context {
            name: "tempSensor",
            generation_id: "42",
            device_id: "d",
            hub_hostname: "hub.test",
            hostname: "edge.test",
            gateway: IpAddr::from([172, 18, 0, 1]),
            network: "azure-iot-edge",
            workload_socket: Path::new("/var/lib/aziot/edged/mnt/tempSensor.sock"),
            log_config: None,
            inherited: &[],
        }
    }

    fn described(options: Value) -> Value {
        serde_json::to_value(describe(&spec(options), context()).unwrap()).unwrap()
    }

    #[test]
    fn a_module_gets_what_the_sdks_need() {
        let body = described(json!({}));
        assert_eq!(
            body["Env"],
            json!([
                "IOTEDGE_APIVERSION=2022-08-03",
                "IOTEDGE_AUTHSCHEME=sasToken",
                "IOTEDGE_DEVICEID=d",
                "IOTEDGE_GATEWAYHOSTNAME=edge.test",
                "IOTEDGE_IOTHUBHOSTNAME=hub.test",
                "IOTEDGE_MODULEGENERATIONID=42",
                "IOTEDGE_MODULEID=tempSensor",
                "IOTEDGE_WORKLOADURI=unix:///var/run/iotedge/workload.sock",
                "MessageCount=7",
            ])
        );
        assert_eq!(
            body["HostConfig"],
            json!({
                "Binds": ["/var/lib/aziot/edged/mnt/tempSensor.sock:/var/run/iotedge/workload.sock"],
                "ExtraHosts": ["edge.test:172.18.0.1"],
                "NetworkMode": "azure-iot-edge",
            })
        );
        assert_eq!(body["NetworkingConfig"]["EndpointsConfig"], json!({"azure-iot-edge": {}}));
        assert_eq!(body["Labels"][OWNER_LABEL], OWNER);
        assert_eq!(body["Labels"]["io.kedge.owner"], "kedge");
        assert_eq!(body["Labels"]["net.azure-devices.edge.restartPolicy"], "always");
    }

    #[test]
    fn the_authors_options_are_kept_and_cannot_replace_the_identity() {
        let body = described(json!({
            "Cmd": ["--fast"],
            "Env": ["IOTEDGE_MODULEID=other", "RuntimeLogLevel=debug", "FLAG"],
            "Labels": {"mine": "1", OWNER_LABEL: "me"},
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {
                "Binds": ["/data:/data"],
                "NetworkMode": "host",
                "RestartPolicy": {"Name": "always"},
                "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
            },
        }));
        let env = body["Env"].as_array().unwrap();
        for expected in ["IOTEDGE_MODULEID=tempSensor", "RuntimeLogLevel=debug", "FLAG="] {
            assert!(env.contains(&json!(expected)), "{expected}");
        }
        assert_eq!((&body["Cmd"], &body["Labels"]["mine"]), (&json!(["--fast"]), &json!("1")));
        assert_eq!(body["Labels"][OWNER_LABEL], OWNER);
        assert_eq!(body["ExposedPorts"], json!({"80/tcp": {}}));
        let host = &body["HostConfig"];
        assert_eq!((&host["NetworkMode"], host["Binds"][0].as_str()), (&json!("host"), Some("/data:/data")));
        assert_eq!(host["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!((body.get("NetworkingConfig"), host.get("RestartPolicy")), (None, None));
    }

    #[test]
    fn the_digest_changes_with_the_module_and_not_with_its_status_or_what_it_inherits() {
        let digest = |spec: &ModuleSpec, context| digest_of(&describe(spec, context).unwrap()).unwrap();
        let (base, original) = (spec(json!({})), digest(&spec(json!({})), context()));
        assert_eq!(original.len(), 64);
        let stopped = ModuleSpec { status: DesiredStatus::Stopped, ..base.clone() };
        assert_eq!(digest(&stopped, context()), original);
        let inherited = [("RuntimeLogLevel", "Debug".to_owned())];
        assert_eq!(digest(&base, Context { inherited: &inherited, ..context() }), original);
        let log_config = HostConfigLogConfig { typ: Some("local".to_owned()), config: None };
        for (changed, context) in [
            (ModuleSpec { image: "image:2".to_owned(), ..base.clone() }, context()),
            (ModuleSpec { restart_policy: RestartPolicy::Never, ..base.clone() }, context()),
            (ModuleSpec { pull_policy: PullPolicy::Never, ..base.clone() }, context()),
            (ModuleSpec { startup_order: 1, ..base.clone() }, context()),
            (ModuleSpec { version: "2".to_owned(), ..base.clone() }, context()),
            (ModuleSpec { env: BTreeMap::new(), ..base.clone() }, context()),
            (spec(json!({"Cmd": ["x"]})), context()),
            (base.clone(), Context { generation_id: "43", ..context() }),
            (base.clone(), Context { log_config: Some(&log_config), ..context() }),
        ] {
            assert_ne!(digest(&changed, context), original, "{changed:?}");
        }
    }

    #[test]
    fn logging_and_variables_of_the_runtime_give_way_to_the_modules_own() {
        let log_config = HostConfigLogConfig { typ: Some("local".to_owned()), config: None };
        let inherited = [("RuntimeLogLevel", "Debug".to_owned()), ("MessageCount", "1".to_owned())];
        let context = Context { log_config: Some(&log_config), inherited: &inherited, ..context() };
        let own = json!({"HostConfig": {"LogConfig": {"Type": "none"}}});
        for (options, log) in [(json!({}), "local"), (own, "none")] {
            let body = serde_json::to_value(describe(&spec(options), context).unwrap()).unwrap();
            assert_eq!(body["HostConfig"]["LogConfig"]["Type"], log);
            let env = body["Env"].as_array().unwrap();
            assert!(env.contains(&json!("RuntimeLogLevel=Debug")) && env.contains(&json!("MessageCount=7")));
        }
    }

    #[test]
    fn options_that_would_be_dropped_or_misread_are_refused() {
        for (options, named) in [
            (json!({"Comand": ["x"]}), "\"Comand\" is not an option"),
            (json!({"HostConfig": {"Privilegd": true}}), "\"HostConfig.Privilegd\" is not an option"),
            (json!({"Cmd": 5}), "createOptions: invalid type"),
            (json!({"Env": "PASSWORD=hidden"}), "createOptions: invalid type: string \"…\""),
        ] {
            let error = describe(&spec(options), context()).unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains("hidden"), "{error}");
        }
        assert!(describe(&spec(json!({"Volumes": {}, "Unknown": null})), context()).is_ok());
    }
}
