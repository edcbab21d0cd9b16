//! What nodes say of themselves, summed up for the pod, which may come to any of them.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;

use super::facts::{AppArmor, Cluster, Facts, Host, Version};

/// The handler of Sysbox.
const SYSBOX: &str = "sysbox-runc";
/// How a kubelet says so, in the message of its condition `Ready`: there is no other place for it.
const APPARMOR: &str = "AppArmor enabled";
const CONTAINERD: &str = "containerd://";

/// What a command on a node of ours prints about its cgroups; see [`Inside::read`].
pub const SCRIPT: &str = "stat -f -c %T /sys/fs/cgroup; grep -m 1 ' /sys/fs/cgroup cgroup2 ' /proc/mounts";

/// What a node does not say of itself, and what is seen on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inside {
    /// Version of cgroups.
    pub cgroups: Option<u8>,
    /// Whether the mount of cgroup v2 has `nsdelegate`.
    pub nsdelegate: Option<bool>,
}

impl Inside {
    /// Reads what [`SCRIPT`] has printed.
    #[must_use]
    pub fn read(output: &str) -> Self {
        let mut lines = output.lines();
        match lines.next() {
            Some("cgroup2fs") => {
                let mount = lines.next().unwrap_or_default();
                let mut options = mount.split(' ').nth(3).unwrap_or_default().split(',');
                Self { cgroups: Some(2), nsdelegate: Some(options.any(|option| option == "nsdelegate")) }
            }
            Some("tmpfs") => Self { cgroups: Some(1), nsdelegate: None },
            _ => Self::default(),
        }
    }
}

/// A cluster, as it is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Version of the API server.
    pub server: &'a str,
    /// Its nodes; none where one may not look at them.
    pub nodes: Option<&'a [Node]>,
    /// Its runtime classes.
    pub classes: &'a [RuntimeClass],
    /// The namespace.
    pub namespace: &'a str,
    /// The Pod Security level that it enforces, where it is somebody else's.
    pub level: Option<&'a str>,
    /// What is seen on nodes.
    pub inside: Inside,
}

/// What decides about the tiers of a pod there.
#[must_use]
pub fn facts(asked: &Asked<'_>) -> Facts {
    let nodes: Vec<_> = asked.nodes.unwrap_or_default().iter().filter(|node| is_linux(node)).collect();
    let least = |version: fn(&Node) -> Option<Version>| nodes.iter().filter_map(|node| version(node)).min();
    let with_apparmor = nodes.iter().filter(|node| has_apparmor(node)).count();
    Facts {
        host: Host::Kubernetes(Cluster {
            server: Version::of(asked.server),
            containerd: least(containerd),
            honours_userns: honour_userns(&nodes),
            level: asked.level.map(str::to_owned),
            namespace: asked.namespace.to_owned(),
        }),
        kernel: least(kernel),
        cgroups: asked.inside.cgroups,
        nsdelegate: asked.inside.nsdelegate,
        apparmor: match with_apparmor {
            _ if asked.nodes.is_none() => AppArmor::NotLoaded(
                "you may not look at nodes, so that it is not known which have AppArmor".into(),
            ),
            0 => AppArmor::Off,
            all if all == nodes.len() => AppArmor::Ready,
            some => AppArmor::NotLoaded(format!(
                "{some} of {} nodes have AppArmor, and the pod may come to any of them",
                nodes.len()
            )),
        },
        sysbox: asked
            .classes
            .iter()
            .find(|class| class.handler == SYSBOX)
            .and_then(|class| class.metadata.name.clone()),
    }
}

fn is_linux(node: &Node) -> bool {
    info(node).is_none_or(|info| info.operating_system != "windows")
}

fn info(node: &Node) -> Option<&k8s_openapi::api::core::v1::NodeSystemInfo> {
    node.status.as_ref()?.node_info.as_ref()
}

fn kernel(node: &Node) -> Option<Version> {
    Version::of(&info(node)?.kernel_version)
}

fn containerd(node: &Node) -> Option<Version> {
    let runtime = &info(node)?.container_runtime_version;
    runtime.starts_with(CONTAINERD).then(|| Version::of(runtime))?
}

fn has_apparmor(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.message.as_deref().is_some_and(|text| text.contains(APPARMOR)))
}

