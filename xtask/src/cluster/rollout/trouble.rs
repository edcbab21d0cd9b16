//! Trouble of a pod on its way, as the cluster tells it: pure functions from objects to a sentence.

use std::time::Duration;

use jiff::Timestamp;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, PersistentVolumeClaim, Pod};

use super::super::pulls::Pulls;
use super::super::refusal::Refusal;
use super::super::{container_statuses, describe};

/// Reasons for waiting that seldom go away by themselves.
const STUCK: [&str; 3] = ["InvalidImageName", "CreateContainerConfigError", "CreateContainerError"];
/// The reason, among these, that a container has ended again and again.
const CRASH_LOOP: &str = "CrashLoopBackOff";
/// How a registry says that it does not have an image, the next time as little as this time.
const MISSING: [&str; 2] = ["not found", "manifest unknown"];
/// How an image that cannot be pulled is told.
const UNPULLED: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];
/// After so many attempts it is known that the next one will not do either: the first may come before the kubelet has seen
/// the pull secret.
const ATTEMPTS: i32 = 2;
const OUT_OF_MEMORY: &str = "OOMKilled";
/// With this code the entrypoint says that it cannot start with what it was given, and the next time is the same.
const UNUSABLE_CONFIGURATION: i32 = 78;
/// What the autoscaler says when it makes room, and that it cannot.
const SCALES_UP: [&str; 2] = ["TriggeredScaleUp", "Nominated"];
const CANNOT_SCALE_UP: &str = "NotTriggerScaleUp";

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// How trouble passes, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A policy does not let the pod in.
    Refused,
    /// The pod could not be made for another reason, such as a service account that is not there yet.
    NotMade,
    /// The container does not start.
    Stuck,
    /// Its image could not be pulled, and that is tried again.
    Unpulled,
    /// The image is being pulled, though not for the first time.
    Pulling,
    /// Its image cannot be pulled, or it ends again and again.
    Hopeless,
    /// The entrypoint cannot start with what it was given.
    Unusable,
    /// No node takes the pod.
    Unscheduled,
    /// Another node is on its way.
    Scaling,
}

impl Kind {
    /// How long it is believed to pass all the same; none where it may take as long as it likes.
    pub(super) fn patience(self, may_grow: bool) -> Option<Duration> {
        match self {
            // The Deployment may still tell what was so before the last change.
            Self::Refused => Some(Duration::from_secs(3)),
            Self::Unusable => Some(Duration::ZERO),
            // Kubernetes tries again after ten seconds, and what comes of that stands in its events.
            Self::Unpulled => Some(Duration::from_secs(30)),
            Self::NotMade | Self::Stuck => Some(Duration::from_secs(20)),
            // Kubernetes says that it backs off, and means the same trouble.
            Self::Hopeless => Some(Duration::from_secs(3)),
            // An autoscaler takes a while before it says something; a volume is made within moments.
            Self::Unscheduled => Some(Duration::from_secs(if may_grow { 60 } else { 4 })),
            Self::Scaling | Self::Pulling => None,
        }
    }
}

/// What hinders the Deployment from making its pod.
pub(super) fn of_deployment(deployment: &Deployment, namespace: &str) -> Option<Trouble> {
    let conditions = deployment.status.as_ref()?.conditions.iter().flatten();
    let failure = conditions.into_iter().find(|it| it.type_ == "ReplicaFailure" && it.status == "True")?;
    Some(not_made(failure.message.as_deref().unwrap_or_default(), namespace))
}

/// What hinders a DaemonSet from making its pods, as its last event since then says: what was before may be mended.
pub(super) fn of_daemon_set(
    name: &str,
    events: &[Event],
    namespace: &str,
    since: Timestamp,
) -> Option<Trouble> {
    let failures = events.iter().filter(|event| {
        let of = &event.involved_object;
        (of.kind.as_deref(), of.name.as_deref()) == (Some("DaemonSet"), Some(name))
            && event.last_timestamp.as_ref().is_none_or(|time| time.0 >= since)
            && event.reason.as_deref() == Some("FailedCreate")
    });
    let last = failures.max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))?;
    Some(not_made(last.message.as_deref().unwrap_or_default(), namespace))
}

