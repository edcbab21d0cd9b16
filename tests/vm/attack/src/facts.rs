//! What confines this process, as the kernel tells it; and which part of that an error comes from.

use std::fmt;
use std::io;

use crate::attempts::Attempt;
use crate::read;

/// A capability, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capability(pub(crate) u8, pub(crate) &'static str);

pub(crate) const DAC_READ_SEARCH: Capability = Capability(2, "CAP_DAC_READ_SEARCH");
pub(crate) const SYS_MODULE: Capability = Capability(16, "CAP_SYS_MODULE");
pub(crate) const SYS_RAWIO: Capability = Capability(17, "CAP_SYS_RAWIO");
pub(crate) const SYS_ADMIN: Capability = Capability(21, "CAP_SYS_ADMIN");
pub(crate) const SYS_TIME: Capability = Capability(25, "CAP_SYS_TIME");
pub(crate) const MKNOD: Capability = Capability(27, "CAP_MKNOD");
pub(crate) const SYSLOG: Capability = Capability(34, "CAP_SYSLOG");

/// Steps that are system calls which the edge's filter leaves out. It is asked before anybody else.
const FILTERED: [&str; 9] = [
    "attach a program",
    "fanotify",
    "keyctl",
    "load a module",
    "mknod",
    "open by handle",
    "perf_event_open",
    "read the log",
    "set the clock",
];

/// What confines this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The capabilities in effect, a bit each.
    pub(crate) capabilities: u64,
    /// The kernel's number for how system calls are filtered; 2 is by a program.
    pub(crate) seccomp: String,
    /// The label of AppArmor.
    pub(crate) label: String,
    /// How the users of this namespace are mapped, in one line.
    pub(crate) uid_map: String,
    /// The most memory that the container may use.
    pub(crate) memory_max: String,
}

impl Facts {
    pub(crate) fn read() -> io::Result<Self> {
        let status = read("/proc/self/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
                .ok_or_else(|| io::Error::other(format!("/proc/self/status has no {name}")))
        };
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self {
            capabilities: u64::from_str_radix(&field("CapEff")?, 16).map_err(io::Error::other)?,
            seccomp: field("Seccomp")?,
            label: one_line(read("/proc/self/attr/current")?).trim_end_matches('\0').to_owned(),
            uid_map: one_line(read("/proc/self/uid_map")?),
            // The root of a machine's own hierarchy has no such file.
            memory_max: read("/sys/fs/cgroup/memory.max").map_or_else(|_| "-".into(), one_line),
        })
    }

    fn has(&self, capability: Capability) -> bool {
        self.capabilities & (1 << capability.0) != 0
    }

    /// Whether the root of this container is somebody else outside of it.
    fn is_in_user_namespace(&self) -> bool {
        self.uid_map != "0 0 4294967295"
    }

    fn is_confined(&self) -> bool {
        self.label.ends_with("(enforce)")
    }

    /// What an error comes from. The kernel does not tell, so this goes by the order in which it asks.
    pub(crate) fn stopped_by(&self, attempt: &Attempt, step: &str, error: &io::Error) -> String {
        let code = error.raw_os_error().unwrap_or_default();
        match code {
            libc::EROFS => return "read-only mount".into(),
            libc::ENOSYS => return "seccomp".into(),
            libc::EPERM if self.seccomp == "2" && FILTERED.contains(&step) => return "seccomp".into(),
            // Nobody says no: what is attacked is not there, or leads nowhere.
            0 | libc::ENOENT | libc::ENODEV | libc::ENXIO => return attempt.else_by.into(),
            _ => {}
        }
        // Of files and mounts, AppArmor says EACCES, before the kernel asks for capabilities.
        if code == libc::EACCES && self.is_confined() {
            return "AppArmor".into();
        }
        // What asks for no capability is refused in the same way to everybody.
        if code == libc::EPERM && attempt.needs.is_empty() {
            return attempt.else_by.into();
        }
        if self.is_in_user_namespace() && matches!(code, libc::EACCES | libc::EPERM) {
            return "user namespace".into();
        }
        match attempt.needs {
            [first, ..] if !attempt.needs.iter().any(|capability| self.has(*capability)) => {
                format!("no {}", first.1)
            }
            _ => attempt.else_by.into(),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capabilities, seccomp, label, uid_map, memory_max } = self;
        writeln!(f, "fact\tCapEff\t{capabilities:016x}")?;
        for (name, value) in
            [("Seccomp", seccomp), ("AppArmor", label), ("uid_map", uid_map), ("memory.max", memory_max)]
        {
            writeln!(f, "fact\t{name}\t{value}")?;
        }
        Ok(())
    }
}

/// The kernel's name of an error.
pub(crate) fn name_of(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        None => return "-".into(),
        Some(libc::EPERM) => "EPERM",
        Some(libc::EACCES) => "EACCES",
        Some(libc::EROFS) => "EROFS",
        Some(libc::EBUSY) => "EBUSY",
        Some(libc::ENOENT) => "ENOENT",
        Some(libc::ENODEV) => "ENODEV",
        Some(libc::ENXIO) => "ENXIO",
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::EIO) => "EIO",
        Some(libc::EAGAIN) => "EAGAIN",
        Some(libc::ENOSYS) => "ENOSYS",
        Some(libc::EUSERS) => "EUSERS",
        Some(libc::ENOSPC) => "ENOSPC",
        Some(other) => return format!("errno {other}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempts::ATTEMPTS;

    fn facts(capabilities: u64, label: &str, uid_map: &str) -> Facts {
        Facts {
            capabilities,
            seccomp: "2".into(),
            label: label.into(),
            uid_map: uid_map.into(),
            memory_max: "max".into(),
        }
    }

    #[test]
    fn an_error_is_put_down_to_what_the_kernel_asks_first() {
        let all = u64::MAX;
        let own = "0 0 4294967295";
        let at = |facts: &Facts, name: &str, step, code| {
            let attempt = ATTEMPTS.iter().find(|attempt| attempt.name == name).unwrap();
            facts.stopped_by(attempt, step, &io::Error::from_raw_os_error(code))
        };
        let by = |facts: &Facts, name: &str, code| at(facts, name, "write", code);
        let confined = facts(0xa82425fb & !(1 << 27), "kedge-edge (enforce)", own);
        assert_eq!(by(&confined, "debugfs", libc::EACCES), "AppArmor");
        assert_eq!(by(&confined, "mknod-host-disk", libc::EPERM), "no CAP_MKNOD");
        assert_eq!(at(&confined, "mknod-host-disk", "mknod", libc::EPERM), "seccomp");
        assert_eq!(at(&confined, "trace-kernel", "attach a program", libc::EPERM), "seccomp");
        assert_eq!(by(&confined, "sysrq-direct", libc::EROFS), "read-only mount");
        assert_eq!(by(&confined, "debugfs-newer-way", libc::ENOSYS), "seccomp");
        assert_eq!(by(&confined, "own-memory-limit", libc::EPERM), "cgroup namespace (nsdelegate)");
        let mapped = facts(all, "unconfined", "0 100000 65536");
        assert_eq!(by(&mapped, "debugfs", libc::EPERM), "user namespace");
        assert_eq!(at(&mapped, "trace-kernel", "load a program", libc::EPERM), "user namespace");
        assert_eq!(by(&mapped, "sysrq-unmasked", libc::EACCES), "user namespace");
        assert_eq!(by(&mapped, "parent-namespace", libc::EPERM), "PID namespace");
        let privileged = facts(all, "unconfined", own);
        assert_eq!(by(&privileged, "parent-namespace", libc::EPERM), "PID namespace");
    }
}
