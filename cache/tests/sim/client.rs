//! A client of the cache that believes nothing: it knows from the model which bytes must come next.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::Stream as _;
use tokio::time::{Duration, Instant};
use watershed_cache::{CacheError, Dispatcher, ResourceVersion, WatchCache, WatchStart, Watcher};

use crate::frames::{assert_bookmark, assert_same, frame_length, frame_type};
use crate::model::{History, View};
use crate::wanted::Wanted;

/// How late a timer may be.
const SLACK: Duration = Duration::from_millis(10);

/// How late a worker may be that gets its turns: a tick, and the one it is rounded up to.
const WORKER_SLACK: Duration = Duration::from_millis(500);

/// What a client can know of the cache when it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cached<'a> {
    pub(crate) cache: &'a WatchCache,
    /// Which cache, should there have been several.
    pub(crate) life: u64,
    /// How many writes of the history it has taken in.
    pub(crate) position: usize,
    /// Whether some, not all, writes of its own version are in it.
    pub(crate) is_amid: bool,
    /// Whether a bookmark may have taught it their shape.
    pub(crate) may_know_shape: bool,
}

/// Counts of what clients met, to see that histories reach the corners.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Met {
    pub(crate) events: usize,
    pub(crate) bookmarks: usize,
    pub(crate) initial: usize,
    pub(crate) replaced: usize,
    pub(crate) overtaken: usize,
    pub(crate) expired: usize,
    pub(crate) slept: usize,
    /// Heartbeats somebody was not told of.
    pub(crate) spared: usize,
}

/// How a watch is to begin.
pub(crate) enum Begin {
    /// After a version: its own if it has one, else of the list the model would have given.
    After(u64),
    /// Without initial events, after the newest.
    Now,
    /// With initial events.
    Initial {
        snapshot: watershed_cache::Snapshot,
        end_bookmark: bool,
    },
}

pub(crate) struct Client {
    pub(crate) wanted: Wanted,
    /// Which worker its watches live on; none of them when there are fewer.
    pub(crate) worker: usize,
    open: Option<Open>,
    /// What it may resume from, and the view it has then.
    resume: Option<(u64, View)>,
}

struct Open {
    watcher: Watcher,
    woken: Arc<Woken>,
    /// Whether it waits to be woken.
    is_parked: bool,
    deadline: Instant,
    bookmarks: bool,
    /// Initial events still to come.
    initial: VecDeque<(String, u64, Vec<u8>)>,
    /// Version of the bookmark that follows them, until it came.
    end_bookmark: Option<u64>,
    /// Nothing up to here is for this client.
    start: u64,
    /// First write it was not told about.
    next: usize,
    /// How many writes it walked over; those up to a start in the future are walked, not told.
    walked: usize,
    /// Unknown while the start lies in the future.
    view: Option<View>,
    version: u64,
    life: (u64, u64),
    told: Told,
    is_on_worker: bool,
}

