//! One resource in one encoding: a single writer, any number of readers.
//!
//! [`Writer`] is the only way in and is not `Clone`; [`WatchCache`] is the way out and is. A change
//! is published in one order everywhere: store, then window and snapshot together, then wakers and
//! waiters, so news never arrives before the state it is about. The own version only grows; an
//! event or bookmark at or below it was seen before and changes nothing, which is what lets two
//! upstream streams (the main one and a fence) feed one writer. Dropping the writer closes the
//! cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::encoding::{BookmarkTemplate, Encoding};
use crate::error::{CacheError, NotFresh};
use crate::history::History;
use crate::interest::Selection;
use crate::lane::Lane;
use crate::metrics::{Counters, Stats};
use crate::observer::Observer;
use crate::reflector::ReflectorStatus;
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;
use crate::retention::{Kept, Retention};
use crate::store::Snapshot;
use crate::waiting::{Proof, WaitingRoom};
use crate::watcher::{WatchStart, Watcher};
use crate::window::Window;
use crate::worker::Workers;

#[cfg(test)]
mod tests;
mod writer;

pub use writer::Writer;

/// History younger than this is dropped for bytes only: apiserver `watch_cache.go`
/// `eventFreshDuration`, 1.36.
const HISTORY_AGE_MIN: Duration = Duration::from_secs(75);

/// How long a watcher may leave an event unread before it counts as slow.
const SLOW: Duration = Duration::from_secs(1);

/// The part of the history's bytes that is for what workers build and have not taken in: one in
/// this many.
const LANES_SHARE: usize = 4;

/// How many events [`WatchCache::snapshot_at`] takes back at most: about ten milliseconds of work.
const REWIND_EVENTS_MAX: usize = 10_000;

/// The limits of one cache.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes the current objects may take (512 MiB). Beyond it the cache closes, its status becomes
    /// [`ReflectorStatus::OverBudget`] and the resource should pass through. During a relist
    /// objects that changed are held twice.
    pub objects_bytes: usize,
    /// Bytes history may take beyond the objects (64 MiB), not counting its newest event and the
    /// 64 KiB of frames a reader may build in one poll. A quarter is for the frames that workers
    /// keep of the newest events. Beyond the rest the oldest events go, and who had not read them
    /// resumes or gets 410.
    pub history_bytes: usize,
    /// Age beyond which events go (5 minutes); values under 75 s count as 75 s.
    pub history_age: Duration,
    /// Readers that may wait for one proof of freshness (250,000). Beyond it [`NotFresh::Busy`] is
    /// returned at once.
    pub consistent_waiters: usize,
    /// The threads watches are opened on (none: the writer wakes every watch itself).
    pub workers: Workers,
    /// Whether events that say no more than that a kubelet is alive are told apart, for watches that
    /// do without them (no). Of use for Nodes only.
    pub heartbeats: bool,
    /// Who is told of every change before readers are (nobody).
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            objects_bytes: 512 << 20,
            history_bytes: 64 << 20,
            history_age: Duration::from_secs(300),
            consistent_waiters: 250_000,
            workers: Workers::inline(),
            heartbeats: false,
            observer: None,
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
    pub(crate) history: Mutex<History>,
    /// One per worker, behind the one that has none.
    pub(crate) lanes: Box<[Arc<Lane>]>,
    /// The own version, for those who wait for one; `None` while not ready.
    pub(crate) progress: watch::Sender<Option<ResourceVersion>>,
    status: watch::Sender<ReflectorStatus>,
    pub(crate) template: Mutex<BookmarkTemplate>,
    /// Readers that want a proof of freshness.
    pub(crate) freshness: WaitingRoom<(), Proof>,
    /// Readers that want to know whether the apiserver still has a past version.
    pub(crate) questions: WaitingRoom<ResourceVersion, Kept>,
    pub(crate) retention: Mutex<Retention>,
    /// A state that was proven for a version the own one has yet to reach. It may have been served,
    /// so nothing older may be any more.
    proven: Mutex<Option<Snapshot>>,
    /// The highest version a state was proven for.
    promised: AtomicU64,
    /// The highest version the upstream was seen at.
    seen: AtomicU64,
    pub(crate) counters: Counters,
    /// Whether the upstream refused `sendInitialEvents` when it was last asked.
    pub(crate) no_initial_events: AtomicBool,
    opened: Instant,
    /// Milliseconds since `opened`.
    last_used: AtomicU64,
    last_progress: AtomicU64,
    /// When the state was last proven to be the newest.
    last_proof: AtomicU64,
    /// When reads were first answered, or no longer.
    last_change: AtomicU64,
}

