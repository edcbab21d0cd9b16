//! The nodes of a cluster, those that are alike told together.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Node;

use crate::cluster::is_ready;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeFacts {
    pub(super) name: String,
    pub(super) is_ready: bool,
    /// Whether it takes new pods.
    pub(super) is_open: bool,
    /// Such as `linux/amd64`.
    pub(super) platform: String,
    /// Versions of everything.
    software: String,
    /// What pods may have of it.
    room: String,
}

impl NodeFacts {
    pub(super) fn of(node: &Node) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let info = status.node_info.unwrap_or_default();
        let allocatable = status.allocatable.unwrap_or_default();
        let room = |name: &str| allocatable.get(name).map_or_else(|| "?".to_owned(), |it| it.0.clone());
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            is_ready: is_ready(node),
            is_open: !node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default(),
            platform: format!("{}/{}", info.operating_system, info.architecture),
            software: format!(
                "kubelet {}, {}, {}, kernel {}",
                info.kubelet_version, info.container_runtime_version, info.os_image, info.kernel_version
            ),
            room: format!("cpu {}, memory {}", room("cpu"), rounded(&room("memory"))),
        }
    }

    /// Whether it can take the pod at all.
    pub(super) fn is_usable(&self) -> bool {
        self.is_ready && self.is_open
    }
}

/// Nodes tell their memory in Ki, whatever its size.
fn rounded(memory: &str) -> String {
    let kibibytes = memory.strip_suffix("Ki").and_then(|number| number.parse::<f64>().ok());
    kibibytes.map_or_else(|| memory.to_owned(), |number| format!("{:.1}Gi", number / f64::from(1 << 20)))
}

pub(super) fn write(f: &mut fmt::Formatter<'_>, nodes: &[NodeFacts]) -> fmt::Result {
    let mut alike: BTreeMap<_, Vec<&NodeFacts>> = BTreeMap::new();
    for node in nodes {
        alike.entry((&node.platform, &node.software, &node.room)).or_default().push(node);
    }
    if alike.is_empty() {
        writeln!(f, "nodes          none")?;
    }
    for ((platform, software, room), nodes) in alike {
        let ready = nodes.iter().filter(|node| node.is_usable()).count();
        let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).take(3).collect();
        let more = if nodes.len() > names.len() { ", …" } else { "" };
        writeln!(
            f,
            "nodes          {ready} of {} ready: {platform}, {software}; {room} each ({}{more})",
            nodes.len(),
            names.join(", ")
        )?;
    }
    Ok(())
}
