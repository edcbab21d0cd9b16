//! A deployment of its own in a cluster of its own, with the module of the SDK in it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use assert_cmd::Command;
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::service::ServiceClient;
use kedge_sim::tls::Endpoint;
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::images::Image;
use xtask::steps::images::base_fingerprint;
use xtask::wait::{Observation, wait_for};

use super::LIMIT;
use crate::harness::{self, engine, engine_command, project, state_of};

const NAME: &str = "kedge-sdk";
pub(super) const DEVICE: &str = "kedge-device";
pub(super) const MODULE: &str = "sdk";
/// The name that keeps the image, which makes the next run short.
const IMAGE: &str = "localhost/kedge/python-sdk:test";

pub(super) struct Deployment {
    folder: TempDir,
    is_down: bool,
}

impl Deployment {
    /// Builds and pushes the module's image, and brings everything up.
    pub(super) fn up(environment: &Path) -> Self {
        let deployment = Self { folder: tempfile::tempdir().unwrap(), is_down: false };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let path = |name: &str| deployment.folder.path().join(name);
        let settings = format!(
            "[cluster]\nname = {NAME:?}\n[registry]\nport = {port}\n[device]\ndeployment = {:?}\n",
            path("deployment.json")
        );
        fs_err::write(path("kedge.toml"), settings).unwrap();
        fs_err::write(path("deployment.json"), manifest().to_string()).unwrap();
        deployment.succeed("down");
        let registry = deployment.succeed("registry up --yes");
        build(environment, &path("context"));
        deployment.push(registry.trim());
        deployment.succeed("up --yes");
        deployment.succeed("hub");
        deployment
    }

    fn succeed(&self, command: &str) -> String {
        let settings = self.folder.path().join("kedge.toml");
        let arguments: Vec<_> = command.split(' ').chain(["--profile", settings.to_str().unwrap()]).collect();
        harness::succeed(&arguments)
    }

    /// As anybody would push an image of theirs.
    fn push(&self, registry: &str) {
        let reference = format!("{registry}/kedge/python-sdk:test");
        let exports = self.succeed("env");
        let exports =
            exports.lines().map(|line| line.strip_prefix("export ").unwrap().split_once('=').unwrap());
        let exports: Vec<_> = exports.collect();
        engine(&["tag", IMAGE, &reference]);
        // Podman has to be told that a registry on the loopback interface has no TLS.
        let flags: &[&str] = if harness::is_podman() { &["--tls-verify=false"] } else { &[] };
        let push = [&["push"], flags, &[&reference]].concat();
        engine_command(&push).envs(exports).assert().success();
        engine(&["rmi", &reference]);
    }

    /// A client of the hub's service side.
    pub(super) fn service(&self) -> ServiceClient {
        let connections = fs_err::read_to_string(state_of(NAME).join("connections.json")).unwrap();
        let connections: Value = serde_json::from_str(&connections).unwrap();
        let hub = &connections["hub"];
        let host_name = hub["hostName"].as_str().unwrap();
        let endpoint = Endpoint::at(host_name, hub["https"].as_str().unwrap().parse().unwrap());
        let authority = fs_err::read_to_string(hub["caFile"].as_str().unwrap()).unwrap();
        let (_, key) = connections["owner"].as_str().unwrap().split_once("SharedAccessKey=").unwrap();
        let key = SharedAccessKey::from_base64(key).unwrap();
        ServiceClient::new(endpoint, host_name, key, Some(&authority)).unwrap()
    }

    pub(super) fn stop_hub(&self) {
        engine(&["stop", &format!("{NAME}-hub")]);
    }

    pub(super) fn start_hub(&self) {
        engine(&["start", &format!("{NAME}-hub")]);
        // It may be published at other ports now.
        self.succeed("hub");
    }

    /// Kills the edge daemon; systemd starts it again, and it starts the modules anew.
    pub(super) fn kill_edge(&self) {
        self.in_edge(&["systemctl", "kill", "--kill-who=main", "--signal=KILL", "aziot-edged.service"]);
    }

