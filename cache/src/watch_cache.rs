//! One resource in one encoding: a single writer, any number of readers.
//!
//! [`Writer`] is the only way in and is not `Clone`; [`WatchCache`] is the way out and is. A change
//! is published in one order everywhere: store, then window and snapshot together, then wakers and
//! waiters, so news never arrives before the state it is about. The own version only grows; an
//! event or bookmark at or below it was seen before and changes nothing, which is what lets two
//! upstream streams (the main one and a fence) feed one writer. Dropping the writer closes the
//! cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::encoding::{BookmarkTemplate, Encoding, EventType};
use crate::error::{CacheError, NotFresh, OverBudget};
use crate::event::Change;
use crate::freshness::Freshness;
use crate::interest::Selection;
use crate::metrics::{Counters, Stats};
use crate::object::Object;
use crate::reflector::ReflectorStatus;
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;
use crate::store::{Snapshot, Store};
use crate::view::View;
use crate::watcher::{WatchStart, Watcher};
use crate::window::Window;

/// History younger than this is dropped for bytes only: apiserver `watch_cache.go`
/// `eventFreshDuration`, 1.36.
const HISTORY_AGE_MIN: Duration = Duration::from_secs(75);

/// How long a watcher may leave an event unread before it counts as slow.
const SLOW: Duration = Duration::from_secs(1);

/// How many events [`WatchCache::snapshot_at`] takes back at most: about ten milliseconds of work.
const REWIND_EVENTS_MAX: usize = 10_000;

/// The limits of one cache.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes the current objects may take (512 MiB). Beyond it the cache closes, its status becomes
    /// [`ReflectorStatus::OverBudget`] and the resource should pass through. During a relist
    /// objects that changed are held twice.
    pub objects_bytes: usize,
    /// Bytes the window may take beyond the objects (64 MiB), not counting its newest event and the
    /// 64 KiB of frames a reader may build in one poll. Beyond it the oldest events go, and who had
    /// not read them resumes or gets 410.
    pub history_bytes: usize,
    /// Age beyond which events go (5 minutes); values under 75 s count as 75 s.
    pub history_age: Duration,
    /// Readers that may wait for one proof of freshness (250,000). Beyond it [`NotFresh::Busy`] is
    /// returned at once.
    pub consistent_waiters: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            objects_bytes: 512 << 20,
            history_bytes: 64 << 20,
            history_age: Duration::from_secs(300),
            consistent_waiters: 250_000,
        }
    }
}

/// What writer, readers and watchers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) resource: Arc<Resource>,
    pub(crate) encoding: Encoding,
    options: Options,
    /// The newest state; `None` until the first sync and after the end.
    current: Mutex<Option<Snapshot>>,
    pub(crate) view: Mutex<View>,
    /// The own version, for those who wait for one; `None` while not ready.
    pub(crate) progress: watch::Sender<Option<ResourceVersion>>,
    status: watch::Sender<ReflectorStatus>,
    pub(crate) template: Mutex<BookmarkTemplate>,
    pub(crate) freshness: Freshness,
    pub(crate) counters: Counters,
    opened: Instant,
    /// Milliseconds since `opened`.
    last_used: AtomicU64,
    last_progress: AtomicU64,
}

impl Shared {
    pub(crate) fn set_status(&self, status: ReflectorStatus) {
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }

    fn touch(&self, clock: &AtomicU64) {
        let elapsed = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        clock.store(elapsed, Ordering::Relaxed);
    }

    fn read(&self, clock: &AtomicU64) -> Instant {
        self.opened + Duration::from_millis(clock.load(Ordering::Relaxed))
    }
}

/// The reading side of a cache. Clones share it.
#[derive(Clone, Debug)]
pub struct WatchCache {
    shared: Arc<Shared>,
}

