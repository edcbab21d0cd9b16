//! What decides about tiers, as engines, nodes and the machine itself tell it. What nobody tells is not known, and not guessed.

use std::fmt;

use super::Tier;

/// Major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first two numbers of a text such as `v1.33.1`, `6.8.0-31-generic` or `containerd://2.1.4`.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let text = text.rsplit("//").next()?.trim_start_matches('v');
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Where the edge is to run. Of several nodes, each fact is that of the one that can do the least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What makes containers there.
    pub host: Host,
    /// Version of the kernel.
    pub kernel: Option<Version>,
    /// Version of cgroups, 1 or 2.
    pub cgroups: Option<u8>,
    /// Whether the mount of cgroup v2 has `nsdelegate`.
    pub nsdelegate: Option<bool>,
    /// Whether AppArmor can confine the edge.
    pub apparmor: AppArmor,
    /// Name of the engine's runtime or the cluster's RuntimeClass that is Sysbox, where there is one.
    pub sysbox: Option<String>,
}

/// AppArmor, and the profile of the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppArmor {
    /// The kernel or the engine goes without.
    Off,
    /// The profile is there, or can be loaded.
    Ready,
    /// The profile is not there, and cannot be loaded from here for this reason.
    NotLoaded(String),
    /// Nobody says whether the kernel has it, for this reason.
    Unknown(String),
}

/// What makes containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Docker.
    Docker {
        /// Whether it gives every container a user namespace (`userns-remap`).
        remaps: bool,
        /// Whether it runs without root itself.
        rootless: bool,
    },
    /// Podman.
    Podman {
        /// Whether it has ids to give away (`/etc/subuid`).
        has_ids: bool,
        /// Whether it runs without root itself.
        rootless: bool,
    },
    /// Kubernetes.
    Kubernetes(Cluster),
}

/// A cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Version of the API server.
    pub server: Option<Version>,
    /// Version of containerd, where that is the runtime.
    pub containerd: Option<Version>,
    /// Whether the kubelets say that their runtime honours user namespaces; they do since Kubernetes 1.31.
    pub honours_userns: Option<bool>,
    /// Name of the RuntimeClass by which a pod with a user namespace gets cgroups of its own, where there is one.
    pub own_cgroups: Option<String>,
    /// A node that tells the handlers of its runtime, of which that of this RuntimeClass is none.
    pub lacks_handler: Option<String>,
    /// Whether it is the tool's own, which makes ready what the nodes lack.
    pub is_ours: bool,
    /// The Pod Security level that a namespace of somebody else enforces.
    pub level: Option<String>,
    /// Name of that namespace.
    pub namespace: String,
}

impl Facts {
    /// What is known of a cluster that is to be made on this engine: its nodes share the kernel, and whatever they will say themselves
    /// is believed to be for the best.
    #[must_use]
    pub fn of_nodes_to_come(self) -> Self {
        let cluster = Cluster { own_cgroups: Some(String::new()), is_ours: true, ..Cluster::default() };
        let sysbox = Some(String::new());
        Self { host: Host::Kubernetes(cluster), apparmor: AppArmor::Ready, sysbox, ..self }
    }

    /// The RuntimeClass by which a pod of this tier goes.
    #[must_use]
    pub fn runtime_class(&self, tier: Tier) -> Option<&str> {
        match (&self.host, tier) {
            (Host::Kubernetes(_), Tier::Sysbox) => self.sysbox.as_deref(),
            (Host::Kubernetes(cluster), Tier::Userns) => cluster.own_cgroups.as_deref(),
            _ => None,
        }
    }

    /// Version of the API server, where there is one.
    #[must_use]
    pub fn server(&self) -> Option<Version> {
        match &self.host {
            Host::Kubernetes(cluster) => cluster.server,
            Host::Docker { .. } | Host::Podman { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_programs_write_them() {
        for (text, expected) in [
            ("v1.33.1", Some(Version(1, 33))),
            ("v1.29.0+k3s1", Some(Version(1, 29))),
            ("6.8.0-31-generic", Some(Version(6, 8))),
            ("containerd://2.1.4", Some(Version(2, 1))),
            ("cri-o://1.30.2", Some(Version(1, 30))),
            ("1.6.20~ds1", Some(Version(1, 6))),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(Version::of(text), expected, "{text}");
        }
        assert!(Version(1, 9) < Version(1, 30) && Version(1, 33) < Version(2, 0));
    }
}