/// What the lane of a watch has been told, at least.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// How many writes.
    position: usize,
    /// Of which cache and which state of it.
    life: (u64, u64),
    is_ready: bool,
    at: Instant,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Client {
    pub(crate) const fn new(wanted: Wanted, worker: usize) -> Self {
        Self {
            wanted,
            worker,
            open: None,
            resume: None,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What it may resume from. Amid several writes of one version nothing can be resumed, neither
    /// here nor at an apiserver: the rest of them would be lost.
    pub(crate) fn resumes_from(&self, history: &History) -> Option<u64> {
        let (version, view) = self.resume.as_ref()?;
        let expected = history.view(history.position(*version), &self.wanted);
        (*view == expected).then_some(*version)
    }

    /// Opens a watch on its worker. False when there is nothing to be had now.
    pub(crate) fn open(
        &mut self,
        begin: Begin,
        (bookmarks, lasts): (bool, Duration),
        (cached, history): (Cached<'_>, &History),
        (workers, met): (&[Dispatcher], &mut Met),
    ) -> bool {
        let _here = workers.get(self.worker).map(Dispatcher::enter);
        let cache = cached.cache;
        let version = begin.version(cache);
        if cached.is_amid && version == cache.resource_version().get() {
            return false; // it would lose the rest, as at an apiserver
        }
        let deadline = Instant::now() + lasts;
        let selection = self.wanted.selection(history.form, cache.resource());
        let opened = cache.watch(selection, begin.start(), bookmarks, deadline);
        let floor = cache.stats().oldest.get();
        let watcher = match opened {
            Ok(watcher) if self.wanted.is_quiet => watcher.without_heartbeats(),
            Ok(watcher) => watcher,
            Err(CacheError::NotReady) => {
                assert!(!cache.is_ready(), "a ready cache opens watches");
                return false;
            }
            Err(CacheError::Expired { requested, oldest }) => {
                assert_eq!((requested.get(), oldest.get()), (version, floor + 1));
                assert!(version < floor, "what the window holds is served");
                met.expired += 1;
                self.resume = None;
                return false;
            }
            Err(other) => panic!("unexpected {other}"),
        };
        assert!(version >= floor, "nobody starts below the window");
        let position = history.position(version);
        let mut open = Open {
            watcher,
            woken: Arc::new(Woken(AtomicBool::new(false))),
            is_parked: false,
            deadline,
            bookmarks,
            initial: VecDeque::new(),
            end_bookmark: None,
            start: version,
            next: position,
            walked: position.min(cached.position),
            view: (version <= history.version).then(|| history.view(position, &self.wanted)),
            version,
            life: (cached.life, cache.stats().relists),
            told: Told::now(cached),
            is_on_worker: workers.get(self.worker).is_some(),
        };
        if let Begin::Initial { end_bookmark, .. } = begin {
            open.expect_state(history, &self.wanted);
            open.end_bookmark = end_bookmark.then_some(version);
        }
        self.resume = None;
        self.open = Some(open);
        true
    }

    /// Hangs up. Initial events that were not complete are worth nothing.
    pub(crate) fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.initial.is_empty() && open.end_bookmark.is_none() {
            self.resume = open.view.map(|view| (open.version, view));
        }
    }

    /// Its worker has taken in what there is.
    pub(crate) fn tell(&mut self, cached: Cached<'_>) {
        if let Some(open) = &mut self.open {
            open.told = Told::now(cached);
        }
    }

    /// A client that waits has nothing to wait for but what its worker has still to be told.
    pub(crate) fn check_parked(&self, history: &History) {
        let Some(open) = self.open.as_ref().filter(|open| open.is_parked) else {
            return;
        };
        if open.woken.0.load(Ordering::Relaxed) {
            return;
        }
        let (noticed, late) = open.noticed();
        assert!(noticed < open.deadline + late + SLACK, "the end wakes");
        assert!(
            open.told.is_ready && open.told.life == open.life,
            "a state that is replaced wakes everyone"
        );
        let unheard = (open.next..open.told.position).find(|&position| {
            history.log[position].version > open.start
                && history.frame(position, &self.wanted).is_some()
        });
        assert_eq!(unheard, None, "{:?} sleeps through a write", self.wanted);
    }

    /// Reads up to `items` pieces, unless it waits and was not woken. True when there was no more.
    pub(crate) fn read(
        &mut self,
        items: usize,
        (cached, history): (Cached<'_>, &History),
        met: &mut Met,
    ) -> bool {
        for _ in 0..items {
            let Some(open) = &mut self.open else {
                return true;
            };
            if open.is_parked && !open.woken.0.swap(false, Ordering::Relaxed) {
                met.slept += 1;
                return true;
            }
            open.is_parked = false;
            let waker = Waker::from(Arc::clone(&open.woken));
            let polled = Pin::new(&mut open.watcher).poll_next(&mut Context::from_waker(&waker));
            match polled {
                Poll::Pending => {
                    open.is_parked = true;
                    if open.woken.0.load(Ordering::Relaxed) {
                        continue; // it gave way to others in the middle of a walk
                    }
                    assert!(open.initial.is_empty() && open.end_bookmark.is_none());
                    let told = open.told.position;
                    if open.told.life == open.life {
                        open.catch_up((cached, told), history, &self.wanted);
                    }
                    open.walked = open.walked.max(told);
                    return true;
                }
                Poll::Ready(None) => {
                    open.check_end(cached, met);
                    self.close();
                    return true;
                }
                Poll::Ready(Some(frames)) => {
                    let (noticed, late) = open.noticed();
                    assert!(noticed < open.deadline + late, "nothing after the end");
                    let mut rest = &frames[..];
                    while !rest.is_empty() {
                        let length = frame_length(history.form, rest);
                        let (frame, after) = rest.split_at(length);
                        open.take(frame, (cached, history), &self.wanted, met);
                        rest = after;
                    }
                }
            }
        }
        false
    }

    /// Whether it has seen everything its worker was told, and nothing from before its start.
    pub(crate) fn is_up_to_date(&self, history: &History) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let is_complete = open.initial.is_empty() && open.end_bookmark.is_none();
            let start = history.position(open.start);
            let seen = open.told.position.max(open.next).max(start);
            let expected = history.view(seen, &self.wanted);
            let view = open.view.clone();
            let view = view.unwrap_or_else(|| history.view(start, &self.wanted));
            is_complete && view == expected
        })
    }
}

impl Begin {
    /// The version the watch starts after.
    fn version(&self, cache: &WatchCache) -> u64 {
        match self {
            Self::After(version) => *version,
            // What led to a state somebody was shown is not news.
            Self::Now => {
                let newest = cache.snapshot().map(|it| it.resource_version());
                newest
                    .unwrap_or_default()
                    .max(cache.resource_version())
                    .get()
            }
            Self::Initial { snapshot, .. } => snapshot.resource_version().get(),
        }
    }

    fn start(&self) -> WatchStart {
        match self {
            Self::After(version) => WatchStart::After(ResourceVersion::new(*version)),
            Self::Now => WatchStart::Now,
            Self::Initial {
                snapshot,
                end_bookmark,
            } => WatchStart::Initial {
                snapshot: snapshot.clone(),
                end_bookmark: *end_bookmark,
            },
        }
    }
}

