//! A watch folded into a view, and the rules that tell a lost, doubled or reordered event.
//!
//! Owns what one reflector has seen: key → version and hash, the newest version, the last bookmark,
//! and a digest of all events since the view was filled. Refuses to fetch: comparing a view with a
//! fresh list is [`verdict`](crate::measure::verdict).
//! Invariant: after a violation the view takes the event anyway, so that one fault is told once.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};

use super::decode::{Change, Object};

/// A rule of the watch protocol that the server broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// An event is missing: an object changed or went that was never there, or came twice without
    /// going, or the final view differs from a fresh list.
    Lost,
    /// The same event came again.
    Doubled,
    /// An event came after a newer one.
    Reordered,
    /// An event came that a bookmark had declared written.
    BookmarkAhead,
    /// A newer list or bookmark is older than what was seen.
    Backwards,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::BookmarkAhead => "bookmark ahead",
            Self::Backwards => "backwards",
        })
    }
}

/// What is kept of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its version.
    pub resource_version: u64,
    /// Hash of its message.
    pub hash: u64,
    /// Send time of the last write that was measured.
    sent: u64,
}

impl Entry {
    /// The entry of an object.
    #[must_use]
    pub fn of(object: &Object<'_>) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(object.message);
        Self {
            resource_version: object.metadata.resource_version,
            hash: hasher.finish(),
            sent: object.metadata.sent.unwrap_or(0),
        }
    }
}

/// Number and order-free sum of event versions: equal digests mean equal sets of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// Events.
    pub count: u64,
    sum: u64,
}

