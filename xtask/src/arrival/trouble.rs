//! What went wrong on a connection, out of the many errors of the library that may carry the words of the other side.

use std::fmt;

use fe2o3_amqp::connection::{ConnectionStopReason, OpenError};
use fe2o3_amqp::link::{
    DetachError, LinkStateError, ReceiverAttachError, RecvError, SendError, SenderAttachError,
    SessionStopReason,
};
use fe2o3_amqp::session::BeginError;
use fe2o3_amqp::types::definitions::{AmqpError, Error as Remote, ErrorCondition};

/// What the other side means, as far as it matters for an event hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The key or the policy does not give this right.
    Unauthorized,
    /// There is no such event hub, consumer group or partition.
    NotFound,
    /// A limit is reached: too many readers, for example.
    Exhausted,
    /// Everything else; it may go better in a moment.
    Passing,
}

/// What went wrong, in the words of the other side if it has said anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    pub(super) text: String,
}

impl Trouble {
    /// The trouble of an answer with a status as in HTTP.
    pub(super) fn of_status(status: u64, description: &str) -> Self {
        let kind = match status {
            401 | 403 => Kind::Unauthorized,
            404 => Kind::NotFound,
            _ => Kind::Passing,
        };
        Self { kind, text: format!("{status} {}", first_sentence(description)) }
    }

    fn new(remote: Option<&Remote>, local: impl fmt::Display) -> Self {
        let Some(remote) = remote else {
            return Self { kind: Kind::Passing, text: local.to_string() };
        };
        let (kind, name) = match &remote.condition {
            ErrorCondition::AmqpError(AmqpError::UnauthorizedAccess) => {
                (Kind::Unauthorized, "unauthorized".to_owned())
            }
            ErrorCondition::AmqpError(AmqpError::NotFound) => (Kind::NotFound, "not found".to_owned()),
            ErrorCondition::AmqpError(AmqpError::ResourceLimitExceeded) => {
                (Kind::Exhausted, "a limit is reached".to_owned())
            }
            ErrorCondition::Custom(name) => (Kind::Passing, name.0.clone()),
            other => (Kind::Passing, format!("{other:?}")),
        };
        let words = remote.description.as_deref().map(first_sentence).filter(|words| !words.is_empty());
        Self { kind, text: words.map_or(name.clone(), |words| format!("{name}: {words}")) }
    }
}

/// Azure's texts go on with ids by which its support finds them, and the time.
fn first_sentence(text: &str) -> &str {
    let end = ["TrackingId:", "Reference:", "\n"].iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].trim().trim_end_matches(['.', ',', ';'])
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        let remote = match &error {
            OpenError::RemoteClosedWithError(remote) => Some(remote),
            _ => None,
        };
        Self::new(remote, &error)
    }
}

impl From<BeginError> for Trouble {
    fn from(error: BeginError) -> Self {
        let remote = match &error {
            BeginError::RemoteEndedWithError(remote) => Some(remote),
            BeginError::ConnectionStopped(reason) => of_connection(reason),
            _ => None,
        };
        Self::new(remote, &error)
    }
}

impl From<SenderAttachError> for Trouble {
    fn from(error: SenderAttachError) -> Self {
        let remote = match &error {
            SenderAttachError::RemoteClosedWithError(remote) => Some(remote),
            SenderAttachError::SessionStopped(reason) => of_session(reason),
            _ => None,
        };
        Self::new(remote, &error)
    }
}

impl From<ReceiverAttachError> for Trouble {
    fn from(error: ReceiverAttachError) -> Self {
        let remote = match &error {
            ReceiverAttachError::RemoteClosedWithError(remote) => Some(remote),
            ReceiverAttachError::SessionStopped(reason) => of_session(reason),
            _ => None,
        };
        Self::new(remote, &error)
    }
}

impl From<SendError> for Trouble {
    fn from(error: SendError) -> Self {
        let remote = match &error {
            SendError::LinkStateError(state) => of_link(state),
            SendError::Detached(
                DetachError::RemoteClosedWithError(remote) | DetachError::RemoteDetachedWithError(remote),
            ) => Some(remote),
            SendError::Detached(DetachError::SessionStopped(reason)) => of_session(reason),
            _ => None,
        };
        Self::new(remote, &error)
    }
}

impl From<RecvError> for Trouble {
    fn from(error: RecvError) -> Self {
        let remote = match &error {
            RecvError::LinkStateError(state) => of_link(state),
            _ => None,
        };
        Self::new(remote, &error)
    }
}

fn of_link(state: &LinkStateError) -> Option<&Remote> {
    match state {
        LinkStateError::RemoteClosedWithError(remote) | LinkStateError::RemoteDetachedWithError(remote) => {
            Some(remote)
        }
        LinkStateError::SessionStopped(reason) => of_session(reason),
        _ => None,
    }
}

fn of_session(reason: &SessionStopReason) -> Option<&Remote> {
    match reason {
        SessionStopReason::RemoteEndedWithError(remote) => Some(remote),
        SessionStopReason::ConnectionStopped(reason) => of_connection(reason),
        _ => None,
    }
}

fn of_connection(reason: &ConnectionStopReason) -> Option<&Remote> {
    match reason {
        ConnectionStopReason::RemoteClosedWithError(remote) => Some(remote),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fe2o3_amqp::types::primitives::Symbol;

    fn attach(condition: impl Into<ErrorCondition>, words: &str) -> Trouble {
        ReceiverAttachError::RemoteClosedWithError(Remote::new(condition, words.to_owned(), None)).into()
    }

    #[test]
    fn the_words_of_the_other_side_are_told_without_what_is_for_its_support() {
        let words = "Unauthorized access. 'Listen' claim(s) are required to perform this operation. \
                     Resource: 'sb://h/e'. TrackingId:0a_G3, SystemTracker:x, Timestamp:2026";
        let trouble = attach(AmqpError::UnauthorizedAccess, words);
        assert_eq!(trouble.kind, Kind::Unauthorized);
        assert!(trouble.text.ends_with("Resource: 'sb://h/e'"), "{}", trouble.text);
        assert_eq!(attach(AmqpError::NotFound, "").text, "not found");
        let busy = attach(ErrorCondition::Custom(Symbol::from("com.microsoft:server-busy")), "wait");
        assert_eq!((busy.kind, busy.text.as_str()), (Kind::Passing, "com.microsoft:server-busy: wait"));
    }

    #[test]
    fn what_ended_the_connection_is_found_behind_a_link() {
        let remote = Remote::new(AmqpError::UnauthorizedAccess, "expired".to_owned(), None);
        let reason = ConnectionStopReason::RemoteClosedWithError(remote);
        let state = LinkStateError::SessionStopped(SessionStopReason::ConnectionStopped(reason));
        assert_eq!(Trouble::from(RecvError::LinkStateError(state)).text, "unauthorized: expired");
        let local = Trouble::from(RecvError::DeliveryIdIsNone);
        assert_eq!(local.kind, Kind::Passing);
    }
}
