//! What services keep in the hub beside devices: certificates of authorities, and the enrolments of the
//! provisioning service. Each is a JSON document with a name, and an etag that changes with it.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::journal::{Change, json};
use super::{MAX_DEVICES, Precondition, Store, StoreError};

/// What a document is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::hub) enum Kind {
    /// An authority that may issue the certificates of devices.
    Certificate,
    /// Of one device.
    Enrollment,
    EnrollmentGroup,
    /// What became of a device that registered.
    Registration,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Certificate, Self::Enrollment, Self::EnrollmentGroup, Self::Registration];

    /// Its name in the database.
    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Enrollment => "enrollment",
            Self::EnrollmentGroup => "enrollmentGroup",
            Self::Registration => "registration",
        }
    }

    /// How many there are at most. A device that registers is held against each group and each authority, so there are
    /// few of these, as in the cloud.
    fn limit(self) -> usize {
        match self {
            Self::Certificate => 25,
            Self::EnrollmentGroup => 100,
            Self::Enrollment => 10_000,
            Self::Registration => MAX_DEVICES,
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A document with what the store says about it.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::hub) struct Document {
    pub(in crate::hub) value: Value,
    pub(in crate::hub) etag: u64,
    pub(in crate::hub) created: Timestamp,
    pub(in crate::hub) updated: Timestamp,
}

/// Documents may have keys, so that none is shown.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("etag", &self.etag).finish_non_exhaustive()
    }
}

impl Document {
    /// The document as what it was made of.
    pub(in crate::hub) fn read<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        T::deserialize(&self.value).map_err(|error| StoreError::Document(error.to_string()))
    }
}

/// The documents of all kinds.
pub(super) type Documents = BTreeMap<(Kind, String), Document>;

impl Store {
    /// All documents of a kind, by name.
    pub(in crate::hub) fn documents(&self, kind: Kind) -> impl Iterator<Item = (&str, &Document)> {
        let all = self.documents.range((kind, String::new())..);
        all.take_while(move |((other, _), _)| *other == kind)
            .map(|((_, name), document)| (name.as_str(), document))
    }

    pub(in crate::hub) fn document(&self, kind: Kind, name: &str) -> Result<&Document, StoreError> {
        let document = self.documents.get(&(kind, name.to_owned()));
        document.ok_or_else(|| StoreError::DocumentNotFound(name.to_owned()))
    }

    /// Creates or replaces a document. With a condition it must exist already.
    pub(in crate::hub) fn put_document<T: Serialize>(
        &mut self,
        kind: Kind,
        name: &str,
        value: &T,
        precondition: Option<&Precondition>,
        now: Timestamp,
    ) -> Result<&Document, StoreError> {
        let value = serde_json::to_value(value).map_err(|error| StoreError::Document(error.to_string()))?;
        let before = self.documents.get(&(kind, name.to_owned()));
        match (precondition, before) {
            (Some(precondition), Some(before)) => precondition.check(before.etag)?,
            (Some(_), None) => return Err(StoreError::DocumentNotFound(name.to_owned())),
            (None, Some(_)) => {}
            (None, None) if self.documents(kind).count() >= kind.limit() => {
                return Err(StoreError::TooManyDocuments);
            }
            (None, None) => {}
        }
        let created = before.map_or(now, |before| before.created);
        let document = Document { value, etag: self.next_number(now), created, updated: now };
        let (name_text, record) = (name.to_owned(), json(&document));
        self.journal.put(Change::Document { kind: kind.name(), name: name_text.clone(), record });
        self.documents.insert((kind, name_text), document);
        self.document(kind, name)
    }

    pub(in crate::hub) fn delete_document(
        &mut self,
        kind: Kind,
        name: &str,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        precondition.check(self.document(kind, name)?.etag)?;
        let name = name.to_owned();
        self.journal.put(Change::DocumentGone { kind: kind.name(), name: name.clone() });
        self.documents.remove(&(kind, name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn documents_are_created_replaced_listed_and_deleted() {
        let mut store = Store::default();
        let first = store.put_document(Kind::Certificate, "b", &"one", None, NOW).unwrap().etag;
        store.put_document(Kind::Certificate, "a", &"two", None, NOW).unwrap();
        assert_eq!(store.documents(Kind::Certificate).map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
        let stale = Precondition::Etag(first.to_string());
        let replaced = store.put_document(Kind::Certificate, "b", &"three", Some(&stale), NOW).unwrap();
        assert_eq!(replaced.read::<String>().unwrap(), "three");
        let put = |store: &mut Store, name, precondition| {
            store.put_document(Kind::Certificate, name, &1, Some(precondition), NOW).unwrap_err()
        };
        assert_eq!(put(&mut store, "b", &stale), StoreError::PreconditionFailed);
        assert_eq!(put(&mut store, "c", &Precondition::Any), StoreError::DocumentNotFound("c".into()));
        let refused = store.delete_document(Kind::Certificate, "b", &stale).unwrap_err();
        assert_eq!(refused, StoreError::PreconditionFailed);
        store.delete_document(Kind::Certificate, "b", &Precondition::Any).unwrap();
        assert!(store.document(Kind::Certificate, "b").is_err());
        assert!(matches!(
            store.document(Kind::Certificate, "a").unwrap().read::<u64>(),
            Err(StoreError::Document(_))
        ));
    }

    #[test]
    fn the_number_of_documents_is_bounded() {
        let mut store = Store::default();
        for number in 0..Kind::Certificate.limit() {
            store.put_document(Kind::Certificate, &number.to_string(), &1, None, NOW).unwrap();
        }
        let refused = store.put_document(Kind::Certificate, "more", &1, None, NOW).unwrap_err();
        assert_eq!(refused, StoreError::TooManyDocuments);
        store.put_document(Kind::Certificate, "7", &2, None, NOW).unwrap();
    }
}
