//! The programs themselves: their exit status, what they print, and how they stop.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::world::within_limit;

pub(crate) const EDGED: &str = env!("CARGO_BIN_EXE_kedge-edged");
const SENSOR: &str = env!("CARGO_BIN_EXE_kedge-sensor");

async fn output(command: &mut Command) -> Output {
    within_limit(command.env_clear().kill_on_drop(true).output()).await.expect("the program ends").unwrap()
}

fn run_in(folder: &Path) -> Command {
    let mut command = Command::new(EDGED);
    command.arg("run").args(["--gateway", "127.0.0.1:0"]);
    for (flag, name) in [("--config", "config.toml"), ("--state", "state"), ("--socket", "mgmt.sock")] {
        command.arg(flag).arg(folder.join(name));
    }
    command
}

fn stderr_lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stderr.clone()).unwrap().lines().map(str::to_owned).collect()
}

/// A configuration of a device whose hub and engine are not there.
fn write_config(folder: &Path) {
    let engine = folder.join("docker.sock");
    let config = format!(
        "hostname = \"edge.test\"\n[agent]\nname = \"edgeAgent\"\n[provisioning]\nsource = \"manual\"\n\
         connection_string = \"HostName=localhost:1;DeviceId=d;SharedAccessKey=c2VjcmV0LWtleQ==\"\n\
         [moby_runtime]\nuri = \"unix://{}\"\nnetwork = \"azure-iot-edge\"\n",
        engine.display()
    );
    fs_err::write(folder.join("config.toml"), config).unwrap();
}

async fn terminate(child: &mut Child) -> (Option<i32>, Duration) {
    let began = Instant::now();
    let kill = Command::new("/bin/kill").args(["-TERM", &child.id().unwrap().to_string()]).status();
    assert!(kill.await.unwrap().success());
    let status = within_limit(child.wait()).await.expect("the program stops").unwrap();
    (status.code(), began.elapsed())
}

#[tokio::test]
async fn a_bad_configuration_ends_with_153_and_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [
        (None, "could not read config file: "),
        (Some("not toml"), "could not parse config file: line 1: "),
        (
            Some("[provisioning]\nsource = \"none\""),
            "invalid config: provisioning source \"none\" is not supported",
        ),
        (
            Some("[provisioning]\nsource = \"dps\""),
            "invalid config: provisioning: \"global_endpoint\" is missing",
        ),
        (
            Some(
                "[provisioning]\nsource = \"manual\"\nconnection_string = \"DeviceId=d;SharedAccessKey=c2VjcmV0\"",
            ),
            "invalid config: invalid connection string: required parameter \"HostName\" is missing",
        ),
    ] {
        if let Some(text) = text {
            fs_err::write(folder.path().join("config.toml"), text).unwrap();
        }
        let output = output(&mut run_in(folder.path())).await;
        assert_eq!(output.status.code(), Some(153), "{text:?}");
        let errors: Vec<_> =
            stderr_lines(&output).into_iter().filter(|line| line.contains("[ERR!]")).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(&format!("[ERR!] - Failed to load settings: {expected}")), "{errors:?}");
        assert!(!errors[0].contains("c2VjcmV0"));
    }
}

#[tokio::test]
async fn a_daemon_without_hub_and_engine_says_so_and_stops_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path());
    let mut child = run_in(folder.path()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = String::new();
    let waiting = async {
        while !log.contains("Failed to update $edgeAgent identity: ") {
            log.push_str(&lines.next_line().await.unwrap().expect("the daemon runs"));
            log.push('\n');
        }
    };
    within_limit(waiting).await.expect("the hub is tried");
    for expected in [
        "<6>",
        "[INFO] - Starting Azure IoT Edge Daemon (simulated by KEdge ",
        "[INFO] - Settings without a meaning for the simulated runtime: agent",
        "[INFO] - Device is d on localhost:1",
        "[WARN] - Failed to update $edgeAgent identity: Hub client error caused by: failed to connect to localhost:1",
    ] {
        assert!(log.contains(expected), "{expected:?} is not in {log}");
    }
    assert!(!log.contains("c2VjcmV0"), "the log has a key");
    let mut health = Command::new(EDGED);
    let health = output(health.args(["health", "--socket"]).arg(folder.path().join("mgmt.sock"))).await;
    assert_eq!(health.status.code(), Some(1));
    let lines = stderr_lines(&health);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("$edgeAgent is not connected to the hub: "), "{lines:?}");
    let (status, took) = terminate(&mut child).await;
    assert_eq!(status, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn health_and_list_without_a_daemon_fail_with_one_line() {
    for subcommand in ["health", "list"] {
        let output =
            output(Command::new(EDGED).args([subcommand, "--socket", "/nonexistent/mgmt.sock"])).await;
        assert_eq!(output.status.code(), Some(1), "{subcommand}");
        let lines = stderr_lines(&output);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("the runtime does not answer: cannot connect to /nonexistent/mgmt.sock"),
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn the_sensor_outside_of_a_runtime_says_what_is_missing() {
    let nothing = output(&mut Command::new(SENSOR)).await;
    assert_eq!(nothing.status.code(), Some(1));
    assert_eq!(stderr_lines(&nothing), ["the environment variable IOTEDGE_WORKLOADURI is missing"]);
    let mut command = Command::new(SENSOR);
    let output =
        within_limit(command.env_clear().env("MessageDelay", "often").output()).await.unwrap().unwrap();
    assert_eq!(stderr_lines(&output), ["MessageDelay: \"often\" is not a time span of the form hh:mm:ss"]);
}

#[tokio::test]
async fn the_sensor_waits_for_its_runtime_and_stops_on_sigterm() {
    let mut child = Command::new(SENSOR)
        .env_clear()
        .envs([
            ("IOTEDGE_WORKLOADURI", "unix:///nonexistent/workload.sock"),
            ("IOTEDGE_DEVICEID", "d"),
            ("IOTEDGE_MODULEID", "m"),
            ("IOTEDGE_GATEWAYHOSTNAME", "localhost"),
            ("IOTEDGE_IOTHUBHOSTNAME", "hub.test"),
            ("IOTEDGE_MODULEGENERATIONID", "1"),
            ("IOTEDGE_APIVERSION", "2022-08-03"),
            ("MessageCount", "-1"),
        ])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for expected in [
        "> SimulatedTemperatureSensor Main() started.",
        "> Initializing simulated temperature sensor to send unlimited messages, at an interval of 5 seconds.",
        "> Trying to initialize module client using transport type [Mqtt_Tcp_Only].",
        "> The connection to the gateway is lost: the workload API: cannot connect to /nonexistent/workload.sock",
    ] {
        let line = within_limit(lines.next_line()).await.unwrap().unwrap().unwrap();
        assert!(line.contains(expected), "{line}");
    }
    let (status, took) = terminate(&mut child).await;
    assert_eq!(status, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        last = line;
    }
    assert!(last.ends_with("> SimulatedTemperatureSensor Main() finished."), "{last}");
}
