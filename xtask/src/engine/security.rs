//! What decides about tiers of containers on an engine, and the profiles that confine them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use sha2::{Digest, Sha256};

use super::spec::{Named, Rights};
use super::{Engine, EngineKind};
use crate::paths::write_private;
use crate::process::{Process, find_on_path};
use crate::tier::facts::{AppArmor, Host, Version};
use crate::tier::profiles::APPARMOR;
use crate::tier::{Facts, Profiles};

/// The runtime of Sysbox.
pub const SYSBOX: &str = "sysbox-runc";
const PARSER: &str = "apparmor_parser";
/// Which profiles the kernel has; only root may read it.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

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

    fn apparmor(&self) -> AppArmor {
        let loaded = format!("{APPARMOR} (");
        let is_loaded =
            self.profiles.iter().flat_map(|text| text.lines()).any(|line| line.starts_with(&loaded));
        let not_loaded = |reason: &str| AppArmor::NotLoaded(reason.to_owned());
        match self {
            Self { has_engine: false, .. } => not_loaded("the engine is on another machine"),
            Self { is_root: true, has_parser: true, .. } => AppArmor::Ready,
            _ if is_loaded => AppArmor::Ready,
            Self { is_root: false, .. } => not_loaded("only root can"),
            Self { has_parser: false, .. } => {
                not_loaded("there is no `apparmor_parser` here; Debian's package `apparmor` has it")
            }
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

impl Engine {
    /// What decides about the tiers of containers here.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn facts(&self) -> Result<Facts> {
        let info = self.docker.info().await.map_err(|error| self.told(error));
        let info = info.context("the container engine does not tell what it is like")?;
        let machine = Machine::look(self.kind, info.kernel_version.as_deref().unwrap_or_default());
        let mut facts = facts(self.kind, &info, &machine);
        // Somebody may have loaded the profile who was allowed to.
        if let (AppArmor::NotLoaded(_), None) = (&facts.apparmor, &machine.profiles) {
            let named = Named { apparmor: Some(APPARMOR), ..Named::default() };
            if self.try_rights(Rights::Named(named)).await.is_ok() {
                facts.apparmor = AppArmor::Ready;
            }
        }
        Ok(facts)
    }

    /// Loads the AppArmor profile into the kernel, where that is this machine's and this is root. Where it is not, it has been
    /// seen to be there.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn load_profile(&self, profiles: &Profiles) -> Result<()> {
        let Some(parser) = parser().filter(|_| rustix::process::geteuid().is_root()) else { return Ok(()) };
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
        let loaded = || Some("docker-default (enforce)\nkedge-edge (enforce)\n".to_owned());
        assert_eq!(machine().apparmor(), AppArmor::Ready);
        assert_eq!(Machine { is_root: false, profiles: loaded(), ..machine() }.apparmor(), AppArmor::Ready);
        assert_eq!(
            Machine { has_parser: false, profiles: loaded(), ..machine() }.apparmor(),
            AppArmor::Ready
        );
        for (machine, expected) in [
            (Machine { is_root: false, ..machine() }, "only root can"),
            (Machine { has_parser: false, ..machine() }, "package `apparmor`"),
            (Machine { has_engine: false, ..machine() }, "on another machine"),
        ] {
            let AppArmor::NotLoaded(reason) = machine.apparmor() else { panic!("{machine:?}") };
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
