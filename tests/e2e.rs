//! The real thing: engine, cluster, registry, hub, pod, telemetry. `cargo xtask test` runs these tests, one
//! after the other; plain `cargo test` leaves them out, because they need a container engine and minutes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use base64::Engine as _;
use serde_json::Value;
use xtask::wait::{Observation, wait_for};

/// Longer than any command here takes on a slow machine with nothing in its cache.
const LIMIT: Duration = Duration::from_secs(40 * 60);

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Runs a command of the tool to its end; returns exit code and standard output.
fn xtask(args: &[&str]) -> (i32, String) {
    let output = Command::cargo_bin("xtask").unwrap().args(args).timeout(LIMIT).output().unwrap();
    eprintln!(
        "cargo xtask {}: {}\n{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn succeed(args: &[&str]) -> String {
    let (code, stdout) = xtask(args);
    assert_eq!(code, 0, "cargo xtask {} failed", args.join(" "));
    stdout
}

/// The folder of the newest run.
fn newest_run() -> PathBuf {
    let runs = fs_err::read_dir(project().join("target/kedge/runs")).unwrap();
    runs.map(|run| run.unwrap().path()).max().unwrap()
}

fn newest_report() -> Value {
    serde_json::from_str(&fs_err::read_to_string(newest_run().join("report.json")).unwrap()).unwrap()
}

fn step<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["id"] == id)
        .unwrap_or_else(|| panic!("no step {id}"))
}

/// Nothing of the deployment is left: the engine is asked by label and by kind's own, and the state is gone.
fn nothing_is_left() {
    assert_eq!(succeed(&["status", "--json"]).trim(), "[]");
    // Podman is asked itself as well: the tool might have lost sight of what it made.
    if let Ok(listed) = Command::new("podman").args(["volume", "ls", "--format", "{{.Labels}}"]).output() {
        let labels = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(!labels.contains("kedge-control-plane") && !labels.contains("io.kedge.owner"), "{labels}");
    }
    assert!(!state().exists());
}

/// The folder with the deployment's state.
fn state() -> PathBuf {
    let base = std::env::var_os("XDG_STATE_HOME")
        .map_or_else(|| std::env::home_dir().unwrap().join(".local/state"), PathBuf::from);
    base.join("kedge/kedge")
}

#[test]
#[ignore = "needs a container engine"]
fn e2e_proves_telemetry_and_leaves_nothing_behind() {
    succeed(&["down"]);
    succeed(&["e2e", "--yes"]);
    let report = newest_report();
    assert_eq!(report["result"], "passed");
    assert_eq!(report["environment"]["runtime"], "simulated", "a simulated run says so");
    assert_eq!(report["environment"]["hub"], "local");
    assert!(report["steps"].as_array().unwrap().iter().all(|step| step["result"] == "done"), "{report:#}");
    assert!(report["layers"].as_array().unwrap().iter().all(|layer| layer["result"] == "ok"), "{report:#}");

    let messages = report["messages"].as_array().unwrap();
    assert!(messages.len() >= 5);
    for (index, message) in messages.iter().enumerate() {
        assert_eq!(message["deviceId"], "kedge-device");
        assert_eq!(message["moduleId"], "tempSensor");
        let first = messages[0]["sequenceNumber"].as_u64().unwrap();
        assert_eq!(message["sequenceNumber"], first + index as u64);
    }
    let path = report["criticalPath"]["steps"].as_array().unwrap();
    assert_eq!((&path[0], &path[path.len() - 1]), (&Value::from("preflight"), &Value::from("down")));
    // The images and the hub do not wait for the cluster.
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let cluster_ended = time(&step(&report, "cluster")["ended"]);
    for early in ["binaries", "registry", "hub"] {
        assert!(time(&step(&report, early)["started"]) < cluster_ended, "{early} waited");
    }
    nothing_is_left();
}

