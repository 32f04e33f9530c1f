//! The objects of one resource, in key order, with immutable snapshots in constant time.
//!
//! Owns the objects in the order of their keys and, for resources that have a trigger field, in the
//! order of (value, key) too; both hold the same shared objects. A [`Snapshot`] is a copy that
//! shares everything, and a resource version: lists, pages and initial events read from one without
//! a lock, for as long as they like. The invariant: both orders hold the same objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};

use crate::event::Change;
use crate::interest::{Interest, Selection};
use crate::object::Object;
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;

mod shelf;

use shelf::{Order, PLACE, Shelf, Walk};

/// The current objects.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    by_key: Shelf,
    by_field: Option<(usize, Shelf)>,
    bytes: usize,
}

impl Store {
    pub(crate) fn new(trigger: Option<usize>) -> Self {
        Self {
            by_key: Shelf::new(Order::Key),
            by_field: trigger.map(|field| (field, Shelf::new(Order::Field(field)))),
            bytes: 0,
        }
    }

    pub(crate) fn find(&self, key: &str) -> Option<&Arc<Object>> {
        self.by_key.find((&[], key.as_bytes()))
    }

    /// Puts a new version in place and returns the one it replaced.
    pub(crate) fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        self.bytes += self.cost(&object);
        let old = self.by_key.insert(Arc::clone(&object));
        if let Some(old) = &old {
            self.bytes -= self.cost(old);
        }
        if let Some((field, shelf)) = &mut self.by_field {
            let order = Order::Field(*field);
            let moved_from = old
                .as_ref()
                .map(|old| order.place(old))
                .filter(|old| *old != order.place(&object));
            if let Some(place) = moved_from {
                shelf.remove(place);
            }
            shelf.insert(object);
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Arc<Object>> {
        let object = self.by_key.remove((&[], key.as_bytes()))?;
        self.bytes -= self.cost(&object);
        if let Some((field, shelf)) = &mut self.by_field {
            let removed = shelf.remove(Order::Field(*field).place(&object));
            assert!(removed.is_some(), "both orders hold the same objects");
        }
        Some(object)
    }

    /// All objects in key order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.by_key.walk((&[], &[]))
    }

    /// Bytes an object takes here.
    fn cost(&self, object: &Object) -> usize {
        let orders = 1 + usize::from(self.by_field.is_some());
        object.memory() + orders * PLACE
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Bytes held by the objects and their places.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes one change back.
    fn undo(&mut self, change: &Change) {
        match change {
            Change::Created { new } => {
                self.remove(new.key());
            }
            Change::Updated { old, .. } | Change::Removed { old, .. } => {
                self.insert(Arc::clone(old));
            }
        }
    }
}

/// All objects at one resource version; immutable, cheap to clone, independent of what the cache
/// does next.
#[derive(Clone, Debug)]
pub struct Snapshot {
    resource: Arc<Resource>,
    store: Store,
    resource_version: ResourceVersion,
    id: StateId,
}

/// Names the objects a cache held between two changes; unique in the process. Snapshots that agree
/// in this and in their version hold the same objects. A version alone does not say that: objects
/// that expire together go at one version, one after the other, and a version can come again after
/// the storage upstream was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateId(u64);

impl StateId {
    /// One that was never given before.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, AtomicOrdering::Relaxed))
    }
}

impl Snapshot {
    pub(crate) fn new(
        resource: Arc<Resource>,
        store: Store,
        (resource_version, id): (ResourceVersion, StateId),
    ) -> Self {
        Self {
            resource,
            store,
            resource_version,
            id,
        }
    }

    /// One object by its key.
    pub(crate) fn find(&self, key: &str) -> Option<&Arc<Object>> {
        self.store.find(key)
    }

    /// The objects, to be changed by the writer; [`Self::changed`] must follow.
    pub(crate) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// It holds something else now.
    pub(crate) fn changed(&mut self, resource_version: ResourceVersion) {
        self.resource_version = resource_version;
        self.id = StateId::next();
    }

    /// It holds the same, and is complete up to here.
    pub(crate) fn advanced(&mut self, resource_version: ResourceVersion) {
        self.resource_version = resource_version;
    }

