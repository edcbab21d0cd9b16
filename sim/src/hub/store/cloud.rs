//! Messages from services to devices: a queue for each device, in which a message stays until the device has
//! confirmed it, or until it expires or was delivered too often. All of it is in memory as well, and bounded.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::feedback::Outcome;
use super::journal::{Change, json};
use super::{Store, StoreError};
use crate::topics::PropertyBag;

/// Messages that a device's queue holds, as in IoT Hub.
pub(super) const MAX_QUEUE: usize = 50;
/// Bytes that all queues hold together.
pub(super) const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// A message that was delivered so often without being confirmed is given up.
const MAX_DELIVERIES: u32 = 10;
/// How long a message waits when its sender does not say, and at most.
const DEFAULT_LIFE: SignedDuration = SignedDuration::from_hours(1);
const MAX_LIFE: SignedDuration = SignedDuration::from_hours(48);
/// How long a device that fetched a message over HTTPS may take to settle it.
const LOCK: SignedDuration = SignedDuration::from_secs(60);

/// About which fates of a message its sender wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::hub) enum Ack {
    #[default]
    None,
    Positive,
    Negative,
    Full,
}

impl Ack {
    /// The text in topics and headers.
    pub(in crate::hub) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Full => "full",
        }
    }

    pub(super) fn wants(self, outcome: Outcome) -> bool {
        match self {
            Self::None => false,
            Self::Positive => outcome == Outcome::Success,
            Self::Negative => outcome != Outcome::Success,
            Self::Full => true,
        }
    }
}

/// A message as a service gives it.
#[derive(Debug, Clone, Default)]
pub(in crate::hub) struct CloudDraft {
    /// System and application properties.
    pub(in crate::hub) properties: PropertyBag,
    pub(in crate::hub) message_id: Option<String>,
    pub(in crate::hub) ack: Ack,
    pub(in crate::hub) expiry: Option<Timestamp>,
    pub(in crate::hub) body: Bytes,
}

/// A message in a queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::hub) struct CloudMessage {
    pub(in crate::hub) sequence: u64,
    #[serde(default)]
    pub(in crate::hub) message_id: Option<String>,
    #[serde(default)]
    pub(in crate::hub) ack: Ack,
    pub(in crate::hub) enqueued: Timestamp,
    pub(in crate::hub) expiry: Timestamp,
    #[serde(default)]
    pub(in crate::hub) delivery_count: u32,
    /// The packet id with which it was sent in a persistent session, to be used again.
    #[serde(default)]
    pub(in crate::hub) packet_id: Option<u16>,
    /// The encoded property bag.
    #[serde(default)]
    properties: String,
    #[serde(skip)]
    pub(in crate::hub) body: Bytes,
    /// Whoever has it now; nobody when the hub starts.
    #[serde(skip)]
    claim: Claim,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Claim {
    #[default]
    Free,
    /// It was sent over MQTT.
    Client,
    /// It was fetched over HTTPS.
    Lock { token: String, until: Timestamp },
}

impl CloudMessage {
    /// What was encoded is read back.
    pub(in crate::hub) fn properties(&self) -> PropertyBag {
        PropertyBag::parse(&self.properties).unwrap_or_default()
    }

    fn size(&self) -> usize {
        self.body.len() + self.properties.len()
    }
}

/// How a device settles a message that it fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) enum Settlement {
    Complete,
    Reject,
    Abandon,
}

/// The queues that are not empty.
#[derive(Debug, Default)]
pub(super) struct CloudQueues {
    queues: BTreeMap<String, VecDeque<CloudMessage>>,
    bytes: usize,
}

impl CloudQueues {
    /// Takes a row `device, message, body`, in the order of the sequence.
    pub(super) fn load(&mut self, row: &Row<'_>, mut message: CloudMessage) -> rusqlite::Result<()> {
        message.body = row.get::<_, Vec<u8>>(2)?.into();
        self.bytes += message.size();
        self.queues.entry(row.get(0)?).or_default().push_back(message);
        Ok(())
    }

    pub(super) fn last_sequence(&self) -> Option<u64> {
        self.queues.values().flatten().map(|message| message.sequence).max()
    }

