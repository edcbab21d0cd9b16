//! From facts to a tier: the strongest that works, with the reason why each stronger one does not.

use std::fmt;

use super::facts::{AppArmor, Cluster, Facts, Host, Version};
use super::{Choice, Tier};

/// What can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The tier.
    pub tier: Tier,
    /// What it lacks there, of what it has elsewhere.
    pub gaps: Vec<String>,
    /// Why each stronger one is not taken; none where the user has named the tier.
    pub stronger: Vec<(Tier, String)>,
}

impl Decision {
    /// The same for an edge that is there and was made for the tier `before`: where nobody has named a tier, an edge does not get
    /// less than it has.
    ///
    /// # Errors
    /// [`Unobtainable::Weaker`] when this is a weaker one.
    pub fn for_one_made_in(self, before: Option<Tier>) -> Result<Self, Unobtainable> {
        let given_up = self.stronger.iter().find(|(tier, _)| Some(*tier) == before);
        match given_up {
            Some((before, reason)) => {
                Err(Unobtainable::Weaker { before: *before, now: self.tier, reason: reason.clone() })
            }
            None => Ok(self),
        }
    }

    /// The tier, why it is not a stronger one, and what it lacks and gives away: a line for each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let head = format!("tier `{}`: {}", self.tier, self.tier.gives_away());
        let stronger = self.stronger.iter().map(|(tier, reason)| format!("  not `{tier}`: {reason}"));
        let gaps = self.gaps.iter().map(|gap| format!("  it lacks something: {gap}"));
        std::iter::once(head).chain(stronger).chain(gaps).collect()
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier `{}`", self.tier)?;
        let stronger: Vec<_> =
            self.stronger.iter().map(|(tier, reason)| format!("not `{tier}`: {reason}")).collect();
        if stronger.is_empty() { Ok(()) } else { write!(f, " ({})", stronger.join("; ")) }
    }
}

/// What was asked for cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unobtainable {
    /// The one that was asked for.
    #[error("the tier `{tier}` cannot be had here: {reason}")]
    Asked {
        /// Which one.
        tier: Tier,
        /// Why not, and what would help.
        reason: String,
    },
    /// None of them, for these reasons.
    #[error("no tier can be had here:{}", told_together(.0))]
    All(Vec<(Tier, String)>),
    /// That of an edge which is there; nobody has said that it may have less.
    #[error(
        "the edge that is there has the tier `{before}` and would be made anew with less, as `{now}`; not `{before}`: {reason}"
    )]
    Weaker {
        /// Which one it has.
        before: Tier,
        /// The strongest that can be had, or is taken without being asked for.
        now: Tier,
        /// Why that is not the one that it has, and what would help.
        reason: String,
    },
}

impl Unobtainable {
    /// What to do about it, besides what the reason says.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::Asked { .. } => {
                "do what is said there, or let `--tier auto` take the strongest tier that can be had"
                    .to_owned()
            }
            Self::All(_) => "do what is said of one of the tiers, and run the command again".to_owned(),
            Self::Weaker { now, .. } => format!(
                "do what is said there, so that the edge keeps its tier, and run the command again; or let it have less: \
                 `--tier {now}`"
            ),
        }
    }
}

/// What several tiers have against them in common is told once.
fn told_together(reasons: &[(Tier, String)]) -> String {
    let mut told: Vec<(String, &str)> = Vec::new();
    for (tier, reason) in reasons {
        match told.iter_mut().find(|(_, other)| other == reason) {
            Some((tiers, _)) => *tiers += &format!(", `{tier}`"),
            None => told.push((format!("`{tier}`"), reason)),
        }
    }
    told.iter().map(|(tiers, reason)| format!("\n  {tiers}: {reason}")).collect()
}

/// Whether a tier works.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It does, and lacks this.
    Works(Vec<String>),
    /// Nobody has seen it work under these circumstances, so that it is taken only where it is asked for.
    Untried(String),
    /// It does not.
    Fails(String),
}

/// `hostUsers: false` is on by default from here.
const USERNS: Version = Version(1, 33);
/// The first with the field `seccompProfile`.
const SECCOMP_FIELD: Version = Version(1, 19);
/// From here, `restricted` does not ask a pod with a user namespace to run as somebody else than root.
const RELAXED: Version = Version(1, 35);

/// containerd knows `cgroup_writable` from here.
const OWN_CGROUPS: Version = Version(2, 1);

