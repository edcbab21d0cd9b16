//! Why a session of a client ended.

use super::intake::NotTaken;
use crate::database::DatabaseError;
use crate::identity::MAX_ID_LEN;
use crate::mqtt::Error;
use crate::topics::TopicError;

/// How much of a topic stands in the log: the longest that begins the topic of a client's messages.
const MAX_SHOWN: usize = 2 * MAX_ID_LEN + "devices//modules/".len() + EVENTS.len();
/// What stands before the properties of a message.
const EVENTS: &str = "/messages/events/";

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("it said goodbye")]
    Goodbye,
    #[error("it closed the connection")]
    Closed,
    #[error("it was silent for too long")]
    Silent,
    #[error("a newer connection took its place")]
    Replaced,
    #[error("its token or certificate expired")]
    ProofExpired,
    #[error("the hub has disabled it, or it is no child of this device any longer")]
    Dismissed,
    #[error("the runtime stops")]
    Shutdown,
    #[error(transparent)]
    Transport(#[from] Error),
    #[error("it sent a {0} packet")]
    Unexpected(&'static str),
    #[error("it published on a topic that is not its own: {0:?}")]
    ForeignTopic(String),
    #[error("it published on {topic:?}: {source}")]
    BadTopic { topic: String, source: TopicError },
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    #[error("the gateway's store cannot be read: {0}")]
    Store(#[from] DatabaseError),
}

impl End {
    pub(super) fn foreign_topic(topic: &str) -> Self {
        Self::ForeignTopic(shown(topic))
    }

    pub(super) fn bad_topic(topic: &str, source: TopicError) -> Self {
        Self::BadTopic { topic: shown(topic), source }
    }
}

/// What of a topic may stand in the log: nothing of the properties, which are as private as the message, and no more
/// than a line.
fn shown(topic: &str) -> String {
    let end = match topic.find(EVENTS) {
        Some(start) => start + EVENTS.len(),
        None => topic.find(['?', '=']).unwrap_or(topic.len()),
    };
    topic[..end].chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_and_long_topics_stay_out_of_the_log() {
        for (topic, expected) in [
            ("devices/d/modules/m/messages/events/", "devices/d/modules/m/messages/events/"),
            ("devices/a=b/messages/events/k=secret&%ff", "devices/a=b/messages/events/"),
            ("$iothub/twin/GET/?$rid=secret", "$iothub/twin/GET/"),
            ("elsewhere/k=secret", "elsewhere/k"),
        ] {
            let ends = [End::foreign_topic(topic), End::bad_topic(topic, TopicError::Unknown)];
            for text in ends.map(|end| end.to_string()) {
                assert!(text.contains(&format!("{expected:?}")) && !text.contains("secret"), "{text}");
            }
        }
        let id = "x".repeat(MAX_ID_LEN);
        let longest = format!("devices/{id}/modules/{id}/messages/events/");
        assert_eq!(shown(&format!("{longest}k=v")), longest);
        let text = End::foreign_topic(&"\n".repeat(60_000)).to_string();
        assert!(!text.contains('\n') && text.len() < 1000, "{} bytes", text.len());
    }
}
