//! What the edge is allowed in the tiers without all privileges: capabilities, system calls, and what AppArmor lets pass.
//!
//! The sources are in `image/security/`, commented. They are read and checked before anything is rendered or started.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The capabilities of the edge, in the tiers `confined` and `userns`, without `CAP_`.
pub const CAPABILITIES: [&str; 17] = [
    // What engines give every container. The inner engine asks for all of these for each of its own, and Docker 20.10 starts none
    // when one is missing.
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    // Without a use: seccomp lets nobody make a device.
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    // The inner engine makes networks and their rules.
    "NET_ADMIN",
    // systemd mounts and writes to its cgroups, and the inner engine makes namespaces.
    "SYS_ADMIN",
    // `docker exec` opens the namespaces of a module below /proc, which the kernel refuses where the module is of
    // another user than root.
    "SYS_PTRACE",
];
/// The name of the AppArmor profile.
pub const APPARMOR: &str = "kedge-edge";

const APPARMOR_FILE: &str = "image/security/kedge-edge";
const SECCOMP_FILE: &str = "image/security/seccomp.toml";

/// The profiles, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profiles {
    /// The seccomp profile, as engines and containerd read it, for one architecture.
    pub seccomp: String,
    /// The name of the seccomp profile on a node, below the kubelet's folder for them. It says what is in it, so that a pod never
    /// starts with that of another version, and is the same on every architecture: the tool that names it may run on another
    /// one than the nodes, whose image has theirs.
    pub seccomp_name: String,
    /// The AppArmor profile, as its parser reads it.
    pub apparmor: String,
}

impl Profiles {
    /// Reads the profiles of the project.
    ///
    /// # Errors
    /// When one cannot be read or used, or AppArmor's list of capabilities is not that of the edge.
    pub fn read(project: &Path) -> Result<Self> {
        let read = |path: &str| fs_err::read_to_string(project.join(path));
        Self::of(&read(SECCOMP_FILE)?, read(APPARMOR_FILE)?, std::env::consts::ARCH)
    }

    /// The profiles of these texts, for a machine of this architecture.
    ///
    /// # Errors
    /// As [`Profiles::read`].
    pub fn of(seccomp: &str, apparmor: String, architecture: &str) -> Result<Self> {
        let (seccomp, seccomp_name) =
            named(seccomp, architecture).with_context(|| format!("`{SECCOMP_FILE}` cannot be used"))?;
        agree(&CAPABILITIES, &apparmor)?;
        Ok(Self { seccomp, seccomp_name, apparmor })
    }
}

/// The seccomp profile for an architecture, and its name, which is made of the profiles for all of them.
fn named(source: &str, architecture: &str) -> Result<(String, String)> {
    let source: Source = toml::from_str(source)?;
    let Some(own) = source.architectures.get(architecture) else {
        bail!("it has no [architectures] for {architecture}");
    };
    let all: Vec<_> = source.architectures.values().flatten().cloned().collect();
    let hash = hex::encode(&Sha256::digest(seccomp(&source, &all)?.to_string())[..4]);
    Ok((seccomp(&source, own)?.to_string(), format!("kedge/edge-{hash}.json")))
}

/// The source of the seccomp profile.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    architectures: BTreeMap<String, Vec<String>>,
    allow: Vec<Group>,
    absent: Vec<Absent>,
}

/// System calls that are allowed, all of them under the same conditions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    names: Vec<String>,
    #[serde(default)]
    args: Vec<Condition>,
}

/// System calls that fail as if the kernel had none of these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Absent {
    names: Vec<String>,
}

/// What an argument has to be, as far as the mask goes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    index: u8,
    mask: Option<u64>,
    equal: u64,
}

