//! What the edge really is to the machine, read from inside of it, and compared with its tier.

use serde::Serialize;

use super::Tier;
use super::profiles::{APPARMOR, CAPABILITIES};
use crate::capabilities;

/// Prints, of process 1 of the edge, what [`Proof::read`] reads. On cgroup v2 the limit of memory stands in the cgroup that the
/// container itself has: process 1 has moved into one below that.
pub const SCRIPT: &str = r#"
grep -E '^(CapEff|Seccomp):' /proc/1/status
label=$(cat /proc/1/attr/current 2>/dev/null) && [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] &&
    echo "AppArmor: $label"
sed 's/^/uid_map: /' /proc/1/uid_map
own=$(sed -n 's/^[0-9]*:name=systemd://p' /proc/1/cgroup)
[ -n "$own" ] || own=$(sed -n 's/^0:://p' /proc/1/cgroup)
echo "cgroup: $own"
[ "$(readlink /proc/1/ns/cgroup)" = "$(readlink /proc/self/ns/cgroup)" ] || echo "cgroup namespace: its own"
if grep -q ' /sys/fs/cgroup cgroup2 ' /proc/mounts; then
    echo "cgroups: 2"
    grep -q ' /sys/fs/cgroup cgroup2 [^ ]*nsdelegate' /proc/mounts && echo "nsdelegate: yes" || echo "nsdelegate: no"
    for folder in "/sys/fs/cgroup${own%/init.scope}" /sys/fs/cgroup; do
        [ ! -r "$folder/memory.max" ] || { echo "memory.max: $(cat "$folder/memory.max")"; break; }
    done
else
    echo "cgroups: 1"
    echo "memory.max: $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null)"
fi
"#;

/// On cgroup v1, a limit that is not set is the largest number of pages.
const NO_LIMIT: u64 = 1 << 62;

/// What process 1 of the edge has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Its effective capabilities, as a number of the kernel's.
    #[serde(serialize_with = "hexadecimal")]
    pub cap_eff: u64,
    /// The mode of seccomp: 0 without, 2 with a filter.
    pub seccomp: u8,
    /// Its AppArmor label; none where the kernel has no AppArmor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// First id inside, first id outside, and how many.
    pub uid_map: String,
    /// Its cgroup, as who looks at it sees that.
    pub cgroup: String,
    /// Whether its cgroup is the root of a cgroup namespace.
    pub own_cgroups: bool,
    /// Version of cgroups.
    pub cgroups: u8,
    /// Whether the mount of cgroup v2 has `nsdelegate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nsdelegate: Option<bool>,
    /// The limit of its memory in bytes; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<u64>,
}

fn hexadecimal<S: serde::Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{number:016x}"))
}

/// Whether the container is the root of a cgroup namespace: who looks is in that and sees so, or is in another one than process 1,
/// which has made its own.
fn has_own_cgroups(cgroup: &str, in_another: bool) -> bool {
    in_another || ["/", "/init.scope"].contains(&cgroup)
}

/// What a tier promises of an edge.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    /// The tier.
    pub tier: Tier,
    /// The limit of memory that it was given, in bytes.
    pub memory: Option<u64>,
}

impl Proof {
    /// Reads what [`SCRIPT`] has printed.
    ///
    /// # Errors
    /// What could not be read.
    pub fn read(output: &str) -> Result<Self, String> {
        let value = |name: &str| {
            let mut lines = output.lines().map(str::trim);
            lines
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
                .filter(|it| !it.is_empty())
        };
        let needed = |name: &str| value(name).ok_or_else(|| format!("the edge does not tell its {name}"));
        let unreadable = |name: &str, text: &str| format!("the edge tells {text:?} as its {name}");
        let cap_eff = needed("CapEff")?;
        let seccomp = needed("Seccomp")?;
        let cgroups = needed("cgroups")?;
        let map: Vec<_> = needed("uid_map")?.split_whitespace().collect();
        Ok(Self {
            cap_eff: u64::from_str_radix(cap_eff, 16).map_err(|_| unreadable("CapEff", cap_eff))?,
            seccomp: seccomp.parse().map_err(|_| unreadable("Seccomp", seccomp))?,
            apparmor: value("AppArmor").map(str::to_owned),
            uid_map: map.join(" "),
            own_cgroups: has_own_cgroups(
                value("cgroup").unwrap_or_default(),
                value("cgroup namespace").is_some(),
            ),
            cgroup: value("cgroup").unwrap_or_default().to_owned(),
            cgroups: cgroups.parse().map_err(|_| unreadable("cgroups", cgroups))?,
            nsdelegate: value("nsdelegate").map(|it| it == "yes"),
            memory_max: value("memory.max").and_then(|it| it.parse().ok()).filter(|bytes| *bytes < NO_LIMIT),
        })
    }