impl Told {
    fn now(cached: Cached<'_>) -> Self {
        let stats = cached.cache.stats();
        Self {
            position: cached.position,
            life: (cached.life, stats.relists),
            is_ready: stats.ready,
            at: Instant::now(),
        }
    }
}

impl Open {
    /// The whole state at the start comes first.
    fn expect_state(&mut self, history: &History, wanted: &Wanted) {
        let added = history.selected(self.next, wanted).map(|thing| {
            let frame = history.form.event("ADDED", thing.own(history.form));
            (thing.key(), thing.seen_at(wanted), frame)
        });
        self.initial = added.collect();
        self.view = Some(View::new());
    }

    /// The last moment it could notice the time, and how late that may be.
    fn noticed(&self) -> (Instant, Duration) {
        if self.is_on_worker {
            (self.told.at, WORKER_SLACK)
        } else {
            (Instant::now(), Duration::ZERO)
        }
    }

    fn is_of(&self, cached: Cached<'_>) -> bool {
        cached.cache.is_ready() && self.life == (cached.life, cached.cache.stats().relists)
    }

    /// One frame: exactly the one that must come next.
    fn take(
        &mut self,
        frame: &[u8],
        (cached, history): (Cached<'_>, &History),
        wanted: &Wanted,
        met: &mut Met,
    ) {
        let shape = (cached.may_know_shape, history.form);
        if let Some((key, version, expected)) = self.initial.pop_front() {
            assert_same(frame, &expected, "an initial event");
            let view = self.view.as_mut().expect("a state has a view");
            assert_eq!(view.insert(key, version), None);
            met.initial += 1;
        } else if let Some(version) = self.end_bookmark.take() {
            assert_bookmark(frame, (version, true), shape);
        } else if frame_type(history.form, frame) == "BOOKMARK" {
            assert!(self.bookmarks, "nobody asked for bookmarks");
            let own = cached.cache.resource_version().get();
            assert!(own > self.start, "a bookmark tells something new");
            assert_bookmark(frame, (own, false), shape);
            self.catch_up((cached, cached.position), history, wanted);
            assert!(own >= self.version, "versions never go back");
            self.version = own;
            met.bookmarks += 1;
        } else {
            self.take_event(frame, (cached, history), wanted, met);
            met.events += 1;
        }
    }

    fn take_event(
        &mut self,
        frame: &[u8],
        (cached, history): (Cached<'_>, &History),
        wanted: &Wanted,
        met: &mut Met,
    ) {
        self.skip_to_start(history, wanted);
        // Until its worker is told, a watch goes on with what came before the end.
        let written = if self.is_of(cached) {
            cached.position
        } else {
            history.log.len()
        };
        let expected = (self.next..written)
            .find_map(|position| Some((position, history.frame(position, wanted)?)));
        let (position, (expected, effect)) = expected.unwrap_or_else(|| {
            panic!("nothing is to come, but {}", String::from_utf8_lossy(frame))
        });
        assert_same(frame, &expected, "an event");
        let version = history.log[position].version;
        assert!(version >= self.version, "{version} after {}", self.version);
        met.spared += history.spared(self.next..position, wanted);
        (self.version, self.next, self.walked) = (version, position + 1, position + 1);
        let view = self.view.as_mut().expect("known once it began");
        assert!(effect.fold(view), "the event fits the view");
        let expected = history.view(position + 1, wanted);
        assert_eq!(*view, expected, "{wanted:?} at {version}");
    }

    /// A start in the future was reached: from here on there is a view.
    fn skip_to_start(&mut self, history: &History, wanted: &Wanted) {
        self.next = self.next.max(history.position(self.start));
        if self.view.is_none() {
            self.view = Some(history.view(self.next, wanted));
        }
    }

    /// Nothing is missing of so many writes.
    fn catch_up(
        &mut self,
        (cached, position): (Cached<'_>, usize),
        history: &History,
        wanted: &Wanted,
    ) {
        if cached.cache.resource_version().get() <= self.start {
            return;
        }
        self.skip_to_start(history, wanted);
        let missing =
            (self.next..position).find(|&position| history.frame(position, wanted).is_some());
        assert_eq!(missing, None, "{wanted:?} was not told of a write");
        self.next = self.next.max(position);
        let expected = history.view(self.next, wanted);
        assert_eq!(self.view.as_ref(), Some(&expected), "{wanted:?}");
    }

    /// A stream ends for a reason.
    fn check_end(&self, cached: Cached<'_>, met: &mut Met) {
        if Instant::now() >= self.deadline {
            return;
        }
        if !self.is_of(cached) {
            met.replaced += 1;
            return;
        }
        let held = cached.position - cached.cache.stats().history_events.min(cached.position);
        assert!(
            self.walked < held,
            "it ended although nothing was forgotten"
        );
        met.overtaken += 1;
    }
}