fn not_made(message: &str, namespace: &str) -> Trouble {
    match Refusal::of(message, namespace) {
        Some(refusal) => Trouble { kind: Kind::Refused, text: refusal.to_string() },
        None => Trouble { kind: Kind::NotMade, text: format!("the pod cannot be made: {message}") },
    }
}

/// What hinders one of the pods.
pub(super) fn of_pods(pods: &[Pod]) -> Option<Trouble> {
    pods.iter().find_map(|pod| {
        let containers = || container_statuses(pod);
        let kind = if containers().any(ended_unusable) {
            Kind::Unusable
        } else if containers().any(is_hopeless) {
            Kind::Hopeless
        } else if containers().any(|container| is_waiting(container, &UNPULLED)) {
            Kind::Unpulled
        } else if containers().any(|container| is_waiting(container, &STUCK)) {
            Kind::Stuck
        } else if is_unscheduled(pod) {
            Kind::Unscheduled
        } else {
            return None;
        };
        Some(Trouble { kind, text: describe(pod) })
    })
}

/// Whether Kubernetes has failed with the pod before, and waits until it tries again, or is about to.
pub(super) fn backs_off(pod: &Pod) -> bool {
    let has_failed = |container: &ContainerStatus| {
        let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        ended.is_some_and(|ended| ended.exit_code != 0)
    };
    container_statuses(pod)
        .any(|container| has_failed(container) || is_waiting(container, &[CRASH_LOOP, "ImagePullBackOff"]))
}

fn is_waiting(container: &ContainerStatus, reasons: &[&str]) -> bool {
    waiting(container).0.is_some_and(|reason| reasons.contains(&reason))
}

fn is_hopeless(container: &ContainerStatus) -> bool {
    let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let is_out_of_memory = ended.and_then(|ended| ended.reason.as_deref()) == Some(OUT_OF_MEMORY);
    waiting(container).0 == Some(CRASH_LOOP) || (is_out_of_memory && !container.ready)
}

/// What trouble with an image comes to by what was tried.
pub(super) fn tried(mut trouble: Trouble, pulls: &Pulls) -> Trouble {
    let reason = pulls.reason.as_deref().unwrap_or_default();
    if !trouble.text.contains(reason) {
        trouble.text += &format!("; {reason}");
    }
    let told = trouble.text.to_lowercase();
    if MISSING.iter().any(|mark| told.contains(mark)) || pulls.failed >= ATTEMPTS {
        trouble.kind = Kind::Hopeless;
    } else if pulls.begun > pulls.failed {
        trouble.kind = Kind::Pulling;
    }
    trouble
}

/// For what the container waits, and what is said about that.
fn waiting(container: &ContainerStatus) -> (Option<&str>, &str) {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
    (waiting.and_then(|waiting| waiting.reason.as_deref()), message)
}

fn ended_unusable(container: &ContainerStatus) -> bool {
    let ended = [&container.state, &container.last_state].into_iter().flatten();
    let is_running = container.state.as_ref().is_some_and(|state| state.running.is_some());
    !is_running
        && ended
            .filter_map(|state| state.terminated.as_ref())
            .any(|ended| ended.exit_code == UNUSABLE_CONFIGURATION)
}

/// Whether no node takes the pod.
pub(super) fn is_unscheduled(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|it| it.type_ == "PodScheduled" && it.reason.as_deref() == Some("Unschedulable"))
}

