//! Objects by name.
//!
//! Owns the one copy of every name that is spoken of, counts who speaks of it, and forgets it with
//! the last. What is spoken of need not exist. A [`Vertex`] is its number: kind in front, so that
//! sorted vertices lie together by kind. Names come from users, hence the keyed hash of `std`. The
//! index of a kind is split, so that growing one part keeps readers waiting for a moment only.
//! Invariant: a vertex is valid while somebody counts on it, and different names have different
//! vertices.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

use super::arena::Arena;
use crate::facts::Source;

/// What an object is. Only the graph knows the first two, which are no objects somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Namespace,
    Node,
    ConfigMap,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodCertificateRequest,
    ResourceClaim,
    ResourceSlice,
    Secret,
    ServiceAccount,
    VolumeAttachment,
}

impl Kind {
    /// Whose objects lie on the ways from an object of this kind to a node.
    pub(crate) const fn sources(self) -> &'static [Source] {
        match self {
            Self::ConfigMap
            | Self::PersistentVolumeClaim
            | Self::Pod
            | Self::ResourceClaim
            | Self::ServiceAccount => &[Source::Pods],
            Self::PersistentVolume | Self::Secret => &[Source::Pods, Source::PersistentVolumes],
            Self::PodCertificateRequest => &[Source::PodCertificateRequests],
            Self::ResourceSlice => &[Source::ResourceSlices],
            Self::VolumeAttachment => &[Source::VolumeAttachments],
            Self::Namespace | Self::Node => &[],
        }
    }
}

const KINDS: usize = Kind::VolumeAttachment as usize + 1;

/// A name that is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Vertex(u32);

/// Bits of a vertex that number it within its kind.
const NUMBER_BITS: u32 = 28;

impl Vertex {
    /// No vertex. There is no such kind.
    pub(super) const NONE: Self = Self(u32::MAX);

    fn new(kind: Kind, number: u32) -> Self {
        assert!(
            number >> NUMBER_BITS == 0,
            "names of a kind are fewer than 2^28"
        );
        Self((kind as u32) << NUMBER_BITS | number)
    }

    /// The least vertex of a kind; that of the next kind is greater than all of them.
    pub(super) const fn first(kind: Kind) -> Self {
        Self((kind as u32) << NUMBER_BITS)
    }

    pub(super) fn is(self, kind: Kind) -> bool {
        self.0 >> NUMBER_BITS == kind as u32
    }

    fn place(self) -> (usize, u32) {
        let kind = self.0 >> NUMBER_BITS;
        (kind as usize, self.0 & ((1 << NUMBER_BITS) - 1))
    }
}

/// What a vertex leads to. Which of them is a matter of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing, or nothing yet.
    #[default]
    None,
    /// The node of a pod, attachment, slice or certificate request.
    Node(Vertex),
    /// The number of a node's edges.
    Edges(u32),
    /// The number of a volume: a volume's own, or the first for a claim.
    Volume(u32),
    /// How many volumes mention a secret.
    Mounts(u32),
}

/// Names, each once.
#[derive(Debug, Default)]
pub(super) struct Names {
    kinds: [Table; KINDS],
    hasher: RandomState,
    text_bytes: usize,
}

#[derive(Debug)]
struct Table {
    entries: Arena<Entry>,
    index: Box<[HashTable<u32>]>,
}

/// Parts of the index of a kind. With a million names a part grows in about a quarter millisecond.
const PARTS: usize = 1024;

impl Default for Table {
    fn default() -> Self {
        Self {
            entries: Arena::default(),
            index: (0..PARTS).map(|_part| HashTable::new()).collect(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    namespace: Vertex,
    uses: u32,
    link: Link,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            name: Box::default(),
            namespace: Vertex::NONE,
            uses: 0,
            link: Link::None,
        }
    }
}

impl Names {
    /// The vertex of a name, if anybody speaks of it. The namespace may be empty.
    pub(super) fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<Vertex> {
        let namespace = if namespace.is_empty() {
            Vertex::NONE
        } else {
            self.find_in(Kind::Namespace, Vertex::NONE, namespace)?
        };
        self.find_in(kind, namespace, name)
    }

    fn find_in(&self, kind: Kind, namespace: Vertex, name: &str) -> Option<Vertex> {
        let hash = self.hash(namespace, name);
        let table = &self.kinds[kind as usize];
        let number = table.index[part(hash)].find(hash, |&number| {
            let entry = &table.entries[number];
            entry.namespace == namespace && *entry.name == *name
        });
        number.map(|&number| Vertex::new(kind, number))
    }

