//! The writing side: the only way state enters a cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::encoding::{BookmarkTemplate, EventType, is_heartbeat};
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

    /// Whether everything up to `resource_version` is here, all deletions of that version included.
    pub(crate) fn is_complete_at(&self, resource_version: ResourceVersion) -> bool {
        let is_passed = self.resource_version > resource_version;
        let is_reached = self.resource_version == resource_version && !self.is_amid;
        (is_passed || is_reached) && !self.is_disordered
    }

    /// Takes one event; see [`Self::apply_all`].
    ///
    /// # Errors
    /// [`OverBudget`]; the cache is closed then.
    ///
    /// # Panics
    /// On an `event_type` that carries no object of the resource.
    pub fn apply(&mut self, event_type: EventType, object: Object) -> Result<(), OverBudget> {
        self.apply_all(std::iter::once((event_type, object)))
    }

    /// Takes events of an upstream stream that is complete from the own version on, and publishes
    /// them together: readers see none of them or all. Events below the own version and repeats
    /// change nothing, nor does anything before the first [`Self::replace`] or after the cache was
    /// closed. What happened is judged by what the store holds, not by the event's type alone. Pass
    /// a few at a time: nobody gets a snapshot meanwhile.
    ///
    /// # Errors
    /// [`OverBudget`]; the cache is closed then.
    ///
    /// # Panics
    /// On an event type that carries no object of the resource.
    pub fn apply_all(
        &mut self,
        events: impl IntoIterator<Item = (EventType, Object)>,
    ) -> Result<(), OverBudget> {
        let shared = Arc::clone(&self.shared);
        let mut current = shared.current.lock();
        let Some(state) = &mut *current else {
            return Ok(());
        };
        let mut history = shared.history.lock();
        let mut is_news = false;
        for (event_type, object) in events {
            is_news |= self.take(event_type, object, (state.store_mut(), &mut history));
        }
        if !is_news {
            return Ok(());
        }
        state.changed(self.resource_version);
        let over = self.check(state.bytes());
        drop(history);
        drop(current);
        self.published();
        over.inspect_err(|_| self.close())
    }

    /// Judges one event and puts it into store and history; whether it was news.
    fn take(
        &mut self,
        event_type: EventType,
        object: Object,
        (store, history): (&mut Store, &mut History),
    ) -> bool {
        let resource_version = object.resource_version();
        if resource_version < self.resource_version {
            self.expect_repeat(&object, history);
            return false;
        }
        // Leases that expire together are deleted at one version, so the own version itself may
        // still bring news.
        let old = store.find(object.key());
        if old.is_some_and(|old| old.resource_version() >= resource_version) {
            return false;
        }
        let object = Arc::new(object);
        let change = match (event_type, old.is_some()) {
            (EventType::Added | EventType::Modified, false)
                if resource_version == self.resource_version =>
            {
                self.expect_repeat(&object, history);
                return false;
            }
            (EventType::Added | EventType::Modified, _) => {
                match store.insert(Arc::clone(&object)) {
                    Some(old) => Change::Updated {
                        is_heartbeat: self.shared.tells_heartbeats() && is_heartbeat(&old, &object),
                        old,
                        new: object,
                    },
                    None => Change::Created { new: object },
                }
            }
            (EventType::Deleted, true) => Change::Removed {
                old: store.remove(object.key()).expect("it was found just above"),
                last: object,
            },
            (EventType::Deleted, false) => {
                let is_later = resource_version > self.resource_version;
                if is_later {
                    self.resource_version = resource_version;
                    history.advance(resource_version);
                    self.hand_over(None, history);
                    self.is_amid = true;
                }
                return is_later;
            }
            (EventType::Bookmark | EventType::Error, _) => panic!("{event_type:?} has no object"),
        };
        self.show(&change);
        self.is_amid = matches!(change, Change::Removed { .. });
        self.resource_version = resource_version;
        self.shared.counters.events_received.bump();
        let event = history.push(resource_version, change);
        self.hand_over(Some(&event), history);
        true
    }

    /// Tells the observer before anybody else.
    fn show(&self, change: &Change) {
        let Some(observer) = self.shared.observer() else {
            return;
        };
        match change {
            Change::Created { new } | Change::Updated { new, .. } => observer.upserted(new),
            Change::Removed { old, .. } => observer.removed(old),
        }
    }

    /// Tells the observer what a state that replaces the present one changes.
    fn show_difference(&self, next: &Store) {
        let (Some(observer), Some(held)) = (self.shared.observer(), self.snapshot()) else {
            return;
        };
        for object in next.all() {
            let known = held.find(object.key());
            if known.is_none_or(|known| !Arc::ptr_eq(known, object)) {
                observer.upserted(object);
            }
        }
        for object in held.range(None, "") {
            if next.find(object.key()).is_none() {
                observer.removed(object);
            }
        }
    }

    /// An event that is not news is one that was seen, or older than the history.
    fn expect_repeat(&mut self, object: &Object, history: &History) {
        let (window, version) = (&history.window, object.resource_version());
        self.is_disordered |= version > window.floor() && !window.holds(object.key(), version);
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
        self.publish(resource_version, |state, history| {
            history.advance(resource_version);
            state.as_mut().expect("ready").advanced(resource_version);
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

    /// An empty store to collect a relist in. Until the cache is ready its observer is shown every
    /// object as it is collected, later only what the relist changed.
    pub(crate) fn collect(&self) -> Store {
        if let Some(observer) = self.shared.observer()
            && !self.ready
        {
            observer.closed();
        }
        Store::new(self.shared.resource.fields.trigger())
    }

    /// Adds to a relist. An object the cache holds already, byte for byte, is shared rather than
    /// held twice.
    pub(crate) fn collect_into(
        &mut self,
        store: &mut Store,
        object: Object,
    ) -> Result<(), OverBudget> {
        let current = self.shared.current.lock();
        let held = current.as_ref().and_then(|state| {
            let held = state.find(object.key()).filter(|held| ***held == object);
            held.map(Arc::clone)
        });
        drop(current);
        if let Some(observer) = self.shared.observer()
            && !self.ready
        {
            observer.upserted(&object);
        }
        store.insert(held.unwrap_or_else(|| Arc::new(object)));
        self.check(store.bytes()).inspect_err(|_| self.close())
    }

    /// The lowest version a new state may have: that of the newest state anybody was shown.
    pub(crate) fn lowest(&self) -> ResourceVersion {
        self.resource_version.max(self.shared.promised())
    }

    /// See [`Self::replace`].
    pub(crate) fn replace_store(&mut self, resource_version: ResourceVersion, store: Store) {
        assert!(resource_version >= self.lowest(), "versions never go back");
        self.show_difference(&store);
        if !self.ready {
            self.shared.touch(&self.shared.last_change);
        }
        self.ready = true;
        self.is_amid = false;
        self.is_disordered = false;
        self.shared.counters.relists.bump();
        let resource = Arc::clone(&self.shared.resource);
        let next = Snapshot::new(resource, store, (resource_version, StateId::next()));
        let forgotten = self.publish(resource_version, |state, history| {
            (state.replace(next), history.replace(resource_version))
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
        if let Some(observer) = self.shared.observer() {
            observer.closed();
        }
        let state = self.shared.current.lock().take();
        self.shared.proven.lock().take();
        let shared = Arc::clone(&self.shared);
        let mut history = shared.history.lock();
        let forgotten = history.close();
        self.hand_over(None, &history);
        drop(history);
        self.shared.progress.send_replace(None);
        self.wake();
        drop((state, forgotten));
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
        self.shared.current.lock().clone()
    }

    fn check(&self, bytes: usize) -> Result<(), OverBudget> {
        let budget = self.shared.options.objects_bytes;
        if bytes > budget {
            Err(OverBudget { bytes, budget })
        } else {
            Ok(())
        }
    }

    /// State and history change together, under both locks, the state's first: whoever reads an
    /// event finds it in the snapshot too, and a snapshot is never ahead of a history locked after
    /// it was taken. The state is changed in place; what a reader holds a snapshot of is copied.
    fn publish<T>(
        &mut self,
        resource_version: ResourceVersion,
        change: impl FnOnce(&mut Option<Snapshot>, &mut History) -> T,
    ) -> T {
        self.resource_version = resource_version;
        let shared = Arc::clone(&self.shared);
        let mut current = shared.current.lock();
        let mut history = shared.history.lock();
        let left = change(&mut current, &mut history);
        self.hand_over(None, &history);
        drop(history);
        drop(current);
        self.published();
        left
    }

    /// News, after the state.
    fn published(&mut self) {
        if self.shared.promised() <= self.resource_version {
            self.shared.proven.lock().take(); // the stream has passed it
        }
        self.shared.touch(&self.shared.last_progress);
        self.shared
            .progress
            .send_replace(Some(self.resource_version));
        self.wake();
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
