//! What `deploy` has made, found by what it carries: everything in the namespace is looked at, so that what somebody else
//! has put there is known as well.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject};
use kube::discovery::{self, ApiGroup, Scope, verbs};
use kube::{Api, Client, ResourceExt};

use super::is_made_by_deploy;
use crate::cluster::{fine_when_gone, plainly};
use crate::wait::{Observation, wait_for};

const GONE_LIMIT: Duration = Duration::from_secs(300);
/// How many kinds are listed at a time.
const AT_ONCE: usize = 12;
/// What Kubernetes puts into every namespace, or keeps there for what somebody has put there.
const ALWAYS_THERE: [(&str, &str); 4] = [
    ("ServiceAccount", "default"),
    ("ConfigMap", "kube-root-ca.crt"),
    ("ConfigMap", "istio-ca-root-cert"),
    ("ConfigMap", "openshift-service-ca.crt"),
];
const NEVER_TOLD: [&str; 4] = ["Event", "Endpoints", "EndpointSlice", "Lease"];
const STATE: &str = "PersistentVolumeClaim";

/// What is in the namespace.
#[derive(Debug)]
pub struct Removal {
    namespace: String,
    /// Whether `deploy` has made the namespace; none when it is not there.
    is_ours: Option<bool>,
    items: Vec<Item>,
    /// Kinds of which nobody could say what there is.
    unseen: Vec<String>,
}

/// An object of `deploy`, or of somebody else.
#[derive(Debug, Clone)]
struct Item {
    resource: ApiResource,
    name: String,
    uid: Option<String>,
    is_ours: bool,
}

impl Removal {
    /// Looks at all that is in the namespace.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn look(client: &Client, namespace: &str) -> Result<Self> {
        let api: Api<Namespace> = Api::all(client.clone());
        let found = api.get_opt(namespace).await;
        let found = found
            .map_err(plainly)
            .with_context(|| format!("failed to look at the namespace `{namespace}`"))?;
        let mut removal = Self {
            namespace: namespace.to_owned(),
            is_ours: found.map(|found| is_made_by_deploy(&found.metadata)),
            items: Vec::new(),
            unseen: Vec::new(),
        };
        if removal.is_ours.is_none() {
            return Ok(removal);
        }
        let (kinds, unseen) = kinds(client).await?;
        removal.unseen = unseen;
        let lists = kinds.into_iter().map(|resource| {
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
            async move { (api.list_metadata(&ListParams::default()).await, resource) }
        });
        let mut lists = futures_util::stream::iter(lists).buffer_unordered(AT_ONCE);
        while let Some((list, resource)) = lists.next().await {
            match list {
                Ok(list) => removal.items.extend(list.items.iter().filter_map(|it| Item::of(&resource, it))),
                // It was taken away between the two questions.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(_) => removal.unseen.push(resource.kind),
            }
        }
        removal.items.sort_by(|a, b| (&a.resource.kind, &a.name).cmp(&(&b.resource.kind, &b.name)));
        removal.items.dedup_by(|a, b| a.resource.kind == b.resource.kind && a.name == b.name);
        Ok(removal)
    }

    fn ours(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.is_ours)
    }

    fn foreign(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| !item.is_ours)
    }

    /// Whether there is nothing to remove, with or without the state.
    #[must_use]
    pub fn is_nothing(&self, delete_state: bool) -> bool {
        let goes = |item: &Item| delete_state || !item.is_state();
        !self.ours().any(goes) && !self.takes_namespace(delete_state)
    }

    /// Whether volumes of `deploy` are there.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.ours().any(Item::is_state)
    }

    /// Whether the namespace goes as well: it has to be ours, and nothing may be left in it.
    fn takes_namespace(&self, delete_state: bool) -> bool {
        self.is_ours == Some(true)
            && self.foreign().next().is_none()
            && self.unseen.is_empty()
            && (delete_state || !self.has_state())
    }

    /// Removes it, and waits until it is gone; what was removed.
    ///
    /// # Errors
    /// When the API server refuses, or something does not go.
    pub async fn carry_out(
        &self,
        client: &Client,
        delete_state: bool,
        tell: impl Fn(&str),
    ) -> Result<Vec<String>> {
        let (state, rest): (Vec<_>, Vec<_>) = self.ours().partition(|item| item.is_state());
        let mut removed = Vec::new();
        // The pod first of all: what it has mounted stays until it has ended.
        for item in rest.into_iter().chain(state.into_iter().filter(|_| delete_state)) {
            let api = self.api(client, item);
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Foreground),
                // Another one of the name may have been made since the look.
                preconditions: Some(Preconditions { uid: item.uid.clone(), ..Preconditions::default() }),
                ..DeleteParams::default()
            };
            fine_when_gone(api.delete(&item.name, &params).await)
                .map_err(plainly)
                .with_context(|| format!("failed to remove {item}"))?;
            removed.push(item);
        }
        let left = || async {
            let mut left = Vec::new();
            for item in &removed {
                match self.api(client, item).get_metadata_opt(&item.name).await {
                    Ok(None) => {}
                    Ok(Some(_)) => left.push(item.to_string()),
                    Err(error) => return Observation::NotYet(error.to_string()),
                }
            }
            told(&left, &tell)
        };
        wait_for("the end of what was removed", GONE_LIMIT, left).await?;
        let mut titles: Vec<_> = removed.iter().map(ToString::to_string).collect();
        // Somebody may have put something there meanwhile.
        if self.takes_namespace(delete_state)
            && Self::look(client, &self.namespace).await?.takes_namespace(delete_state)
        {
            self.remove_namespace(client, &tell).await?;
            titles.push(format!("Namespace `{}`", self.namespace));
        }
        Ok(titles)
    }

    async fn remove_namespace(&self, client: &Client, tell: &impl Fn(&str)) -> Result<()> {
        let api: Api<Namespace> = Api::all(client.clone());
        fine_when_gone(api.delete(&self.namespace, &DeleteParams::default()).await)
            .map_err(plainly)
            .with_context(|| format!("failed to remove the namespace `{}`", self.namespace))?;
        let left = || async {
            match api.get_metadata_opt(&self.namespace).await {
                Ok(found) => {
                    told(&found.map(|_| self.namespace.clone()).into_iter().collect::<Vec<_>>(), tell)
                }
                Err(error) => Observation::NotYet(error.to_string()),
            }
        };
        Ok(wait_for("the end of the namespace", GONE_LIMIT, left).await?)
    }

    fn api(&self, client: &Client, item: &Item) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), &self.namespace, &item.resource)
    }
}

