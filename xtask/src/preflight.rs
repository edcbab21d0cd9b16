//! What the machine must have, what is missing, and how to install it.

use std::time::Duration;

use anyhow::Result;

use jiff::Timestamp;

use crate::confirm::agreed;
use crate::engine::{EngineKind, is_docker_installed};
use crate::process::{Process, find_on_path};

const UPDATE_LIMIT: Duration = Duration::from_secs(300);
const INSTALL_LIMIT: Duration = Duration::from_secs(900);

/// A program that has to be on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// The program, an absolute path that has to exist, or `program -c 'script'`, which has to succeed: a module of an
    /// interpreter has no file of its own to look for.
    pub program: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    /// The Debian package that brings it.
    pub package: &'static str,
}

const fn tool(program: &'static str, purpose: &'static str, package: &'static str) -> Tool {
    Tool { program, purpose, package }
}

/// What is needed with every engine.
const ALWAYS: [Tool; 2] = [
    tool("dpkg-deb", "unpacks the package of kind", "dpkg"),
    tool("setpriv", "ends child processes with this program", "util-linux"),
];
/// What assembles the base image; without root, which it needs, Debian's own image is pulled.
const ROOT: [Tool; 2] = [
    tool("mmdebstrap", "assembles the Debian base image", "mmdebstrap"),
    tool(
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "checks the signatures of Debian",
        "debian-archive-keyring",
    ),
];
/// What Podman needs; its Debian package does not depend on all of it.
const PODMAN: [Tool; 5] = [
    tool("podman", "container engine", "podman"),
    tool("runc", "runs containers on every layout of cgroups", "runc"),
    tool("/usr/lib/podman/netavark", "networks of containers", "netavark"),
    tool("/usr/lib/podman/aardvark-dns", "names of containers", "aardvark-dns"),
    tool("/usr/sbin/iptables", "network address translation of containers", "iptables"),
];

/// What Docker needs.
const DOCKER: [Tool; 1] = [tool("dockerd", "container engine", "docker.io")];

/// What compiles libFuzzer.
pub const FUZZING: [Tool; 1] = [tool("g++", "compiles libFuzzer", "g++")];
/// What the tests with Microsoft's Python SDK need; pip comes with `venv`.
pub const PYTHON_SDK: [Tool; 2] = [
    tool("python3", "runs Microsoft's Python SDK", "python3"),
    tool("python3 -c 'import ensurepip'", "installs Microsoft's Python SDK for a test", "python3-venv"),
];
/// What plays an Event Hub.
pub const QPID: [Tool; 1] = [tool(
    "/usr/lib/python3/dist-packages/proton/__init__.py",
    "plays an Event Hub for a test",
    "python3-qpid-proton",
)];
/// What signs a package repository.
pub const SIGNING: [Tool; 1] = [tool("gpg", "signs a package repository for a test", "gpg")];
/// What shows a report as people see it.
pub const BROWSER: [Tool; 1] = [tool("chromium", "shows the page of a report for a test", "chromium")];
/// What runs the virtual machine of the tests; root has what assembles it.
pub const VIRTUAL_MACHINE: [Tool; 2] = [
    tool("qemu-system-x86_64", "runs the virtual machine of the tests", "qemu-system-x86"),
    tool("/usr/sbin/mke2fs", "makes the disk of the virtual machine", "e2fsprogs"),
];
/// What the hub is measured next to.
pub const LOAD: [Tool; 1] =
    [tool("/usr/sbin/mosquitto", "the MQTT broker that the hub is measured next to", "mosquitto")];

/// Packages of one source, which break each other unless they are of one version: a machine may have some of them from
/// Debian's backports.
const OF_ONE_VERSION: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-utils"];

/// How the machine was made ready.
#[derive(Debug, Clone)]
pub struct Preflight {
    /// When the look at the machine began.
    pub started: Timestamp,
    /// When an engine had proved itself.
    pub ended: Timestamp,
    /// The packages that were installed.
    pub installed: Vec<&'static str>,
}

