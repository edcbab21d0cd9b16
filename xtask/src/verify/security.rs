//! Whether the edge is confined as its tier promises: read from inside of it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use super::DIAGNOSIS_LIMIT;
use super::cause::{Cause, Kind};
use super::layers::Name;
use super::scene::{Means, Scene};
use crate::cluster::confinement::tier_of;
use crate::cluster::{self, manifests};
use crate::context::Context;
use crate::exit::Unproved;
use crate::place::Place;
use crate::plan::Condition;
use crate::tier::proof::{Promise, SCRIPT};
use crate::tier::{self, Tier};
use crate::wait::{Observation, WaitError, wait_for};

/// How long it may take until one can look into an edge that is ready.
const PROOF_LIMIT: Duration = Duration::from_secs(30);

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Security {
    /// The tier that the edge was made for.
    pub tier: Tier,
    /// What it really has.
    #[serde(flatten)]
    pub proof: tier::Proof,
    /// What it lacks, of what the tier has elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<&'static str>,
}

/// One look at what the edge has, compared with its tier.
pub(super) async fn look(scene: &Scene<'_>) -> Result<String, Cause> {
    let passing = |error: anyhow::Error| Cause::passing(format!("{error:#}"));
    let promise = promise(scene).await.map_err(passing)?;
    let proof = tier::Proof::read(&scene.script(SCRIPT).await.map_err(passing)?).map_err(Cause::passing)?;
    let tier = promise.tier;
    let mut broken = proof.broken_promises(&promise);
    let wanted = scene.settings.security.tier.tier();
    if let Some(wanted) = wanted.filter(|wanted| *wanted != tier) {
        broken.push(format!("it was made for this tier, and the settings name `{wanted}`"));
    }
    let words = proof.words(tier);
    let lacks = proof.gaps(tier);
    scene.note_security(Security { tier, proof, lacks });
    if broken.is_empty() {
        return Ok(words);
    }
    Err(Cause::new(
        Kind::Security,
        format!("the edge is not what the tier `{tier}` promises: {}", broken.join("; ")),
        way_out(scene.means),
    ))
}

/// What helps an edge that is not confined as it is to be.
fn way_out(means: Means<'_>) -> &'static str {
    match means {
        Means::Own(_, Place::Host) => {
            "run `cargo xtask run`, which makes the container anew; `cargo xtask doctor` tells what works here"
        }
        Means::Own(_, Place::Cluster) => "run `cargo xtask up`, which makes the pod anew",
        Means::Foreign(..) => {
            "run `cargo xtask deploy`, which tells what works there; where it changes nothing, `kubectl delete pod --selector \
             app.kubernetes.io/name=kedge` in the namespace lets the Deployment make the pod anew"
        }
        #[cfg(test)]
        Means::Played(_) => "there is none",
    }
}

/// What the edge was made for.
async fn promise(scene: &Scene<'_>) -> Result<Promise> {
    match scene.means {
        Means::Own(context, Place::Host) => {
            let container = context.engine.container(&context.settings.edge_container()).await?;
            let tier = container.context("there is no container")?.tier;
            Ok(Promise { tier: tier.unwrap_or(Tier::Privileged), memory: None })
        }
        Means::Own(..) | Means::Foreign(..) => {
            let client = scene.client().await?;
            let pods = cluster::pods(&client, &scene.settings.deploy.namespace).await?;
            let pod = pods.iter().find(|pod| cluster::is_pod_running(pod)).context("no pod runs")?;
            Ok(promise_of(pod))
        }
        #[cfg(test)]
        Means::Played(_) => anyhow::bail!("nothing is promised"),
    }
}

/// What a pod was made for. One without a word of it is of a time when every one was privileged.
fn promise_of(pod: &Pod) -> Promise {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let edge = containers.filter(|container| container.name == manifests::CONTAINER);
    let limit =
        edge.filter_map(|container| container.resources.as_ref()?.limits.as_ref()?.get("memory")).next();
    let tier = tier_of(pod);
    Promise { tier: tier.unwrap_or(Tier::Privileged), memory: limit.and_then(|limit| bytes(&limit.0)) }
}

/// A quantity of memory in bytes, rounded up.
fn bytes(quantity: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 9] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("m", 1e-3),
    ];
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((quantity.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((quantity, 1.0));
    let bytes = number.parse::<f64>().ok()? * factor;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no machine has so much memory"
    )]
    (bytes >= 0.0).then_some(bytes.ceil() as u64)
}