/// The strongest tier that works, or the one that was asked for.
///
/// # Errors
/// [`Unobtainable`] when that one does not work.
pub fn decide(facts: &Facts, choice: Choice) -> Result<Decision, Unobtainable> {
    if let Some(tier) = choice.tier() {
        return match verdict(facts, tier) {
            Verdict::Works(gaps) => Ok(Decision { tier, gaps, stronger: Vec::new() }),
            Verdict::Untried(reason) => {
                Ok(Decision { tier, gaps: [vec![reason], gaps(facts, tier)].concat(), stronger: Vec::new() })
            }
            Verdict::Fails(reason) => Err(Unobtainable::Asked { tier, reason }),
        };
    }
    let mut stronger = Vec::new();
    for tier in Tier::ALL {
        match verdict(facts, tier) {
            Verdict::Works(gaps) => return Ok(Decision { tier, gaps, stronger }),
            Verdict::Untried(reason) => {
                stronger.push((tier, format!("{reason}; `--tier {tier}` takes it all the same")));
            }
            Verdict::Fails(reason) => stronger.push((tier, reason)),
        }
    }
    Err(Unobtainable::All(stronger))
}

fn verdict(facts: &Facts, tier: Tier) -> Verdict {
    if let Some(refusal) = pod_security(facts, tier) {
        return Verdict::Fails(refusal);
    }
    match tier {
        Tier::Userns => userns(facts),
        Tier::Sysbox => sysbox(facts),
        Tier::Confined => confined(facts),
        Tier::Privileged => privileged(facts),
    }
}

/// A namespace of somebody else that does not let the tier's pod in.
fn pod_security(facts: &Facts, tier: Tier) -> Option<String> {
    let Host::Kubernetes(cluster) = &facts.host else { return None };
    let level = cluster.level.as_deref()?;
    if allowed_by(tier, cluster.server).contains(&level) {
        return None;
    }
    let (namespace, needed) = (&cluster.namespace, level_of(tier, cluster.server));
    Some(format!(
        "the namespace `{namespace}` is not ours and enforces the Pod Security level `{level}`, and the pod needs `{needed}`: \
         if it may have that, `kubectl label namespace {namespace} pod-security.kubernetes.io/enforce={needed} --overwrite`"
    ))
}

/// The Pod Security levels that let the pod of a tier in.
fn allowed_by(tier: Tier, server: Option<Version>) -> &'static [&'static str] {
    match tier {
        Tier::Sysbox if server.is_some_and(|server| server >= RELAXED) => {
            &["restricted", "baseline", "privileged"]
        }
        Tier::Sysbox => &["baseline", "privileged"],
        // Capabilities beyond the default are added, which only the lowest level lets pass.
        Tier::Userns | Tier::Confined | Tier::Privileged => &["privileged"],
    }
}

/// The strictest Pod Security level that lets the pod of a tier in.
#[must_use]
pub fn level_of(tier: Tier, server: Option<Version>) -> &'static str {
    allowed_by(tier, server).first().copied().unwrap_or("privileged")
}

fn userns(facts: &Facts) -> Verdict {
    let fails = |reason: &str| Verdict::Fails(reason.to_owned());
    if facts.cgroups == Some(1) {
        return fails(
            "its cgroups are of version 1, which root of a user namespace cannot be given; boot with version 2",
        );
    }
    match &facts.host {
        Host::Docker { rootless: true, .. } | Host::Podman { rootless: true, .. } => Verdict::Untried(
            "the engine runs without root, where the edge has not been seen to work".to_owned(),
        ),
        Host::Docker { remaps: true, .. } => Verdict::Works(Vec::new()),
        Host::Docker { remaps: false, .. } => fails(
            "Docker does not remap users; put `\"userns-remap\": \"default\"` into /etc/docker/daemon.json and restart it",
        ),
        Host::Podman { has_ids: true, .. } => Verdict::Untried(
            "with Podman and a user namespace, the edge has not been seen to work".to_owned(),
        ),
        Host::Podman { has_ids: false, .. } => fails(
            "Podman has no ids to give away; add a line such as `containers:2147483647:2147483648` to /etc/subuid and /etc/subgid",
        ),
        Host::Kubernetes(cluster) => userns_pod(facts, cluster),
    }
}

fn userns_pod(facts: &Facts, cluster: &Cluster) -> Verdict {
    if let Some(server) = cluster.server.filter(|server| *server < USERNS) {
        return Verdict::Fails(format!(
            "pods have user namespaces from Kubernetes {USERNS} on, and this is {server}"
        ));
    }
    if let Some(kernel) = facts.kernel.filter(|kernel| *kernel < Version(6, 3)) {
        return Verdict::Fails(format!(
            "volumes in memory need Linux 6.3 in a user namespace, and a node has {kernel}"
        ));
    }
    if let Some(version) = cluster.containerd.filter(|version| *version < OWN_CGROUPS) {
        return Verdict::Fails(format!(
            "containerd gives a pod with a user namespace cgroups of its own from {OWN_CGROUPS} on, and a node has {version}"
        ));
    }
    if cluster.honours_userns == Some(false) {
        return Verdict::Fails(
            "the kubelet of a node says that its runtime has no user namespaces".to_owned(),
        );
    }
    if cluster.own_cgroups.is_none() {
        return Verdict::Fails(
            "no RuntimeClass has the handler `kedge`, by which a pod with a user namespace gets cgroups of its own; \
             `manifests/runtime-class.yaml` is one, and says what makes the handler on the nodes"
                .to_owned(),
        );
    }
    if let Some(node) = &cluster.lacks_handler {
        return Verdict::Fails(format!(
            "the node `{node}` does not have the handler `kedge`; `manifests/runtime-class.yaml` says what makes it"
        ));
    }
    match cluster.honours_userns {
        _ if cluster.is_ours => Verdict::Untried(
            "in a cluster of kind, whose nodes are made ready for it, it has not been seen to work"
                .to_owned(),
        ),
        _ if cluster.server.is_some() && cluster.containerd.is_none() => Verdict::Untried(
            "the runtime of the nodes is not containerd, where alone the edge has been seen to work"
                .to_owned(),
        ),
        None => Verdict::Untried("no kubelet says whether its runtime honours user namespaces".to_owned()),
        _ => Verdict::Works(Vec::new()),
    }
}