/// Something that the machine lacks and the user did not let us install.
#[derive(Debug, thiserror::Error)]
#[error(
    "this machine lacks what KEdge needs:{}\nrun this command again with `--yes` to install it, or install it yourself: `{command}`",
    missing.iter().map(|tool| format!("\n  {:22} {}", tool.package, tool.purpose)).collect::<String>()
)]
pub struct Missing {
    /// What is missing.
    pub missing: Vec<Tool>,
    command: String,
}

impl Missing {
    /// The error for tools that are missing, with the command that installs them.
    #[must_use]
    pub fn new(missing: Vec<Tool>) -> Self {
        let packages: Vec<_> = missing.iter().map(|tool| tool.package.to_owned()).collect();
        Self::installed_by(missing, &packages)
    }

    /// The same, where more has to be said to `apt-get` than the packages' names.
    fn installed_by(missing: Vec<Tool>, words: &[String]) -> Self {
        let command = format!("sudo apt-get install --no-install-recommends {}", words.join(" "));
        Self { missing, command }
    }
}

/// Whether this program may do everything on the machine.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What is missing on this machine, with this engine or with one that is elsewhere.
#[must_use]
pub fn missing(engine: Option<EngineKind>) -> Vec<Tool> {
    missing_among(engine, is_root(), is_present)
}

/// What is missing of what only some commands need.
#[must_use]
pub fn absent(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().filter(|tool| !is_present(tool.program)).copied().collect()
}

fn is_present(program: &str) -> bool {
    if program.starts_with('/') {
        std::path::Path::new(program).exists()
    } else if let Some((python, module)) = program.split_once(" -c ") {
        crate::process::succeeds(python, &["-c", module.trim_matches('\'')])
    } else {
        find_on_path(program).is_some() || (program == "dockerd" && is_docker_installed())
    }
}

/// Tells what would be installed, in a dry run.
pub fn show_missing(tools: &[Tool]) {
    for tool in absent(tools) {
        println!("would be installed: {:22} {}", tool.package, tool.purpose);
    }
}

/// Whether this machine lacks a part of the engine itself.
#[must_use]
pub fn lacks(engine: EngineKind) -> bool {
    missing(Some(engine)).iter().any(|tool| tools_of(engine).contains(tool))
}

fn tools_of(engine: EngineKind) -> &'static [Tool] {
    match engine {
        EngineKind::Docker => &DOCKER,
        EngineKind::Podman => &PODMAN,
    }
}

fn missing_among(engine: Option<EngineKind>, root: bool, present: impl Fn(&str) -> bool) -> Vec<Tool> {
    let engine = engine.map(tools_of).unwrap_or_default();
    let root = if root { &ROOT[..] } else { &[][..] };
    ALWAYS.iter().chain(root).chain(engine).filter(|tool| !present(tool.program)).copied().collect()
}

/// Makes sure that the machine has all that is needed, with the user's consent; returns the packages that it
/// installed.
///
/// # Errors
/// [`Missing`] when something is missing and nobody agreed to install it; else when the installation fails.
pub async fn ensure(engine: Option<EngineKind>, yes: bool) -> Result<Vec<&'static str>> {
    ensure_tools(missing(engine), yes).await
}

/// Installs what is missing, with the user's consent; returns the packages.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_tools(missing: Vec<Tool>, yes: bool) -> Result<Vec<&'static str>> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    let refusal = Missing::installed_by(missing.clone(), &words(&packages).await);
    eprintln!("missing on this machine:");
    for tool in &missing {
        eprintln!("  {:22} {}", tool.package, tool.purpose);
    }
    if find_on_path("apt-get").is_none() || !(yes || agreed(&format!("run `{}` now?", refusal.command))?) {
        return Err(refusal.into());
    }
    eprintln!("installing {}", packages.join(", "));
    apt("read the package lists", &["update"], UPDATE_LIMIT).await?;
    // Which versions there are may have come with the lists.
    let words = words(&packages).await;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(words.iter().map(String::as_str));
    apt("install the missing packages", &install, INSTALL_LIMIT).await?;
    Ok(packages)
}

