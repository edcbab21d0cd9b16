//! The profiles on their way onto the nodes: the pod comes after them, and there is the same patience for both, since their image
//! is the same.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Pod, PodSpec};
use kube::api::ListParams;
use kube::{Api, Client};

use super::trouble::{self, Trouble};
use super::{Lasting, Rollout};
use crate::cluster::manifests::{Object, PROFILES};
use crate::cluster::{self, is_pod_ready, plainly};
use crate::wait::{Observation, wait_for};

/// What one look at the cluster has found.
struct Seen {
    set: DaemonSet,
    pods: Vec<Pod>,
}

impl Rollout<'_> {
    /// After an object was applied: where it is what brings the profiles, they are waited for.
    ///
    /// # Errors
    /// When they do not come onto every node to which the pod may come, or trouble has lasted too long for it.
    pub async fn wait_for_profiles(
        &self,
        client: &Client,
        object: &Object,
        tell: impl Fn(&str) + Sync,
    ) -> Result<()> {
        if !matches!(object, Object::DaemonSet(_)) {
            return Ok(());
        }
        let (lasting, began) = (Lasting::default(), Timestamp::now());
        if let Ok(seen) = self.look_at_profiles(client).await {
            self.try_anew(client, &seen.pods).await;
        }
        let away = nodes_away(client).await;
        let waited = wait_for("the profiles on the nodes", self.limit, || async {
            let seen = match self.look_at_profiles(client).await {
                Ok(seen) => seen,
                Err(error) => return Observation::NotYet(plainly(error).to_string()),
            };
            let Err(progress) = seen.progress(&away) else { return Observation::Ready(()) };
            let trouble = self.trouble_of_profiles(client, &seen, &away, began).await;
            let status = match &trouble {
                Some(trouble) => format!("{progress}: {}", trouble.text),
                None => progress,
            };
            tell(&status);
            if lasting.is_over(trouble.map(|trouble| trouble.kind), self.may_grow) {
                return Observation::Failed(status);
            }
            Observation::NotYet(status)
        });
        waited.await.with_context(|| {
            format!(
                "the DaemonSet `{PROFILES}` has not brought the profiles onto every node; see `kubectl logs --namespace {} \
                 daemonset/{PROFILES} --container install`",
                self.namespace
            )
        })
    }

    async fn look_at_profiles(&self, client: &Client) -> kube::Result<Seen> {
        let sets: Api<DaemonSet> = Api::namespaced(client.clone(), self.namespace);
        let selector = ListParams::default().labels(&format!("app.kubernetes.io/name={PROFILES}"));
        let set = sets.get(PROFILES).await?;
        Ok(Seen { set, pods: self.pods(client).list(&selector).await?.items })
    }

    async fn trouble_of_profiles(
        &self,
        client: &Client,
        seen: &Seen,
        away: &[String],
        since: Timestamp,
    ) -> Option<Trouble> {
        let late = seen.late(away);
        if let Some(found) = trouble::of_pods(&late) {
            return Some(self.looked_into(client, found, &late).await);
        }
        if !late.is_empty() {
            return None;
        }
        // Nothing else than its events says why a DaemonSet makes no pods.
        let events: Api<Event> = Api::namespaced(client.clone(), self.namespace);
        let events = events.list(&ListParams::default()).await.ok()?.items;
        trouble::of_daemon_set(PROFILES, &events, self.namespace, since)
    }
}

/// Nodes that are down, so that neither profiles nor the pod come to them. Not everybody may look.
async fn nodes_away(client: &Client) -> Vec<String> {
    let nodes = cluster::nodes(client).await.unwrap_or_default();
    nodes.into_iter().filter(|node| !cluster::is_ready(node)).filter_map(|node| node.metadata.name).collect()
}

impl Seen {
    /// Whether every node to which the pod may come has the profiles of this version.
    fn progress(&self, away: &[String]) -> Result<(), String> {
        let Some(status) = &self.set.status else { return Err("it is not looked at yet".to_owned()) };
        let is_seen = status.observed_generation >= self.set.metadata.generation;
        let count = |counts: &dyn Fn(&Pod) -> bool| self.pods.iter().filter(|pod| counts(pod)).count();
        let there = count(&|pod| self.has_profiles(pod));
        let excused = count(&|pod| !self.has_profiles(pod) && is_excused(pod, away));
        let needed =
            usize::try_from(status.desired_number_scheduled).unwrap_or_default().saturating_sub(excused);
        // Where every node is away, as for a moment after its runtime was restarted, there is none that could go first.
        if there == 0 && self.pods.iter().any(|pod| is_on(pod, away)) {
            return Err("no node was ready for the profiles".to_owned());
        }
        if is_seen && there >= needed {
            return Ok(());
        }
        Err(format!("{there} of {needed} nodes have the profiles"))
    }

    /// The pods of this version that have yet to bring the profiles.
    fn late(&self, away: &[String]) -> Vec<Pod> {
        let late = self.pods.iter().filter(|pod| {
            self.is_current(pod) && pod.metadata.deletion_timestamp.is_none() && !is_pod_ready(pod)
        });
        late.filter(|pod| !is_excused(pod, away)).cloned().collect()
    }

    fn has_profiles(&self, pod: &Pod) -> bool {
        self.is_current(pod) && is_pod_ready(pod)
    }