/// Proves, of an edge of this deployment that has just been made and got ready, that it is confined as it is to be; the report gets
/// the proof. That one cannot look may pass.
///
/// # Errors
/// [`Unproved`] when it is not, or nobody could look.
pub async fn prove_tier(context: &Context, place: Place) -> Result<(), Unproved> {
    let waited = wait_for("the proof of its tier", PROOF_LIMIT, || observe_tier(context, place)).await;
    waited.map_err(|error| unproved(&error))
}

/// A new edge is no other than the one that was looked at, so that making it anew does not help.
fn unproved(error: &WaitError) -> Unproved {
    let (detail, next) = match error {
        WaitError::Died { reason, .. } => (
            reason.clone(),
            "this edge was made just now, so that the engine does not give what the tier needs: `cargo xtask doctor` tells what \
             works here, and `--tier` names another tier",
        ),
        WaitError::TimedOut { .. } => (
            error.to_string(),
            "see with `cargo xtask status` and `cargo xtask logs edge` why nobody can look into the edge, and run the command again",
        ),
    };
    Unproved { layer: Name::Security.to_string(), detail, next: next.to_owned() }
}

/// In what an edge of this deployment is not as its tier promises; nothing when it is, or when nobody can look for a while.
pub async fn broken_promise(context: &Context, place: Place) -> Option<String> {
    let waited = wait_for("the proof of its tier", DIAGNOSIS_LIMIT, || observe_tier(context, place)).await;
    match waited {
        Err(WaitError::Died { reason, .. }) => Some(reason),
        Ok(()) | Err(WaitError::TimedOut { .. }) => None,
    }
}

/// One look while one waits: that a pod is ready may be of before a restart of its node, and then one cannot look.
pub async fn observe_tier(context: &Context, place: Place) -> Observation<()> {
    let scene = Scene::own(context, place);
    let looked = look(&scene).await;
    context.findings().security = scene.security();
    match looked {
        Ok(_) => Observation::Ready(()),
        Err(cause) if cause.kind == Kind::Security => Observation::Failed(cause.text),
        Err(cause) => Observation::NotYet(cause.text),
    }
}

/// How an edge that is ready was found: one that is not confined as it is to be has to be made anew.
pub async fn confined_and_ready(context: &Context, place: Place) -> Condition {
    match observe_tier(context, place).await {
        Observation::Ready(()) => Condition::Holds("ready".into()),
        Observation::NotYet(text) | Observation::Failed(text) => Condition::Differs(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::TIER;
    use serde_json::json;

    #[test]
    fn an_edge_that_was_made_just_now_is_not_said_to_be_mended_by_making_it_anew() {
        let (what, limit) = ("the proof".to_owned(), PROOF_LIMIT);
        let broken = unproved(&WaitError::Died { what: what.clone(), reason: "no seccomp filter".into() });
        assert_eq!((broken.layer.as_str(), broken.detail.as_str()), ("security", "no seccomp filter"));
        assert!(broken.next.contains("doctor") && !broken.next.contains("anew"), "{}", broken.next);
        let unseen = unproved(&WaitError::TimedOut { what, limit, last: "podman answered 409".into() });
        assert!(
            unseen.detail.ends_with("podman answered 409") && unseen.next.contains("again"),
            "{unseen:?}"
        );
    }

    #[test]
    fn a_pod_says_what_it_was_made_for() {
        let promise = |annotations, limits| {
            let pod = json!({
                "metadata": { "annotations": annotations },
                "spec": { "containers": [{ "name": "edge", "resources": { "limits": limits } }] },
            });
            promise_of(&serde_json::from_value(pod).unwrap())
        };
        let found = promise(json!({ TIER: "confined" }), json!({ "memory": "512Mi" }));
        assert_eq!((found.tier, found.memory), (Tier::Confined, Some(512 << 20)));
        let found = promise(json!({}), json!({ "cpu": "1" }));
        assert_eq!((found.tier, found.memory), (Tier::Privileged, None));
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("1Gi", Some(1 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("500M", Some(500_000_000)),
            ("123456", Some(123_456)),
            ("1500m", Some(2)),
            ("much", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