impl WatchCache {
    /// An empty cache, not ready until its writer has replaced the state once.
    pub fn new(resource: Arc<Resource>, encoding: Encoding, options: Options) -> (Writer, Self) {
        let trigger = resource.fields.trigger();
        let age = options.history_age.max(HISTORY_AGE_MIN);
        let window = Window::new(trigger, options.history_bytes, age);
        let shared = Arc::new(Shared {
            current: Mutex::new(None),
            view: Mutex::new(View::new(trigger, window)),
            progress: watch::Sender::new(None),
            status: watch::Sender::new(ReflectorStatus::Syncing),
            template: Mutex::new(BookmarkTemplate::empty(encoding, &resource)),
            freshness: Freshness::new(options.consistent_waiters),
            counters: Counters::default(),
            opened: Instant::now(),
            last_used: AtomicU64::new(0),
            last_progress: AtomicU64::new(0),
            resource,
            encoding,
            options,
        });
        let writer = Writer {
            store: Store::new(trigger),
            resource_version: ResourceVersion::default(),
            ready: false,
            wake: Vec::new(),
            shared: Arc::clone(&shared),
        };
        (writer, Self { shared })
    }

    /// What is cached.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.shared.resource
    }

    /// How its bytes are encoded.
    pub fn encoding(&self) -> Encoding {
        self.shared.encoding
    }

    /// Whether reads are answered.
    pub fn is_ready(&self) -> bool {
        self.shared.progress.borrow().is_some()
    }

    /// Resolves once reads are answered. Never, if the cache is closed before; pair it with a
    /// timeout.
    pub async fn ready(&self) {
        let mut progress = self.shared.progress.subscribe();
        progress
            .wait_for(Option::is_some)
            .await
            .expect("the sender lives as long as self");
    }

    /// Up to where the cache is complete; zero while not ready.
    pub fn resource_version(&self) -> ResourceVersion {
        self.shared.progress.borrow().unwrap_or_default()
    }

    /// How its reflector is doing. The receiver wakes on every change.
    pub fn status(&self) -> watch::Receiver<ReflectorStatus> {
        self.shared.status.subscribe()
    }

    /// Open watchers.
    pub fn watchers(&self) -> usize {
        self.shared.view.lock().watchers.len()
    }

    /// When somebody last read or opened a watch. A cache without watchers that was not used for
    /// long may be closed.
    pub fn last_used(&self) -> Instant {
        self.shared.read(&self.shared.last_used)
    }

    /// The newest state.
    ///
    /// # Errors
    /// [`CacheError::NotReady`].
    pub fn snapshot(&self) -> Result<Snapshot, CacheError> {
        self.shared.touch(&self.shared.last_used);
        self.shared
            .current
            .lock()
            .clone()
            .ok_or(CacheError::NotReady)
    }

    /// The state at exactly `resource_version`, rebuilt by taking back newer events.
    ///
    /// # Errors
    /// [`CacheError::Expired`] when it lies below the window or too many events ago,
    /// [`CacheError::ResourceVersionTooLarge`] when it was not reached yet,
    /// [`CacheError::NotReady`].
    pub fn snapshot_at(&self, resource_version: ResourceVersion) -> Result<Snapshot, CacheError> {
        // The snapshot first: the view is never behind it.
        let newest = self.snapshot()?;
        let current = newest.resource_version();
        if current < resource_version {
            return Err(CacheError::ResourceVersionTooLarge {
                requested: resource_version,
                current,
            });
        }
        let view = self.shared.view.lock();
        let newer = view.window.newest_down_to(resource_version);
        let events = newer.skip_while(|event| event.resource_version() > current);
        let events: Vec<_> = events.take(REWIND_EVENTS_MAX + 1).cloned().collect();
        if resource_version < view.window.floor() || events.len() > REWIND_EVENTS_MAX {
            return Err(view.expired(resource_version));
        }
        drop(view);
        Ok(newest.rewind(resource_version, events.iter().map(|event| event.change())))
    }

    /// Waits until the cache is complete up to `resource_version`.
    ///
    /// # Errors
    /// [`CacheError::ResourceVersionTooLarge`] after `timeout`, [`CacheError::NotReady`].
    pub async fn wait_until_fresh(
        &self,
        resource_version: ResourceVersion,
        timeout: Duration,
    ) -> Result<(), CacheError> {
        self.shared.touch(&self.shared.last_used);
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|own| own.is_none_or(|own| own >= resource_version));
        match tokio::time::timeout(timeout, reached).await {
            Ok(own) => match *own.expect("the sender lives as long as self") {
                Some(_) => Ok(()),
                None => Err(CacheError::NotReady),
            },
            Err(_) => Err(CacheError::ResourceVersionTooLarge {
                requested: resource_version,
                current: self.resource_version(),
            }),
        }
    }

    /// A snapshot proven to hold everything written before this call, labelled with the version it
    /// is proven for, which may be ahead of [`Self::resource_version`]. One probe of the reflector
    /// serves everyone who asked before it started.
    ///
    /// # Errors
    /// [`CacheError::NotFresh`] when there is no proof: forward the request.
    /// [`CacheError::NotReady`].
    pub async fn consistent(&self, timeout: Duration) -> Result<Snapshot, CacheError> {
        self.shared.touch(&self.shared.last_used);
        if !self.is_ready() {
            return Err(CacheError::NotReady);
        }
        let proof = self.shared.freshness.ask()?;
        match tokio::time::timeout(timeout, proof).await {
            Ok(Ok(proof)) => proof,
            Ok(Err(_closed)) => Err(CacheError::NotReady),
            Err(_elapsed) => Err(CacheError::NotFresh(NotFresh::Timeout)),
        }
    }

    /// Opens a watch. It ends cleanly at `deadline`, when the state is replaced, or when the client
    /// is too slow. `bookmarks` is `allowWatchBookmarks`; periodic ones follow the apiserver's
    /// schedule.
    ///
    /// # Errors
    /// [`CacheError::Expired`] when the start lies below the window, [`CacheError::NotReady`].
    pub fn watch(
        &self,
        selection: Selection,
        start: WatchStart,
        bookmarks: bool,
        deadline: Instant,
    ) -> Result<Watcher, CacheError> {
        self.shared.touch(&self.shared.last_used);
        Watcher::open(
            Arc::clone(&self.shared),
            selection,
            start,
            bookmarks,
            deadline,
        )
    }

    /// One look at everything. Takes time in proportion to the number of watchers; meant for a
    /// scrape.
    pub fn stats(&self) -> Stats {
        let (objects, bytes) = match &*self.shared.current.lock() {
            Some(snapshot) => (snapshot.len(), snapshot.bytes()),
            None => (0, 0),
        };
        let now = Instant::now();
        let view = self.shared.view.lock();
        let slow = |&unread: &u64| {
            let arrived = view.window.arrived(unread);
            arrived.is_none_or(|arrived| now.duration_since(arrived) > SLOW)
        };
        let mut stats = Stats {
            ready: view.is_ready(),
            objects,
            bytes,
            history_events: view.window.len(),
            history_bytes: view.window.bytes(),
            watchers: view.watchers.len(),
            slow_watchers: view.watchers.all_unread().filter(slow).count(),
            resource_version: view.resource_version(),
            oldest: view.window.floor(),
            last_progress: self.shared.read(&self.shared.last_progress),
            events_dispatched: view.delivered,
            events_received: 0,
            relists: 0,
            cuts: 0,
            malformed: 0,
            probes: 0,
            fences: 0,
            expired_watchers: 0,
        };
        drop(view);
        stats.count(&self.shared.counters);
        stats
    }
}