/// What is said to `apt-get install` for these packages.
async fn words(packages: &[&str]) -> Vec<String> {
    if !packages.contains(&OF_ONE_VERSION[0]) {
        return packages.iter().map(ToString::to_string).collect();
    }
    let query = Process::new("ask for the versions of QEMU", "dpkg-query").args([
        "--show",
        "--showformat=${db:Status-Status} ${Package} ${Version}\\n",
        "qemu-*",
    ]);
    // It fails where it knows none, so none is there.
    let there = query.read().await.unwrap_or_default();
    let policy = Process::new("ask for the version of QEMU", "apt-cache").args(["policy", OF_ONE_VERSION[0]]);
    let policy = policy.read().await.unwrap_or_default();
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    with_versions(packages, &there, candidate)
}

/// Adds the version to those that have to be of one, if one that is there is of another.
fn with_versions(packages: &[&str], there: &str, candidate: Option<&str>) -> Vec<String> {
    let other = |line: &str| {
        let (name, version) = line.strip_prefix("installed ")?.split_once(' ')?;
        (OF_ONE_VERSION.contains(&name) && Some(version) != candidate).then(|| name.to_owned())
    };
    let others: Vec<_> = there.lines().filter_map(other).collect();
    let (Some(candidate), false) = (candidate, others.is_empty()) else {
        return packages.iter().map(ToString::to_string).collect();
    };
    let of_one_version = |name: &&str| OF_ONE_VERSION.contains(name);
    let mut words: Vec<_> =
        packages.iter().filter(|name| !of_one_version(name)).map(ToString::to_string).collect();
    let together = OF_ONE_VERSION[..2].iter().map(ToString::to_string);
    let versioned =
        together.chain(others.into_iter().filter(|name| !OF_ONE_VERSION[..2].contains(&name.as_str())));
    words.extend(versioned.map(|name| format!("{name}={candidate}")));
    words.push("--allow-downgrades".into());
    words
}

async fn apt(purpose: &str, args: &[&str], limit: Duration) -> Result<()> {
    let root = is_root();
    // sudo keeps no variables of ours, so `env` sets it on the other side.
    let (program, first) = if root {
        ("env", &["DEBIAN_FRONTEND=noninteractive", "apt-get"][..])
    } else {
        ("sudo", &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"][..])
    };
    Process::new(purpose, program)
        .args(first)
        .args(args)
        .limit(limit)
        .outlives_its_parent()
        .stays_at_terminal()
        .run()
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_users_need_no_podman() {
        let packages = |engine| {
            missing_among(engine, true, |_| false).iter().map(|tool| tool.package).collect::<Vec<_>>()
        };
        assert_eq!(packages(None), ["dpkg", "util-linux", "mmdebstrap", "debian-archive-keyring"]);
        assert!(packages(Some(EngineKind::Podman)).contains(&"aardvark-dns"));
        assert_eq!(packages(Some(EngineKind::Docker)).last(), Some(&"docker.io"));
        assert!(!packages(Some(EngineKind::Docker)).contains(&"podman"));
        assert!(missing_among(Some(EngineKind::Podman), true, |_| true).is_empty());
        assert!(missing_among(None, false, |_| false).iter().all(|tool| tool.package != "mmdebstrap"));
    }

    #[test]
    fn what_has_to_be_of_one_version_is_named_with_it() {
        let packages = ["gpg", "qemu-system-x86"];
        let there =
            "not-installed qemu-system-common \ninstalled qemu-utils 1:10.0\ninstalled qemu-user 1:10.0\n";
        assert_eq!(
            with_versions(&packages, there, Some("1:7.2")),
            [
                "gpg",
                "qemu-system-x86=1:7.2",
                "qemu-system-common=1:7.2",
                "qemu-utils=1:7.2",
                "--allow-downgrades"
            ]
        );
        assert_eq!(with_versions(&packages, "installed qemu-utils 1:7.2\n", Some("1:7.2")), packages);
        assert_eq!(with_versions(&packages, "", Some("1:7.2")), packages);
        assert_eq!(with_versions(&packages, there, None), packages);
    }

    #[test]
    fn all_that_is_missing_is_told_at_once_with_the_cure() {
        let missing =
            missing_among(Some(EngineKind::Podman), true, |program| program != "podman" && program != "runc");
        let text = Missing::new(missing).to_string();
        assert!(
            text.contains("podman                 container engine")
                && text.contains("runc ")
                && text.contains("--yes"),
            "{text}"
        );
    }
}