fn told(left: &[String], tell: &impl Fn(&str)) -> Observation<()> {
    if left.is_empty() {
        return Observation::Ready(());
    }
    let status = format!("still there: {}", left.join(", "));
    tell(&status);
    Observation::NotYet(status)
}

/// All kinds of objects that may be in a namespace, and the groups of kinds that cannot be told now: a server beside the
/// API server may be away.
async fn kinds(client: &Client) -> Result<(Vec<ApiResource>, Vec<String>)> {
    let asked = "failed to ask which kinds of objects there are";
    let groups = client.list_api_groups().await.map_err(plainly).context(asked)?.groups;
    let names = groups.into_iter().map(|group| group.name).chain([ApiGroup::CORE_GROUP.to_owned()]);
    // Measurements are no objects.
    let names = names.filter(|name| !name.ends_with("metrics.k8s.io"));
    let groups = names.map(|name| async move { (discovery::group(client, &name).await, name) });
    let mut groups = futures_util::stream::iter(groups).buffer_unordered(AT_ONCE);
    let (mut kinds, mut unseen) = (Vec::new(), Vec::new());
    while let Some((group, name)) = groups.next().await {
        let Ok(group) = group else {
            unseen.push(name);
            continue;
        };
        let listed = group.recommended_resources().into_iter().filter(|(_, capabilities)| {
            capabilities.scope == Scope::Namespaced
                && capabilities.supports_operation(verbs::LIST)
                && capabilities.supports_operation(verbs::DELETE)
        });
        kinds.extend(listed.map(|(resource, _)| resource));
    }
    Ok((kinds, unseen))
}

impl Item {
    /// Nothing for what belongs to another object, or to Kubernetes itself.
    fn of<K: ResourceExt>(resource: &ApiResource, found: &K) -> Option<Self> {
        let (kind, name) = (resource.kind.as_str(), found.name_any());
        let belongs = !found.owner_references().is_empty()
            || found
                .annotations()
                .get("kubernetes.io/service-account.name")
                .is_some_and(|of| of == "default");
        if belongs || ALWAYS_THERE.contains(&(kind, &name)) || NEVER_TOLD.contains(&kind) {
            return None;
        }
        Some(Self {
            resource: resource.clone(),
            is_ours: is_made_by_deploy(found.meta()),
            uid: found.uid(),
            name,
        })
    }