    pub(super) fn len(&self, device: &str) -> usize {
        self.queues.get(device).map_or(0, VecDeque::len)
    }

    /// Forgets the queue of a device that is gone.
    pub(super) fn remove(&mut self, device: &str) {
        let messages = self.queues.remove(device).unwrap_or_default();
        self.bytes -= messages.iter().map(CloudMessage::size).sum::<usize>();
    }
}

impl Store {
    /// Puts a message into the queue of a device.
    pub(in crate::hub) fn enqueue_cloud_message(
        &mut self,
        device: &str,
        draft: CloudDraft,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.device(device)?;
        self.expire_cloud_messages(device, now);
        let longest = now.checked_add(MAX_LIFE).unwrap_or(Timestamp::MAX);
        let default = now.checked_add(DEFAULT_LIFE).unwrap_or(Timestamp::MAX);
        let message = CloudMessage {
            sequence: self.next_number(now),
            message_id: draft.message_id,
            ack: draft.ack,
            enqueued: now,
            expiry: draft.expiry.unwrap_or(default).min(longest),
            delivery_count: 0,
            packet_id: None,
            properties: draft.properties.to_string(),
            body: draft.body,
            claim: Claim::Free,
        };
        if self.cloud.len(device) >= MAX_QUEUE {
            return Err(StoreError::QueueFull(device.to_owned()));
        }
        if self.cloud.bytes + message.size() > MAX_QUEUED_BYTES {
            return Err(StoreError::QueuesFull);
        }
        let (sequence, body) = (message.sequence, message.body.clone());
        let (owner, text) = (device.to_owned(), json(&message));
        self.journal.put(Change::CloudMessage { sequence, device: owner.clone(), message: text, body });
        self.cloud.bytes += message.size();
        self.cloud.queues.entry(owner).or_default().push_back(message);
        self.count_cloud_messages(device);
        Ok(sequence)
    }

    /// The next message for a client over MQTT, which has it from now on. `packet_id` is asked with the id that the
    /// message had before.
    pub(in crate::hub) fn send_cloud_message(
        &mut self,
        device: &str,
        now: Timestamp,
        packet_id: impl FnOnce(Option<u16>) -> Option<u16>,
    ) -> Option<CloudMessage> {
        self.expire_cloud_messages(device, now);
        let queue = self.cloud.queues.get_mut(device)?;
        let message = queue.iter_mut().find(|message| message.claim == Claim::Free)?;
        message.claim = Claim::Client;
        message.delivery_count += 1;
        message.packet_id = packet_id(message.packet_id);
        self.journal.put(rewritten(message));
        Some(message.clone())
    }

    /// The client has confirmed a message that it was sent.
    pub(in crate::hub) fn confirm_cloud_message(&mut self, device: &str, sequence: u64, now: Timestamp) {
        self.end_cloud_messages(device, now, |message| {
            (message.sequence == sequence).then_some(Outcome::Success)
        });
    }

    /// The client is gone: what it has not confirmed waits again.
    pub(in crate::hub) fn release_cloud_messages(&mut self, device: &str, now: Timestamp) {
        self.free_cloud_messages(device, now, |message| message.claim == Claim::Client);
    }

    /// The next message for a device that fetches it over HTTPS, with the token to settle it.
    pub(in crate::hub) fn lock_cloud_message(
        &mut self,
        device: &str,
        now: Timestamp,
    ) -> Option<(String, CloudMessage)> {
        self.expire_cloud_messages(device, now);
        let token = format!("{:032x}", self.next_number(now));
        let queue = self.cloud.queues.get_mut(device)?;
        let message = queue.iter_mut().find(|message| message.claim == Claim::Free)?;
        let until = now.checked_add(LOCK).unwrap_or(Timestamp::MAX);
        message.claim = Claim::Lock { token: token.clone(), until };
        message.delivery_count += 1;
        self.journal.put(rewritten(message));
        Some((token, message.clone()))
    }