/// Adds to a pod without a node what its claims and the autoscaler say.
pub(super) fn explain(
    mut trouble: Trouble,
    pods: &[Pod],
    claims: &[PersistentVolumeClaim],
    events: &[Event],
) -> Trouble {
    let said_of = |kind: &str, name: Option<&str>| {
        let of = events.iter().filter(|event| {
            event.involved_object.kind.as_deref() == Some(kind)
                && event.involved_object.name.as_deref() == name
        });
        of.collect::<Vec<_>>()
    };
    for claim in claims {
        let name = claim.metadata.name.as_deref();
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        let failed = said_of("PersistentVolumeClaim", name).into_iter().rfind(|event| {
            event.type_.as_deref() == Some("Warning") || event.reason.as_deref() == Some("FailedBinding")
        });
        if let (Some("Pending"), Some(event)) = (phase, failed) {
            let message = event.message.as_deref().unwrap_or_default();
            trouble.text += &format!("; the claim `{}` gets no volume: {message}", name.unwrap_or("?"));
        }
    }
    for pod in pods {
        let said = said_of("Pod", pod.metadata.name.as_deref());
        let last = said.iter().rfind(|event| {
            event
                .reason
                .as_deref()
                .is_some_and(|reason| SCALES_UP.contains(&reason) || reason == CANNOT_SCALE_UP)
        });
        let Some(event) = last else { continue };
        trouble.text += &format!("; the autoscaler: {}", event.message.as_deref().unwrap_or_default());
        if event.reason.as_deref() != Some(CANNOT_SCALE_UP) {
            trouble.kind = Kind::Scaling;
        }
    }
    trouble
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "kedge-1" }, "status": status })).unwrap()
    }

    fn event(kind: &str, name: &str, reason: &str, message: &str) -> Event {
        let object = json!({ "kind": kind, "name": name });
        let event = json!({ "metadata": {}, "involvedObject": object, "type": "Warning", "reason": reason, "message": message });
        serde_json::from_value(event).unwrap()
    }

    fn waiting(reason: &str) -> Pod {
        let state = json!({ "waiting": { "reason": reason, "message": "m" } });
        pod(
            &json!({ "phase": "Pending", "containerStatuses": [{ "name": "edge", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state }] }),
        )
    }

    #[test]
    fn a_stuck_pod_is_told_from_one_that_is_on_its_way() {
        let found = of_pods(&[waiting("CreateContainerError")]).unwrap();
        assert_eq!(
            (found.kind, found.text.as_str()),
            (Kind::Stuck, "kedge-1: Pending, restarts 0, CreateContainerError: m")
        );
        assert_eq!(of_pods(&[waiting("ContainerCreating")]), None);
        assert_eq!(of_pods(&[pod(&json!({ "phase": "Pending" }))]), None);
    }

    #[test]
    fn an_image_is_given_up_when_it_is_not_there_or_was_tried_twice() {
        let pod = waiting("ImagePullBackOff");
        assert!(backs_off(&pod) && !backs_off(&waiting("ErrImagePull")));
        let found = of_pods(&[pod]).unwrap();
        assert_eq!(found.kind, Kind::Unpulled);
        let after = |begun, failed, reason: &str| {
            tried(found.clone(), &Pulls { begun, failed, reason: Some(reason.into()) })
        };
        assert_eq!(after(1, 1, "401 Unauthorized").kind, Kind::Unpulled, "the secret may not be there yet");
        assert_eq!(after(2, 1, "401 Unauthorized").kind, Kind::Pulling);
        let refused = after(2, 2, "401 Unauthorized");
        assert_eq!(refused.kind, Kind::Hopeless);
        assert!(refused.text.ends_with("ImagePullBackOff: m; 401 Unauthorized"), "{}", refused.text);
        assert_eq!(after(1, 1, "manifest unknown").kind, Kind::Hopeless);
    }

    #[test]
    fn what_the_entrypoint_cannot_use_is_not_waited_for() {
        let container = |state: Value, code: i32| {
            let last = json!({ "terminated": { "exitCode": code } });
            pod(
                &json!({ "phase": "Running", "containerStatuses": [{ "name": "edge", "image": "i", "imageID": "", "ready": false, "restartCount": 1, "state": state, "lastState": last }] }),
            )
        };
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        assert_eq!(of_pods(&[container(waiting.clone(), 78)]).unwrap().kind, Kind::Unusable);
        assert_eq!(of_pods(&[container(waiting, 1)]).unwrap().kind, Kind::Hopeless);
        assert_eq!(of_pods(&[container(json!({ "running": {} }), 78)]), None, "it is tried again");
    }

    #[test]
    fn a_policy_that_refuses_is_named() {
        let deployment = |message: &str| -> Deployment {
            let condition = json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message });
            serde_json::from_value(json!({ "metadata": {}, "status": { "conditions": [condition] } }))
                .unwrap()
        };
        let refused =
            deployment("pods \"k\" is forbidden: violates PodSecurity \"baseline:latest\": privileged");
        let found = of_deployment(&refused, "edge").unwrap();
        assert_eq!(found.kind, Kind::Refused);
        assert!(
            found.text.contains("the Pod Security level `baseline` of the namespace `edge`"),
            "{}",
            found.text
        );
        let young = deployment("pods \"k\" is forbidden: error looking up service account edge/default");
        assert_eq!(of_deployment(&young, "edge").unwrap().kind, Kind::NotMade);
    }

    #[test]
    fn a_policy_that_refuses_the_pods_of_a_daemon_set_is_named_by_its_events() {
        let told = |name: &str, reason: &str, message: &str| {
            let events = [event("DaemonSet", name, reason, message)];
            of_daemon_set("kedge-profiles", &events, "edge", Timestamp::UNIX_EPOCH)
        };
        let message = "admission webhook \"validation.gatekeeper.sh\" denied the request: no hostPath";
        let found = told("kedge-profiles", "FailedCreate", message).unwrap();
        assert_eq!(found.kind, Kind::Refused);
        assert!(found.text.contains("no hostPath"), "{}", found.text);
        assert_eq!(told("kedge-profiles", "FailedCreate", "try again").unwrap().kind, Kind::NotMade);
        assert_eq!(told("other", "FailedCreate", message), None);
        let mut before = event("DaemonSet", "kedge-profiles", "FailedCreate", message);
        before.last_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        assert_eq!(of_daemon_set("kedge-profiles", &[before], "edge", Timestamp::now()), None);
        assert_eq!(told("kedge-profiles", "SuccessfulCreate", "Created pod"), None);
    }

    #[test]
    fn the_container_that_comes_before_the_others_tells_what_is_wrong() {
        let status = |name: &str, state: Value, last: Value| json!({ "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 2, "state": state, "lastState": last });
        let message = "kedge: this node has no AppArmor, which is to confine the pod\n";
        let ended = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": message } });
        let backs_off_now = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
        let check = status("check", json!({ "waiting": { "reason": "PodInitializing" } }), json!({}));
        let with = |before: Value| {
            pod(
                &json!({ "phase": "Pending", "initContainerStatuses": [before], "containerStatuses": [check] }),
            )
        };
        let failed = with(status("install", ended.clone(), json!({})));
        let pod = with(status("install", backs_off_now, ended));
        assert!(backs_off(&pod) && backs_off(&failed), "the kubelet says a little later that it backs off");
        let found = of_pods(&[pod]).unwrap();
        assert_eq!(found.kind, Kind::Hopeless);
        let told = "kedge-1: Pending, restarts 2, CrashLoopBackOff: back-off 10s; before that it ended with code 1 (Error): \
                    kedge: this node has no AppArmor, which is to confine the pod";
        assert_eq!(found.text, told);
    }

    #[test]
    fn a_pod_without_a_node_is_explained_by_its_claims_and_the_autoscaler() {
        let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available" });
        let pods = [pod(&json!({ "phase": "Pending", "conditions": [condition] }))];
        let found = of_pods(&pods).unwrap();
        assert_eq!(
            (found.kind, found.text.as_str()),
            (Kind::Unscheduled, "kedge-1: Pending 0/1 nodes are available")
        );
        let claim: PersistentVolumeClaim = serde_json::from_value(
            json!({ "metadata": { "name": "kedge-state" }, "status": { "phase": "Pending" } }),
        )
        .unwrap();
        let events = [
            event("PersistentVolumeClaim", "kedge-state", "ProvisioningFailed", "quota of disks exceeded"),
            event("Pod", "kedge-1", "NotTriggerScaleUp", "pod didn't trigger scale-up"),
            event("Pod", "kedge-1", "TriggeredScaleUp", "pool 1->2"),
        ];
        let explained = explain(found.clone(), &pods, &[claim], &events);
        assert_eq!(explained.kind, Kind::Scaling);
        assert!(
            explained.text.ends_with(
                "; the claim `kedge-state` gets no volume: quota of disks exceeded; the autoscaler: pool 1->2"
            ),
            "{}",
            explained.text
        );
        assert_eq!(explain(found, &pods, &[], &events[..2]).kind, Kind::Unscheduled);
    }
}