    fn in_edge(&self, command: &[&str]) -> String {
        harness::in_edge(NAME, command)
    }

    /// What the module has written last that begins with `word`, and is a number.
    fn written(&self, word: &str) -> Option<u64> {
        let log = self.in_edge(&["docker", "logs", "--tail", "20", MODULE]);
        log.lines().rev().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
    }

    /// How many messages of its stream were acknowledged to the module.
    pub(super) fn acknowledged(&self) -> u64 {
        self.written("acknowledged ").unwrap_or_default()
    }

    /// The same, once there are more than `count`.
    pub(super) async fn acknowledged_after(&self, count: u64) -> u64 {
        let look = async || match self.acknowledged() {
            now if now > count => Observation::Ready(now),
            now => Observation::NotYet(format!("{now} of {count}")),
        };
        wait_for("acknowledgements of the module", LIMIT, look).await.unwrap()
    }

    /// How many messages the stream had, once it has ended.
    pub(super) async fn ended(&self) -> u64 {
        let look = async || match self.written("ended ") {
            Some(count) => Observation::Ready(count),
            None => Observation::NotYet("it goes on".into()),
        };
        wait_for("the end of the stream", LIMIT, look).await.unwrap()
    }

    pub(super) fn down(mut self) {
        self.succeed("down");
        self.is_down = true;
        assert_eq!(self.succeed("status --json").trim(), "[]");
        assert!(!state_of(NAME).exists());
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if !self.is_down {
            let logs = harness::in_edge_output(NAME, &["docker", "logs", "--tail", "50", MODULE]);
            let [out, err] = [&logs.stdout, &logs.stderr].map(|text| String::from_utf8_lossy(text));
            eprintln!("the module has written:\n{out}{err}");
            self.succeed("down");
        }
    }
}

/// The project's deployment manifest with the module in it: two of its outputs go to the hub, one to its own input, to which
/// the sensor sends as well.
fn manifest() -> Value {
    let source = fs_err::read_to_string(project().join("config/deployment.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&source).unwrap();
    let content = &mut manifest["modulesContent"];
    content["$edgeAgent"]["properties.desired"]["modules"][MODULE] = json!({
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
        "settings": {"image": "kedge-registry:5000/kedge/python-sdk:test", "createOptions": "{}"},
    });
    let routes = &mut content["$edgeHub"]["properties.desired"]["routes"];
    for output in ["out", "echo", "numbers"] {
        let route = format!("FROM /messages/modules/{MODULE}/outputs/{output} INTO $upstream");
        routes[output] = json!({"route": route});
    }
    for (name, source, input) in [
        ("own", format!("/messages/modules/{MODULE}/outputs/loop"), "own"),
        ("sensor", "/messages/modules/tempSensor/*".to_owned(), "sensor"),
    ] {
        let route = format!("FROM {source} INTO BrokeredEndpoint(\"/modules/{MODULE}/inputs/{input}\")");
        routes[name] = json!({"route": route});
    }
    manifest
}

/// Builds the module's image on the tool's base. What has not changed comes from the engine's cache.
fn build(environment: &Path, context: &Path) {
    fs_err::create_dir(context).unwrap();
    for file in ["Dockerfile", "module.py"] {
        fs_err::copy(project().join("tests/e2e/sdk").join(file), context.join(file)).unwrap();
    }
    let requirements = project().join("tests/python/requirements.txt");
    // Compiled files have times in them, with which no layer would ever be found in the cache.
    let install = ["install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"];
    Command::new(environment.join("bin/pip"))
        .args(install)
        .arg("--target")
        .arg(context.join("packages"))
        .arg("--requirement")
        .arg(requirements)
        .assert()
        .success();
    let base = Image::Base.local_reference(&base_fingerprint().unwrap());
    let base = format!("BASE_IMAGE={base}");
    engine(&["build", "--tag", IMAGE, "--build-arg", &base, context.to_str().unwrap()]);
}