    /// Whether the pod is made of the present template, by what the controller notes, for others may have changed what is in the pod.
    fn is_current(&self, pod: &Pod) -> bool {
        const OF_SET: &str = "deprecated.daemonset.template.generation";
        let wanted = self.set.metadata.annotations.as_ref().and_then(|all| all.get(OF_SET));
        let found = pod.metadata.labels.as_ref().and_then(|all| all.get("pod-template-generation"));
        if let (Some(wanted), Some(found)) = (wanted, found) {
            return wanted == found;
        }
        fn programs(spec: &PodSpec) -> impl Iterator<Item = (&str, Option<&String>, Option<&Vec<String>>)> {
            let all = spec.init_containers.iter().flatten().chain(&spec.containers);
            all.map(|it| (it.name.as_str(), it.image.as_ref(), it.command.as_ref()))
        }
        let template = self.set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let (Some(template), Some(found)) = (template, &pod.spec) else { return false };
        programs(template).all(|wanted| programs(found).any(|it| it == wanted))
    }
}

/// Whether nobody has to wait for this pod: its node is down, or has no room for it and so none for the edge either.
fn is_excused(pod: &Pod, away: &[String]) -> bool {
    is_on(pod, away) || trouble::is_unscheduled(pod)
}

/// Whether the pod is on one of these nodes.
fn is_on(pod: &Pod, nodes: &[String]) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    node.is_some_and(|node| nodes.contains(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn containers(image: &str) -> Value {
        json!([{ "name": "check", "image": image, "command": ["sleep", "infinity"] }])
    }

    fn pod(image: &str, node: &str, ready: &str) -> Pod {
        let mut containers = containers(image);
        containers.as_array_mut().unwrap().push(json!({ "name": "sidecar", "image": "mesh" }));
        let conditions = json!([{ "type": "Ready", "status": ready }]);
        serde_json::from_value(json!({ "metadata": { "name": node },
            "spec": { "nodeName": node, "containers": containers }, "status": { "conditions": conditions } }))
        .unwrap()
    }

    fn unscheduled() -> Pod {
        let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" });
        serde_json::from_value(json!({ "metadata": {}, "spec": { "containers": containers("new") },
            "status": { "conditions": [condition] } }))
        .unwrap()
    }

    fn seen(generation: i64, pods: Vec<Pod>) -> Seen {
        let set = json!({ "metadata": { "generation": generation },
            "spec": { "selector": {}, "template": { "spec": { "containers": containers("new") } } },
            "status": { "observedGeneration": 2, "desiredNumberScheduled": 2, "numberReady": 0,
                "currentNumberScheduled": 2, "numberMisscheduled": 0 } });
        Seen { set: serde_json::from_value(set).unwrap(), pods }
    }

    #[test]
    fn the_profiles_are_there_when_every_node_has_those_of_this_version() {
        let told = |generation, pods| seen(generation, pods).progress(&[]);
        let both = || vec![pod("new", "a", "True"), pod("new", "b", "True")];
        assert_eq!(told(2, both()), Ok(()));
        assert!(told(3, both()).is_err(), "the controller has not seen the change");
        let one = Err("1 of 2 nodes have the profiles".to_owned());
        assert_eq!(told(2, vec![pod("new", "a", "True"), pod("new", "b", "False")]), one);
        assert_eq!(told(2, vec![pod("new", "a", "True"), pod("old", "b", "True")]), one);
        assert_eq!(told(2, vec![pod("new", "a", "True")]), one);
        assert!(Seen { set: DaemonSet::default(), pods: both() }.progress(&[]).is_err());
    }

    #[test]
    fn a_pod_into_which_a_policy_has_put_another_image_is_known_by_its_generation() {
        let mut found = seen(2, vec![pod("mirror/new", "a", "True"), pod("mirror/new", "b", "True")]);
        assert!(found.progress(&[]).is_err());
        let of_set = [("deprecated.daemonset.template.generation".to_owned(), "7".to_owned())];
        found.set.metadata.annotations = Some(of_set.into());
        for (generation, expected) in [("7", true), ("6", false)] {
            for pod in &mut found.pods {
                pod.metadata.labels = Some([("pod-template-generation".into(), generation.into())].into());
            }
            assert_eq!(found.progress(&[]).is_ok(), expected);
        }
    }

    #[test]
    fn nodes_that_cannot_take_the_edge_are_not_waited_for() {
        let away = ["b".to_owned()];
        let found = seen(2, vec![pod("new", "a", "True"), pod("new", "b", "False")]);
        assert_eq!((found.progress(&away), found.late(&away).len()), (Ok(()), 0));
        assert_eq!(found.late(&[]).len(), 1);
        let alone = seen(2, vec![pod("new", "b", "False")]);
        assert!(alone.progress(&away).is_err(), "then nobody has the profiles");
        let full = seen(2, vec![pod("new", "a", "True"), unscheduled()]);
        assert_eq!((full.progress(&[]), full.late(&[]).len()), (Ok(()), 0));
        let both = seen(2, vec![pod("new", "a", "False"), unscheduled()]);
        assert_eq!(both.progress(&[]), Err("0 of 1 nodes have the profiles".to_owned()));
    }
}
