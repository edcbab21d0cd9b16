//! What follows from the facts: what hinders the deployment, and what one should know.

use super::{ClassFacts, Facts, NamespaceFacts, NodeFacts};
use crate::tier::{self, Unobtainable, judge};

/// What is to be deployed, as far as the cluster has to suit it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The tier of the pod.
    pub tier: tier::Choice,
    /// The storage class; empty for the default.
    pub storage_class: &'a str,
    /// What the image runs on; empty where that is not known.
    pub platforms: &'a [String],
}

/// What follows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// With these the deployment cannot work.
    pub obstacles: Vec<String>,
    /// These one should know.
    pub warnings: Vec<String>,
}

impl Facts {
    /// Judges whether the cluster suits what is to be deployed.
    #[must_use]
    pub fn judge(&self, wanted: &Wanted<'_>) -> Judgement {
        let mut judgement = Judgement::default();
        judgement.judge_namespace(&self.namespace);
        let decided = judge::decide(&self.tier, wanted.tier);
        match decided.and_then(|decision| decision.for_one_made_in(self.tier_before)) {
            Ok(decision) => judgement.warnings.extend(decision.gaps),
            Err(unobtainable) => judgement.judge_tier(&unobtainable),
        }
        if let Ok(nodes) = &self.nodes {
            judgement.judge_nodes(nodes, wanted.platforms);
        }
        if let (Ok(classes), true) = (&self.classes, self.claims.len() < 2) {
            judgement.judge_classes(classes, wanted.storage_class);
        }
        judgement.judge_claims(&self.claims, wanted.storage_class);
        judgement
    }
}

impl Judgement {
    fn judge_namespace(&mut self, namespace: &NamespaceFacts) {
        let name = &namespace.name;
        if namespace.is_ending {
            self.obstacles.push(format!("the namespace `{name}` is being removed; wait for its end"));
        }
        if !namespace.is_there || namespace.is_ours {
            return;
        }
        self.warnings.push(format!(
            "the namespace `{name}` is not ours: it is used as it is, and `undeploy` will leave it"
        ));
    }

    fn judge_tier(&mut self, unobtainable: &Unobtainable) {
        let text = format!("{unobtainable}\n{}", unobtainable.next());
        self.obstacles.push(text.replace('\n', "\n  "));
    }

    fn judge_nodes(&mut self, nodes: &[NodeFacts], platforms: &[String]) {
        let usable: Vec<_> = nodes.iter().filter(|node| node.is_usable()).collect();
        if usable.is_empty() {
            self.warnings.push("no node is ready and takes pods".into());
        }
        if platforms.is_empty() {
            return;
        }
        let runs = |node: &&NodeFacts| platforms.contains(&node.platform);
        // Nodes with another operating system never get the pod.
        let linux = |node: &&NodeFacts| node.platform.starts_with("linux/");
        let image = platforms.join(", ");
        if !nodes.is_empty() && !nodes.iter().any(|node| runs(&node)) {
            let mut there: Vec<_> = nodes.iter().map(|node| node.platform.as_str()).collect();
            there.sort_unstable();
            there.dedup();
            // A pool of other nodes may be scaled to zero, and grow for the pod.
            self.warnings.push(format!(
                "the image is for {image}, and the nodes are {}: the pod waits until there is a node on which it runs",
                there.join(", ")
            ));
        } else if let Some(other) = usable.iter().find(|node| linux(node) && !runs(node)) {
            self.warnings.push(format!(
                "the image is for {image}, and the node `{}` is {}: the pod is kept from such nodes",
                other.name, other.platform
            ));
        }
    }

