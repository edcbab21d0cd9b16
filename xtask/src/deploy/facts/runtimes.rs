//! By what containers can be made in a cluster.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeRuntimeHandler};
use k8s_openapi::api::node::v1::RuntimeClass;

/// The RuntimeClasses with their handlers, and the handlers of nodes with what they can do, each once. Kubelets tell of handlers
/// since Kubernetes 1.31, and never whether cgroups are writable.
pub(super) fn words(classes: &[RuntimeClass], nodes: &[Node]) -> Vec<String> {
    let class = |class: &RuntimeClass| {
        let name = class.metadata.name.as_deref().unwrap_or("?");
        format!("RuntimeClass `{name}` (handler `{}`)", class.handler)
    };
    let handlers = nodes.iter().filter_map(|node| node.status.as_ref()?.runtime_handlers.as_ref()).flatten();
    let handlers: BTreeSet<_> = handlers.map(handler).collect();
    classes.iter().map(class).chain(handlers).collect()
}

fn handler(handler: &NodeRuntimeHandler) -> String {
    let users = match handler.features.as_ref().map(|it| it.user_namespaces.unwrap_or_default()) {
        Some(true) => " with user namespaces",
        Some(false) => " without user namespaces",
        None => "",
    };
    match handler.name.as_deref() {
        None | Some("") => format!("the default handler{users}"),
        Some(name) => format!("handler `{name}`{users}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn handlers_that_several_nodes_have_are_told_once() {
        let node: Node = serde_json::from_value(json!({ "metadata": {}, "status": { "runtimeHandlers": [
            { "name": "", "features": { "userNamespaces": true } }, { "name": "runsc" } ] } }))
        .unwrap();
        let class: RuntimeClass =
            serde_json::from_value(json!({ "metadata": { "name": "gvisor" }, "handler": "runsc" })).unwrap();
        let expected = [
            "RuntimeClass `gvisor` (handler `runsc`)",
            "handler `runsc`",
            "the default handler with user namespaces",
        ];
        assert_eq!(words(&[class], &[node.clone(), node]), expected);
        assert_eq!(words(&[], &[Node::default()]), [""; 0]);
    }
}
