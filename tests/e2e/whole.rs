//! The whole: everything up, telemetry proved, everything removed, also after a run was killed.

use base64::Engine as _;
use serde_json::Value;

use crate::harness::{
    engine, files, impatient_settings, newest_report, newest_run, nothing_is_left, project, state, step,
    succeed, wait_until, xtask, xtask_output,
};

#[test]
#[ignore = "needs a container engine"]
fn e2e_proves_telemetry_and_leaves_nothing_behind() {
    succeed(&["down"]);
    let printed = succeed(&["e2e", "--yes", "--json"]);
    assert_eq!(printed, fs_err::read_to_string(newest_run().join("report.json")).unwrap());
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
    looking_around();
    // What the edge keeps for its modules must not take the machine's memory.
    let volumes = engine(&["exec", "kedge-control-plane", "ls", "/var/lib/hostpath_pv"]);
    assert!(!volumes.trim().is_empty());

    succeed(&["up", "--yes"]);
    let report = newest_report();
    for made_before in ["network", "cluster", "registry", "hub"] {
        assert_eq!(step(&report, made_before)["changed"], false, "{made_before}");
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
    // Meanwhile nobody else changes anything, and hears who does.
    let (code, _, told) = xtask_output(&["down"]);
    assert_eq!(code, 6, "{told}");
    assert!(told.contains(&format!("process {}, `cargo xtask up --yes`", killed.id())), "{told}");
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

/// What is in the edge is shown as what is around it.
fn looking_around() {
    let log = succeed(&["logs", "sensor", "--tail", "3"]);
    assert!(log.lines().count() <= 3 && log.contains("Sending message"), "{log}");
    assert_eq!(xtask(&["logs", "unknown"]).0, 2);
    let status = succeed(&["status"]);
    assert!(status.starts_with("PART "), "{status}");
    for part in ["engine", "cluster", "node", "registry", "hub", "pod", "systemd", "tempSensor", "device"] {
        let line = status.lines().find(|line| line.starts_with(&format!("{part} ")));
        assert!(line.is_some_and(|line| line.split_whitespace().nth(1) == Some("up")), "{part}: {status}");
    }
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
        for file in files(&run.unwrap().path()) {
            texts.push(String::from_utf8_lossy(&fs_err::read(file).unwrap()).into_owned());
        }
    }
    assert!(texts.len() > 3);
    for text in &texts {
        let is_key = |part: &str| !part.starts_with("[redacted]");
        assert!(!text.split("SharedAccessKey=").skip(1).any(is_key), "a connection string is in a log");
        assert!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "a secret is in a log");
    }
}