    /// Whether root in the edge is somebody else on the machine.
    fn is_mapped(&self) -> bool {
        self.uid_map.split(' ').nth(1).is_some_and(|outside| outside != "0")
    }

    /// In what the edge is not what its tier promises; nothing when it is.
    #[must_use]
    pub fn broken_promises(&self, promise: &Promise) -> Vec<String> {
        let mut broken = Vec::new();
        let mut demand = |holds: bool, text: String| {
            if !holds {
                broken.push(text);
            }
        };
        let tier = promise.tier;
        if matches!(tier, Tier::Userns | Tier::Sysbox) {
            let map = &self.uid_map;
            demand(self.is_mapped(), format!("root in the edge is root on the machine (uid_map {map})"));
        }
        if matches!(tier, Tier::Userns | Tier::Confined) {
            demand(self.cap_eff == capabilities::mask(&CAPABILITIES), self.other_capabilities());
        }
        if tier != Tier::Privileged {
            demand(self.seccomp == 2, format!("no seccomp filter holds (mode {})", self.seccomp));
            demand(
                self.own_cgroups || self.cgroups == 1,
                format!("it sees the cgroups of the machine (its own is {})", self.cgroup),
            );
        }
        if let (Tier::Confined, Some(label)) = (tier, &self.apparmor) {
            let expected = format!("{APPARMOR} (enforce)");
            demand(*label == expected, format!("its AppArmor label is `{label}` and not `{expected}`"));
        }
        if let Some(limit) = promise.memory {
            let found = self.memory_max.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string());
            // The kernel counts in pages.
            let holds = self.memory_max.is_some_and(|bytes| bytes <= limit);
            demand(holds, format!("its limit of memory is {found} and not {limit}"));
        }
        broken
    }

    fn other_capabilities(&self) -> String {
        let wanted = capabilities::mask(&CAPABILITIES);
        let list = |set: u64| {
            let names = capabilities::names(set);
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        format!(
            "its capabilities are not those of the tier: beyond them {}, of them lacking {}",
            list(self.cap_eff & !wanted),
            list(wanted & !self.cap_eff)
        )
    }

    /// What it lacks without breaking a promise.
    #[must_use]
    pub fn gaps(&self, tier: Tier) -> Vec<&'static str> {
        let mut gaps = Vec::new();
        if tier == Tier::Confined {
            if self.apparmor.is_none() {
                gaps.push("no AppArmor");
            }
            if self.nsdelegate == Some(false) {
                gaps.push("no nsdelegate, so that it can lift its own limits");
            }
            if !self.own_cgroups {
                gaps.push("no cgroup namespace");
            }
        }
        gaps
    }

    /// All of it in one line.
    #[must_use]
    pub fn words(&self, tier: Tier) -> String {
        let seccomp = if self.seccomp == 2 { "seccomp filter" } else { "no seccomp" };
        let apparmor = match self.apparmor.as_deref() {
            Some(label) => format!(", AppArmor {label}"),
            None => String::new(),
        };
        let users = if self.is_mapped() {
            format!("root is {} outside", self.uid_map.split(' ').nth(1).unwrap_or_default())
        } else {
            "root is root outside".to_owned()
        };
        let cgroups = if self.own_cgroups { "cgroups of its own" } else { "cgroups of the machine" };
        let memory = self.memory_max.map(|bytes| format!(", memory.max {bytes}")).unwrap_or_default();
        let gaps = self.gaps(tier);
        let gaps = if gaps.is_empty() { String::new() } else { format!(" ({})", gaps.join(", ")) };
        format!(
            "{tier}{gaps}: {} capabilities, {seccomp}{apparmor}, {users}, {cgroups}{memory}",
            self.cap_eff.count_ones()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFINED: &str = "\
CapEff:\t00000000a82c35fb
Seccomp:\t2
AppArmor: kedge-edge (enforce)
uid_map:          0          0 4294967295
cgroup: /init.scope
cgroups: 2
nsdelegate: yes
memory.max: 536870912
";

    fn broken(output: &str, tier: Tier, memory: Option<u64>) -> Vec<String> {
        Proof::read(output).unwrap().broken_promises(&Promise { tier, memory })
    }

    #[test]
    fn what_is_as_it_should_be_is_proved() {
        assert_eq!(broken(CONFINED, Tier::Confined, Some(512 << 20)), [""; 0]);
        assert_eq!(broken(CONFINED, Tier::Privileged, None), [""; 0]);
        let mapped = CONFINED.replace("0          0 4294967295", "0     100000      65536");
        let mapped = mapped.replace("kedge-edge (enforce)", "unconfined");
        assert_eq!(broken(&mapped, Tier::Userns, None), [""; 0]);
        let proof = Proof::read(CONFINED).unwrap();
        assert_eq!(
            proof.words(Tier::Confined),
            "confined: 17 capabilities, seccomp filter, AppArmor kedge-edge (enforce), root is root outside, cgroups of its own, \
             memory.max 536870912"
        );
        assert_eq!(serde_json::to_value(&proof).unwrap()["capEff"], "00000000a82c35fb");
    }

    #[test]
    fn every_promise_can_be_broken() {
        for (from, to, tier, expected) in [
            ("a82c35fb", "a82c35fa", Tier::Confined, "beyond them none, of them lacking CAP_CHOWN"),
            ("a82c35fb", "000001ffffffffff", Tier::Confined, "beyond them CAP_DAC_READ_SEARCH"),
            ("Seccomp:\t2", "Seccomp:\t0", Tier::Confined, "no seccomp filter"),
            ("kedge-edge (enforce)", "kedge-edge (complain)", Tier::Confined, "`kedge-edge (complain)`"),
            ("kedge-edge (enforce)", "unconfined", Tier::Confined, "`unconfined`"),
            (
                "/init.scope",
                "/system.slice/docker-1.scope/init.scope",
                Tier::Confined,
                "cgroups of the machine",
            ),
            ("uid_map", "uid_map", Tier::Userns, "root in the edge is root on the machine"),
            ("uid_map", "uid_map", Tier::Sysbox, "root in the edge is root on the machine"),
            ("memory.max: 536870912", "memory.max: max", Tier::Confined, "its limit of memory is none"),
            (
                "memory.max: 536870912",
                "memory.max: 1073741824",
                Tier::Privileged,
                "its limit of memory is 1073741824",
            ),
        ] {
            assert!(CONFINED.contains(from), "{from}");
            let found = broken(&CONFINED.replacen(from, to, 1), tier, Some(512 << 20));
            assert!(found.len() == 1 && found[0].contains(expected), "{to}: {found:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_a_gap_and_no_broken_promise() {
        let old = "CapEff:\ta82c35fb\nSeccomp:\t2\nuid_map: 0 0 4294967295\ncgroup: /kubepods/pod1/init.scope\ncgroups: 1\n\
                   memory.max: 9223372036854771712\n";
        assert_eq!(broken(old, Tier::Confined, None), [""; 0]);
        let proof = Proof::read(old).unwrap();
        assert_eq!(proof.gaps(Tier::Confined), ["no AppArmor", "no cgroup namespace"]);
        assert_eq!((proof.memory_max, proof.nsdelegate), (None, None));
        let own = Proof::read(&format!("{old}cgroup namespace: its own\n")).unwrap();
        assert_eq!(own.gaps(Tier::Confined), ["no AppArmor"]);
        let stripped = Proof::read(&CONFINED.replace("nsdelegate: yes", "nsdelegate: no")).unwrap();
        assert!(stripped.gaps(Tier::Confined)[0].starts_with("no nsdelegate"));
    }

    #[test]
    fn an_edge_that_does_not_tell_is_not_believed() {
        for line in ["CapEff", "Seccomp", "uid_map", "cgroups"] {
            let silent: String =
                CONFINED.lines().filter(|it| !it.starts_with(line)).map(|it| format!("{it}\n")).collect();
            assert!(Proof::read(&silent).unwrap_err().contains(line), "{line}");
        }
        assert!(Proof::read(&CONFINED.replace("a82c35fb", "x")).is_err());
    }
}