    fn is_state(&self) -> bool {
        self.resource.kind == STATE
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.resource.kind, self.name)
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in self.ours().filter(|item| !item.is_state()) {
            writeln!(f, "- {item}")?;
        }
        for item in self.ours().filter(|item| item.is_state()) {
            writeln!(f, "? {item}, only with the state")?;
        }
        for item in self.foreign() {
            writeln!(f, "= {item}, which `deploy` has not made, and stays")?;
        }
        for kind in &self.unseen {
            writeln!(f, "= whether there are objects of the kind {kind} could not be seen")?;
        }
        match self.is_ours {
            Some(true) if self.takes_namespace(false) => writeln!(f, "- Namespace `{}`", self.namespace),
            Some(true) if self.takes_namespace(true) => {
                writeln!(f, "? Namespace `{}`, only with the state", self.namespace)
            }
            Some(true) => writeln!(f, "= Namespace `{}`, in which something is left", self.namespace),
            Some(false) => writeln!(f, "= Namespace `{}`, which `deploy` has not made", self.namespace),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn resource(kind: &str) -> ApiResource {
        ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: kind.into(),
            plural: String::new(),
        }
    }

    fn item(kind: &str, name: &str, metadata: &Value) -> Option<Item> {
        let mut metadata = metadata.clone();
        metadata["name"] = name.into();
        let object: DynamicObject = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
        Item::of(&resource(kind), &object)
    }

    fn ours(name: &str) -> Value {
        json!({ "annotations": { "kedge.io/made-by": format!("deploy/{name}") } })
    }

    fn removal(items: Vec<Option<Item>>) -> Removal {
        let items = items.into_iter().flatten().collect();
        Removal { namespace: "edge".into(), is_ours: Some(true), items, unseen: Vec::new() }
    }

    #[test]
    fn what_kubernetes_keeps_there_is_nobodys() {
        let owned = json!({ "ownerReferences": [{ "apiVersion": "v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true }] });
        let token = json!({ "annotations": { "kubernetes.io/service-account.name": "default" } });
        for (kind, name, metadata) in [
            ("ServiceAccount", "default", json!({})),
            ("ConfigMap", "kube-root-ca.crt", json!({})),
            ("Pod", "kedge-1", owned),
            ("Secret", "default-token-x", token),
            ("Event", "e", json!({})),
            ("Endpoints", "kedge-edge", json!({})),
        ] {
            assert!(item(kind, name, &metadata).is_none(), "{kind} {name}");
        }
        assert!(!item("ConfigMap", "somebodys", &json!({})).unwrap().is_ours);
        assert!(item("Deployment", "kedge", &ours("kedge")).unwrap().is_ours);
        let copy = item("PersistentVolumeClaim", "kedge-state-backup", &ours("kedge-state"));
        assert!(!copy.unwrap().is_ours, "a copy that somebody has made");
    }

    #[test]
    fn the_namespace_goes_when_it_is_ours_and_nothing_is_left() {
        let deployment = || item("Deployment", "kedge", &ours("kedge"));
        let claim = || item("PersistentVolumeClaim", "kedge-state", &ours("kedge-state"));
        let foreign = || item("ConfigMap", "somebodys", &json!({}));
        assert!(removal(vec![deployment()]).takes_namespace(false));
        let with_state = removal(vec![deployment(), claim()]);
        assert!(!with_state.takes_namespace(false) && with_state.takes_namespace(true));
        assert!(!removal(vec![deployment(), foreign()]).takes_namespace(true));
        assert!(!Removal { is_ours: Some(false), ..removal(vec![deployment()]) }.takes_namespace(true));
        assert!(!Removal { unseen: vec!["Ingress".into()], ..removal(vec![]) }.takes_namespace(true));
    }

    #[test]
    fn what_stays_and_what_goes_is_told() {
        let all = removal(vec![
            item("Deployment", "kedge", &ours("kedge")),
            item("PersistentVolumeClaim", "kedge-state", &ours("kedge-state")),
            item("ConfigMap", "somebodys", &json!({})),
        ]);
        assert_eq!(
            all.to_string(),
            "- Deployment `kedge`\n? PersistentVolumeClaim `kedge-state`, only with the state\n\
             = ConfigMap `somebodys`, which `deploy` has not made, and stays\n= Namespace `edge`, in which something is left\n"
        );
        assert!(!all.is_nothing(false) && all.has_state());
        let kept = removal(vec![item("PersistentVolumeClaim", "kedge-state", &ours("kedge-state"))]);
        assert!(kept.is_nothing(false) && !kept.is_nothing(true));
        assert!(!removal(vec![]).is_nothing(false), "the namespace is left");
        assert!(Removal { is_ours: None, ..removal(vec![]) }.is_nothing(true));
    }
}