/// Makes the profile in the flat form of the OCI runtime specification, which everybody reads.
fn seccomp(source: &Source, architectures: &[String]) -> Result<Value> {
    /// `ENOSYS`.
    const NO_SUCH_CALL: u8 = 38;
    let mut unconditional = BTreeSet::new();
    let mut calls = Vec::new();
    for group in &source.allow {
        if group.args.is_empty()
            && let Some(twice) = group.names.iter().find(|name| !unconditional.insert(name.as_str()))
        {
            bail!("`{twice}` is allowed twice");
        }
        let args: Vec<_> = group.args.iter().map(Condition::to_json).collect();
        let mut call = json!({ "names": group.names, "action": "SCMP_ACT_ALLOW" });
        if !args.is_empty() {
            call["args"] = args.into();
        }
        calls.push(call);
    }
    let allowed = || source.allow.iter().flat_map(|group| &group.names);
    for absent in &source.absent {
        if let Some(both) = absent.names.iter().find(|name| allowed().any(|other| other == *name)) {
            bail!("`{both}` is allowed and absent");
        }
        calls.push(json!({ "names": absent.names, "action": "SCMP_ACT_ERRNO", "errnoRet": NO_SUCH_CALL }));
    }
    Ok(json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": calls }))
}

impl Condition {
    fn to_json(&self) -> Value {
        match self.mask {
            None => json!({ "index": self.index, "value": self.equal, "op": "SCMP_CMP_EQ" }),
            Some(mask) => {
                json!({ "index": self.index, "value": mask, "valueTwo": self.equal, "op": "SCMP_CMP_MASKED_EQ" })
            }
        }
    }
}

/// Refuses an AppArmor profile that allows other capabilities than the container has. With one less, systemd's children lose it
/// and gain it again, and the kernel then hides their programs from the inner engine; with one more, it would say what is not so.
///
/// # Errors
/// When the lists differ.
fn agree(capabilities: &[&str], apparmor: &str) -> Result<()> {
    let allowed: BTreeSet<_> = allowed_capabilities(apparmor).collect();
    let given: BTreeSet<_> = capabilities.iter().map(|name| (*name).to_owned()).collect();
    let list = |names: Vec<&String>| names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let lacking = list(given.difference(&allowed).collect());
    let superfluous = list(allowed.difference(&given).collect());
    let wrong: Vec<_> = [("lacks", lacking), ("has as well", superfluous)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what} {names}"))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "the capabilities of `{APPARMOR_FILE}` are not those of the edge: it {}; make them the same as CAPABILITIES in \
         `xtask/src/tier/profiles.rs`, else no inner container starts",
        wrong.join(" and ")
    )
}