impl Shared {
    pub(crate) fn set_status(&self, status: ReflectorStatus) {
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }

    pub(crate) fn observer(&self) -> Option<&dyn Observer> {
        self.options.observer.as_deref()
    }

    pub(crate) fn tells_heartbeats(&self) -> bool {
        self.options.heartbeats
    }

    /// The lane of this thread.
    pub(crate) fn lane_here(&self) -> &Arc<Lane> {
        let place = self.options.workers.here().map_or(0, |worker| worker + 1);
        &self.lanes[place]
    }

    fn watchers(&self) -> usize {
        self.lanes.iter().map(|lane| lane.view().watchers()).sum()
    }

    /// The highest version a state was proven for, be it ahead of the own version.
    pub(crate) fn promised(&self) -> ResourceVersion {
        ResourceVersion::new(self.promised.load(Ordering::SeqCst))
    }

    /// Remembers a state that is about to be served as one at a version still to come.
    pub(crate) fn promise(&self, proven: &Snapshot) {
        let mut kept = self.proven.lock();
        let version = proven.resource_version().get();
        if self.promised.fetch_max(version, Ordering::SeqCst) < version {
            *kept = Some(proven.clone());
        }
    }

    /// The upstream was at this version.
    pub(crate) fn saw(&self, version: ResourceVersion) {
        self.seen.fetch_max(version.get(), Ordering::Relaxed);
    }