/// The writing side of a cache: one, owned by a reflector.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    store: Store,
    resource_version: ResourceVersion,
    ready: bool,
    /// Scratch space for the wakers of one event.
    wake: Vec<Waker>,
}

impl Writer {
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Up to where the cache is complete.
    pub fn resource_version(&self) -> ResourceVersion {
        self.resource_version
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
        if !self.ready || resource_version < self.resource_version {
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
                self.advance(resource_version, None);
                return Ok(());
            }
            (EventType::Bookmark | EventType::Error, _) => panic!("{event_type:?} has no object"),
        };
        self.publish(resource_version, change);
        self.check(&self.store).inspect_err(|_| self.close())
    }

    fn publish(&mut self, resource_version: ResourceVersion, change: Change) {
        match &change {
            Change::Created { new } | Change::Updated { new, .. } => {
                self.store.insert(Arc::clone(new));
            }
            Change::Removed { old, .. } => {
                self.store.remove(old.key());
            }
        }
        self.shared.counters.events_received.bump();
        self.publish_state(resource_version, |view, wake| {
            view.push(resource_version, change, wake)
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
        if resource_version <= self.resource_version {
            self.shared.touch(&self.shared.last_progress);
            return;
        }
        self.publish_state(resource_version, |view, _| view.advance(resource_version));
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

    /// See [`Self::replace`].
    pub(crate) fn replace_store(&mut self, resource_version: ResourceVersion, store: Store) {
        assert!(
            resource_version >= self.resource_version,
            "versions never go back"
        );
        self.store = store;
        self.ready = true;
        self.shared.counters.relists.bump();
        self.publish_state(resource_version, |view, wake| {
            view.replace(resource_version, wake)
        });
    }

    /// Ends every watcher and answers nobody until the next [`Self::replace`]. The own version
    /// stays as a lower bound.
    pub(crate) fn close(&mut self) {
        self.ready = false;
        self.store = self.collect();
        self.shared.current.lock().take();
        self.shared.view.lock().close(&mut self.wake);
        self.shared.progress.send_replace(None);
        self.wake.drain(..).for_each(Waker::wake);
    }

    /// Closes the cache and forgets the own version: the storage upstream is another one now.
    pub(crate) fn start_over(&mut self) {
        self.close();
        self.resource_version = ResourceVersion::default();
        self.shared.view.lock().start_over();
    }

    /// The newest state; `None` while not ready.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.ready.then(|| self.state())
    }

    fn state(&self) -> Snapshot {
        Snapshot::new(
            Arc::clone(&self.shared.resource),
            self.store.clone(),
            self.resource_version,
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

    /// State, then news. The snapshot is swapped while the view is locked: whoever reads an event
    /// finds it in the snapshot too, and a snapshot is never ahead of a view locked after it was
    /// taken.
    fn publish_state(
        &mut self,
        resource_version: ResourceVersion,
        change: impl FnOnce(&mut View, &mut Vec<Waker>),
    ) {
        self.resource_version = resource_version;
        let snapshot = self.state();
        let mut view = self.shared.view.lock();
        change(&mut view, &mut self.wake);
        let replaced = self.shared.current.lock().replace(snapshot);
        drop(view);
        drop(replaced); // outside the locks: it may be the last owner of many nodes
        self.shared.touch(&self.shared.last_progress);
        self.shared.progress.send_replace(Some(resource_version));
        self.wake.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
        self.shared.freshness.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cache_of, cache_with, pod, pods, rv, select};

    fn listed(snapshot: &Snapshot) -> Vec<String> {
        let everything = select("");
        let entry =
            |object: &Arc<Object>| format!("{}@{}", object.key(), object.resource_version());
        snapshot.iter(&everything).map(entry).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_and_old_news_change_nothing() {
        let (mut writer, cache) = cache_of(10, &[("a/x", 5)]);
        writer.put("a/y", 12);
        let before = (
            listed(&cache.snapshot().unwrap()),
            cache.stats().history_events,
        );
        writer.put("a/y", 12);
        writer.put("a/x", 11);
        writer.delete("a/x", 11);
        writer.delete("a/y", 12);
        writer.bookmark(11);
        assert_eq!(
            (
                listed(&cache.snapshot().unwrap()),
                cache.stats().history_events
            ),
            before
        );
        assert_eq!(cache.resource_version(), rv(12));
    }

    #[tokio::test(start_paused = true)]
    async fn several_deletions_may_share_a_version() {
        let (mut writer, cache) = cache_of(10, &[("a/x", 5), ("a/y", 6)]);
        writer.delete("a/x", 11);
        writer.delete("a/y", 11);
        writer.delete("a/y", 11);
        assert!(cache.snapshot().unwrap().is_empty());
        assert_eq!(cache.stats().events_received, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_taken_before_the_first_sync() {
        let (mut writer, cache) = WatchCache::new(pods(), Encoding::Json, Options::default());
        writer.put("a/x", 5);
        writer.bookmark(6);
        assert!(!cache.is_ready());
        assert_eq!(cache.snapshot().unwrap_err(), CacheError::NotReady);
        writer.replace(rv(4), [pod("a/x", 4)]).unwrap();
        cache.ready().await;
        assert_eq!(listed(&cache.snapshot().unwrap()), ["a/x@4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn any_past_version_within_the_window_can_be_rebuilt() {
        let (mut writer, cache) = cache_of(10, &[("a/x @n1", 5)]);
        let mut states = vec![(10, listed(&cache.snapshot().unwrap()))];
        for version in 11..60 {
            let what = format!("a/p{} @n{}", version % 7, version % 3);
            if version % 4 == 0 {
                writer.delete(&what, version)
            } else {
                writer.put(&what, version)
            }
            states.push((version, listed(&cache.snapshot().unwrap())));
        }
        for (version, state) in states {
            let past = cache.snapshot_at(rv(version)).unwrap();
            assert_eq!(
                (past.resource_version(), listed(&past)),
                (rv(version), state)
            );
        }
        let past = |version| cache.snapshot_at(rv(version)).map(drop);
        assert_eq!(
            past(9),
            Err(CacheError::Expired {
                requested: rv(9),
                oldest: rv(11)
            })
        );
        let (requested, current) = (rv(60), rv(59));
        assert_eq!(
            past(60),
            Err(CacheError::ResourceVersionTooLarge { requested, current })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_version_ends_when_it_comes_or_time_is_up() {
        let (mut writer, cache) = cache_of(10, &[]);
        let wait = |version| cache.wait_until_fresh(rv(version), Duration::from_secs(3));
        assert_eq!(wait(10).await, Ok(()));
        let (requested, current) = (rv(12), rv(10));
        assert_eq!(
            wait(12).await,
            Err(CacheError::ResourceVersionTooLarge { requested, current })
        );
        let (waited, ()) = tokio::join!(wait(12), async { writer.bookmark(12) });
        assert_eq!(waited, Ok(()));
        let (waited, ()) = tokio::join!(wait(99), async { drop(writer) });
        assert_eq!(waited, Err(CacheError::NotReady));
    }

    #[tokio::test(start_paused = true)]
    async fn outgrowing_the_budget_closes_the_cache() {
        let options = Options {
            objects_bytes: 20_000,
            ..Options::default()
        };
        let (mut writer, cache) = cache_with(options, 10, &[]);
        let error = (11..).find_map(|version| {
            let object = pod(&format!("a/p{version}"), version);
            writer.apply(EventType::Added, object).err()
        });
        assert!(error.is_some_and(|error| error.bytes > 20_000));
        assert!(!cache.is_ready() && !cache.stats().ready);
        assert_eq!(cache.snapshot().unwrap_err(), CacheError::NotReady);
        assert_eq!(cache.stats().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn history_keeps_within_its_bytes_frames_included() {
        let options = Options {
            history_bytes: 50_000,
            ..Options::default()
        };
        let (mut writer, cache) = cache_with(options, 10, &[]);
        let mut watcher = cache.watch_after("", 10);
        for version in 11..500 {
            writer.put("a/x", version);
            assert_eq!(crate::testing::drain(&mut watcher).len(), 1);
            let bytes = cache.stats().history_bytes;
            assert!(bytes < 50_000 + 2_000, "{bytes}");
        }
        assert!(cache.stats().history_events > 20);
    }

    #[tokio::test(start_paused = true)]
    async fn history_younger_than_75_seconds_stays_whatever_the_setting_says() {
        let options = Options {
            history_age: Duration::from_secs(1),
            ..Options::default()
        };
        let (mut writer, cache) = cache_with(options, 10, &[]);
        writer.put("a/x", 11);
        tokio::time::advance(Duration::from_secs(74)).await;
        writer.put("a/x", 12);
        assert_eq!(cache.stats().history_events, 2);
        tokio::time::advance(Duration::from_secs(2)).await;
        writer.bookmark(13);
        assert_eq!(cache.stats().history_events, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unchanged_object_is_shared_across_a_relist() {
        let (mut writer, cache) = cache_of(10, &[("a/x", 5), ("a/y", 6)]);
        let before = Arc::clone(cache.snapshot().unwrap().get("a", "x").unwrap());
        writer
            .replace(rv(20), [pod("a/x", 5), pod("a/y", 19)])
            .unwrap();
        let after = cache.snapshot().unwrap();
        assert!(Arc::ptr_eq(&before, after.get("a", "x").unwrap()));
        assert_eq!(after.get("a", "y").unwrap().resource_version(), rv(19));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_use_is_the_last_read_or_watch() {
        let (_writer, cache) = cache_of(10, &[]);
        let opened = cache.last_used();
        tokio::time::advance(Duration::from_secs(60)).await;
        cache.stats();
        assert_eq!(cache.last_used(), opened);
        cache.snapshot().unwrap();
        assert_eq!(cache.last_used() - opened, Duration::from_secs(60));
    }
}