/// The capabilities that an AppArmor profile allows, in capital letters. A rule without names allows every one.
fn allowed_capabilities(profile: &str) -> impl Iterator<Item = String> {
    let lines = profile.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.flat_map(|line| line.split([',', '{', '}'])).flat_map(|rule| {
        let mut words =
            rule.split_whitespace().skip_while(|word| ["allow", "audit"].contains(word)).peekable();
        if words.next() != Some("capability") {
            return Vec::new();
        }
        if words.peek().is_none() { vec!["all".to_owned()] } else { words.map(str::to_uppercase).collect() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECCOMP: &str = include_str!("../../../image/security/seccomp.toml");
    const PROFILE: &str = include_str!("../../../image/security/kedge-edge");

    fn of(seccomp: &str, apparmor: &str) -> Result<Profiles> {
        Profiles::of(seccomp, apparmor.to_owned(), "x86_64")
    }

    #[test]
    fn the_profiles_of_the_project_can_be_used() {
        for architecture in ["x86_64", "aarch64"] {
            Profiles::of(SECCOMP, PROFILE.to_owned(), architecture).unwrap();
        }
        assert!(Profiles::of(SECCOMP, PROFILE.to_owned(), "riscv64").is_err());
        assert!(PROFILE.contains(&format!("\nprofile {APPARMOR} ")));
    }

    #[test]
    fn lists_of_capabilities_that_differ_are_refused() {
        let told = |profile: &str| of(SECCOMP, profile).unwrap_err().to_string();
        let without = PROFILE.replace("  capability mknod,\n", "");
        assert!(told(&without).contains("it lacks MKNOD;"), "{}", told(&without));
        let with = PROFILE.replace("capability mknod,", "capability mknod sys_boot,\n  audit capability,");
        assert!(told(&with).contains("it has as well SYS_BOOT, all;"), "{}", told(&with));
        let all = PROFILE.replace("  capability mknod,\n", "  capability mknod,\n  capability,\n");
        assert!(told(&all).contains("it has as well all;"), "{}", told(&all));
    }

    #[test]
    fn no_capability_comes_by_a_comment_or_a_denial() {
        let names = |text| allowed_capabilities(text).collect::<Vec<_>>();
        assert_eq!(names("# capability chown,\n deny capability kill,\n capability fowner, # x"), ["FOWNER"]);
        assert_eq!(names("profile a { capability chown kill, }"), ["CHOWN", "KILL"]);
    }

    #[test]
    fn the_seccomp_profile_says_each_call_once() {
        let told = |from: &str, to: &str| {
            assert!(SECCOMP.contains(from), "{from}");
            format!("{:#}", of(&SECCOMP.replacen(from, to, 1), PROFILE).unwrap_err())
        };
        assert!(told("[\"chroot\"]", "[\"chroot\", \"socket\"]").contains("`socket` is allowed twice"));
        assert!(told("[\"chroot\"]", "[\"chroot\", \"fsopen\"]").contains("`fsopen` is allowed and absent"));
        assert!(told("[[absent]]\nnames", "[[absent]]\nnmes").contains("seccomp.toml` cannot be used"));
    }

    /// Whether the profile of the project allows a call with these arguments.
    fn allows(call: &str, args: [u64; 4]) -> bool {
        let profile: Value = serde_json::from_str(&of(SECCOMP, PROFILE).unwrap().seccomp).unwrap();
        let calls = profile["syscalls"].as_array().unwrap().iter();
        let mut allowed = calls.filter(|it| {
            it["action"] == "SCMP_ACT_ALLOW" && it["names"].as_array().unwrap().contains(&call.into())
        });
        allowed.any(|it| {
            it["args"].as_array().into_iter().flatten().all(|condition| {
                let number = |field: &str| condition[field].as_u64().unwrap();
                let value = args[usize::try_from(number("index")).unwrap()];
                if condition["op"] == "SCMP_CMP_EQ" {
                    value == number("value")
                } else {
                    value & number("value") == number("valueTwo")
                }
            })
        })
    }

    #[test]
    fn no_program_watches_the_machine_and_no_key_of_it_is_read() {
        let (load, attach_to_cgroup, open_tracepoint, make_link) = (5, 8, 17, 28);
        let (join_session, set_permissions, search, read) = (1, 5, 10, 11);
        let with = |call, first: u64| allows(call, [first, 0, 0, 0]);
        assert!(with("bpf", load) && with("bpf", attach_to_cgroup));
        assert!(!with("bpf", open_tracepoint) && !with("bpf", make_link));
        assert!(with("keyctl", join_session) && with("keyctl", set_permissions));
        assert!(!with("keyctl", search) && !with("keyctl", read));
        for call in
            ["perf_event_open", "fanotify_init", "open_by_handle_at", "syslog", "fsopen", "move_mount"]
        {
            assert!(!with(call, 0), "{call}");
        }
    }

    #[test]
    fn nobody_makes_a_device_and_everybody_a_whiteout() {
        const TYPE: u64 = 0o170_000;
        let mknod = |mode: u64, device: u64| {
            let at = allows("mknodat", [0, 0, mode, device]);
            assert_eq!(allows("mknod", [0, mode, device, 0]), at);
            at
        };
        let (character, block, fifo) = (0o020_600, 0o060_600, 0o010_600);
        assert!(character & TYPE == 0o020_000 && block & TYPE == 0o060_000);
        assert!(mknod(0o600, 0) && mknod(fifo, 0) && mknod(character, 0));
        assert!(!mknod(block, 0x800) && !mknod(character, 0x501) && !mknod(block, 0));
        assert!(allows("personality", [0xffff_ffff, 0, 0, 0]) && !allows("personality", [0x4_0000, 0, 0, 0]));
    }

    #[test]
    fn the_name_on_a_node_says_what_is_in_the_profile_of_any_architecture() {
        let name = |text: &str| of(text, PROFILE).unwrap().seccomp_name;
        let elsewhere = Profiles::of(SECCOMP, PROFILE.to_owned(), "aarch64").unwrap();
        assert_eq!(elsewhere.seccomp_name, name(SECCOMP));
        assert_ne!(elsewhere.seccomp, of(SECCOMP, PROFILE).unwrap().seccomp);
        assert!(name(SECCOMP).starts_with("kedge/edge-") && name(SECCOMP).ends_with(".json"));
        for (from, to) in [("\"kcmp\", ", ""), ("\"SCMP_ARCH_AARCH64\", ", "")] {
            assert!(SECCOMP.contains(from), "{from}");
            assert_ne!(name(SECCOMP), name(&SECCOMP.replace(from, to)), "{from}");
        }
    }
}