/// Whether the default runtime of every node has user namespaces; none when one does not say so.
fn honour_userns(nodes: &[&Node]) -> Option<bool> {
    let says = |node: &&Node| {
        let handlers = node.status.as_ref()?.runtime_handlers.as_ref()?;
        let default =
            handlers.iter().find(|handler| handler.name.as_deref().unwrap_or_default().is_empty())?;
        Some(default.features.as_ref()?.user_namespaces.unwrap_or_default())
    };
    let all: Vec<Option<bool>> = nodes.iter().map(says).collect();
    if all.contains(&Some(false)) {
        return Some(false);
    }
    if all.is_empty() || all.contains(&None) { None } else { Some(true) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(ready: &str, runtime: &str, handlers: &Value) -> Node {
        let info = json!({ "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.36.1",
            "containerRuntimeVersion": runtime, "osImage": "Debian", "kernelVersion": "6.12.1", "bootID": "",
            "kubeProxyVersion": "", "machineID": "", "systemUUID": "" });
        let condition = json!({ "type": "Ready", "status": "True", "message": ready });
        let status = json!({ "nodeInfo": info, "conditions": [condition], "runtimeHandlers": handlers });
        serde_json::from_value(json!({ "metadata": { "name": "n" }, "status": status })).unwrap()
    }

    fn handlers(userns: bool) -> Value {
        json!([{ "name": "runc", "features": {} }, { "name": "", "features": { "userNamespaces": userns } }])
    }

    fn of(nodes: Option<&[Node]>) -> Facts {
        let class: RuntimeClass =
            serde_json::from_value(json!({ "metadata": { "name": "boxed" }, "handler": "sysbox-runc" }))
                .unwrap();
        facts(&Asked {
            server: "v1.36.1",
            nodes,
            classes: &[class],
            namespace: "edge",
            level: Some("baseline"),
            inside: Inside { cgroups: Some(2), nsdelegate: None },
        })
    }

    fn cluster(facts: &Facts) -> &Cluster {
        let Host::Kubernetes(cluster) = &facts.host else { panic!("{facts:?}") };
        cluster
    }

    #[test]
    fn nodes_say_what_they_can_do() {
        let ready = "kubelet is posting ready status. AppArmor enabled";
        let found = of(Some(&[node(ready, "containerd://2.3.1", &handlers(true))]));
        let told = cluster(&found);
        assert_eq!((told.server, told.containerd), (Some(Version(1, 36)), Some(Version(2, 3))));
        assert_eq!((told.honours_userns, told.level.as_deref()), (Some(true), Some("baseline")));
        assert_eq!((found.kernel, found.apparmor), (Some(Version(6, 12)), AppArmor::Ready));
        assert_eq!(found.sysbox.as_deref(), Some("boxed"));
    }

    #[test]
    fn the_node_that_can_do_the_least_counts() {
        let ready = "kubelet is posting ready status. AppArmor enabled";
        let good = || node(ready, "containerd://2.3.1", &handlers(true));
        let old = node("kubelet is posting ready status", "containerd://1.6.20", &handlers(false));
        let mixed = of(Some(&[good(), old]));
        assert_eq!(
            (cluster(&mixed).containerd, cluster(&mixed).honours_userns),
            (Some(Version(1, 6)), Some(false))
        );
        let AppArmor::NotLoaded(reason) = &mixed.apparmor else { panic!("{mixed:?}") };
        assert!(reason.starts_with("1 of 2 nodes"), "{reason}");
        let silent = of(Some(&[good(), node(ready, "cri-o://1.30.2", &json!(null))]));
        assert_eq!((cluster(&silent).honours_userns, silent.apparmor), (None, AppArmor::Ready));
        let bare = of(Some(&[node("fine", "containerd://2.0", &json!([]))]));
        assert_eq!(bare.apparmor, AppArmor::Off);
    }

    #[test]
    fn what_one_may_not_look_at_is_not_guessed() {
        let unseen = of(None);
        assert_eq!((cluster(&unseen).honours_userns, unseen.kernel), (None, None));
        let AppArmor::NotLoaded(reason) = unseen.apparmor else { panic!("it is guessed") };
        assert!(reason.contains("may not look at nodes"), "{reason}");
    }

    #[test]
    fn cgroups_are_read_on_the_node() {
        let mount = "cgroup /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate,memory_recursiveprot 0 0";
        let read = |second: &str| Inside::read(&format!("cgroup2fs\n{second}\n"));
        assert_eq!(read(mount), Inside { cgroups: Some(2), nsdelegate: Some(true) });
        assert_eq!(read(&mount.replace("nsdelegate,", "")).nsdelegate, Some(false));
        assert_eq!(Inside::read("tmpfs\n"), Inside { cgroups: Some(1), nsdelegate: None });
        assert_eq!(Inside::read(""), Inside::default());
    }
}
