//! What nodes say of themselves, summed up for the pod, which may come to any of them.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;

use super::facts::{AppArmor, Cluster, Facts, Host, Version};

/// The handler of Sysbox.
const SYSBOX: &str = "sysbox-runc";
/// The handler that `manifests/runtime-class.yaml` names.
const OWN_CGROUPS: &str = "kedge";
/// How a kubelet says so, in the message of its condition `Ready`: there is no other place for it.
const APPARMOR: &str = "AppArmor enabled";
/// From here on, kubelets may say nothing of AppArmor though it is there.
const SILENT: Version = Version(1, 30);
const CONTAINERD: &str = "containerd://";
/// The taint of a node that is no machine; the pod does not come there.
const VIRTUAL: &str = "virtual-kubelet.io/provider";

/// What a command on a node of ours prints about its cgroups and AppArmor; see [`Inside::read`]. The kubelet asks the same two
/// files about AppArmor: a kernel that has it may not show it to a node that is a container.
pub const SCRIPT: &str = "stat -f -c %T /sys/fs/cgroup; grep -m 1 ' /sys/fs/cgroup cgroup2 ' /proc/mounts; \
    echo apparmor=$([ -e /sys/kernel/security/apparmor ] && cat /sys/module/apparmor/parameters/enabled)";
/// What a command on a node of ours prints about its runtime handlers; see [`runtime_handlers`].
pub const HANDLERS: &str = r"containerd config dump 2>/dev/null |
    sed -n 's/^ *\[.*[.]containerd[.]runtimes[.]\([^].]*\)\]$/handler \1/p; s/^ *cgroup_writable = /cgroup_writable /p'";

/// What a node does not say of itself, and what is seen on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inside {
    /// Version of cgroups.
    pub cgroups: Option<u8>,
    /// Whether the mount of cgroup v2 has `nsdelegate`.
    pub nsdelegate: Option<bool>,
    /// Whether it has AppArmor.
    pub apparmor: Option<bool>,
}

impl Inside {
    /// Reads what [`SCRIPT`] has printed.
    #[must_use]
    pub fn read(output: &str) -> Self {
        let apparmor = output.lines().find_map(|line| line.strip_prefix("apparmor=")).map(|it| it == "Y");
        let mut lines = output.lines();
        let (cgroups, nsdelegate) = match lines.next() {
            Some("cgroup2fs") => {
                let mount = lines.next().unwrap_or_default();
                let mut options = mount.split(' ').nth(3).unwrap_or_default().split(',');
                (Some(2), Some(options.any(|option| option == "nsdelegate")))
            }
            Some("tmpfs") => (Some(1), None),
            _ => (None, None),
        };
        Self { cgroups, nsdelegate, apparmor }
    }

    /// In a few words.
    #[must_use]
    pub fn words(&self) -> String {
        let word = |it: Option<bool>| it.map_or("unknown", |it| if it { "yes" } else { "no" });
        let cgroups = self.cgroups.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
        let nsdelegate = self.nsdelegate.map(|it| format!(", nsdelegate {}", word(Some(it))));
        format!(
            "cgroups of version {cgroups}{}, AppArmor {}",
            nsdelegate.unwrap_or_default(),
            word(self.apparmor)
        )
    }
}

/// The runtime handlers of a node in a few words, of what [`HANDLERS`] has printed.
#[must_use]
pub fn runtime_handlers(output: &str) -> String {
    let (mut handlers, mut knows_switch) = (Vec::new(), false);
    for line in output.lines() {
        match line.split_once(' ') {
            Some(("handler", name)) => handlers.push((name, false)),
            Some(("cgroup_writable", value)) => {
                knows_switch = true;
                if let Some((_, is_writable)) = handlers.last_mut() {
                    *is_writable |= value == "true";
                }
            }
            _ => {}
        }
    }
    if handlers.is_empty() {
        return "its runtime does not tell its handlers".to_owned();
    }
    let word = |(name, is_writable): (&str, bool)| match (knows_switch, is_writable) {
        (false, _) => name.to_owned(),
        (true, true) => format!("{name} (cgroup_writable)"),
        (true, false) => format!("{name} (cgroups read-only)"),
    };
    let without = if knows_switch { "" } else { ", by a containerd without cgroup_writable" };
    format!("handlers {}{without}", handlers.into_iter().map(word).collect::<Vec<_>>().join(", "))
}

