//! Feedback: what became of messages to devices, for the services that sent them.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::cloud::CloudMessage;
use super::journal::{Change, json};
use super::{Store, StoreError};

/// Records that are kept for services that do not fetch them; the oldest go first.
const MAX_RECORDS: usize = 10_000;
/// Records that are given out together.
const MAX_BATCH: usize = 64;
/// How long a service may take to confirm a batch.
const LOCK: SignedDuration = SignedDuration::from_secs(60);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::hub) enum Outcome {
    Success,
    Expired,
    DeliveryCountExceeded,
    Rejected,
    Purged,
}

impl Outcome {
    fn description(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Expired => "The message expired",
            Self::DeliveryCountExceeded => "The message was delivered too often",
            Self::Rejected => "The device rejected the message",
            Self::Purged => "The queue of the device was purged",
        }
    }
}

/// A record as IoT Hub writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::hub) struct FeedbackRecord {
    #[serde(default)]
    pub(in crate::hub) original_message_id: Option<String>,
    pub(in crate::hub) enqueued_time_utc: Timestamp,
    pub(in crate::hub) status_code: Outcome,
    #[serde(default)]
    pub(in crate::hub) description: String,
    pub(in crate::hub) device_id: String,
    #[serde(default)]
    pub(in crate::hub) device_generation_id: String,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    record: FeedbackRecord,
    /// The batch that it was given out in, and until when.
    lock: Option<(String, Timestamp)>,
}

/// The records that no service has confirmed.
#[derive(Debug, Default)]
pub(super) struct Feedback(VecDeque<Entry>);

impl Feedback {
    /// Takes a record of the database, in the order of the sequence.
    pub(super) fn load(&mut self, sequence: u64, record: FeedbackRecord) {
        self.0.push_back(Entry { sequence, record, lock: None });
    }

    pub(super) fn last_sequence(&self) -> Option<u64> {
        self.0.iter().map(|entry| entry.sequence).max()
    }
}

impl Store {
    pub(super) fn note_outcome(
        &mut self,
        device: &str,
        message: &CloudMessage,
        outcome: Outcome,
        now: Timestamp,
    ) {
        if !message.ack.wants(outcome) {
            return;
        }
        let generation = self.device(device).map(|device| device.record.generation_id.clone());
        let record = FeedbackRecord {
            original_message_id: message.message_id.clone(),
            enqueued_time_utc: now,
            status_code: outcome,
            description: outcome.description().to_owned(),
            device_id: device.to_owned(),
            device_generation_id: generation.unwrap_or_default(),
        };
        if self.feedback.0.len() >= MAX_RECORDS
            && let Some(Entry { sequence, .. }) = self.feedback.0.pop_front()
        {
            self.journal.put(Change::FeedbackGone { sequence });
        }
        let sequence = self.next_number(now);
        self.journal.put(Change::Feedback { sequence, record: json(&record) });
        self.feedback.load(sequence, record);
    }

    /// Gives out a batch of feedback with the token to confirm it; `None` when there is none.
    pub(in crate::hub) fn lock_feedback(&mut self, now: Timestamp) -> Option<(String, Vec<FeedbackRecord>)> {
        let token = format!("{:032x}", self.next_number(now));
        let until = now.checked_add(LOCK).unwrap_or(Timestamp::MAX);
        let is_free = |entry: &&mut Entry| entry.lock.as_ref().is_none_or(|(_, until)| *until <= now);
        let mut batch = Vec::new();
        for entry in self.feedback.0.iter_mut().filter(is_free).take(MAX_BATCH) {
            entry.lock = Some((token.clone(), until));
            batch.push(entry.record.clone());
        }
        (!batch.is_empty()).then_some((token, batch))
    }

    /// Confirms a batch, or gives it back.
    pub(in crate::hub) fn settle_feedback(
        &mut self,
        token: &str,
        complete: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let is_it = |entry: &Entry| {
            entry.lock.as_ref().is_some_and(|(locked, until)| locked == token && *until > now)
        };
        if !self.feedback.0.iter().any(is_it) {
            return Err(StoreError::LockLost);
        }
        if complete {
            let gone = self.feedback.0.iter().filter(|entry| is_it(entry)).map(|entry| entry.sequence);
            gone.for_each(|sequence| self.journal.put(Change::FeedbackGone { sequence }));
            self.feedback.0.retain(|entry| !is_it(entry));
        } else {
            self.feedback.0.iter_mut().filter(|entry| is_it(entry)).for_each(|entry| entry.lock = None);
        }
        Ok(())
    }
}