impl Digest {
    /// Takes in the event at a version.
    pub fn add(&mut self, resource_version: u64) {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(resource_version);
        self.count += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

/// The state of the world as one watch told it.
#[derive(Debug, Default)]
pub struct View {
    entries: HashMap<Box<str>, Entry>,
    filled_at: u64,
    newest_event: u64,
    bookmark: u64,
    digest: Digest,
    synced: bool,
}

impl View {
    /// Replaces everything by initial events that end at `resource_version`.
    pub fn replace(
        &mut self,
        entries: HashMap<Box<str>, Entry>,
        resource_version: u64,
    ) -> Result<(), Rule> {
        let backwards = resource_version < self.resource_version();
        *self = Self {
            entries,
            filled_at: resource_version,
            newest_event: 0,
            bookmark: resource_version,
            digest: Digest::default(),
            synced: true,
        };
        if backwards {
            Err(Rule::Backwards)
        } else {
            Ok(())
        }
    }

    /// Takes in a live event; the answer is the send time of the write if this is its first event.
    pub fn apply(&mut self, change: Change, object: &Object<'_>) -> Result<Option<u64>, Rule> {
        let key = object.key();
        let entry = Entry::of(object);
        let version = entry.resource_version;
        let known = self.entries.get(key.as_str()).copied();
        let order = self.order(version, known);
        let presence = match (change, known) {
            (Change::Added, Some(_)) | (Change::Modified | Change::Deleted, None) => {
                Err(Rule::Lost)
            }
            (Change::Added, None) | (Change::Modified | Change::Deleted, Some(_)) => Ok(()),
        };
        match change {
            Change::Added | Change::Modified => {
                self.entries.insert(key.into_boxed_str(), entry);
            }
            Change::Deleted => {
                self.entries.remove(key.as_str());
            }
        }
        self.newest_event = self.newest_event.max(version);
        self.digest.add(version);
        order.and(presence)?;
        let before = known.map_or(0, |known| known.sent);
        Ok((entry.sent > before && change != Change::Deleted).then_some(entry.sent))
    }

    fn order(&self, version: u64, known: Option<Entry>) -> Result<(), Rule> {
        let repeated = known.is_some_and(|known| known.resource_version == version);
        if repeated || version == self.newest_event {
            Err(Rule::Doubled)
        } else if version < self.newest_event {
            Err(Rule::Reordered)
        } else if version <= self.bookmark {
            Err(Rule::BookmarkAhead)
        } else {
            Ok(())
        }
    }

    /// Takes in a bookmark after the initial events. The same one may come again, an older one
    /// may not.
    pub fn bookmark(&mut self, resource_version: u64) -> Result<(), Rule> {
        let backwards = resource_version < self.resource_version();
        self.bookmark = self.bookmark.max(resource_version);
        if backwards {
            Err(Rule::Backwards)
        } else {
            Ok(())
        }
    }

    /// Where a watch resumes.
    #[must_use]
    pub fn resource_version(&self) -> u64 {
        self.newest_event.max(self.bookmark)
    }

    /// Whether initial events were complete once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The objects.
    #[must_use]
    pub fn entries(&self) -> &HashMap<Box<str>, Entry> {
        &self.entries
    }

    /// Events since the view was filled, and the span of versions they come from: after the first,
    /// up to the second.
    #[must_use]
    pub fn digest(&self) -> (Digest, u64, u64) {
        (self.digest, self.filled_at, self.newest_event)
    }
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::Message;
    use super::*;

    fn apply(view: &mut View, change: Change, name: &str, version: u64) -> Result<(), Rule> {
        let metadata = Message::default()
            .string(1, name)
            .string(6, &version.to_string());
        let message = Message::default().message(1, &metadata).0;
        let object = Object::decode(&message).unwrap();
        view.apply(change, &object).map(|_| ())
    }

    /// A view that was filled at version 10 with `a`, and saw `b` come at 12.
    fn view() -> View {
        let mut view = View::default();
        let entry = Entry {
            resource_version: 9,
            hash: 0,
            sent: 0,
        };
        view.replace(HashMap::from([("a".into(), entry)]), 10)
            .unwrap();
        apply(&mut view, Change::Added, "b", 12).unwrap();
        view
    }

    #[test]
    fn a_faultless_history_breaks_no_rule() {
        let mut view = view();
        apply(&mut view, Change::Modified, "a", 13).unwrap();
        view.bookmark(20).unwrap();
        view.bookmark(20).unwrap();
        apply(&mut view, Change::Deleted, "b", 21).unwrap();
        apply(&mut view, Change::Added, "b", 22).unwrap();
        assert_eq!(view.entries().len(), 2);
        assert_eq!(view.resource_version(), 22);
    }

    #[test]
    fn a_lost_creation_is_told_by_the_change_that_follows() {
        assert_eq!(
            apply(&mut view(), Change::Modified, "c", 13),
            Err(Rule::Lost)
        );
        assert_eq!(
            apply(&mut view(), Change::Deleted, "c", 13),
            Err(Rule::Lost)
        );
    }

    #[test]
    fn a_lost_deletion_is_told_by_the_creation_that_follows() {
        assert_eq!(apply(&mut view(), Change::Added, "a", 13), Err(Rule::Lost));
    }

    #[test]
    fn a_doubled_event_is_told() {
        assert_eq!(
            apply(&mut view(), Change::Added, "b", 12),
            Err(Rule::Doubled)
        );
        assert_eq!(
            apply(&mut view(), Change::Modified, "b", 12),
            Err(Rule::Doubled)
        );
    }

    #[test]
    fn a_reordered_event_is_told() {
        assert_eq!(
            apply(&mut view(), Change::Modified, "a", 11),
            Err(Rule::Reordered)
        );
    }

    #[test]
    fn an_event_at_or_before_a_bookmark_is_told() {
        let mut view = view();
        view.bookmark(20).unwrap();
        assert_eq!(
            apply(&mut view, Change::Modified, "a", 20),
            Err(Rule::BookmarkAhead)
        );
    }

    #[test]
    fn an_event_at_or_before_the_initial_list_is_told() {
        let mut view = View::default();
        view.replace(HashMap::new(), 10).unwrap();
        assert_eq!(
            apply(&mut view, Change::Added, "a", 10),
            Err(Rule::BookmarkAhead)
        );
    }

    #[test]
    fn versions_that_go_backwards_are_told() {
        assert_eq!(view().bookmark(11), Err(Rule::Backwards));
        assert_eq!(view().replace(HashMap::new(), 11), Err(Rule::Backwards));
    }

    #[test]
    fn a_send_time_is_measured_once() {
        let metadata = |version: &str| {
            let annotation = Message::default()
                .string(1, "watershed.dev/sent")
                .string(2, "77");
            let metadata = Message::default().string(1, "b").string(6, version);
            let metadata = metadata.message(12, &annotation);
            Message::default().message(1, &metadata).0
        };
        let mut view = view();
        let (first, second) = (metadata("13"), metadata("14"));
        let first = view.apply(Change::Modified, &Object::decode(&first).unwrap());
        let second = view.apply(Change::Modified, &Object::decode(&second).unwrap());
        assert_eq!((first, second), (Ok(Some(77)), Ok(None)));
    }

    #[test]
    fn a_digest_differs_when_one_event_differs() {
        let digest = |versions: &[u64]| {
            let mut digest = Digest::default();
            versions.iter().for_each(|version| digest.add(*version));
            digest
        };
        assert_eq!(digest(&[1, 2, 3]), digest(&[3, 1, 2]));
        assert_ne!(digest(&[1, 2, 3]), digest(&[1, 2, 4]));
        assert_ne!(digest(&[1, 2, 3]), digest(&[1, 2]));
    }
}