/// A cluster, as it is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Version of the API server.
    pub server: &'a str,
    /// Its nodes; none where one may not look at them.
    pub nodes: Option<&'a [Node]>,
    /// Its runtime classes; none where one may not look at them.
    pub classes: Option<&'a [RuntimeClass]>,
    /// Whether the tool makes ready what it lacks.
    pub is_ours: bool,
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
    let nodes: Vec<_> = asked.nodes.unwrap_or_default().iter().filter(|node| may_take_pod(node)).collect();
    let class_of = |handler: &str| {
        let class = asked.classes?.iter().find(|class| class.handler == handler)?;
        class.metadata.name.clone()
    };
    // Whoever may not look at them may go by them all the same.
    let is_believed = asked.is_ours || asked.classes.is_none();
    let least = |version: fn(&Node) -> Option<Version>| nodes.iter().filter_map(|node| version(node)).min();
    Facts {
        host: Host::Kubernetes(Cluster {
            server: Version::of(asked.server),
            containerd: least(containerd),
            honours_userns: honour_userns(&nodes),
            own_cgroups: class_of(OWN_CGROUPS).or_else(|| is_believed.then(|| OWN_CGROUPS.to_owned())),
            lacks_handler: nodes.iter().filter(|_| !asked.is_ours).find_map(|node| without_handler(node)),
            is_ours: asked.is_ours,
            level: asked.level.map(str::to_owned),
            namespace: asked.namespace.to_owned(),
        }),
        kernel: least(kernel),
        cgroups: asked.inside.cgroups,
        nsdelegate: asked.inside.nsdelegate,
        apparmor: match asked.nodes {
            Some(_) => apparmor_of(&nodes, asked.inside.apparmor),
            None => AppArmor::Unknown(
                "you may not look at nodes, so that it is not known which have AppArmor".into(),
            ),
        },
        sysbox: class_of(SYSBOX),
    }
}

/// Whether the pod may come to the node, unless it tolerates or selects something else.
fn may_take_pod(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    info(node).is_none_or(|info| info.operating_system != "windows") && !taints.any(|it| it.key == VIRTUAL)
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

/// AppArmor of all nodes together; `seen` is what was seen on them.
fn apparmor_of(nodes: &[&Node], seen: Option<bool>) -> AppArmor {
    let found: Vec<_> = nodes.iter().map(|node| has_apparmor(node, seen)).collect();
    let count = |wanted| found.iter().filter(|it| **it == wanted).count();
    let (with, without) = (count(Some(true)), count(Some(false)));
    if with > 0 && without > 0 {
        let all = nodes.len();
        AppArmor::NotLoaded(format!(
            "{with} of {all} nodes have AppArmor, and the pod may come to any of them"
        ))
    } else if nodes.is_empty() {
        AppArmor::Unknown("there is no node yet that could have AppArmor".into())
    } else if with == nodes.len() {
        AppArmor::Ready
    } else if without == nodes.len() {
        AppArmor::Off
    } else {
        AppArmor::Unknown(format!(
            "it is not known whether the nodes have AppArmor, since their kubelets may not say so from {SILENT} on"
        ))
    }
}

fn has_apparmor(node: &Node, seen: Option<bool>) -> Option<bool> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    // The message of a node that is down is somebody else's.
    let Some(ready) = ready.find(|condition| condition.status == "True") else { return seen };
    if ready.message.as_deref().is_some_and(|text| text.contains(APPARMOR)) {
        return Some(true);
    }
    let kubelet = info(node).and_then(|info| Version::of(&info.kubelet_version));
    seen.or_else(|| kubelet.filter(|version| *version < SILENT).map(|_| false))
}

/// Whether the runtime of every node has user namespaces, by the handler that the pod goes by or else the default one; none when
/// one does not say so.
fn honour_userns(nodes: &[&Node]) -> Option<bool> {
    let says = |node: &&Node| {
        let handlers = node.status.as_ref()?.runtime_handlers.as_ref()?;
        let named =
            |name| handlers.iter().find(move |handler| handler.name.as_deref().unwrap_or_default() == name);
        let handler = named(OWN_CGROUPS).or_else(|| named(""))?;
        Some(handler.features.as_ref()?.user_namespaces.unwrap_or_default())
    };
    let all: Vec<Option<bool>> = nodes.iter().map(says).collect();
    if all.contains(&Some(false)) {
        return Some(false);
    }
    if all.is_empty() || all.contains(&None) { None } else { Some(true) }
}

