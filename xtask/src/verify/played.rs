//! The layers of Microsoft's runtime, on programs that answer as those in the edge do.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::cause::Lasting;
use super::layers::{Name, Seen, observe};
use super::scene::{Means, Scene};
use crate::engine::Output;
use crate::progress::Progress;
use crate::settings::{Hub, Settings};
use crate::wait::Observation;

const RUNNING: &str = r#"[{"Id":"1","Created":"2026-11-20T10:00:00Z","State":{"Status":"running","Running":true,"ExitCode":0,"Error":""},"RestartCount":0}]"#;
const EXITED: &str = r#"[{"State":{"Status":"exited","Running":false,"ExitCode":139,"Error":""}}]"#;
const LISTENER: &str = "  0: 00000000:22B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1 0";

/// Runs a command with the programs of the folder before those of the machine.
pub(super) fn run(folder: &Path, command: &[&str]) -> Result<Output> {
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let (program, args) = command.split_first().unwrap();
    let output = assert_cmd::Command::new(program).args(args).env("PATH", path).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok(Output { success: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) })
}

/// What the programs say.
struct Played {
    folder: TempDir,
}

impl Played {
    /// All is well.
    fn well() -> Self {
        let played = Self { folder: tempfile::tempdir().unwrap() };
        played.says("systemctl", "active", 0);
        played.says("iotedge", "iotedge 1.6.0", 0);
        for container in ["edgeAgent", "edgeHub", "tempSensor"] {
            played.container(container, RUNNING);
        }
        played.write("log", "<6> 2026-11-20 10:00:00.000 +00:00 [INF] - Module Management Agent started\n");
        played.write("journal", "2026-11-20T10:00:00Z [INFO] - Edge runtime is running\n");
        played.write("sockets", LISTENER);
        let folder = played.folder.path().display().to_string();
        let docker = format!(
            "case $1 in inspect) if [ -e {folder}/$4.json ]; then /bin/cat {folder}/$4.json; else echo '[]'; exit 1; fi ;; \
             logs) /bin/cat {folder}/log ;; esac"
        );
        played.program("docker", &docker);
        played.program("journalctl", &format!("/bin/cat {folder}/journal"));
        played.program(
            "cat",
            &format!("case $1 in /proc/*) /bin/cat {folder}/sockets ;; *) /bin/cat \"$@\" ;; esac"),
        );
        let certificate = "subject=CN = kedge-edge\\nnotAfter=Dec 23 10:00:00 2026 GMT\\n";
        played.program("openssl", &format!("case $1 in x509) printf '{certificate}' ;; esac"));
        played
    }

    fn write(&self, name: &str, contents: &str) {
        fs_err::write(self.folder.path().join(name), contents).unwrap();
    }

    fn container(&self, name: &str, json: &str) {
        self.write(&format!("{name}.json"), json);
    }

    fn program(&self, name: &str, script: &str) {
        self.write(name, &format!("#!/bin/sh\n{script}\n"));
        let path = self.folder.path().join(name);
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn says(&self, program: &str, text: &str, code: i32) {
        self.program(program, &format!("echo '{text}'; exit {code}"));
    }

    fn without(self, name: &str) -> Self {
        fs_err::remove_file(self.folder.path().join(name)).unwrap();
        self
    }

    async fn look(&self, name: Name) -> Seen {
        let seen = self.on(async |scene| super::real::look(scene, name).await).await;
        seen.unwrap_or_else(|error| Err(format!("{error:#}")))
    }

    async fn on<T>(&self, work: impl AsyncFnOnce(&Scene<'_>) -> T) -> T {
        let mut settings = Settings::default();
        settings.hub.kind = Hub::Azure;
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let means = Means::Played(self.folder.path());
        let scene = Scene::other(means, &settings, "device", &progress, &cancel, None);
        work(&scene).await
    }
}

#[tokio::test]
async fn microsofts_runtime_is_well_in_every_layer() {
    let played = Played::well();
    assert_eq!(played.look(Name::Runtime).await.unwrap(), "active, iotedge 1.6.0");
    assert_eq!(played.look(Name::Agent).await.unwrap(), "edgeAgent is running");
    assert_eq!(played.look(Name::Module).await.unwrap(), "tempSensor is running");
    assert_eq!(
        played.look(Name::Gateway).await.unwrap(),
        "edgeHub is running, certificate CN=kedge-edge until Dec 23 10:00:00 2026 GMT"
    );
}

#[tokio::test]
async fn a_service_that_failed_is_told_with_its_cause() {
    let played = Played::well();
    played.says("systemctl", "activating", 3);
    played.write("journal", "[ERR!] - Failed to provision with IoT Hub, and no valid device backup was found: Hub client error\ncaused by: ErrorCode:IotHubUnauthorizedAccess;Unauthorized\n");
    let told = played.look(Name::Runtime).await.unwrap_err();
    assert!(told.starts_with("aziot-edged.service is activating; the hub refuses the device"), "{told}");
    assert!(told.contains("IotHubUnauthorizedAccess"), "{told}");
}

#[tokio::test]
async fn an_agent_that_was_not_made_or_has_ended_is_told_with_its_cause() {
    let played = Played::well().without("edgeAgent.json");
    played.write(
        "journal",
        "[WARN] - Error in watchdog: Failed to update $edgeAgent identity: Hub client error caused by: client error (Connect)\n",
    );
    let told = played.look(Name::Agent).await.unwrap_err();
    assert!(
        told.starts_with("aziot-edged has not made edgeAgent; the hub cannot be reached, or its"),
        "{told}"
    );
    played.container("edgeAgent", EXITED);
    played.write("log", "<3> 2026-11-20 10:00:00.000 +00:00 [ERR] - Could not connect\n");
    let told = played.look(Name::Agent).await.unwrap_err();
    assert!(told.starts_with("edgeAgent is exited, code 139; edgeAgent says: Could not connect;"), "{told}");
}

#[tokio::test]
async fn a_module_that_is_not_there_is_told_with_what_the_agent_says() {
    let played = Played::well().without("tempSensor.json");
    played.write(
        "log",
        "<4> 2026-11-20 10:00:00.000 +00:00 [WRN] - Could not pull image x: unauthorized\n<6> [INF] - next\n",
    );
    let told = played.look(Name::Module).await.unwrap_err();
    assert_eq!(told, "tempSensor is not there; edgeAgent says: Could not pull image x: unauthorized");
}

#[tokio::test]
async fn a_gateway_that_nobody_can_reach_is_told() {
    let played = Played::well();
    played.write("sockets", &LISTENER.replace("22B3", "01BB"));
    let told = played.look(Name::Gateway).await.unwrap_err();
    assert!(told.contains("nothing listens on port 8883"), "{told}");
    let played = Played::well();
    played.program("openssl", "exit 1");
    let told = played.look(Name::Gateway).await.unwrap_err();
    assert!(told.contains("does not answer with a certificate"), "{told}");
}

#[tokio::test]
async fn an_edge_without_any_runtime_says_so() {
    let played = Played::well();
    match played.on(async |scene| observe(scene, Name::Agent, &Lasting::default()).await).await {
        Observation::NotYet(told) => assert!(told.contains("neither KEdge's nor Microsoft's"), "{told}"),
        other => panic!("{other:?}"),
    }
}
