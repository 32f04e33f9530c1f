//! All objects, their past, and the watch caches in front of them: one revision, one lock.
//!
//! Plays two real parts at once. As etcd it keeps versions of every object (`table`), answers reads
//! at a revision until that is compacted, and expires events by lease. As the watch cache of
//! kube-apiserver 1.36 it keeps a window of recent events per resource (`history`) and hands each
//! event to those watchers that may care (`watchers`). The cache's own resource version moves with
//! events and with progress asked for by consistent reads; it can be frozen to play a server that
//! lags.
//!
//! It refuses to know encodings, users or selectors beyond the value a resource is indexed by.
//! Invariant: under the lock, every event up to a cache's resource version has been handed to its
//! watchers, so a bookmark taken from it and sent after the queue is drained never overtakes an
//! event.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::time::Instant;

use super::Profile;
use super::resources::Resource;

mod event;
mod history;
mod leases;
mod lifecycle;
mod object;
mod readiness;
mod table;
#[cfg(test)]
mod tests;
mod watchers;
mod writes;

pub use event::{Event, EventKind, EventType, FrameKey};
pub use object::{Form, RenderKey, Stored, trigger_value};
pub use watchers::{Scope, Subscription};

use readiness::Readiness;
use table::Table;

/// Why the store refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No such object.
    #[error("not found")]
    NotFound,
    /// An object of that name exists.
    #[error("already exists")]
    AlreadyExists,
    /// The object is at another revision than expected.
    #[error("the object has been modified; it is at {current}")]
    Conflict {
        /// The revision it is at.
        current: u64,
    },
    /// The window of a watch cache starts later; `oldest` is the oldest resource version a watch
    /// may start after.
    #[error("too old resource version: {requested} ({oldest})")]
    Expired {
        /// What was asked for.
        requested: u64,
        /// What would have been served.
        oldest: u64,
    },
    /// The revision is compacted.
    #[error("required revision has been compacted")]
    Compacted,
    /// The cache did not reach the resource version in time.
    #[error("too large resource version: {requested}, current: {current}")]
    TooLarge {
        /// What was asked for.
        requested: u64,
        /// Where the cache is.
        current: u64,
    },
}

/// What an update did.
#[derive(Debug, Clone)]
pub enum Updated {
    /// The object was written at a new revision.
    Written(Arc<Stored>),
    /// The content was the same: nothing happened, the old object stands.
    Unchanged(Arc<Stored>),
    /// The last finalizer of an object in deletion went away: it is deleted. Holds the last stored
    /// object with the revision of the deletion.
    Removed(Arc<Stored>),
}

/// What a delete did.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// The object is gone; its last content with the revision of the deletion.
    Gone(Arc<Stored>),
    /// Finalizers or a grace period hold it: `deletionTimestamp` is set.
    Pending(Arc<Stored>),
}

/// Where a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the current objects as initial events.
    Initial,
    /// After a resource version, replaying history.
    After(u64),
}

/// A consistent picture of a resource.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The resource version it is valid at.
    pub resource_version: u64,
    /// Objects in key order.
    pub objects: Vec<Arc<Stored>>,
}

/// Told of every change inside the commit: storage name, namespace, name, new object (`None` after
/// a deletion).
pub type Observer = Box<dyn Fn(&str, &str, &str, Option<&Value>) + Send + Sync>;

/// All objects, all watch caches, one revision.
pub struct Store {
    inner: Mutex<Inner>,
    profile: Profile,
}

struct Inner {
    revision: u64,
    tables: HashMap<String, Table>,
    observer: Observer,
    /// Which caches of custom resources are filled.
    readiness: Readiness,
    /// Caches take no events; consistent reads cannot be served from them.
    frozen: bool,
    next_watcher: u64,
}