fn sysbox(facts: &Facts) -> Verdict {
    if facts.sysbox.is_some() {
        return Verdict::Untried("with Sysbox, the edge has not been seen to work".to_owned());
    }
    Verdict::Fails(match &facts.host {
        Host::Docker { .. } | Host::Podman { .. } => {
            "the engine has no runtime `sysbox-runc`; Sysbox's package brings it".to_owned()
        }
        Host::Kubernetes(_) => {
            "the cluster has no RuntimeClass with the handler `sysbox-runc`; Sysbox's DaemonSet makes one"
                .to_owned()
        }
    })
}

fn confined(facts: &Facts) -> Verdict {
    let fails = |reason: String| Verdict::Fails(reason);
    match &facts.host {
        Host::Docker { remaps: true, .. } => {
            return fails(
                "this Docker remaps users, so that its images belong to others than root; use `userns`"
                    .to_owned(),
            );
        }
        Host::Docker { rootless: true, .. } | Host::Podman { rootless: true, .. } => {
            return fails(
                "the engine runs without root, and cannot give SYS_ADMIN of the machine".to_owned(),
            );
        }
        Host::Kubernetes(cluster) => {
            if let Some(server) = cluster.server.filter(|server| *server < SECCOMP_FIELD) {
                return fails(format!(
                    "pods name seccomp profiles from Kubernetes {SECCOMP_FIELD} on, and this is {server}"
                ));
            }
            if facts.apparmor == AppArmor::Off && facts.cgroups != Some(1) {
                return Verdict::Untried(
                    "the nodes have no AppArmor, without which this is hardly less than all privileges"
                        .to_owned(),
                );
            }
            if facts.cgroups == Some(1) {
                return fails(
                    "a node has version 1 of cgroups, by which a pod cannot hand /dev/console on to modules"
                        .to_owned(),
                );
            }
            if let AppArmor::Unknown(reason) = &facts.apparmor {
                return Verdict::Untried(format!(
                    "{reason}; a node without it does not get the profiles, and the pod is not started"
                ));
            }
            if let AppArmor::NotLoaded(reason) = &facts.apparmor {
                return fails(reason.clone());
            }
            if cluster.is_ours {
                return Verdict::Untried("in a cluster of kind, it has not been seen to work".to_owned());
            }
        }
        _ => {}
    }
    if let AppArmor::NotLoaded(reason) = &facts.apparmor {
        return fails(format!(
            "the AppArmor profile `{}` is not loaded and cannot be from here ({reason}); load it where containers run: \
             `sudo apparmor_parser --replace image/security/kedge-edge`",
            super::profiles::APPARMOR
        ));
    }
    Verdict::Works(gaps(facts, Tier::Confined))
}

fn privileged(facts: &Facts) -> Verdict {
    match &facts.host {
        Host::Docker { remaps: true, .. } => Verdict::Fails(
            "this Docker remaps users, which goes with no privileged container; use `userns`".to_owned(),
        ),
        _ => Verdict::Works(Vec::new()),
    }
}

/// What a tier lacks under these circumstances.
fn gaps(facts: &Facts, tier: Tier) -> Vec<String> {
    let mut gaps = Vec::new();
    if tier != Tier::Confined {
        return gaps;
    }
    if facts.apparmor == AppArmor::Off {
        gaps.push(
            "AppArmor is not there, so that only capabilities and seccomp confine the edge: with SYS_ADMIN, it can mount what \
             the kernel has, and write to settings of the machine"
                .to_owned(),
        );
    }
    if facts.cgroups != Some(1) && facts.nsdelegate == Some(false) {
        gaps.push(
            "the cgroup mount has lost `nsdelegate`, so that the edge could lift its own limits; give it back on the machine: \
             `mount -o remount,rw,nsdelegate,memory_recursiveprot /sys/fs/cgroup`"
                .to_owned(),
        );
    }
    gaps
}

#[cfg(test)]
mod tests;