/// The name of a node that tells its handlers, and not this one among them.
fn without_handler(node: &Node) -> Option<String> {
    let handlers = node.status.as_ref()?.runtime_handlers.as_ref()?;
    let has_it = handlers.iter().any(|it| it.name.as_deref() == Some(OWN_CGROUPS));
    (!has_it).then(|| node.metadata.name.clone().unwrap_or_default())
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
        let class = |name: &str, handler: &str| {
            let class = json!({ "metadata": { "name": name }, "handler": handler });
            serde_json::from_value::<RuntimeClass>(class).unwrap()
        };
        facts(&Asked {
            server: "v1.36.1",
            nodes,
            classes: Some(&[class("boxed", "sysbox-runc"), class("edge", "kedge")]),
            is_ours: false,
            namespace: "edge",
            level: Some("baseline"),
            inside: Inside { cgroups: Some(2), ..Inside::default() },
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
        assert_eq!((found.sysbox.as_deref(), told.own_cgroups.as_deref()), (Some("boxed"), Some("edge")));
        assert_eq!(told.lacks_handler.as_deref(), Some("n"));
        assert_eq!((found.kernel, found.apparmor), (Some(Version(6, 12)), AppArmor::Ready));
        for userns in [true, false] {
            let own = json!([{ "name": "kedge", "features": { "userNamespaces": userns } }]);
            let by_handler = of(Some(&[node(ready, "containerd://2.1.9", &own)]));
            let told = cluster(&by_handler);
            assert_eq!((told.honours_userns, &told.lacks_handler), (Some(userns), &None));
        }
    }

    #[test]
    fn the_node_that_can_do_the_least_counts() {
        let ready = "kubelet is posting ready status. AppArmor enabled";
        let good = || node(ready, "containerd://2.3.1", &handlers(true));
        let mut old = node("kubelet is posting ready status", "containerd://1.6.20", &handlers(false));
        of_version(&mut old, "v1.29.4");
        let mixed = of(Some(&[good(), old]));
        assert_eq!(
            (cluster(&mixed).containerd, cluster(&mixed).honours_userns),
            (Some(Version(1, 6)), Some(false))
        );
        let AppArmor::NotLoaded(reason) = &mixed.apparmor else { panic!("{mixed:?}") };
        assert!(reason.starts_with("1 of 2 nodes"), "{reason}");
        let silent = of(Some(&[good(), node(ready, "cri-o://1.30.2", &json!(null))]));
        assert_eq!((cluster(&silent).honours_userns, silent.apparmor), (None, AppArmor::Ready));
    }

    fn of_version(node: &mut Node, version: &str) {
        let status = node.status.as_mut().unwrap();
        status.node_info.as_mut().unwrap().kubelet_version = version.to_owned();
    }

    #[test]
    fn silence_about_apparmor_says_something_of_old_kubelets_alone() {
        let silent = |version: &str| {
            let mut node = node("kubelet is posting ready status", "containerd://2.0", &json!([]));
            of_version(&mut node, version);
            node
        };
        let told = |nodes: &[Node], seen| apparmor_of(&nodes.iter().collect::<Vec<_>>(), seen);
        let is_unknown = |nodes: &[Node]| matches!(told(nodes, None), AppArmor::Unknown(_));
        assert_eq!(told(&[silent("v1.29.9")], None), AppArmor::Off);
        assert!(is_unknown(&[silent("v1.36.1")]) && is_unknown(&[silent("v1.30.0"), silent("v1.29.9")]));
        assert!(is_unknown(&[]), "a pool may be scaled to zero");
        assert_eq!(told(&[silent("v1.36.1")], Some(true)), AppArmor::Ready);
        assert_eq!(told(&[silent("v1.36.1")], Some(false)), AppArmor::Off);
    }

    #[test]
    fn nodes_to_which_the_pod_does_not_come_do_not_count() {
        let ready = "kubelet is posting ready status. AppArmor enabled";
        let mut remote = node("fine", "", &json!(null));
        remote.spec = serde_json::from_value(
            json!({ "taints": [{ "key": "virtual-kubelet.io/provider", "effect": "NoSchedule" }] }),
        )
        .unwrap();
        let mut windows = node("fine", "containerd://1.6", &json!(null));
        let info = windows.status.as_mut().unwrap().node_info.as_mut().unwrap();
        info.operating_system = "windows".to_owned();
        let found = of(Some(&[node(ready, "containerd://2.3.1", &handlers(true)), remote, windows]));
        assert_eq!((cluster(&found).honours_userns, found.apparmor), (Some(true), AppArmor::Ready));
    }

    #[test]
    fn what_one_may_not_look_at_is_not_guessed() {
        let unseen = of(None);
        assert_eq!((cluster(&unseen).honours_userns, unseen.kernel), (None, None));
        let AppArmor::Unknown(reason) = unseen.apparmor else { panic!("it is guessed") };
        assert!(reason.contains("may not look at nodes"), "{reason}");
    }

    #[test]
    fn cgroups_and_apparmor_are_read_on_the_node() {
        let mount = "cgroup /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate,memory_recursiveprot 0 0";
        let read = |second: &str| Inside::read(&format!("cgroup2fs\n{second}\napparmor=Y\n"));
        let new = Inside { cgroups: Some(2), nsdelegate: Some(true), apparmor: Some(true) };
        assert_eq!(read(mount), new);
        assert_eq!(new.words(), "cgroups of version 2, nsdelegate yes, AppArmor yes");
        assert_eq!(read(&mount.replace("nsdelegate,", "")).nsdelegate, Some(false));
        let old = Inside::read("tmpfs\napparmor=\n");
        assert_eq!(old, Inside { cgroups: Some(1), nsdelegate: None, apparmor: Some(false) });
        assert_eq!(old.words(), "cgroups of version 1, AppArmor no");
        assert_eq!(Inside::read(""), Inside::default());
    }

    #[test]
    fn which_handlers_give_writable_cgroups_is_told() {
        let told = |output| runtime_handlers(output);
        let new = "cgroup_writable false\nhandler runc\ncgroup_writable false\nhandler edge\ncgroup_writable true\n";
        assert_eq!(told(new), "handlers runc (cgroups read-only), edge (cgroup_writable)");
        let old = "handler runc\nhandler test-handler\n";
        assert_eq!(told(old), "handlers runc, test-handler, by a containerd without cgroup_writable");
        assert_eq!(told(""), "its runtime does not tell its handlers");
    }
}
