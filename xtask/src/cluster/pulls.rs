//! What the kubelet has tried to pull for pods, as its events tell.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, Client};

/// How the kubelet's event of a failed pull begins; others of the same reason only repeat it.
const FAILED: &str = "Failed to pull image";

/// Pulls of images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulls {
    /// How many have begun.
    pub begun: i32,
    /// How many of these have failed.
    pub failed: i32,
    /// Why the last one has.
    pub reason: Option<String>,
}

impl Pulls {
    /// Those for these pods.
    #[must_use]
    pub fn of(pods: &[Pod], events: &[Event]) -> Self {
        let mut pulls = Self::default();
        let mut last = None;
        let is_of_pods = |event: &&Event| {
            let uid = &event.involved_object.uid;
            uid.is_some() && pods.iter().any(|pod| pod.metadata.uid == *uid)
        };
        for event in events.iter().filter(is_of_pods) {
            let (count, message) = (event.count.unwrap_or(1), event.message.as_deref().unwrap_or_default());
            if event.reason.as_deref() == Some("Pulling") {
                pulls.begun += count;
            } else if message.starts_with(FAILED) {
                pulls.failed += count;
                let time = event.last_timestamp.as_ref().map(|time| time.0);
                if pulls.reason.is_none() || time >= last {
                    (last, pulls.reason) = (time, Some(message.to_owned()));
                }
            }
        }
        pulls
    }

    /// The same, asked of the cluster.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn look(client: &Client, namespace: &str, pods: &[Pod]) -> kube::Result<Self> {
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        Ok(Self::of(pods, &events.list(&ListParams::default()).await?.items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pulls_of_a_pod_are_counted_with_the_last_reason() {
        let event = |uid: &str, reason: &str, message: &str, count: i32, second: u8| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "involvedObject": { "uid": uid }, "reason": reason, "message": message,
                "count": count, "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            }))
            .unwrap()
        };
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "uid": "1" } })).unwrap();
        let events = [
            event("1", "Pulling", "Pulling image \"r/x\"", 3, 9),
            event("1", "Failed", "Failed to pull image \"r/x\": 401 Unauthorized", 1, 8),
            event("1", "Failed", "Failed to pull image \"r/x\": unexpected EOF", 1, 4),
            event("1", "Failed", "Error: ErrImagePull", 2, 8),
            event("2", "Failed", "Failed to pull image \"r/x\": not found", 5, 9),
        ];
        let reason = Some("Failed to pull image \"r/x\": 401 Unauthorized".to_owned());
        assert_eq!(Pulls::of(&[pod], &events), Pulls { begun: 3, failed: 2, reason });
        assert_eq!(Pulls::of(&[], &events), Pulls::default());
    }
}
