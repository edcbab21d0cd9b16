//! The machine, the engine, and the nodes of the cluster.

use std::path::Path;

use anyhow::Result;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::LINES;
use super::folder::Folder;
use super::objects::without_environment;
use crate::context::Context;
use crate::engine::Output;
use crate::room::free;

/// What limits the number of things that run on a machine.
const LIMITS: [&str; 7] = [
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "fs/inotify/max_queued_events",
    "fs/file-max",
    "kernel/pid_max",
    "kernel/keys/maxkeys",
    "net/ipv4/ip_forward",
];
/// Lines of `/proc/self/status` and `/proc/meminfo` that tell something here.
const TELLING: [&str; 8] =
    ["MemTotal", "MemAvailable", "SwapTotal", "SwapFree", "CapEff", "CapBnd", "Seccomp", "Cpus_allowed_list"];

pub(super) async fn keep(folder: &Folder<'_>, context: &Context) {
    let storage = folder.ask("disk of the engine", context.engine.storage()).await.unwrap_or_default();
    folder.keep("machine.json", async { Ok(format!("{:#}\n", facts(context, &storage))) }).await;
}

/// What there is to know of the machine, without asking anybody.
fn facts(context: &Context, storage: &Path) -> Value {
    let paths = &context.paths;
    let disks =
        [("project", &*paths.project), ("cache", &paths.cache), ("state", &paths.state), ("engine", storage)];
    let disks = disks.map(|(name, folder)| (name, folder.display().to_string(), free(folder).ok()));
    let limits = LIMITS.map(|name| (name, read(&format!("/proc/sys/{name}"))));
    json!({
        "tool": env!("CARGO_PKG_VERSION"),
        "engine": context.engine.description(),
        "system": telling(&read("/etc/os-release"), &["PRETTY_NAME"], '='),
        "kernel": read("/proc/version"),
        "cgroup": if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" },
        "cgroupMounts": read("/proc/self/mounts").lines().filter(|line| line.contains("cgroup")).collect::<Vec<_>>(),
        "load": read("/proc/loadavg"),
        "memory": telling(&read("/proc/meminfo"), &TELLING, ':'),
        "process": telling(&read("/proc/self/status"), &TELLING, ':'),
        "pressure": map(["cpu", "io", "memory"].map(|name| (name, read(&format!("/proc/pressure/{name}"))))),
        "limits": map(limits),
        "disks": disks.map(|(name, folder, free)| json!({"of": name, "folder": folder, "megabytesFree": free})),
    })
}

fn map<const N: usize>(pairs: [(&str, String); N]) -> Value {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// The lines of these names, as a map.
fn telling(text: &str, names: &[&str], between: char) -> Value {
    let pairs = text.lines().filter_map(|line| line.split_once(between));
    let pairs = pairs.filter(|(name, _)| names.contains(&name.trim()));
    pairs.map(|(name, value)| (name.trim().to_owned(), Value::from(value.trim().trim_matches('"')))).collect()
}

fn read(path: &str) -> String {
    fs_err::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The engine itself, and how it sees what is ours.
pub(super) async fn keep_engine(folder: &Folder<'_>, context: &Context) {
    let engine = &context.engine;
    let about = folder.keep("engine/about.json", async { Ok(format!("{:#}\n", engine.about().await?)) });
    let ours = folder.keep("engine/containers.json", async {
        let mut all = engine.inspected().await?;
        without_environment(&mut all);
        Ok(format!("{all:#}\n"))
    });
    let registry = keep_log(folder, context, "registry/registry.log", context.settings.registry_container());
    let hub = keep_log(folder, context, "hub/hub.log", context.settings.hub_container());
    tokio::join!(about, ours, registry, hub);
}

async fn keep_log(folder: &Folder<'_>, context: &Context, name: &str, container: String) {
    let log = async {
        match context.engine.container(&container).await? {
            Some(_) => context.engine.container_log(&container, usize::from(LINES)).await,
            None => anyhow::bail!("there is no container `{container}`"),
        }
    };
    folder.keep(name, log).await;
}

/// What the nodes have written: the services that run pods, and the pods themselves, for an API server that is gone tells
/// nothing of them.
pub(super) async fn keep_nodes(folder: &Folder<'_>, context: &Context) {
    let Some(nodes) = folder.ask("nodes", context.engine.nodes()).await else { return };
    if nodes.is_empty() {
        return folder.miss("nodes", "there is no node");
    }
    let lines = format!("--lines={LINES}");
    let journal = ["journalctl", "--no-pager", "--output=short-iso-precise", &lines];
    let pods = ["sh", "-c", "tail -n 300 /var/log/pods/*/*/*.log"];
    let sources: [(&str, Vec<&str>); 4] = [
        ("kubelet.log", [&journal[..], &["--unit=kubelet"]].concat()),
        ("containerd.log", [&journal[..], &["--unit=containerd"]].concat()),
        ("pods.log", pods.to_vec()),
        ("processes.txt", vec!["ps", "-e", "-o", "pid,ppid,etimes,rss,stat,comm"]),
    ];
    let all = nodes.iter().flat_map(|node| sources.iter().map(move |(name, command)| (node, name, command)));
    let all = all.map(|(node, name, command)| async move {
        let said = async { said(context.engine.exec(node, command).await?) };
        folder.keep(&format!("nodes/{node}/{name}"), said).await;
    });
    join_all(all).await;
}

/// What a command printed; one that failed and printed nothing tells why.
pub(super) fn said(output: Output) -> Result<String> {
    match (output.success, output.stdout.is_empty()) {
        (false, true) => anyhow::bail!("{}", output.text()),
        _ => Ok(output.stdout + "\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_tell_something_become_a_map() {
        let text = "MemTotal:  24682520 kB\nBuffers: 1 kB\nPRETTY_NAME=\"x\"\nCapBnd:\t00ff\n";
        assert_eq!(telling(text, &TELLING, ':'), json!({"MemTotal": "24682520 kB", "CapBnd": "00ff"}));
        assert_eq!(telling(text, &["PRETTY_NAME"], '='), json!({"PRETTY_NAME": "x"}));
    }

    #[test]
    fn a_command_that_fails_without_a_word_is_missing() {
        let output = |success, stdout: &str| Output { success, stdout: stdout.into(), stderr: "no".into() };
        assert_eq!(said(output(true, "a")).unwrap(), "a\n");
        assert_eq!(said(output(false, "half")).unwrap(), "half\n");
        assert_eq!(said(output(false, "")).unwrap_err().to_string(), "no");
    }
}