    /// Names what it holds, together with [`Self::resource_version`].
    pub fn id(&self) -> StateId {
        self.id
    }

    /// The version this is the state of.
    pub fn resource_version(&self) -> ResourceVersion {
        self.resource_version
    }

    /// How many objects there are in all.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes the objects take.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// One object; `namespace` is empty for cluster-scoped resources. (The `get` of the API.)
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        if namespace.is_empty() {
            return self.store.find(name);
        }
        self.store.find(&format!("{namespace}/{name}"))
    }

    /// The selected objects in key order. Only the object, field value or namespace asked for is
    /// walked.
    pub fn iter<'a>(&'a self, selection: &'a Selection) -> impl Iterator<Item = &'a Arc<Object>> {
        self.iter_from(selection, "")
    }

    /// The selected objects whose key is at or after `start`. `last key + "\0"` continues after
    /// that key, as the apiserver's continue tokens do.
    pub fn iter_from<'a>(
        &'a self,
        selection: &'a Selection,
        start: &str,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        self.candidates(&selection.interest(&self.resource), start)
            .filter(|object| selection.matches(object))
    }

    /// All objects of a namespace, or of all when `None`, whose key is at or after `start`: what
    /// `continue` and `remainingItemCount` are counted over.
    pub fn range(
        &self,
        namespace: Option<&str>,
        start: &str,
    ) -> impl Iterator<Item = &Arc<Object>> {
        let interest = namespace.map_or(Interest::All, |name| Interest::Namespace(name.into()));
        self.candidates(&interest, start)
    }

    /// Objects that `interest` does not rule out, in key order from `start` on.
    fn candidates(&self, interest: &Interest, start: &str) -> Candidates<'_> {
        let from = |start: &str| self.store.by_key.walk((&[], start.as_bytes()));
        match (interest, &self.store.by_field) {
            (Interest::All, _) | (Interest::Field(_), None) => Candidates::All(from(start)),
            (Interest::Name(key), _) => {
                let object = self.store.find(key).filter(|object| object.key() >= start);
                Candidates::One(object.into_iter())
            }
            (Interest::Namespace(namespace), _) => {
                let first = format!("{namespace}/");
                Candidates::Namespace(from(start.max(&first)), namespace.clone())
            }
            (Interest::Field(value), Some((field, shelf))) => {
                let walk = shelf.walk((value.as_bytes(), start.as_bytes()));
                Candidates::Field(walk, *field, value.clone())
            }
        }
    }

    /// The state before `events`, which are the newest events up to this snapshot, newest first.
    pub(crate) fn rewind<'a>(
        mut self,
        resource_version: ResourceVersion,
        events: impl Iterator<Item = &'a Change>,
    ) -> Self {
        for change in events {
            self.store.undo(change);
        }
        Self {
            resource_version,
            ..self
        }
    }

    /// The same objects, proven to be the whole state at another version too.
    pub(crate) fn labelled(self, resource_version: ResourceVersion) -> Self {
        Self {
            resource_version,
            ..self
        }
    }

    /// Whether these objects, by key and version and nothing else, are exactly `objects`.
    pub(crate) fn holds_exactly(&self, objects: &[Object]) -> bool {
        self.len() == objects.len()
            && objects.iter().all(|object| {
                self.store
                    .find(object.key())
                    .is_some_and(|own| own.resource_version() == object.resource_version())
            })
    }
}