    fn judge_classes(&mut self, classes: &[ClassFacts], wanted: &str) {
        let names: Vec<_> = classes.iter().map(|class| class.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        if wanted.is_empty() {
            if !classes.iter().any(|class| class.is_default) {
                self.obstacles.push(format!(
                    "the cluster has no default storage class; name one as `storage-class` in [deploy] of the settings: \
                     {there}"
                ));
            }
        } else if !names.contains(&wanted) {
            self.obstacles.push(format!("the cluster has no storage class `{wanted}`, only: {there}"));
        }
    }

    fn judge_claims(&mut self, claims: &[(String, Option<String>)], wanted: &str) {
        for (name, class) in claims {
            if !wanted.is_empty() && class.as_deref() != Some(wanted) {
                self.obstacles.push(format!(
                    "the claim `{name}` is of the storage class `{}`, which cannot be changed; keep it as `storage-class`, or \
                     remove the state first: `cargo xtask undeploy --delete-state`",
                    class.as_deref().unwrap_or("none")
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::manifests::Object;
    use crate::tier::Tier;
    use k8s_openapi::api::core::v1::{Namespace, Node};
    use serde_json::json;

    fn node(name: &str, architecture: &str, ready: &str) -> NodeFacts {
        let info = json!({ "architecture": architecture, "operatingSystem": "linux", "kubeletVersion": "v1.33.1",
            "containerRuntimeVersion": "containerd://2.0", "osImage": "Ubuntu 24.04", "kernelVersion": "6.8",
            "bootID": "", "kubeProxyVersion": "", "machineID": "", "systemUUID": "" });
        let condition = json!({ "type": "Ready", "status": ready });
        let node: Node = serde_json::from_value(json!({ "metadata": { "name": name },
            "status": { "nodeInfo": info, "conditions": [condition], "allocatable": { "cpu": "2", "memory": "8Gi" } } }))
        .unwrap();
        NodeFacts::of(&node)
    }

    fn space(labels: &[(&str, &str)], is_ours: bool) -> NamespaceFacts {
        let labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
        let made = if is_ours { json!({ "kedge.io/made-by": "deploy/edge" }) } else { json!({}) };
        let found: Namespace = serde_json::from_value(
            json!({ "metadata": { "name": "edge", "labels": labels, "annotations": made } }),
        )
        .unwrap();
        super::super::namespace("edge", Some(&found))
    }

    fn facts() -> Facts {
        let class =
            |name: &str, is_default| ClassFacts { name: name.into(), is_default, provisioner: "p".into() };
        Facts {
            context: "aks".into(),
            server: "https://aks.example:443".into(),
            version: "v1.33.1".into(),
            nodes: Ok(vec![node("a", "amd64", "True"), node("b", "amd64", "True")]),
            namespace: super::super::namespace("edge", None),
            classes: Ok(vec![class("default", true), class("managed-csi", false)]),
            claims: Vec::new(),
            runtimes: Vec::new(),
            tier: tier_facts(None),
            tier_before: None,
        }
    }

    fn tier_facts(level: Option<&str>) -> tier::Facts {
        tier::nodes::facts(&tier::nodes::Asked {
            server: "v1.33.1",
            nodes: Some(&[]),
            classes: Some(&[]),
            is_ours: false,
            namespace: "edge",
            level,
            inside: tier::nodes::Inside::default(),
        })
    }

    fn wanted<'a>(storage_class: &'a str, platforms: &'a [String]) -> Wanted<'a> {
        Wanted { tier: tier::Choice::Privileged, storage_class, platforms }
    }

    #[test]
    fn nodes_that_are_alike_are_told_together() {
        let text = facts().to_string();
        assert!(
            text.contains("nodes          2 of 2 ready: linux/amd64, kubelet v1.33.1, containerd://2.0"),
            "{text}"
        );
        assert!(
            text.contains("cpu 2, memory 8Gi each (a, b)") && text.contains("`default` (p, the default)"),
            "{text}"
        );
        assert!(text.contains("`edge`, which is not there yet"), "{text}");
    }

    #[test]
    fn a_cluster_that_suits_has_neither_obstacles_nor_warnings() {
        assert_eq!(facts().judge(&wanted("", &["linux/amd64".into()])), Judgement::default());
        assert_eq!(facts().judge(&wanted("managed-csi", &[])), Judgement::default());
    }

    #[test]
    fn the_level_of_a_namespace_of_somebody_else_is_not_weakened() {
        let judged = |namespace: NamespaceFacts| {
            let level = namespace.level.clone().filter(|_| namespace.is_foreign());
            Facts { namespace, tier: tier_facts(level.as_deref()), ..facts() }.judge(&wanted("", &[]))
        };
        let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
        let found = judged(space(&restricted, false));
        assert!(found.obstacles[0].contains("level `restricted`"), "{found:?}");
        assert!(found.obstacles[0].contains("kubectl label namespace edge pod-security"), "{found:?}");
        assert_eq!(judged(space(&restricted, true)), Judgement::default(), "ours is shown as a change");
        let found = judged(space(&[], false));
        assert!(found.obstacles.is_empty() && found.warnings[0].contains("is not ours"), "{found:?}");
    }

    #[test]
    fn a_pod_that_is_there_does_not_get_less_than_it_has_unless_that_is_asked_for() {
        let judged = |tier| {
            Facts { tier_before: Some(Tier::Confined), ..facts() }.judge(&Wanted { tier, ..wanted("", &[]) })
        };
        let obstacles = judged(tier::Choice::Auto).obstacles;
        assert!(obstacles[0].starts_with("the edge that is there has the tier `confined`"), "{obstacles:?}");
        assert!(obstacles[0].ends_with("`--tier privileged`"), "{obstacles:?}");
        assert_eq!(judged(tier::Choice::Privileged), Judgement::default());
    }

    #[test]
    fn nodes_of_another_architecture_are_told() {
        let judged = |nodes, platform: &str| {
            Facts { nodes: Ok(nodes), ..facts() }.judge(&wanted("", &[platform.into()]))
        };
        let mixed = || vec![node("a", "amd64", "True"), node("b", "arm64", "True")];
        assert!(judged(mixed(), "linux/amd64").warnings[0].contains("node `b` is linux/arm64"));
        let other = judged(mixed(), "linux/s390x");
        let expected =
            "the image is for linux/s390x, and the nodes are linux/amd64, linux/arm64: the pod waits";
        assert!(other.obstacles.is_empty() && other.warnings[0].starts_with(expected), "{other:?}");
        assert_eq!(
            judged(vec![node("a", "amd64", "False")], "linux/amd64").warnings,
            ["no node is ready and takes pods"]
        );
    }

    #[test]
    fn the_pod_is_kept_to_nodes_on_which_the_image_runs() {
        let suited = |nodes, platforms: &[&str]| {
            let platforms: Vec<_> = platforms.iter().map(|&platform| platform.to_owned()).collect();
            let workload =
                json!({ "spec": { "selector": {}, "template": { "spec": { "containers": [] } } } });
            let mut objects = [
                Object::DaemonSet(serde_json::from_value(workload.clone()).unwrap()),
                Object::Deployment(serde_json::from_value(workload).unwrap()),
            ];
            Facts { nodes, ..facts() }.suit(&mut objects, &platforms);
            let path = "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/0/values";
            let [profiles, pod] =
                objects.map(|object| serde_json::to_value(&object).unwrap().pointer(path).cloned());
            assert_eq!(profiles, pod, "the profiles go where the pod goes");
            pod
        };
        let architectures = |nodes, platforms: &[&str]| suited(Ok(nodes), platforms);
        let mixed = || vec![node("a", "amd64", "True"), node("b", "arm64", "True")];
        assert_eq!(architectures(mixed(), &["linux/arm64"]), Some(json!(["arm64"])));
        assert_eq!(architectures(mixed(), &["linux/arm64", "linux/amd64"]), None);
        assert_eq!(architectures(mixed(), &[]), None, "it is not known what the image runs on");
        assert_eq!(architectures(vec![node("a", "amd64", "True")], &["linux/amd64"]), None);
        let unseen = || Err("forbidden".to_owned());
        assert_eq!(suited(unseen(), &["linux/arm64"]), Some(json!(["arm64"])), "there may be others");
        assert_eq!(suited(unseen(), &[]), None);
    }

    #[test]
    fn a_claim_keeps_its_storage_class_where_the_settings_name_none() {
        let suited = |wanted: Option<&str>| {
            let claim =
                json!({ "metadata": { "name": "kedge-state" }, "spec": { "storageClassName": wanted } });
            let mut objects = [Object::PersistentVolumeClaim(serde_json::from_value(claim).unwrap())];
            let claims = vec![("kedge-state".to_owned(), Some("old".to_owned()))];
            Facts { claims, ..facts() }.suit(&mut objects, &[]);
            serde_json::to_value(&objects[0]).unwrap()["spec"]["storageClassName"].clone()
        };
        assert_eq!((suited(None), suited(Some("new"))), (json!("old"), json!("new")));
    }

    #[test]
    fn a_storage_class_has_to_be_there_unless_the_claims_are() {
        let none = || Facts { classes: Ok(Vec::new()), ..facts() };
        assert!(none().judge(&wanted("", &[])).obstacles[0].contains("no default storage class"));
        let missing = facts().judge(&wanted("fast", &[]));
        assert_eq!(
            missing.obstacles,
            ["the cluster has no storage class `fast`, only: default, managed-csi"]
        );
        let claims =
            || ["kedge-state", "kedge-engine"].map(|name| (name.to_owned(), Some("old".to_owned()))).to_vec();
        assert_eq!(Facts { claims: claims(), ..none() }.judge(&wanted("", &[])), Judgement::default());
        let changed = Facts { claims: claims(), ..facts() }.judge(&wanted("default", &[]));
        assert!(
            changed.obstacles.len() == 2 && changed.obstacles[0].contains("undeploy --delete-state"),
            "{changed:?}"
        );
    }
}
