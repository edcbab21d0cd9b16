//! What decides about tiers of containers on an engine, and the profiles that confine them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use rustix::fs::Access;
use sha2::{Digest, Sha256};

use super::answer::Refusal;
use super::spec::{Named, Rights};
use super::{Engine, EngineKind};
use crate::capabilities;
use crate::paths::write_private;
use crate::process::{Process, find_on_path};
use crate::tier::facts::{AppArmor, Host, Version};
use crate::tier::judge::decide;
use crate::tier::profiles::APPARMOR;
use crate::tier::{Choice, Facts, Profiles, Tier};

/// The runtime of Sysbox.
pub const SYSBOX: &str = "sysbox-runc";
const PARSER: &str = "apparmor_parser";
/// Which profiles the kernel has; only root may read it, and where securityfs is not mounted, as in a container, nobody.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Where a profile is put into the kernel.
const REPLACE: &str = "/sys/kernel/security/apparmor/.replace";
/// `Y` where the profiles stay as they are until the machine starts again.
const LOCKED: &str = "/sys/module/apparmor/parameters/lock_policy";

/// What this machine says of itself, which counts where the engine is on it.
#[derive(Debug, Default)]
struct Machine {
    /// Whether that is where the engine is.
    has_engine: bool,
    mounts: String,
    is_root: bool,
    has_parser: bool,
    /// The profiles that the kernel has, if one may know.
    profiles: Option<String>,
    /// Whether the kernel would take a profile from this process.
    takes_profiles: bool,
    subordinate_ids: String,
}

impl Machine {
    fn look(engine: EngineKind, kernel: &str) -> Self {
        let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
        let host = std::env::var("DOCKER_HOST").ok();
        // A socket of this machine may lead to another one, as that of Docker Desktop does.
        let is_here = engine == EngineKind::Podman
            || (host.is_none_or(|host| host.starts_with("unix://"))
                && read("/proc/sys/kernel/osrelease").trim() == kernel);
        Self {
            has_engine: is_here,
            mounts: read("/proc/mounts"),
            is_root: rustix::process::geteuid().is_root(),
            has_parser: parser().is_some(),
            profiles: fs_err::read_to_string(LOADED).ok(),
            takes_profiles: rustix::fs::access(REPLACE, Access::WRITE_OK).is_ok()
                && capabilities::has("MAC_ADMIN")
                && read(LOCKED).trim() != "Y",
            subordinate_ids: read("/etc/subuid"),
        }
    }

    /// Whether the mount of cgroup v2 has `nsdelegate`.
    fn nsdelegate(&self) -> Option<bool> {
        let mut mounts = self.mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let options = mounts.find_map(|fields| match fields.as_slice() {
            [_, "/sys/fs/cgroup", "cgroup2", options, ..] => Some((*options).to_owned()),
            _ => None,
        })?;
        Some(options.split(',').any(|option| option == "nsdelegate"))
    }

    /// Why no profile can be loaded from here into the kernel under the engine; nothing when one can.
    fn hindrance(&self) -> Option<&'static str> {
        Some(match self {
            Self { has_engine: false, .. } => "the engine is on another machine",
            Self { is_root: false, .. } => "only root can",
            Self { profiles: None, .. } => {
                "the kernel shows no profiles here: securityfs is not mounted, or this is a container"
            }
            Self { takes_profiles: false, .. } => {
                "the kernel takes no profiles from here: this process lacks CAP_MAC_ADMIN, or the profiles are locked"
            }
            Self { has_parser: false, .. } => {
                "there is no `apparmor_parser` here; Debian's package `apparmor` has it"
            }
            _ => return None,
        })
    }

    /// Whether the profile is in the kernel under the engine, if one may know.
    fn has_profile(&self) -> Option<bool> {
        let loaded = format!("{APPARMOR} (");
        let profiles = self.profiles.as_ref().filter(|_| self.has_engine)?;
        Some(profiles.lines().any(|line| line.starts_with(&loaded)))
    }

    fn apparmor(&self) -> AppArmor {
        match self.hindrance() {
            Some(reason) if self.has_profile() != Some(true) => AppArmor::NotLoaded(reason.to_owned()),
            _ => AppArmor::Ready,
        }
    }
}

/// What follows from what the engine says, and from what the machine does.
fn facts(kind: EngineKind, info: &SystemInfo, machine: &Machine) -> Facts {
    let options = info.security_options.as_deref().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.split(',').next() == Some(name));
    let rootless = has("name=rootless");
    Facts {
        host: match kind {
            EngineKind::Docker => Host::Docker { remaps: has("name=userns"), rootless },
            EngineKind::Podman => {
                let has_ids = machine.subordinate_ids.lines().any(|line| line.starts_with("containers:"));
                Host::Podman { has_ids, rootless }
            }
        },
        kernel: info.kernel_version.as_deref().and_then(Version::of),
        cgroups: match info.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_1) => Some(1),
            Some(SystemInfoCgroupVersionEnum::_2) => Some(2),
            _ => None,
        },
        nsdelegate: if machine.has_engine { machine.nsdelegate() } else { None },
        apparmor: if has("name=apparmor") { machine.apparmor() } else { AppArmor::Off },
        sysbox: info
            .runtimes
            .as_ref()
            .is_some_and(|runtimes| runtimes.contains_key(SYSBOX))
            .then(|| SYSBOX.to_owned()),
    }
}

