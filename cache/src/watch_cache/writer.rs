//! The writing side: the only way state enters a cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::encoding::{BookmarkTemplate, EventType};
use crate::error::OverBudget;
use crate::event::{Change, Event};
use crate::history::History;
use crate::lane::Due;
use crate::object::Object;
use crate::resource_version::ResourceVersion;
use crate::retention::Retention;
use crate::store::{Snapshot, StateId, Store};

use super::Shared;

/// The writing side of a cache: one, owned by a reflector.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    store: Store,
    /// Names what the store holds.
    id: StateId,
    resource_version: ResourceVersion,
    ready: bool,
    /// Whether the newest event was a deletion and nothing yet tells that it was the last of its
    /// version.
    is_amid: bool,
    is_disordered: bool,
    /// Scratch space for what is left to do of one event, and the wakers of those it concerns.
    due: Vec<(usize, Due)>,
    wake: Vec<Waker>,
}

impl Writer {
    /// Not ready; see [`WatchCache::new`](crate::WatchCache::new).
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            store: Store::new(shared.resource.fields.trigger()),
            id: StateId::next(),
            resource_version: ResourceVersion::default(),
            ready: false,
            is_amid: false,
            is_disordered: false,
            due: Vec::new(),
            wake: Vec::new(),
            shared,
        }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Up to where the cache is complete.
    pub fn resource_version(&self) -> ResourceVersion {
        self.resource_version
    }

    /// The version an upstream stream goes on after. Leases that expire together are deleted at one
    /// version; a stream that broke between two such deletions brings the second only to who asks
    /// for what came after the version before. Repeats change nothing.
    pub(crate) fn resumes_after(&self) -> ResourceVersion {
        let own = self.resource_version.get();
        let repeated = u64::from(self.is_amid && own > 1); // zero would mean any version
        ResourceVersion::new(own - repeated)
    }

    /// Whether an event came that should have come before what was vouched for. It cannot be put in
    /// its place any more; only a new state mends that.
    pub(crate) fn is_disordered(&self) -> bool {
        self.is_disordered
    }

    /// An event that is not news is one that was seen, or older than the history.
    fn expect_repeat(&mut self, key: &str, resource_version: ResourceVersion) {
        let history = self.shared.history.lock();
        let window = &history.window;
        self.is_disordered |=
            resource_version > window.floor() && !window.holds(key, resource_version);
    }

    /// Whether everything up to `resource_version` is here, all deletions of that version included.
    pub(crate) fn is_complete_at(&self, resource_version: ResourceVersion) -> bool {
        let is_passed = self.resource_version > resource_version;
        let is_reached = self.resource_version == resource_version && !self.is_amid;
        (is_passed || is_reached) && !self.is_disordered
    }

    /// Takes one event of an upstream stream that is complete from the own version on. Events below
    /// the own version and repeats change nothing, nor does anything before the first
    /// [`Self::replace`] or after the cache was closed. What happened is judged by what the store
    /// holds, not by the event's type alone.
    ///
    /// # Errors
    /// [`OverBudget`]; the cache is closed then.
    ///
    /// # Panics
    /// On an `event_type` that carries no object of the resource.
    pub fn apply(&mut self, event_type: EventType, object: Object) -> Result<(), OverBudget> {
        let resource_version = object.resource_version();
        if !self.ready {
            return Ok(());
        }
        if resource_version < self.resource_version {
            self.expect_repeat(object.key(), resource_version);
            return Ok(());
        }
        // Leases that expire together are deleted at one version, so the own version itself may
        // still bring news.
        let old = self.store.find(object.key()).cloned();
        let seen = |old: &Object| old.resource_version() >= resource_version;
        let change = match (event_type, old) {
            (EventType::Added | EventType::Modified, Some(old)) if seen(&old) => return Ok(()),
            (EventType::Added | EventType::Modified, Some(old)) => Change::Updated {
                old,
                new: Arc::new(object),
            },
            (EventType::Added | EventType::Modified, None) => {
                if resource_version == self.resource_version {
                    self.expect_repeat(object.key(), resource_version);
                    return Ok(());
                }
                Change::Created {
                    new: Arc::new(object),
                }
            }
            (EventType::Deleted, Some(old)) if seen(&old) => return Ok(()),
            (EventType::Deleted, Some(old)) => Change::Removed {
                old,
                last: Arc::new(object),
            },
            (EventType::Deleted, None) => {
                if resource_version > self.resource_version {
                    self.advance(resource_version, None);
                    self.is_amid = true;
                }
                return Ok(());
            }
            (EventType::Bookmark | EventType::Error, _) => panic!("{event_type:?} has no object"),
        };
        self.publish(resource_version, change);
        self.check(&self.store).inspect_err(|_| self.close())
    }

    fn publish(&mut self, resource_version: ResourceVersion, change: Change) {
        self.is_amid = matches!(change, Change::Removed { .. });
        match &change {
            Change::Created { new } | Change::Updated { new, .. } => {
                self.store.insert(Arc::clone(new));
            }
            Change::Removed { old, .. } => {
                self.store.remove(old.key());
            }
        }
        self.id = StateId::next();
        self.shared.counters.events_received.bump();
        self.publish_state(resource_version, |history| {
            (Some(history.push(resource_version, change)), ())
        });
    }

    /// The upstream vouched that nothing happened up to `resource_version`; `template` is the
    /// bookmark it said so with.
    pub fn advance(
        &mut self,
        resource_version: ResourceVersion,
        template: Option<BookmarkTemplate>,
    ) {
        if let Some(template) = template {
            *self.shared.template.lock() = template;
        }
        if !self.ready {
            return;
        }
        if resource_version >= self.resource_version {
            self.is_amid = false;
        }
        if resource_version <= self.resource_version {
            self.shared.touch(&self.shared.last_progress);
            return;
        }
        self.publish_state(resource_version, |history| {
            (None, history.advance(resource_version))
        });
    }

    /// Puts a new state in place of the old, ends every watcher and forgets the history.
    ///
    /// # Errors
    /// [`OverBudget`]; the cache is closed then.
    ///
    /// # Panics
    /// When `resource_version` is below the own one: callers discard such lists.
    pub fn replace(
        &mut self,
        resource_version: ResourceVersion,
        objects: impl IntoIterator<Item = Object>,
    ) -> Result<(), OverBudget> {
        let mut store = self.collect();
        for object in objects {
            self.collect_into(&mut store, object)?;
        }
        self.replace_store(resource_version, store);
        Ok(())
    }

    /// An empty store to collect a relist in.
    pub(crate) fn collect(&self) -> Store {
        Store::new(self.shared.resource.fields.trigger())
    }

    /// Adds to a relist. An object the cache holds already, byte for byte, is shared rather than
    /// held twice.
    pub(crate) fn collect_into(
        &mut self,
        store: &mut Store,
        object: Object,
    ) -> Result<(), OverBudget> {
        let held = self
            .store
            .find(object.key())
            .filter(|held| ***held == object);
        let object = held.map_or_else(|| Arc::new(object), Arc::clone);
        store.insert(object);
        self.check(store).inspect_err(|_| self.close())
    }

    /// The lowest version a new state may have: that of the newest state anybody was shown.
    pub(crate) fn lowest(&self) -> ResourceVersion {
        self.resource_version.max(self.shared.promised())
    }

    /// See [`Self::replace`].
    pub(crate) fn replace_store(&mut self, resource_version: ResourceVersion, store: Store) {
        assert!(resource_version >= self.lowest(), "versions never go back");
        self.store = store;
        self.id = StateId::next();
        if !self.ready {
            self.shared.touch(&self.shared.last_change);
        }
        self.ready = true;
        self.is_amid = false;
        self.is_disordered = false;
        self.shared.counters.relists.bump();
        let forgotten = self.publish_state(resource_version, |history| {
            (None, history.replace(resource_version))
        });
        drop(forgotten); // after everyone was woken
    }

    /// Ends every watcher and answers nobody until the next [`Self::replace`]. The own version
    /// stays as a lower bound.
    pub(crate) fn close(&mut self) {
        if self.ready {
            self.shared.touch(&self.shared.last_change);
        }
        self.ready = false;
        self.store = self.collect();
        self.shared.current.lock().take();
        self.shared.proven.lock().take();
        let shared = Arc::clone(&self.shared);
        let mut history = shared.history.lock();
        let forgotten = history.close();
        self.hand_over(None, &history);
        drop(history);
        self.shared.progress.send_replace(None);
        self.wake();
        drop(forgotten);
    }

    /// Closes the cache and forgets the own version: the storage upstream is another one now.
    pub(crate) fn start_over(&mut self) {
        self.close();
        self.resource_version = ResourceVersion::default();
        self.shared.promised.store(0, Ordering::SeqCst);
        self.shared.seen.store(0, Ordering::Relaxed);
        *self.shared.retention.lock() = Retention::default();
        self.shared.history.lock().start_over();
    }

    /// The newest state; `None` while not ready.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.ready.then(|| self.state())
    }

    fn state(&self) -> Snapshot {
        Snapshot::new(
            Arc::clone(&self.shared.resource),
            self.store.clone(),
            (self.resource_version, self.id),
        )
    }

    fn check(&self, store: &Store) -> Result<(), OverBudget> {
        let (bytes, budget) = (store.bytes(), self.shared.options.objects_bytes);
        if bytes > budget {
            Err(OverBudget { bytes, budget })
        } else {
            Ok(())
        }
    }

    /// State, then news. The snapshot is swapped while the history is locked, and before any lane
    /// is told: whoever reads an event finds it in the snapshot too, and a snapshot is never ahead
    /// of a history locked after it was taken.
    fn publish_state<T>(
        &mut self,
        resource_version: ResourceVersion,
        change: impl FnOnce(&mut History) -> (Option<Arc<Event>>, T),
    ) -> T {
        self.resource_version = resource_version;
        let snapshot = self.state();
        let shared = Arc::clone(&self.shared);
        let mut history = shared.history.lock();
        let (event, left) = change(&mut history);
        let replaced = self.shared.current.lock().replace(snapshot);
        self.hand_over(event.as_ref(), &history);
        drop(history);
        if self.shared.promised() <= resource_version {
            self.shared.proven.lock().take(); // the stream has passed it
        }
        self.shared.touch(&self.shared.last_progress);
        self.shared.progress.send_replace(Some(resource_version));
        self.wake();
        drop(replaced); // the last owner of many nodes, maybe: nobody waits for that
        left
    }

    /// Tells every lane where the locked history ends now.
    fn hand_over(&mut self, event: Option<&Arc<Event>>, history: &History) {
        let edge = history.edge();
        for (place, lane) in self.shared.lanes.iter().enumerate() {
            let due = lane.hand_over(event, edge);
            self.due.extend(due.map(|due| (place, due)));
        }
    }

    /// Wakes workers and watches that were told.
    fn wake(&mut self) {
        for (place, due) in self.due.drain(..) {
            self.shared.lanes[place].settle(due, &mut self.wake);
        }
        self.wake.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
        self.shared.freshness.close();
        self.shared.questions.close();
    }
}