#[test]
#[ignore = "needs a container engine"]
fn up_is_repeatable_verify_names_the_broken_layer_and_down_cleans_up() {
    succeed(&["down"]);
    succeed(&["up", "--yes"]);
    let manifests = succeed(&["render"]);
    assert!(manifests.contains("image: localhost:5001/kedge/edge@sha256:"), "{manifests}");

    let layers = succeed(&["verify"]);
    assert!(layers.lines().all(|line| line.split_whitespace().nth(1) == Some("ok")), "{layers}");
    no_secret_in_any_log();

    succeed(&["up", "--yes"]);
    let report = newest_report();
    for made_before in ["network", "cluster", "registry", "hub"] {
        let note = step(&report, made_before)["note"].as_str().unwrap();
        assert!(note.starts_with("was there"), "{made_before}: {note}");
    }

    // A hub that is gone is told by the first layer that needs it, and mended by `up`.
    succeed(&["hub", "down"]);
    let profile = impatient_settings();
    let (code, layers) = xtask(&["verify", "--profile", profile.path().to_str().unwrap()]);
    assert_eq!(code, 5, "{layers}");
    let agent = layers.lines().find(|line| line.starts_with("agent")).unwrap();
    assert!(agent.contains("broken"), "{layers}");
    assert!(layers.lines().any(|line| line.starts_with("runtime") && line.contains("ok")), "{layers}");
    succeed(&["up", "--yes"]);
    succeed(&["verify"]);

    succeed(&["down"]);
    nothing_is_left();
}

#[test]
#[ignore = "needs a container engine"]
#[expect(clippy::disallowed_methods, reason = "assert_cmd waits for the end of what it starts")]
fn a_killed_run_leaves_no_process_and_does_not_hinder_the_next() {
    succeed(&["down"]);
    let mut killed =
        std::process::Command::new(env!("CARGO_BIN_EXE_xtask")).args(["up", "--yes"]).spawn().unwrap();
    wait_until("a run that makes the cluster", || {
        children(killed.id()).iter().any(|child| command_line(*child).contains("kind create cluster"))
    });
    let children = children(killed.id());
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_until("the end of its child processes", || {
        children.iter().all(|child| command_line(*child).is_empty())
    });
    succeed(&["e2e", "--yes"]);
    nothing_is_left();
}

/// The processes that `parent` has started.
fn children(parent: u32) -> Vec<u32> {
    let all =
        fs_err::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parent_of = |pid: &u32| {
        let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()
    };
    all.filter(|pid| parent_of(pid) == Some(parent)).collect()
}

/// What a process was started with; nothing when there is no such process.
fn command_line(pid: u32) -> String {
    let line = fs_err::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let look =
        || async { if condition() { Observation::Ready(()) } else { Observation::NotYet("not yet".into()) } };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(wait_for(what, LIMIT, look)).unwrap();
}

/// The settings of the project, but with little patience for a broken layer.
fn impatient_settings() -> tempfile::NamedTempFile {
    let text = fs_err::read_to_string(project().join("config/kedge.toml")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), text.replace("time-limit = 120", "time-limit = 10")).unwrap();
    file
}

/// Greps the logs and reports of all runs, and what the parts have written, for the secrets of the deployment.
fn no_secret_in_any_log() {
    let credentials = fs_err::read_to_string(state().join("credentials.json")).unwrap();
    let credentials: Value = serde_json::from_str(&credentials).unwrap();
    let mut secrets = ["owner_key", "registry_password"]
        .map(|name| credentials[name].as_str().unwrap().to_owned())
        .to_vec();
    // Of the private key, a line from the middle: how it is wrapped does not matter then.
    secrets.push(credentials["hub_key"].as_str().unwrap().lines().nth(1).unwrap().to_owned());
    // The device's own key, as it is in the Secret.
    let manifests = succeed(&["render", "--show-secrets"]);
    let config = manifests.lines().find_map(|line| line.trim().strip_prefix("config.toml: ")).unwrap();
    let config =
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(config).unwrap()).unwrap();
    secrets.push(config.split("SharedAccessKey=").nth(1).unwrap().split('"').next().unwrap().to_owned());
    let mut texts: Vec<String> =
        ["pod", "hub", "registry"].iter().map(|part| succeed(&["logs", part, "--tail", "1000"])).collect();
    for run in fs_err::read_dir(project().join("target/kedge/runs")).unwrap() {
        for file in fs_err::read_dir(run.unwrap().path()).unwrap() {
            texts.push(String::from_utf8_lossy(&fs_err::read(file.unwrap().path()).unwrap()).into_owned());
        }
    }
    assert!(texts.len() > 3);
    for text in &texts {
        assert!(!text.contains("SharedAccessKey="), "a connection string is in a log");
        assert!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "a secret is in a log");
    }
}