/// How long a read waits for its resource version.
pub const FRESHNESS_TIMEOUT: Duration = Duration::from_secs(3);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store at the profile's first revision.
    pub fn new(profile: Profile, observer: Observer) -> Self {
        let inner = Inner {
            revision: profile.first_revision,
            tables: HashMap::new(),
            observer,
            readiness: Readiness::default(),
            frozen: false,
            next_watcher: 0,
        };
        Self {
            inner: Mutex::new(inner),
            profile,
        }
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.inner.lock().revision
    }

    /// Makes sure the resource has its cache, listed at the current revision.
    pub fn open(&self, resource: &Resource) {
        self.table(resource, |_, _| ());
    }

    /// Ends every watch of the resource and forgets its cache; objects stay.
    pub fn close(&self, resource: &Resource) {
        let profile = &self.profile;
        self.table(resource, |table, revision| {
            table.restart_cache(revision, profile)
        });
    }

    /// The cache of a custom resource begins with the first request for it, whatever that is.
    pub fn touch(&self, resource: &Resource) {
        if resource.custom.is_none() {
            return;
        }
        let mut inner = self.inner.lock();
        let is_new = !inner.tables.contains_key(&resource.storage);
        if inner.readiness.begin(resource, self.profile.cache_start) && !is_new {
            let revision = inner.revision;
            let table = inner.table(resource, &self.profile);
            table.restart_cache(revision, &self.profile);
        }
    }

    /// Whether the resource's cache is filled, or for how long it is not. `held` keeps one that is
    /// not filled from becoming so.
    pub fn ready(&self, resource: &Resource, held: bool) -> Result<(), Duration> {
        self.inner.lock().readiness.of(resource, held)
    }

    /// Forgets that the resource was ever asked for, as when it is no longer served.
    pub fn forget(&self, resource: &Resource) {
        self.inner.lock().readiness.forget(resource);
    }

    /// The current object, as etcd has it.
    pub fn read(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        let key = object::key_of(namespace, name);
        self.table(resource, |table, _| table.latest(&key).cloned())
    }

    /// The object as the watch cache has it, which may lag, with the cache's resource version.
    pub fn read_cached(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> (u64, Option<Arc<Stored>>) {
        let key = object::key_of(namespace, name);
        self.table(resource, |table, _| {
            let at = table.cache_version();
            (at, table.version_at(&key, at).cloned())
        })
    }

    /// All current objects of a resource, of one namespace when given, in key order.
    pub fn read_all(&self, resource: &Resource, namespace: Option<&str>) -> Vec<Arc<Stored>> {
        let scope = namespace.map_or(Scope::All, |ns| Scope::Namespace(ns.to_owned()));
        self.table(resource, |table, revision| table.scan(&scope, revision))
    }

    /// The objects of a scope at the cache's resource version.
    pub fn snapshot_cached(&self, resource: &Resource, scope: &Scope) -> Snapshot {
        self.table(resource, |table, revision| {
            let at = if resource.cached {
                table.cache_version()
            } else {
                revision
            };
            Snapshot {
                resource_version: at,
                objects: table.scan(scope, at),
            }
        })
    }

    /// The objects of a scope at the current revision, past the cache.
    pub fn snapshot_current(&self, resource: &Resource, scope: &Scope) -> Snapshot {
        self.table(resource, |table, revision| Snapshot {
            resource_version: revision,
            objects: table.scan(scope, revision),
        })
    }

    /// The objects of a scope at an exact revision. `true` in the answer: a cache would have had a
    /// snapshot of it.
    pub fn snapshot_exact(
        &self,
        resource: &Resource,
        scope: &Scope,
        at: u64,
    ) -> Result<(Snapshot, bool), StoreError> {
        self.table(resource, |table, revision| {
            if at > revision {
                return Err(StoreError::TooLarge {
                    requested: at,
                    current: revision,
                });
            }
            let objects = table.scan_exact(scope, at)?;
            let cached = resource.cached && table.listed_at() <= at;
            Ok((
                Snapshot {
                    resource_version: at,
                    objects,
                },
                cached,
            ))
        })
    }

    /// Waits until the resource's cache has reached a resource version; asks for progress
    /// meanwhile.
    pub async fn wait_until_fresh(
        &self,
        resource: &Resource,
        requested: u64,
        timeout: Duration,
    ) -> Result<(), StoreError> {
        let mut progress = self.table(resource, |table, _| table.progress.subscribe());
        let deadline = Instant::now() + timeout;
        loop {
            self.request_progress(resource);
            let current = *progress.borrow_and_update();
            if current >= requested {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, progress.changed())
                .await
                .is_err()
            {
                return Err(StoreError::TooLarge { requested, current });
            }
        }
    }

    /// A consistent read's freshness: the current revision, once the cache has reached it.
    pub async fn wait_until_consistent(&self, resource: &Resource) -> Result<u64, StoreError> {
        let target = self.revision();
        self.wait_until_fresh(resource, target, FRESHNESS_TIMEOUT)
            .await?;
        Ok(target)
    }

    /// The resource version of the cache: every event up to it is in the queues of its watchers.
    pub fn cache_version(&self, resource: &Resource) -> u64 {
        self.table(resource, |table, _| table.cache_version())
    }

    /// Opens a watch. Initial objects or replayed events come with the subscription, later events
    /// through it.
    pub fn watch(
        self: &Arc<Self>,
        resource: &Resource,
        scope: Scope,
        start: Start,
    ) -> Result<Subscription, StoreError> {
        let mut inner = self.inner.lock();
        inner.next_watcher += 1;
        let (id, revision) = (inner.next_watcher, inner.revision);
        let table = inner.table(resource, &self.profile);
        let cached = resource.cached;
        let subscription = table.subscribe(id, scope, start, (cached, revision))?;
        Ok(subscription.owned_by(self, &resource.storage))
    }

    /// Deletes events whose lease has run out; all of one lease in one revision.
    pub fn expire(&self) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        for (storage, table) in &mut inner.tables {
            for keys in table.leases.expired(Instant::now()) {
                let doomed: Vec<_> = keys
                    .iter()
                    .filter_map(|key| table.latest(key).cloned())
                    .collect();
                if doomed.is_empty() {
                    continue;
                }
                inner.revision += 1;
                for object in doomed {
                    table.remove(&object, inner.revision, inner.frozen, &self.profile);
                    (inner.observer)(storage, &object.namespace, &object.name, None);
                }
            }
        }
    }

    /// Discards history below a revision, as etcd's compaction does.
    pub fn compact(&self, revision: u64) {
        for table in self.inner.lock().tables.values_mut() {
            table.compact(revision);
        }
    }

    /// Plays a new server process on the same storage: every cache starts empty at the current
    /// revision, every watch ends.
    pub fn restart(&self) {
        let mut inner = self.inner.lock();
        let revision = inner.revision;
        for table in inner.tables.values_mut() {
            table.restart_cache(revision, &self.profile);
        }
        inner.readiness = Readiness::default();
    }

    /// Freezes or thaws all caches. While frozen they play a server cut off from etcd: no events,
    /// no progress.
    pub fn freeze(&self, frozen: bool) {
        let mut inner = self.inner.lock();
        inner.frozen = frozen;
        if !frozen {
            for table in inner.tables.values_mut() {
                table.thaw(&self.profile);
            }
        }
    }

    /// Plays a new server process whose caches stand at a revision, frozen: what came later they get
    /// when they are thawed.
    pub fn fall_behind(&self, revision: u64) {
        let mut inner = self.inner.lock();
        inner.frozen = true;
        for table in inner.tables.values_mut() {
            table.fall_behind(revision, &self.profile);
        }
    }

    /// Moves the cache to the current revision, as etcd's progress notifications do while a read
    /// waits.
    fn request_progress(&self, resource: &Resource) {
        let mut inner = self.inner.lock();
        if !inner.frozen {
            let revision = inner.revision;
            inner.table(resource, &self.profile).advance(revision);
        }
    }

    fn ttl(&self, resource: &Resource) -> Option<Duration> {
        (resource.storage == "events").then_some(self.profile.event_ttl)
    }

    fn table<T>(&self, resource: &Resource, act: impl FnOnce(&mut Table, u64) -> T) -> T {
        let mut inner: MutexGuard<'_, Inner> = self.inner.lock();
        let revision = inner.revision;
        act(inner.table(resource, &self.profile), revision)
    }

    fn unsubscribe(&self, storage: &str, id: u64, scope: &Scope) {
        if let Some(table) = self.inner.lock().tables.get_mut(storage) {
            table.watchers.remove(id, scope);
        }
    }
}

impl Inner {
    fn table(&mut self, resource: &Resource, profile: &Profile) -> &mut Table {
        if !self.tables.contains_key(&resource.storage) {
            let table = Table::new(self.revision, resource.cached, profile);
            self.tables.insert(resource.storage.clone(), table);
        }
        self.tables
            .get_mut(&resource.storage)
            .expect("inserted above")
    }
}