/// The program that loads AppArmor profiles. It is where an ordinary user's `PATH` does not lead.
fn parser() -> Option<PathBuf> {
    let usual = || ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(PARSER));
    find_on_path(PARSER).or_else(|| usual().into_iter().find(|path| path.exists()))
}

/// Whether the engine says with these words that the kernel does not know the AppArmor profile: runc and crun hand on what the
/// kernel said when they wrote the name of the profile, newer ones and Podman say it themselves.
fn says_unknown_profile(words: &str) -> bool {
    let words = words.to_lowercase();
    (words.contains("/attr/") && words.contains("no such file or directory"))
        || (words.contains("apparmor") && words.contains("not loaded"))
}

impl Engine {
    /// What decides about the tiers of containers here, as the engine and this machine say it.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn facts(&self) -> Result<Facts> {
        let (info, machine) = self.asked().await?;
        Ok(facts(self.kind, &info, &machine))
    }

    /// The same, for a container that is to get such a tier. Whether the AppArmor profile is there is tried out where only that
    /// tells, and once: the tool itself loads the profile only where nothing has to be tried.
    ///
    /// # Errors
    /// When the engine does not answer, or cannot run a container for another reason than that profile.
    pub async fn tried_facts(&self, choice: Choice) -> Result<Facts> {
        let (info, machine) = self.asked().await?;
        let mut facts = facts(self.kind, &info, &machine);
        let is_open = matches!(facts.apparmor, AppArmor::NotLoaded(_)) && machine.has_profile().is_none();
        // Somebody may have loaded it who was allowed to.
        let ready = Facts { apparmor: AppArmor::Ready, ..facts.clone() };
        let would_go_by_it = decide(&ready, choice).is_ok_and(|decision| decision.tier == Tier::Confined);
        if is_open && would_go_by_it && *self.profile_tried.get_or_try_init(|| self.try_profile()).await? {
            facts.apparmor = AppArmor::Ready;
        }
        Ok(facts)
    }

    async fn asked(&self) -> Result<(SystemInfo, Machine)> {
        let info = self.docker.info().await.map_err(|error| self.told(error));
        let info = info.context("the container engine does not tell what it is like")?;
        let machine = Machine::look(self.kind, info.kernel_version.as_deref().unwrap_or_default());
        Ok((info, machine))
    }

    /// Whether a container can be confined by the AppArmor profile.
    async fn try_profile(&self) -> Result<bool> {
        let named = Named { apparmor: Some(APPARMOR), ..Named::default() };
        let Err(error) = self.try_rights(Rights::Named(named)).await else { return Ok(true) };
        let refusal = error.chain().find_map(|cause| cause.downcast_ref::<Refusal>());
        match refusal {
            Some(Refusal::Answered { message, .. }) if says_unknown_profile(message) => Ok(false),
            _ => Err(error.context(format!(
                "failed to find out with a container whether the AppArmor profile `{APPARMOR}` is loaded, by which the tier \
                 `{}` goes",
                Tier::Confined
            ))),
        }
    }

    /// Loads the AppArmor profile into the kernel, where that can be done from here. Where it cannot, it has been seen to be there.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn load_profile(&self, profiles: &Profiles) -> Result<()> {
        let (_, machine) = self.asked().await?;
        let Some(parser) = parser().filter(|_| machine.hindrance().is_none()) else { return Ok(()) };
        let load = Process::new(format!("load the AppArmor profile `{APPARMOR}`"), parser)
            .args(["--replace", "--skip-cache", "--quiet"])
            .input(profiles.apparmor.as_bytes());
        Ok(load.read().await.map(drop)?)
    }

    /// How this engine is told a seccomp profile: Docker by its text, Podman by the path of a file.
    ///
    /// # Errors
    /// When that file cannot be written.
    pub(super) fn seccomp_option(&self, rights: &Rights) -> Result<Option<String>> {
        let Rights::Named(Named { seccomp, .. }) = rights else { return Ok(None) };
        if seccomp.is_empty() {
            return Ok(None);
        }
        if self.kind == EngineKind::Docker {
            return Ok(Some(seccomp.clone()));
        }
        let hash = hex::encode(&Sha256::digest(seccomp)[..4]);
        let path = self.folder.join(format!("seccomp-{hash}.json"));
        write_private(&path, seccomp.as_bytes())?;
        Ok(Some(path.display().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILES: &str = "docker-default (enforce)\nother (enforce)\n";

    fn info(options: &[&str], cgroups: SystemInfoCgroupVersionEnum) -> SystemInfo {
        SystemInfo {
            security_options: Some(options.iter().map(ToString::to_string).collect()),
            cgroup_version: Some(cgroups),
            kernel_version: Some("6.1.0-28-cloud-amd64".into()),
            ..SystemInfo::default()
        }
    }

    fn machine() -> Machine {
        Machine {
            has_engine: true,
            is_root: true,
            has_parser: true,
            takes_profiles: true,
            profiles: Some(PROFILES.into()),
            mounts: "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate,memory_recursiveprot 0 0\n".into(),
            ..Machine::default()
        }
    }

    #[test]
    fn an_engine_is_known_by_what_it_says() {
        let all = ["name=apparmor", "name=seccomp,profile=default", "name=cgroupns", "name=userns"];
        let found = facts(EngineKind::Docker, &info(&all, SystemInfoCgroupVersionEnum::_2), &machine());
        assert_eq!(found.host, Host::Docker { remaps: true, rootless: false });
        assert_eq!(
            (found.kernel, found.cgroups, found.nsdelegate),
            (Some(Version(6, 1)), Some(2), Some(true))
        );
        assert_eq!((found.apparmor, found.sysbox), (AppArmor::Ready, None));
        let few = info(&["name=rootless"], SystemInfoCgroupVersionEnum::_1);
        let ids = Machine { subordinate_ids: "user:1:1\ncontainers:1:1\n".into(), ..machine() };
        let found = facts(EngineKind::Podman, &few, &ids);
        assert_eq!(found.host, Host::Podman { has_ids: true, rootless: true });
        assert_eq!((found.cgroups, found.apparmor), (Some(1), AppArmor::Off));
    }

    #[test]
    fn a_mount_without_the_option_is_found() {
        let stripped = Machine { mounts: machine().mounts.replace("nsdelegate,", ""), ..machine() };
        assert_eq!(stripped.nsdelegate(), Some(false));
        assert_eq!(Machine::default().nsdelegate(), None);
        let elsewhere = Machine { has_engine: false, ..stripped };
        let info = info(&["name=apparmor"], SystemInfoCgroupVersionEnum::_2);
        assert_eq!(facts(EngineKind::Docker, &info, &elsewhere).nsdelegate, None);
    }

    #[test]
    fn a_profile_is_ready_where_it_is_loaded_or_can_be() {
        let loaded = || Machine { profiles: Some(PROFILES.replace("other", APPARMOR)), ..machine() };
        for machine in [
            machine(),
            Machine { is_root: false, ..loaded() },
            Machine { has_parser: false, ..loaded() },
            Machine { takes_profiles: false, ..loaded() },
        ] {
            assert_eq!(machine.apparmor(), AppArmor::Ready, "{machine:?}");
        }
        for (machine, expected) in [
            (Machine { is_root: false, profiles: None, ..machine() }, "only root can"),
            (Machine { profiles: None, ..machine() }, "securityfs is not mounted"),
            (Machine { takes_profiles: false, ..machine() }, "lacks CAP_MAC_ADMIN"),
            (Machine { has_parser: false, ..machine() }, "package `apparmor`"),
            (Machine { has_engine: false, ..loaded() }, "on another machine"),
        ] {
            let AppArmor::NotLoaded(reason) = machine.apparmor() else { panic!("{machine:?}") };
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn whether_the_profile_is_loaded_has_to_be_tried_where_the_kernel_does_not_show_it() {
        assert_eq!(machine().has_profile(), Some(false));
        assert_eq!(Machine { profiles: None, ..machine() }.has_profile(), None);
        assert_eq!(
            Machine { has_engine: false, ..machine() }.has_profile(),
            None,
            "of this kernel, it says nothing"
        );
    }

    /// As Docker 20.10, Docker 23, crun, newer crun and Podman have said it, and what they have said of other things.
    #[test]
    fn only_an_unknown_profile_is_taken_for_one() {
        for words in [
            "OCI runtime create failed: container_linux.go:380: starting container process caused: process_linux.go:545: \
             container init caused: apply apparmor profile: apparmor failed to apply profile: write /proc/self/attr/exec: \
             no such file or directory: unknown",
            "unable to apply apparmor profile: apparmor failed to apply profile: write /proc/self/attr/apparmor/exec: no such \
             file or directory: unknown",
            "crun: write file `/proc/thread-self/attr/exec`: No such file or directory: OCI runtime attempted to invoke a \
             command that was not found",
            "crun: apply apparmor profile `kedge-edge`: profile not loaded: OCI runtime error",
            "AppArmor profile \"kedge-edge\" specified but not loaded",
        ] {
            assert!(says_unknown_profile(words), "{words}");
        }
        for words in [
            "No such image: localhost/kedge/probe:1",
            "exec /exit: no such file or directory",
            "apparmor failed to apply profile: write /proc/self/attr/exec: permission denied",
            "toomanyrequests: try later",
        ] {
            assert!(!says_unknown_profile(words), "{words}");
        }
    }
}
