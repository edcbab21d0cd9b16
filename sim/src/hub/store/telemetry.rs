//! Messages from devices, in the order of their arrival, for whoever reads them.

use std::collections::VecDeque;

use bytes::Bytes;
use jiff::Timestamp;

use crate::identity::Identity;
use crate::topics::PropertyBag;

/// The log holds at most this many messages; the oldest go first.
const MAX_MESSAGES: usize = 10_000;
/// The log holds at most this many bytes of bodies and properties; the oldest messages go first.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// A page has at most this many messages …
const MAX_PAGE_MESSAGES: usize = 500;
/// … and ends after the message that brings it to this size.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// What a message is counted with beside its text.
const OVERHEAD: usize = 256;

/// A message as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hub) struct StoredMessage {
    /// From 1, without gaps.
    pub(in crate::hub) offset: u64,
    pub(in crate::hub) enqueued: Timestamp,
    /// Who sent it, which the hub has verified or the gateway vouches for.
    pub(in crate::hub) origin: Identity,
    pub(in crate::hub) generation_id: String,
    pub(in crate::hub) properties: PropertyBag,
    pub(in crate::hub) body: Bytes,
    size: usize,
}

/// Which messages a reader wants.
#[derive(Debug, Clone, Default)]
pub(in crate::hub) struct TelemetryQuery {
    pub(in crate::hub) after: u64,
    pub(in crate::hub) device_id: Option<String>,
    pub(in crate::hub) module_id: Option<String>,
}

impl TelemetryQuery {
    fn matches(&self, origin: &Identity) -> bool {
        let device = self.device_id.as_deref().is_none_or(|id| id == origin.device_id());
        device && self.module_id.as_deref().is_none_or(|id| Some(id) == origin.module_id())
    }
}

/// Some messages, and where to go on.
#[derive(Debug)]
pub(in crate::hub) struct Page<'a> {
    pub(in crate::hub) messages: Vec<&'a StoredMessage>,
    /// The offset of the last message that was looked at, whether it matched or not.
    pub(in crate::hub) next: u64,
}

#[derive(Debug, Default)]
pub(super) struct TelemetryLog {
    messages: VecDeque<StoredMessage>,
    last_offset: u64,
    bytes: usize,
}

impl TelemetryLog {
    pub(super) fn append(
        &mut self,
        origin: Identity,
        generation_id: String,
        properties: PropertyBag,
        body: &[u8],
        now: Timestamp,
    ) -> u64 {
        self.last_offset += 1;
        let text: usize = properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        let size = OVERHEAD + text + body.len();
        let offset = self.last_offset;
        // A body is a slice of the connection's read buffer; keeping that alive would void the limit.
        let body = Bytes::copy_from_slice(body);
        let message = StoredMessage { offset, enqueued: now, origin, generation_id, properties, body, size };
        self.messages.push_back(message);
        self.bytes += size;
        while self.messages.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.size;
        }
        offset
    }

    pub(super) fn page(&self, query: &TelemetryQuery) -> Page<'_> {
        let start = self.messages.partition_point(|message| message.offset <= query.after);
        let mut page = Page { messages: Vec::new(), next: query.after };
        let mut bytes = 0;
        for message in self.messages.range(start..) {
            page.next = message.offset;
            if query.matches(&message.origin) {
                bytes += message.size;
                page.messages.push(message);
            }
            if page.messages.len() == MAX_PAGE_MESSAGES || bytes >= MAX_PAGE_BYTES {
                break;
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(log: &mut TelemetryLog, origin: &str, body: &[u8]) -> u64 {
        let origin = Identity::from_client_id(origin).unwrap();
        log.append(origin, "1".into(), PropertyBag::new(), body, Timestamp::UNIX_EPOCH)
    }

    fn offsets(log: &TelemetryLog, query: &TelemetryQuery) -> (Vec<u64>, u64) {
        let page = log.page(query);
        (page.messages.iter().map(|message| message.offset).collect(), page.next)
    }

    #[test]
    fn pages_follow_an_offset_and_skip_what_is_not_asked_for() {
        let mut log = TelemetryLog::default();
        for origin in ["d/m", "d/n", "e", "d/m", "e/m"] {
            append(&mut log, origin, b"x");
        }
        let all = TelemetryQuery::default();
        assert_eq!(offsets(&log, &all), (vec![1, 2, 3, 4, 5], 5));
        assert_eq!(offsets(&log, &TelemetryQuery { after: 3, ..all.clone() }), (vec![4, 5], 5));
        assert_eq!(offsets(&log, &TelemetryQuery { after: 5, ..all.clone() }), (vec![], 5));
        assert_eq!(offsets(&log, &TelemetryQuery { after: 99, ..all.clone() }), (vec![], 99));
        let device = TelemetryQuery { device_id: Some("d".into()), ..all.clone() };
        assert_eq!(offsets(&log, &device), (vec![1, 2, 4], 5));
        let module = TelemetryQuery { module_id: Some("m".into()), ..device };
        assert_eq!(offsets(&log, &module), (vec![1, 4], 5));
        assert_eq!(offsets(&TelemetryLog::default(), &all), (vec![], 0));
    }

    #[test]
    fn the_oldest_messages_go_when_there_are_too_many() {
        let mut log = TelemetryLog::default();
        for _ in 0..MAX_MESSAGES + 10 {
            append(&mut log, "d", b"x");
        }
        let page = log.page(&TelemetryQuery::default());
        assert_eq!((log.messages.len(), page.messages[0].offset), (MAX_MESSAGES, 11));
        assert_eq!((page.messages.len(), page.next), (MAX_PAGE_MESSAGES, 10 + MAX_PAGE_MESSAGES as u64));
    }

    #[test]
    fn the_oldest_messages_go_when_they_are_too_large_and_pages_stay_small() {
        let mut log = TelemetryLog::default();
        let body = vec![0; 256 * 1024];
        for _ in 0..300 {
            append(&mut log, "d", &body);
        }
        assert!(log.bytes <= MAX_BYTES && log.bytes > MAX_BYTES - 2 * body.len());
        assert_eq!(log.bytes, log.messages.iter().map(|message| message.size).sum::<usize>());
        assert_eq!(log.page(&TelemetryQuery::default()).messages.len(), MAX_PAGE_BYTES / body.len());
    }
}
