//! Which events of a window concern a key.
//!
//! Owns, for every key, the sequences of its events in order. A key is known by its hash alone, so
//! that an event which leaves takes its places along without being read again: by then it is far
//! from every cache, and so are the objects in it. Two keys of one hash share their places; whoever
//! reads under one of them then meets events of the other, which its selection does not match. It
//! refuses to promise more than that: an interest only narrows.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use crate::interest::KeyRef;

use super::Sequence;

/// Keys of one event, at most: its name, its namespace, the old and the new value of a field.
const KEYS_MAX: usize = 4;

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Names are chosen by tenants, hence a keyed hash.
    hash: RandomState,
    by_hash: HashMap<u64, Sequences, BuildHasherDefault<Hashed>>,
}

/// The keys an event is placed under.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    hashes: [u64; KEYS_MAX],
    len: u8,
}

/// Ascending; never empty. Most names have one event.
#[derive(Debug)]
enum Sequences {
    One(Sequence),
    #[expect(
        clippy::box_collection,
        reason = "half the room of one that is seldom there"
    )]
    Many(Box<VecDeque<Sequence>>),
}

/// What is hashed already.
#[derive(Debug, Default)]
pub(super) struct Hashed(u64);

impl Places {
    /// Empty, and keys hash as they did.
    pub(super) fn emptied(&self) -> Self {
        Self {
            hash: self.hash.clone(),
            by_hash: HashMap::default(),
        }
    }

    /// The keys that `visit` is called with.
    pub(super) fn keys(&self, visit: impl FnOnce(&mut dyn FnMut(KeyRef<'_>))) -> Keys {
        let (mut hashes, mut len) = ([0; KEYS_MAX], 0);
        visit(&mut |key| {
            hashes[len] = self.hash.hash_one(key);
            len += 1;
        });
        Keys {
            hashes,
            len: u8::try_from(len).expect("an event has four keys at most"),
        }
    }

    /// Adds an event that is later than all others.
    pub(super) fn push(&mut self, keys: &Keys, sequence: Sequence) {
        for &hash in keys.distinct() {
            let places = self.by_hash.entry(hash);
            let places = places.and_modify(|it| it.push(sequence));
            places.or_insert(Sequences::One(sequence));
        }
    }

    /// Takes the oldest event out.
    pub(super) fn pop(&mut self, keys: &Keys, sequence: Sequence) {
        for hash in keys.distinct() {
            let places = self.by_hash.get_mut(hash);
            let places = places.expect("every event is placed under its keys");
            if places.pop(sequence) {
                self.by_hash.remove(hash);
            }
        }
    }

    /// The events of a key, from a sequence on.
    pub(super) fn of(
        &self,
        key: KeyRef<'_>,
        from: Sequence,
    ) -> impl DoubleEndedIterator<Item = Sequence> + '_ {
        let found = self.by_hash.get(&self.hash.hash_one(key));
        let (one, many) = match found {
            None => (None, None),
            Some(Sequences::One(sequence)) => (Some(*sequence).filter(|it| *it >= from), None),
            Some(Sequences::Many(many)) => {
                let start = many.partition_point(|sequence| *sequence < from);
                (None, Some(many.range(start..)))
            }
        };
        let many = many.into_iter().flatten().copied();
        one.into_iter().chain(many)
    }
}

impl Keys {
    fn distinct(&self) -> impl Iterator<Item = &u64> {
        let hashes = &self.hashes[..usize::from(self.len)];
        let places = hashes.iter().enumerate();
        let first = places.filter(|(at, hash)| !hashes[..*at].contains(hash));
        first.map(|(_, hash)| hash)
    }
}

impl Sequences {
    fn push(&mut self, sequence: Sequence) {
        match self {
            Self::One(first) => *self = Self::Many(Box::new(VecDeque::from([*first, sequence]))),
            Self::Many(many) => many.push_back(sequence),
        }
    }

    /// Takes the first; whether that was the last.
    fn pop(&mut self, sequence: Sequence) -> bool {
        let (first, is_last) = match self {
            Self::One(only) => (Some(*only), true),
            Self::Many(many) => (many.pop_front(), many.is_empty()),
        };
        assert_eq!(first, Some(sequence), "a key lists its events in order");
        is_last
    }
}

impl Hasher for Hashed {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