    /// The newest state reads may be answered from.
    fn newest(&self) -> Option<Snapshot> {
        let current = self.current.lock().clone()?;
        if self.promised() <= current.resource_version() {
            return Some(current);
        }
        let proven = self.proven.lock().clone();
        let ahead = proven.filter(|it| it.resource_version() > current.resource_version());
        Some(ahead.unwrap_or(current))
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
        let of_lanes = options.history_bytes / LANES_SHARE;
        let window = Window::new(trigger, options.history_bytes - of_lanes, age);
        let lanes = Lane::all(&options.workers, trigger, of_lanes);
        let shared = Arc::new(Shared {
            current: Mutex::new(None),
            history: Mutex::new(History::new(window)),
            lanes,
            progress: watch::Sender::new(None),
            status: watch::Sender::new(ReflectorStatus::Syncing),
            template: Mutex::new(BookmarkTemplate::empty(encoding, &resource)),
            freshness: WaitingRoom::new(options.consistent_waiters),
            questions: WaitingRoom::new(options.consistent_waiters),
            retention: Mutex::default(),
            proven: Mutex::default(),
            promised: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            counters: Counters::default(),
            no_initial_events: AtomicBool::new(false),
            opened: Instant::now(),
            last_used: AtomicU64::new(0),
            last_progress: AtomicU64::new(0),
            last_proof: AtomicU64::new(0),
            last_change: AtomicU64::new(0),
            resource,
            encoding,
            options,
        });
        let writer = Writer::new(Arc::clone(&shared));
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

    /// The highest version the upstream was seen at by a probe; zero if none was. Above
    /// [`Self::resource_version`] it says how far the cache lags.
    pub fn upstream_seen(&self) -> ResourceVersion {
        ResourceVersion::new(self.shared.seen.load(Ordering::Relaxed))
    }

    /// How long reads have been answered, or, while not ready, how long they have not been.
    pub fn since_change(&self) -> Duration {
        self.shared.read(&self.shared.last_change).elapsed()
    }

    /// How its reflector is doing. The receiver wakes on every change.
    pub fn status(&self) -> watch::Receiver<ReflectorStatus> {
        self.shared.status.subscribe()
    }

    /// Whether the cache is filled and its stream alive, and less than `silence` ago something came on
    /// it, be it a bookmark, or the state was proven to be the newest. A quiet resource may get no
    /// bookmark for long: then [`Self::consistent`] makes it fresh.
    pub fn is_fresh(&self, silence: Duration) -> bool {
        let is_live = matches!(*self.shared.status.borrow(), ReflectorStatus::Live);
        let clocks = [&self.shared.last_progress, &self.shared.last_proof];
        let is_heard = |clock| self.shared.read(clock).elapsed() < silence;
        is_live && self.is_ready() && clocks.into_iter().any(is_heard)
    }

    /// Whether the upstream knows `sendInitialEvents` (the WatchList feature gate), as far as its last answer tells.
    pub fn watch_list_enabled(&self) -> bool {
        !self.shared.no_initial_events.load(Ordering::Relaxed)
    }

    /// Open watchers.
    pub fn watchers(&self) -> usize {
        self.shared.watchers()
    }

    /// When somebody last read or opened a watch. A cache without watchers that was not used for
    /// long may be closed.
    pub fn last_used(&self) -> Instant {
        self.shared.read(&self.shared.last_used)
    }

    /// The newest state: no older than any that was handed out before.
    ///
    /// # Errors
    /// [`CacheError::NotReady`].
    pub fn snapshot(&self) -> Result<Snapshot, CacheError> {
        self.shared.touch(&self.shared.last_used);
        self.shared.newest().ok_or(CacheError::NotReady)
    }

    /// The state at exactly `resource_version`, rebuilt by taking back newer events.
    ///
    /// # Errors
    /// [`CacheError::Expired`] when it lies below the window or too many events ago,
    /// [`CacheError::ResourceVersionTooLarge`] when it was not reached yet,
    /// [`CacheError::NotReady`].
    pub fn snapshot_at(&self, resource_version: ResourceVersion) -> Result<Snapshot, CacheError> {
        let proven = self.snapshot()?;
        if proven.resource_version() == resource_version {
            return Ok(proven);
        }
        // The snapshot first: the history is never behind it.
        let newest = self.shared.current.lock().clone();
        let newest = newest.ok_or(CacheError::NotReady)?;
        let current = newest.resource_version();
        if current < resource_version {
            return Err(CacheError::ResourceVersionTooLarge {
                requested: resource_version,
                current,
            });
        }
        let history = self.shared.history.lock();
        let newer = history.window.newest_down_to(resource_version);
        let events = newer.skip_while(|event| event.resource_version() > current);
        let events: Vec<_> = events.take(REWIND_EVENTS_MAX + 1).cloned().collect();
        if resource_version < history.window.floor() || events.len() > REWIND_EVENTS_MAX {
            return Err(history.expired(resource_version));
        }
        drop(history);
        Ok(newest.rewind(resource_version, events.iter().map(|event| event.change())))
    }

    /// The state at exactly `resource_version`, unless the apiserver has compacted it: only what a
    /// client would get from there is served from history.
    ///
    /// # Errors
    /// As [`Self::snapshot_at`], [`CacheError::Expired`] also when the apiserver no longer has it,
    /// [`CacheError::NotFresh`] when the apiserver did not say so within `timeout`. Forward the
    /// request on all of them.
    pub async fn exact(
        &self,
        resource_version: ResourceVersion,
        timeout: Duration,
    ) -> Result<Snapshot, CacheError> {
        let snapshot = self.snapshot_at(resource_version)?;
        let mut kept = self.shared.retention.lock().of(resource_version);
        if kept == Kept::Unknown {
            let answer = self.shared.questions.ask(resource_version)?;
            kept = match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(kept)) => kept,
                Ok(Err(_closed)) => return Err(CacheError::NotReady),
                Err(_elapsed) => return Err(CacheError::NotFresh(NotFresh::Timeout)),
            };
        }
        match kept {
            Kept::Yes => Ok(snapshot),
            Kept::Gone => Err(self.shared.history.lock().expired(resource_version)),
            Kept::Unknown => Err(CacheError::NotFresh(NotFresh::Probe)),
        }
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
        let proof = self.shared.freshness.ask(())?;
        let proven = match tokio::time::timeout(timeout, proof).await {
            Ok(Ok(proof)) => proof,
            Ok(Err(_closed)) => Err(CacheError::NotReady),
            Err(_elapsed) => Err(CacheError::NotFresh(NotFresh::Timeout)),
        };
        if proven.is_ok() {
            self.shared.touch(&self.shared.last_proof);
        }
        proven
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
        let history = self.shared.history.lock();
        let is_slow = |&unread: &u64| {
            let arrived = history.window.arrived(unread);
            arrived.is_none_or(|arrived| now.duration_since(arrived) > SLOW)
        };
        let (mut slow, mut delivered) = (0, 0);
        for lane in &self.shared.lanes {
            let view = lane.view();
            slow += view.all_unread().filter(is_slow).count();
            delivered += view.delivered;
        }
        let of_lanes: usize = self.shared.lanes.iter().map(|lane| lane.bytes()).sum();
        let mut stats = Stats {
            ready: history.is_ready(),
            objects,
            bytes,
            history_events: history.window.len(),
            history_bytes: history.window.bytes() + of_lanes,
            watchers: self.shared.watchers(),
            slow_watchers: slow,
            resource_version: history.resource_version(),
            oldest: history.window.floor(),
            last_progress: self.shared.read(&self.shared.last_progress),
            events_dispatched: delivered,
            events_received: 0,
            relists: 0,
            cuts: 0,
            malformed: 0,
            probes: 0,
            fences: 0,
            expired_watchers: 0,
        };
        drop(history);
        stats.count(&self.shared.counters);
        stats
    }
}
