//! kind's configuration of the cluster: kind tells a mistake only after the image of the node is there.

use super::yaml::{self, Kind, Node};
use crate::problems::{Collector, Problem, did_you_mean, shown};

const TOP: [&str; 10] = [
    "kind",
    "apiVersion",
    "name",
    "nodes",
    "networking",
    "featureGates",
    "runtimeConfig",
    "kubeadmConfigPatches",
    "kubeadmConfigPatchesJSON6902",
    "containerdConfigPatches",
];
const NODE: [&str; 7] = [
    "role",
    "image",
    "labels",
    "extraMounts",
    "extraPortMappings",
    "kubeadmConfigPatches",
    "kubeadmConfigPatchesJSON6902",
];
const NETWORKING: [&str; 8] = [
    "ipFamily",
    "apiServerPort",
    "apiServerAddress",
    "podSubnet",
    "serviceSubnet",
    "disableDefaultCNI",
    "kubeProxyMode",
    "dnsSearch",
];

/// Tells what is wrong.
pub(super) fn check(file: &str, text: &str) -> Vec<Problem> {
    let mut problems = Collector::new(file, text);
    match yaml::parse(text, &mut problems).as_slice() {
        [config] if matches!(config.kind, Kind::Mapping(_)) => cluster(config, &mut problems),
        [] => problems.push(None, "there is no configuration in it"),
        [config] => problems.push(Some(config.at), "a mapping is needed"),
        [_, second, ..] => problems.push(Some(second.at), "kind takes one document"),
    }
    problems.finish()
}

fn cluster(config: &Node, problems: &mut Collector<'_>) {
    only(config, &TOP, problems);
    for (name, wanted) in [("kind", "Cluster"), ("apiVersion", "kind.x-k8s.io/v1alpha4")] {
        match config.get(name) {
            None => problems.push(Some(config.at), format!("`{name}: {wanted}` is missing")),
            Some(node) if node.as_text() == Some(wanted) => {}
            Some(node) => problems.push(Some(node.at), format!("{name}: only {wanted} is supported")),
        }
    }
    if let Some(networking) = config.get("networking") {
        only(networking, &NETWORKING, problems);
    }
    for name in ["nodes", "containerdConfigPatches", "kubeadmConfigPatches"] {
        if let Some(node) = config.get(name).filter(|node| !matches!(node.kind, Kind::List(_))) {
            problems.push(Some(node.at), format!("{name}: a list is needed"));
        }
    }
    let nodes = config.get("nodes").map(Node::items).unwrap_or_default();
    for node in nodes {
        only(node, &NODE, problems);
        if let Some(role) = node.get("role").filter(|role| !is_role(role)) {
            let written = shown(role.as_text().unwrap_or_default());
            problems.push(Some(role.at), format!("role: \"{written}\" is not control-plane or worker"));
        }
    }
    let is_control_plane = |node: &Node| node.get("role").and_then(Node::as_text) != Some("worker");
    if !nodes.is_empty() && !nodes.iter().any(is_control_plane) {
        problems.push(config.get("nodes").map(|nodes| nodes.at), "nodes: no node has the role control-plane");
    }
}

fn is_role(role: &Node) -> bool {
    matches!(role.as_text(), Some("control-plane" | "worker"))
}

fn only(mapping: &Node, known: &[&str], problems: &mut Collector<'_>) {
    if !matches!(mapping.kind, Kind::Mapping(_)) {
        return problems.push(Some(mapping.at), "a mapping is needed");
    }
    for (name, at, _) in mapping.entries().iter().filter(|(name, _, _)| !known.contains(&name.as_str())) {
        let hint = did_you_mean(name, known.iter().copied());
        problems.push(Some(*at), format!("unknown field `{}`{hint}", shown(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: kedge
networking:
  disableDefaultCNI: true
nodes:
  - role: control-plane
";

    #[test]
    fn the_configurations_of_the_repository_are_fine() {
        assert_eq!(check("k.yaml", SOURCE), []);
        assert_eq!(check("k.yaml", include_str!("../../../kind-cluster/kind.yaml")), []);
        assert_eq!(check("k.yaml", include_str!("../../../kind-cluster/kind-upstream.yaml")), []);
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        let cases = [
            ("kind: Cluster\napi", "kind: Clutser\napi", "k.yaml:1:7: kind: only Cluster is supported"),
            ("apiVersion: kind.x-k8s.io/v1alpha4\n", "", "`apiVersion: kind.x-k8s.io/v1alpha4` is missing"),
            ("nodes:", "node:", "k.yaml:6:1: unknown field `node`; did you mean `nodes`?"),
            (
                "disableDefaultCNI",
                "disableDefaultCni",
                "k.yaml:5:3: unknown field `disableDefaultCni`; did you mean",
            ),
            ("role: control-plane", "role: master", "k.yaml:7:11: role: \"master\" is not"),
            ("role: control-plane", "role: worker", "no node has the role control-plane"),
            ("  - role: control-plane", "  role: control-plane", "nodes: a list is needed"),
            ("name: kedge", "name: kedge\nname: other", "`name` stands twice"),
            ("nodes:", "nodes: [", "not YAML"),
        ];
        for (from, to, expected) in cases {
            assert!(SOURCE.contains(from), "{from}");
            let problems = check("k.yaml", &SOURCE.replacen(from, to, 1));
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            assert!(told.iter().any(|problem| problem.contains(expected)), "{to}: {told:#?}");
        }
        assert_eq!(check("k.yaml", "# nothing\n").len(), 1);
        assert_eq!(check("k.yaml", "- 1\n").len(), 1);
    }
}