    /// The vertex of a name, counted once more.
    pub(super) fn acquire(&mut self, kind: Kind, namespace: &str, name: &str) -> Vertex {
        if let Some(vertex) = self.find(kind, namespace, name) {
            self.entry_mut(vertex).uses += 1;
            return vertex;
        }
        let namespace = if namespace.is_empty() {
            Vertex::NONE
        } else {
            self.acquire(Kind::Namespace, "", namespace)
        };
        self.text_bytes += allocated(name);
        let hash = self.hash(namespace, name);
        let hasher = &self.hasher;
        let Table { entries, index } = &mut self.kinds[kind as usize];
        let number = entries.insert(Entry {
            name: name.into(),
            namespace,
            uses: 1,
            link: Link::None,
        });
        index[part(hash)].insert_unique(hash, number, |&number| {
            let entry = &entries[number];
            hasher.hash_one((entry.namespace.0, &*entry.name))
        });
        Vertex::new(kind, number)
    }

    /// Counts a vertex once less. Returns what the last one leaves: its link.
    pub(super) fn release(&mut self, vertex: Vertex) -> Option<Link> {
        let entry = self.entry_mut(vertex);
        entry.uses -= 1;
        if entry.uses > 0 {
            return None;
        }
        let (kind, number) = vertex.place();
        let Table { entries, index } = &mut self.kinds[kind];
        let entry = entries.remove(number);
        let hash = self.hasher.hash_one((entry.namespace.0, &*entry.name));
        let slot = index[part(hash)].find_entry(hash, |&found| found == number);
        slot.expect("a vertex is in the index").remove();
        self.text_bytes -= allocated(&entry.name);
        if entry.namespace != Vertex::NONE {
            self.release(entry.namespace);
        }
        Some(entry.link)
    }

    /// The names of a kind that are spoken of, from the one after the given vertex.
    pub(super) fn of(&self, kind: Kind, after: Option<Vertex>) -> impl Iterator<Item = Vertex> {
        let entries = &self.kinds[kind as usize].entries;
        let first = after.map_or(0, |vertex| vertex.place().1 + 1);
        let numbers = (first..).map_while(|number| Some((number, entries.get(number)?)));
        let spoken_of = numbers.filter(|(_, entry)| entry.uses > 0);
        spoken_of.map(move |(number, _)| Vertex::new(kind, number))
    }

    pub(super) fn name(&self, vertex: Vertex) -> &str {
        &self.entry(vertex).name
    }

    /// How often a vertex is counted on.
    pub(super) fn uses(&self, vertex: Vertex) -> u32 {
        self.entry(vertex).uses
    }

    pub(super) fn link(&self, vertex: Vertex) -> Link {
        self.entry(vertex).link
    }

    pub(super) fn set_link(&mut self, vertex: Vertex, link: Link) {
        self.entry_mut(vertex).link = link;
    }

    /// How many names of a kind are spoken of.
    pub(super) fn len(&self, kind: Kind) -> usize {
        self.kinds[kind as usize].entries.len()
    }

    /// How many names are spoken of.
    pub(super) fn total(&self) -> usize {
        self.kinds.iter().map(|table| table.entries.len()).sum()
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.kinds.iter().map(|table| {
            let index: usize = table.index.iter().map(HashTable::allocation_size).sum();
            table.entries.bytes() + index + PARTS * size_of::<HashTable<u32>>()
        });
        tables.sum::<usize>() + self.text_bytes
    }

    fn hash(&self, namespace: Vertex, name: &str) -> u64 {
        self.hasher.hash_one((namespace.0, name))
    }

    fn entry(&self, vertex: Vertex) -> &Entry {
        let (kind, number) = vertex.place();
        &self.kinds[kind].entries[number]
    }

    fn entry_mut(&mut self, vertex: Vertex) -> &mut Entry {
        let (kind, number) = vertex.place();
        &mut self.kinds[kind].entries[number]
    }
}

/// Which part of an index. The table itself uses the other bits more.
fn part(hash: u64) -> usize {
    (hash >> 48) as usize % PARTS
}

/// What an allocator takes for a text.
fn allocated(text: &str) -> usize {
    text.len().next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Kind, Names};

    #[test]
    fn every_name_of_every_namespace_has_its_own_vertex() {
        let mut names = Names::default();
        let namespaces: Vec<String> = (0..3000).map(|number| format!("ns-{number}")).collect();
        let kinds = [Kind::Secret, Kind::ConfigMap];
        let mut vertices = BTreeSet::new();
        for kind in kinds {
            for namespace in namespaces.iter().map(String::as_str).chain([""]) {
                let vertex = names.acquire(kind, namespace, "same");
                assert!(vertices.insert(vertex), "{kind:?} in {namespace:?}");
                assert!(vertex.is(kind));
            }
        }
        for kind in kinds {
            for namespace in namespaces.iter().map(String::as_str).chain([""]) {
                let vertex = names.find(kind, namespace, "same").expect("it is known");
                assert!(vertices.remove(&vertex), "{kind:?} in {namespace:?}");
                names.release(vertex);
                assert_eq!(names.find(kind, namespace, "same"), None);
            }
        }
        assert_eq!(names.total(), 0);
    }
}
