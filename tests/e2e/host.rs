//! The edge as a container directly on an engine, and what an engine can and cannot do here.

use std::net::{Ipv4Addr, TcpListener};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

use crate::dockerd::Dockerd;
use crate::harness::{LIMIT, engine_cli, newest_report, state_of};

const NAME: &str = "kedge-host";

/// A deployment of its own, which can be in one engine or in the other.
pub(crate) struct Deployment {
    folder: TempDir,
    docker: Option<Dockerd>,
}

impl Deployment {
    pub(crate) fn new(docker: Option<Dockerd>) -> Self {
        let deployment = Self { folder: tempfile::tempdir().unwrap(), docker };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let settings = format!("[cluster]\nname = {NAME:?}\n[registry]\nport = {port}\n");
        fs_err::write(deployment.folder.path().join("kedge.toml"), settings).unwrap();
        deployment.succeed("down");
        deployment
    }

    /// Exit code, standard output and standard error of a command.
    fn xtask(&self, command: &str) -> (i32, String, String) {
        self.xtask_with(command, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn xtask_with(&self, command: &str, variables: &[(&str, &str)]) -> (i32, String, String) {
        let mut xtask = Command::cargo_bin("xtask").unwrap();
        xtask.envs(variables.iter().copied());
        if let Some(docker) = &self.docker {
            xtask.env("DOCKER_HOST", &docker.host);
        }
        let settings = self.folder.path().join("kedge.toml");
        let output =
            xtask.args(command.split(' ')).arg("--profile").arg(settings).timeout(LIMIT).output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        eprintln!("cargo xtask {command}: {}\n{stdout}{stderr}", output.status);
        (output.status.code().unwrap(), stdout, stderr)
    }

    pub(crate) fn succeed(&self, command: &str) -> String {
        let (code, stdout, _) = self.xtask(command);
        assert_eq!(code, 0, "cargo xtask {command} failed");
        stdout
    }

    /// Exit code and error of a command that is refused or fails.
    fn fail(&self, command: &str, expected: i32) -> String {
        let (code, _, stderr) = self.xtask(command);
        assert_eq!(code, expected, "cargo xtask {command}");
        stderr
    }

    /// Proves a run on the host, and that nothing is left of it.
    fn prove(&self, flags: &str, engine: &str, tier: &str) {
        self.succeed(&format!("e2e --yes --on host {flags}"));
        let report = newest_report();
        let environment = &report["environment"];
        assert_eq!((&report["result"], &environment["on"]), (&"passed".into(), &"host".into()));
        assert_eq!((&environment["tier"], &environment["security"]["tier"]), (&tier.into(), &tier.into()));
        assert!(environment["engine"].as_str().unwrap().starts_with(engine), "{environment}");
        assert!(environment.get("kubernetes").is_none(), "{environment}");
        let layers: Vec<_> =
            report["layers"].as_array().unwrap().iter().map(|layer| &layer["name"]).collect();
        assert_eq!((layers[1], layers.len()), (&Value::from("container"), 10));
        self.nothing_is_left();
    }

    fn nothing_is_left(&self) {
        assert_eq!(self.succeed("status --json").trim(), "[]");
        assert!(!state_of(NAME).exists());
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // An engine that is stopped with containers in it takes long, or is killed and leaves them.
        if std::thread::panicking() {
            self.xtask("down");
        }
    }
}

#[test]
#[ignore = "needs a container engine"]
fn the_edge_runs_on_podman_with_all_privileges_and_with_few() {
    let deployment = Deployment::new(None);
    deployment.prove("--engine podman --tier privileged", "podman", "privileged");
    deployment.prove("--engine podman", "podman", "confined");
}

#[test]
#[ignore = "needs a container engine"]
fn a_container_of_the_edge_is_kept_as_described_and_told_when_it_has_died() {
    let deployment = Deployment::new(None);
    deployment.succeed("run --yes --engine podman");
    let (_, _, told) = deployment.xtask("run --engine podman");
    assert!(told.contains("nothing to do"), "{told}");
    deployment.succeed("verify --engine podman");
    assert!(deployment.succeed("logs edge --tail 50 --engine podman").contains("kedge-edged"));
    a_command_runs_in_the_module();

    // One device cannot run in two places.
    for command in ["up --engine podman", "e2e --engine podman"] {
        let told = deployment.fail(command, 6);
        assert!(told.contains("as a container on the engine") && told.contains("cargo xtask down"), "{told}");
    }

    assert!(engine_cli("podman", &["kill", &format!("{NAME}-edge")]).output().unwrap().status.success());
    let told = deployment.fail("verify --engine podman", 5);
    assert!(
        told.contains("has ended with code 137; its last lines:") && told.contains("kedge-edged"),
        "{told}"
    );
    deployment.succeed("run --engine podman");
    deployment.succeed("verify --engine podman");

    deployment.succeed("down --engine podman");
    deployment.nothing_is_left();
    let volumes = engine_cli("podman", &["volume", "ls", "--format", "{{.Name}}"]).output().unwrap().stdout;
    assert!(!String::from_utf8_lossy(&volumes).contains(NAME));
}

/// Runs the module's one program in it once more, through the inner engine: its answer to a setting without sense is
/// proof, and it ends before it could take the place of the module at the hub.
fn a_command_runs_in_the_module() {
    let edge = format!("{NAME}-edge");
    let command = ["docker", "exec", "--env", "IOTEDGE_WORKLOADURI=nonsense", "tempSensor", "/kedge-sensor"];
    let output = engine_cli("podman", &[&["exec", &edge], &command[..]].concat()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("IOTEDGE_WORKLOADURI is not of the form unix:///path"), "{told}");
}

#[test]
#[ignore = "needs a container engine"]
fn docker_does_what_it_can_and_the_rest_is_told_with_the_cure() {
    let deployment = Deployment::new(Some(Dockerd::ready()));
    deployment.prove("--engine docker", "docker", "confined");

    let (code, _, told) = deployment.xtask("plan --engine docker");
    if code == 0 {
        // This machine lacks no capability, so Docker has to do the rest as well.
        deployment.prove("--engine docker --tier privileged", "docker", "privileged");
        return;
    }
    assert_eq!(code, 4, "{told}");
    for command in ["e2e", "e2e --on host --tier privileged", "run --tier privileged", "up", "cluster up"] {
        let told = deployment.fail(&format!("{command} --engine docker"), 4);
        for words in ["bounding set lacks CAP_", "`--engine podman`", "--on host --tier confined"] {
            assert!(told.contains(words), "{words} is not in: {told}");
        }
    }
    deployment.nothing_is_left();

    // By itself, the tool passes by what cannot do the work, and finds what is in there all the same.
    deployment.succeed("hub up --engine docker");
    let parts: Value = serde_json::from_str(&deployment.succeed("status --json")).unwrap();
    assert!(parts[0]["detail"].as_str().unwrap().starts_with("docker"), "{parts}");
    let told = deployment.fail("up --yes", 6);
    assert!(told.contains("docker") && told.contains("holds a part"), "{told}");
    deployment.succeed("down");
    deployment.nothing_is_left();
    deployment.succeed("cluster up --yes");
    let report = newest_report();
    assert!(report["environment"]["engine"].as_str().unwrap().starts_with("podman"), "{report}");
    deployment.succeed("down");
    deployment.nothing_is_left();
}
