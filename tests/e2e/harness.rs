//! What the end-to-end tests share: they run the program as a user does, and read its reports.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use assert_cmd::Command;
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::service::ServiceClient;
use kedge_sim::tls::Endpoint;
use serde_json::Value;
use xtask::wait::{Observation, wait_for};

/// Longer than any command here takes on a slow machine with nothing in its cache.
pub(crate) const LIMIT: Duration = Duration::from_secs(40 * 60);

pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Runs a command of the tool to its end; returns exit code and standard output.
pub(crate) fn xtask(args: &[&str]) -> (i32, String) {
    let (code, stdout, _) = xtask_output(args);
    (code, stdout)
}

/// The same with standard error, which comes last.
pub(crate) fn xtask_output(args: &[&str]) -> (i32, String, String) {
    xtask_with(args, &[])
}

/// The same with variables of the environment.
pub(crate) fn xtask_with(args: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    run(Command::cargo_bin("xtask").unwrap().envs(variables.iter().copied()), args)
}

/// The same with this on standard input.
pub(crate) fn xtask_reading(args: &[&str], input: &str) -> (i32, String, String) {
    run(Command::cargo_bin("xtask").unwrap().write_stdin(input), args)
}

fn run(command: &mut Command, args: &[&str]) -> (i32, String, String) {
    let output = command.args(args).timeout(LIMIT).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!("cargo xtask {}: {}\n{stderr}", args.join(" "), output.status);
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), stderr)
}

pub(crate) fn succeed(args: &[&str]) -> String {
    let (code, stdout) = xtask(args);
    assert_eq!(code, 0, "cargo xtask {} failed", args.join(" "));
    stdout
}

/// The folder of the newest run.
pub(crate) fn newest_run() -> PathBuf {
    let runs = fs_err::read_dir(project().join("target/kedge/runs")).unwrap();
    runs.map(|run| run.unwrap().path()).max().unwrap()
}

pub(crate) fn newest_report() -> Value {
    serde_json::from_str(&fs_err::read_to_string(newest_run().join("report.json")).unwrap()).unwrap()
}

pub(crate) fn step<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["id"] == id)
        .unwrap_or_else(|| panic!("no step {id}"))
}

/// Nothing of the deployment is left: the engine is asked by label and by kind's own, and the state is gone.
pub(crate) fn nothing_is_left() {
    assert_eq!(succeed(&["status", "--json"]).trim(), "[]");
    // Podman is asked itself as well: the tool might have lost sight of what it made.
    if let Ok(listed) = Command::new("podman").args(["volume", "ls", "--format", "{{.Labels}}"]).output() {
        let labels = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(!labels.contains("kedge-control-plane") && !labels.contains("io.kedge.owner"), "{labels}");
    }
    assert!(!state().exists());
}

/// The folder with the deployment's state.
pub(crate) fn state() -> PathBuf {
    state_of("kedge")
}

/// The folder with the state of the deployment called `name`.
pub(crate) fn state_of(name: &str) -> PathBuf {
    let base = std::env::var_os("XDG_STATE_HOME")
        .map_or_else(|| std::env::home_dir().unwrap().join(".local/state"), PathBuf::from);
    base.join("kedge").join(name)
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let look =
        || async { if condition() { Observation::Ready(()) } else { Observation::NotYet("not yet".into()) } };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(wait_for(what, LIMIT, look)).unwrap();
}

/// The settings of the project, but with little patience for a broken layer.
pub(crate) fn impatient_settings() -> tempfile::NamedTempFile {
    let text = fs_err::read_to_string(project().join("config/kedge.toml")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), text.replace("time-limit = 120", "time-limit = 10")).unwrap();
    file
}

/// Waits, in a runtime that is there already.
pub(crate) async fn wait_until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let condition = tokio::sync::Mutex::new(&mut condition);
    let look = || async {
        if (condition.lock().await)().await {
            Observation::Ready(())
        } else {
            Observation::NotYet("not yet".into())
        }
    };
    wait_for(what, LIMIT, look).await.unwrap();
}

/// Runs the command line of the engine that the tool uses, with the tool's settings of it; returns what it printed.
pub(crate) fn engine(args: &[&str]) -> String {
    let output = engine_output(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command in the pod of the cluster called `name`: the node has a kubectl of its own.
pub(crate) fn in_edge(name: &str, command: &[&str]) -> String {
    let output = in_edge_output(name, command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same, whatever comes of it.
pub(crate) fn in_edge_output(name: &str, command: &[&str]) -> std::process::Output {
    let node = format!("{name}-control-plane");
    let kubectl = ["exec", &node, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "--namespace=kedge"];
    engine_output(&[&kubectl[..], &["exec", "deployment/kedge", "--container=edge", "--"], command].concat())
}

/// The same, whatever comes of it.
pub(crate) fn engine_output(args: &[&str]) -> std::process::Output {
    engine_command(args).output().unwrap()
}

/// The engine's command line, not run yet.
pub(crate) fn engine_command(args: &[&str]) -> Command {
    engine_cli(if is_podman() { "podman" } else { "docker" }, args)
}

/// Whether the engine that the tool uses is Podman.
pub(crate) fn is_podman() -> bool {
    static PODMAN: LazyLock<bool> = LazyLock::new(|| {
        let doctor = succeed(&["doctor"]);
        doctor.lines().any(|line| line.starts_with("engine") && line.contains("podman"))
    });
    *PODMAN
}

/// The command line `program` of an engine, with the tool's settings of it, not run yet.
pub(crate) fn engine_cli(program: &str, args: &[&str]) -> Command {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| std::env::home_dir().unwrap().join(".cache"), PathBuf::from);
    let mut command = Command::new(program);
    command.args(args).env("CONTAINERS_CONF", cache.join("kedge/engine/containers.conf"));
    command
}

/// The service side of the hub of the deployment with this state, after `hub` has written its connections.
pub(crate) fn service(state: &Path, hub: &str) -> ServiceClient {
    let read = |name: &str| fs_err::read_to_string(state.join(name)).unwrap();
    let connections: Value = serde_json::from_str(&read("connections.json")).unwrap();
    let owner = connections["owner"].as_str().unwrap();
    let key = SharedAccessKey::from_base64(owner.split_once("SharedAccessKey=").unwrap().1).unwrap();
    let address = connections["hub"]["https"].as_str().unwrap().parse().unwrap();
    ServiceClient::new(Endpoint::at(hub, address), hub, key, Some(&read("hub-ca.pem"))).unwrap()
}

/// All files in a folder and below.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}