/// The walk behind [`Snapshot::iter`].
enum Candidates<'a> {
    All(Walk<'a>),
    One(std::option::IntoIter<&'a Arc<Object>>),
    Namespace(Walk<'a>, Box<str>),
    Field(Walk<'a>, usize, Box<str>),
}

impl<'a> Iterator for Candidates<'a> {
    type Item = &'a Arc<Object>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::All(walk) => walk.next(),
            Self::One(object) => object.next(),
            Self::Namespace(walk, namespace) => walk
                .next()
                .filter(|object| object.namespace() == &**namespace),
            Self::Field(walk, field, value) => walk
                .next()
                .filter(|object| object.field(*field) == &**value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cache_of, pod, pods, rv, select};

    fn keys<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Vec<&'a str> {
        objects.map(|object| object.key()).collect()
    }

    fn snapshot(objects: &[&str]) -> Snapshot {
        let mut store = Store::new(pods().fields.trigger());
        for (place, what) in objects.iter().enumerate() {
            store.insert(Arc::new(pod(what, place as u64 + 1)));
        }
        Snapshot::new(pods(), store, (rv(100), StateId::next()))
    }

    #[test]
    fn order_is_the_byte_order_of_namespace_slash_name() {
        let snapshot = snapshot(&["a0/x", "a/y", "a/x", "a-b/x", "a.b/x"]);
        assert_eq!(
            keys(snapshot.iter(&select(""))),
            ["a-b/x", "a.b/x", "a/x", "a/y", "a0/x"]
        );
    }

    #[test]
    fn every_kind_of_selection_finds_what_a_full_scan_finds() {
        let nodes = ["n1", "n2", "n3", ""];
        let objects: Vec<_> = (0..60)
            .map(|n| {
                format!(
                    "{}/p{n} @{} +{}",
                    ["a", "a-b", "b"][n % 3],
                    nodes[n % 4],
                    n % 5
                )
            })
            .collect();
        let snapshot = snapshot(&objects.iter().map(String::as_str).collect::<Vec<_>>());
        let selections = [
            "",
            "ns=a",
            "ns=z",
            "name=p3 ns=a",
            "name=p3 ns=b",
            "name=p3",
            "node=n1",
            "node=n2 ns=b",
            "node=zz",
            "app=2",
            "app=2 ns=a-b",
            "node=n1 app=3",
        ];
        for what in selections {
            let selection = select(what);
            for start in ["", "a/p3", "a/p30\0", "b/", "c"] {
                let scan = snapshot
                    .range(None, "")
                    .filter(|object| selection.matches(object) && object.key() >= start);
                assert_eq!(
                    keys(snapshot.iter_from(&selection, start)),
                    keys(scan),
                    "{what} {start}"
                );
            }
        }
        assert_eq!(snapshot.range(Some("a-b"), "a-b/p5").count(), 4);
    }

    #[test]
    fn a_snapshot_does_not_change() {
        let (mut writer, cache) = cache_of(10, &[("a/x @n1", 5), ("a/y @n1", 6)]);
        let before = cache.snapshot().unwrap();
        writer.delete("a/x @n1", 11);
        writer.put("a/y @n2", 12);
        assert_eq!(keys(before.iter(&select("node=n1"))), ["a/x", "a/y"]);
        assert_eq!(
            keys(cache.snapshot().unwrap().iter(&select("node=n1"))),
            [""; 0]
        );
        assert_eq!(before.get("a", "x").unwrap().resource_version(), rv(5));
        assert_eq!(before.get("", "x"), None);
    }

    #[test]
    fn bytes_return_to_zero() {
        let mut store = Store::new(None);
        store.insert(Arc::new(pod("a/x", 1)));
        store.insert(Arc::new(pod("a/x +longer", 2)));
        store.insert(Arc::new(pod("a/y", 3)));
        store.remove("a/x");
        store.remove("a/y");
        store.remove("a/z");
        assert_eq!((store.bytes(), store.len()), (0, 0));
    }

    #[test]
    fn one_name_and_version_never_stand_for_two_states() {
        let (mut writer, cache) = cache_of(10, &[("a/x", 5), ("a/y", 6)]);
        let state = |cache: &crate::WatchCache| {
            let snapshot = cache.snapshot().unwrap();
            (snapshot.id(), snapshot.resource_version())
        };
        let before = state(&cache);
        assert_eq!(state(&cache), before);
        writer.delete("a/x", 11);
        let between = state(&cache);
        writer.delete("a/y", 11); // they expired together
        let after = state(&cache);
        assert_eq!(between.1, after.1);
        assert_ne!(between.0, after.0);
        assert_ne!(before.0, between.0);
        let (_writer, other) = cache_of(11, &[]);
        assert_ne!(state(&other).0, after.0);
    }
}