    /// Settles a message that was fetched over HTTPS.
    pub(in crate::hub) fn settle_cloud_message(
        &mut self,
        device: &str,
        token: &str,
        settlement: Settlement,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.device(device)?;
        self.expire_cloud_messages(device, now);
        let is_it =
            |message: &CloudMessage| matches!(&message.claim, Claim::Lock { token: t, .. } if t == token);
        if !self.cloud.queues.get(device).is_some_and(|queue| queue.iter().any(is_it)) {
            return Err(StoreError::LockLost);
        }
        let outcome = match settlement {
            Settlement::Complete => Outcome::Success,
            Settlement::Reject => Outcome::Rejected,
            Settlement::Abandon => {
                self.free_cloud_messages(device, now, is_it);
                return Ok(());
            }
        };
        self.end_cloud_messages(device, now, |message| is_it(message).then_some(outcome));
        Ok(())
    }

    /// Empties the queue of a device; gives the number of messages.
    pub(in crate::hub) fn purge_cloud_messages(
        &mut self,
        device: &str,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        self.device(device)?;
        let count = self.cloud.len(device);
        self.end_cloud_messages(device, now, |_| Some(Outcome::Purged));
        Ok(count)
    }

    /// Lets time pass for all queues; gives the devices that have messages to take.
    pub(in crate::hub) fn sweep_cloud_messages(&mut self, now: Timestamp) -> Vec<String> {
        let devices: Vec<_> = self.cloud.queues.keys().cloned().collect();
        devices.iter().for_each(|device| self.expire_cloud_messages(device, now));
        let has_free = |queue: &VecDeque<CloudMessage>| queue.iter().any(|m| m.claim == Claim::Free);
        let queues = self.cloud.queues.iter();
        queues.filter(|(_, queue)| has_free(queue)).map(|(device, _)| device.clone()).collect()
    }

    /// Gives up what waited too long, and takes back what was not settled in time.
    fn expire_cloud_messages(&mut self, device: &str, now: Timestamp) {
        self.free_cloud_messages(
            device,
            now,
            |message| matches!(message.claim, Claim::Lock { until, .. } if until <= now),
        );
        self.end_cloud_messages(device, now, |message| {
            (message.claim == Claim::Free && message.expiry <= now).then_some(Outcome::Expired)
        });
    }

    /// Lets messages wait again, unless they were delivered too often.
    fn free_cloud_messages(&mut self, device: &str, now: Timestamp, which: impl Fn(&CloudMessage) -> bool) {
        let Some(queue) = self.cloud.queues.get_mut(device) else { return };
        let mut spent = false;
        for message in queue.iter_mut().filter(|message| which(message)) {
            message.claim = Claim::Free;
            spent |= message.delivery_count >= MAX_DELIVERIES;
        }
        if spent {
            self.end_cloud_messages(device, now, |message| {
                let is_spent = message.claim == Claim::Free && message.delivery_count >= MAX_DELIVERIES;
                is_spent.then_some(Outcome::DeliveryCountExceeded)
            });
        }
    }

    /// Removes the messages that have an outcome, and notes it for their senders.
    fn end_cloud_messages(
        &mut self,
        device: &str,
        now: Timestamp,
        outcome: impl Fn(&CloudMessage) -> Option<Outcome>,
    ) {
        let Some(mut queue) = self.cloud.queues.remove(device) else { return };
        for _ in 0..queue.len() {
            let Some(message) = queue.pop_front() else { break };
            match outcome(&message) {
                None => queue.push_back(message),
                Some(outcome) => {
                    self.cloud.bytes -= message.size();
                    self.journal.put(Change::CloudMessageGone { sequence: message.sequence });
                    self.note_outcome(device, &message, outcome, now);
                }
            }
        }
        if !queue.is_empty() {
            self.cloud.queues.insert(device.to_owned(), queue);
        }
        self.count_cloud_messages(device);
    }

    /// Keeps the number in the record, where it is shown.
    pub(super) fn count_cloud_messages(&mut self, device: &str) {
        if let Some(device) = self.devices.get_mut(device) {
            device.record.cloud_message_count = self.cloud.len(&device.id);
        }
    }
}

fn rewritten(message: &CloudMessage) -> Change {
    Change::CloudMessageState { sequence: message.sequence, message: json(message) }
}

#[cfg(test)]
mod tests;
