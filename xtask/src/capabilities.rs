//! The capabilities of the kernel by name and number, and which of them nobody on this machine can have, because its bounding
//! set lacks them. An engine that asks for every capability that the kernel knows cannot run a privileged container then.

/// Every capability by its number (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities that this machine lacks; none when it cannot be told.
#[must_use]
pub fn missing() -> Vec<String> {
    let read = |path| fs_err::read_to_string(path).unwrap_or_default();
    missing_in(&read("/proc/self/status"), &read("/proc/sys/kernel/cap_last_cap")).unwrap_or_default()
}

/// What the bounding set in the text of `/proc/<pid>/status` lacks, up to the last capability of the kernel.
fn missing_in(status: &str, last: &str) -> Option<Vec<String>> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    let last: u32 = last.trim().parse().ok().filter(|last| *last < u64::BITS)?;
    let lacking = (0..=last).filter(|number| set & (1 << number) == 0);
    Some(lacking.map(name).collect())
}

/// Whether this process may use a capability, which is named without `CAP_`.
#[must_use]
pub fn has(name: &str) -> bool {
    has_in(&fs_err::read_to_string("/proc/self/status").unwrap_or_default(), name)
}

fn has_in(status: &str, name: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & mask(&[name]) != 0)
}

/// The set of these, which are named without `CAP_`, as the kernel has it.
#[must_use]
pub fn mask(names: &[&str]) -> u64 {
    let numbers = NAMES.iter().zip(0_u32..).filter(|(name, _)| names.contains(name));
    numbers.fold(0, |set, (_, number)| set | 1 << number)
}

/// What is in such a set.
#[must_use]
pub fn names(set: u64) -> Vec<String> {
    (0..u64::BITS).filter(|number| set & (1 << number) != 0).map(name).collect()
}

fn name(number: u32) -> String {
    let known = usize::try_from(number).ok().and_then(|index| NAMES.get(index));
    known.map_or_else(|| format!("capability {number}"), |name| format!("CAP_{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bounding_set_lacks_is_named() {
        let lacking = |set: &str, last: &str| missing_in(&format!("CapEff:\t0\nCapBnd:\t{set}\n"), last);
        assert_eq!(lacking("000001fffeffffff", "40\n").unwrap(), ["CAP_SYS_RESOURCE"]);
        assert_eq!(lacking("000001ffffffffff", "40\n").unwrap(), [""; 0]);
        assert_eq!(lacking("000000ffffffffff", "40\n").unwrap(), ["CAP_CHECKPOINT_RESTORE"]);
        assert_eq!(lacking("000001ffffffffff", "41\n").unwrap(), ["capability 41"]);
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        assert_eq!(mask(&["CHOWN", "SYS_ADMIN"]), 0x20_0001);
        assert_eq!(names(0x20_0001), ["CAP_CHOWN", "CAP_SYS_ADMIN"]);
        assert_eq!(names(1 << 60), ["capability 60"]);
    }

    #[test]
    fn only_a_capability_that_takes_effect_may_be_used() {
        let status = "CapPrm:\t000001ffffffffff\nCapEff:\t0000000200000000\nCapBnd:\t000001ffffffffff\n";
        assert!(has_in(status, "MAC_ADMIN") && !has_in(status, "SYS_ADMIN"));
        assert!(!has_in("", "MAC_ADMIN"));
    }

    #[test]
    fn what_cannot_be_told_is_not_claimed() {
        assert_eq!(missing_in("", "40"), None);
        assert_eq!(missing_in("CapBnd:\tx\n", "40"), None);
        assert_eq!(missing_in("CapBnd:\t1\n", "64"), None);
    }
}
