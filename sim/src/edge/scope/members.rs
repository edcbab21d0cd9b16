//! Who is in scope, as the hub said last.

use std::collections::{HashMap, HashSet};

use super::entry::{Entry, Member};
use crate::identity::Identity;

/// Clients of one edge device; the hub's own limit is far lower.
pub(super) const MAX_CLIENTS: usize = 10_000;

/// When something was asked, in the order of the questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Turn(u64);

/// Who is in scope. What was asked earlier is never put in the place of what was asked later, since an answer may be
/// long on its way.
#[derive(Default)]
pub(super) struct Members {
    known: HashMap<Identity, (Entry, Member)>,
    last_turn: Turn,
    /// When the list was asked for that is taken up, and the one that is on its way.
    listed: Turn,
    listing: Option<Turn>,
    /// Those of whom the hub was asked since the list that is on its way.
    news: HashSet<Identity>,
}

impl Members {
    /// The turn of a question that is asked now.
    pub(super) fn begin(&mut self) -> Turn {
        self.last_turn.0 += 1;
        self.last_turn
    }

    /// Begins a list. There is one at a time, and it ends with [`Members::end_list`].
    pub(super) fn begin_list(&mut self) {
        self.listing = Some(self.begin());
    }

    /// The list has come, or does not come.
    pub(super) fn end_list(&mut self) {
        self.listing = None;
        self.news = HashSet::new();
    }

    pub(super) fn get(&self, identity: &Identity) -> Option<&Member> {
        self.known.get(identity).map(|(_, member)| member)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.known.values().map(|(entry, _)| entry)
    }

    /// Takes a list up in the place of all others but the news; true when something changed.
    pub(super) fn replace(&mut self, entries: Vec<Entry>) -> bool {
        let new = entries.into_iter().filter_map(|entry| {
            let (identity, member) = entry.member()?;
            Some((identity, (entry, member)))
        });
        let mut new: HashMap<_, _> = new.take(MAX_CLIENTS).collect();
        new.retain(|identity, _| !self.news.contains(identity));
        let newer = self.news.iter().filter_map(|identity| self.known.get_key_value(identity));
        new.extend(newer.map(|(identity, entry)| (identity.clone(), entry.clone())));
        self.listed = self.listing.unwrap_or_default();
        let same =
            |identity, entry: &Entry| self.known.get(identity).is_some_and(|(known, _)| known == entry);
        if new.len() == self.known.len() && new.iter().all(|(identity, (entry, _))| same(identity, entry)) {
            return false;
        }
        self.known = new;
        true
    }

    /// Takes up what the hub says of one client, asked for at `turn`: nothing when it is none. True when something
    /// changed. No two questions about the same client may be under way.
    pub(super) fn set(&mut self, identity: &Identity, entry: Option<Entry>, turn: Turn) -> bool {
        if turn < self.listed {
            return false;
        }
        if self.listing.is_some_and(|list| list < turn) {
            // Also one that was not known and is none: the list may have it.
            self.news.insert(identity.clone());
        }
        match entry.and_then(|entry| entry.member().map(|(_, member)| (entry, member))) {
            Some(new) => {
                let is_same = self.known.get(identity).is_some_and(|(known, _)| *known == new.0);
                if !is_same {
                    self.known.insert(identity.clone(), new);
                }
                !is_same
            }
            None => self.known.remove(identity).is_some(),
        }
    }
}
