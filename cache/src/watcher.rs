//! One watch: initial events, then live ones, bookmarks in between, an end.
//!
//! A watcher owns a seat in the lane of the thread it was opened on and nothing that grows. It walks
//! at its client's pace: a poll takes what is there, up to about [`BATCH_BYTES`], as one piece of
//! bytes, and parks when dry. What its thread no longer keeps it reads in the shared history. It
//! refuses to wait on the writer's side or to bridge a gap: when events it had not read were
//! forgotten, or the state was replaced, it ends cleanly, as the apiserver ends a watcher that is
//! too slow, and the client resumes. The rejected alternative, a queue per watcher, costs memory
//! for the stalled and a push for everyone.
//!
//! ```text
//!   Initial ──snapshot read, end bookmark──► Live ──deadline, too slow, replaced──► ended
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::{Instant, Sleep};

use crate::encoding::{EventType, Form};
use crate::error::CacheError;
use crate::event::{Event, Transition};
use crate::interest::Selection;
use crate::lane::Lane;
use crate::resource::Resource;
use crate::resource_version::ResourceVersion;
use crate::store::Snapshot;
use crate::view::{Reading, Seat, Taken};
use crate::watch_cache::Shared;

/// What one poll yields at most, plus one frame.
const BATCH_BYTES: usize = 64 << 10;

/// Events copied out of the history under its lock.
const BATCH_EVENTS: usize = 256;

/// How often a poll goes back for more before it gives way to other tasks.
const READS_PER_POLL: usize = 8;

/// Cadence of bookmarks and their distance to the end: apiserver `cache_watcher.go`
/// `nextBookmarkTime`, 1.36.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// When a watcher with initial events gets its extra bookmark: the apiserver's bucket tick comes
/// within 1.25 s.
const BOOKMARK_AFTER_INITIAL: Duration = Duration::from_secs(1);

/// Where a watch begins.
#[derive(Clone, Debug)]
pub enum WatchStart {
    /// After this version; history is replayed. A version still to come is waited for in silence.
    After(ResourceVersion),
    /// After the newest version.
    Now,
    /// With the state of `snapshot` as synthetic `ADDED` events, then everything after it.
    Initial {
        /// The state to begin with; a proven one for a consistent start.
        snapshot: Snapshot,
        /// Whether the bookmark that marks the end of the initial events follows them.
        end_bookmark: bool,
    },
}

/// A watch stream: whole frames, all that is pending coalesced. `None` is a clean end; errors occur
/// only at the start.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    /// `None` for everything.
    selection: Option<Box<Selection>>,
    form: Form,
    /// `None` once ended.
    seat: Option<Seat>,
    /// Events and bookmarks up to here are not for this client.
    start: ResourceVersion,
    /// Taken when the snapshot is read.
    initial: Option<Box<Initial>>,
    /// When the next bookmark is due; `None` for never.
    bookmark: Option<Instant>,
    deadline: Instant,
    /// Wakes for the bookmark or the deadline; made when first needed, where no worker keeps the
    /// time.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether it has been dry once: what comes from now on is news.
    is_live: bool,
    /// Whether heartbeats are nothing to this client.
    is_quiet: bool,
    /// See [`Watcher::take_arrival`].
    arrived: Option<Instant>,
}

/// The initial events still to come.
#[derive(Debug)]
struct Initial {
    snapshot: Snapshot,
    /// Key the rest begins at.
    from: String,
    end_bookmark: bool,
}

impl Watcher {
    pub(crate) fn open(
        shared: Arc<Shared>,
        selection: Selection,
        start: WatchStart,
        bookmarks: bool,
        deadline: Instant,
    ) -> Result<Self, CacheError> {
        let interest = selection.interest(&shared.resource);
        let after = match &start {
            WatchStart::After(resource_version) => Some(*resource_version),
            WatchStart::Now => None,
            WatchStart::Initial { snapshot, .. } => Some(snapshot.resource_version()),
        };
        let lane = Arc::clone(shared.lane_here());
        let mut wake = Vec::new();
        let history = shared.history.lock();
        // A state at a version still to come may have been served: what led to it is no news.
        let after = after.unwrap_or_else(|| history.resource_version().max(shared.promised()));
        let seat = lane.sit(&interest, (after, &history), &mut wake);
        drop(history);
        wake.into_iter().for_each(Waker::wake);
        let seat = seat?;
        let initial = match start {
            WatchStart::After(_) | WatchStart::Now => None,
            WatchStart::Initial {
                snapshot,
                end_bookmark,
            } => Some(Box::new(Initial {
                snapshot,
                from: String::new(),
                end_bookmark,
            })),
        };
        let now = Instant::now();
        let extra = initial.as_ref().is_some_and(|initial| initial.end_bookmark);
        let bookmark = match (bookmarks, extra) {
            (false, _) => None,
            (true, true) => Some(now + BOOKMARK_AFTER_INITIAL),
            (true, false) => next_bookmark(now, deadline),
        };
        let watcher = Self {
            form: Form::whole(shared.encoding),
            shared,
            lane,
            selection: (!selection.is_everything()).then(|| Box::new(selection)),
            seat: Some(seat),
            start: after,
            initial,
            bookmark,
            deadline,
            timer: None,
            is_live: false,
            is_quiet: false,
            arrived: None,
        };
        watcher.lane.view().set_due(seat, watcher.due());
        Ok(watcher)
    }

    /// The same watch, its objects sent in `form`; without this, as they are held.
    ///
    /// # Panics
    /// If the objects cannot be given in that form: see [`Form::suits`].
    #[must_use]
    pub fn in_form(mut self, form: Form) -> Self {
        assert!(
            form.suits(&self.shared.resource, self.shared.encoding),
            "{form:?} cannot be had from {:?}",
            self.shared.encoding
        );
        self.form = form;
        self
    }

    /// The same watch without events that say no more than that a kubelet is alive, as far as the
    /// cache was opened to tell them apart. What comes of a Node then may be older than what a GET
    /// brings, by nothing but heartbeats, and only bookmarks bring its version: for clients that
    /// asked for them.
    #[must_use]
    pub fn without_heartbeats(mut self) -> Self {
        self.is_quiet = true;
        if let Some(seat) = self.seat {
            self.lane.view().quieten(seat);
        }
        self
    }

    /// Whose objects it is about.
    pub fn resource(&self) -> &Resource {
        &self.shared.resource
    }

    /// Which of them; `None` is all.
    pub fn selection(&self) -> Option<&Selection> {
        self.selection.as_deref()
    }

    /// When the oldest event among the frames yielded since the last call arrived from the
    /// apiserver. `None` when none is news: initial events, replayed history and bookmarks tell
    /// nothing about delays.
    pub fn take_arrival(&mut self) -> Option<Instant> {
        self.arrived.take()
    }

    /// Whether there are initial events still to come.
    pub fn has_initial(&self) -> bool {
        self.initial.is_some()
    }

    /// Appends initial events until the batch is full or they end.
    fn fill_initial(&mut self, batch: &mut Batch) {
        let Some(initial) = &mut self.initial else {
            return;
        };
        let everything = Selection::everything();
        let selection = self.selection.as_deref().unwrap_or(&everything);
        let mut last = None;
        let mut delivered = 0;
        for object in initial.snapshot.iter_from(selection, &initial.from) {
            self.form
                .append_event_frame(EventType::Added, object, batch.buffer());
            delivered += 1;
            last = Some(object.key());
            if batch.is_full() {
                break;
            }
        }
        self.lane.view().delivered += delivered;
        if batch.is_full() {
            initial.from = last.map(|key| format!("{key}\0")).unwrap_or_default();
            return;
        }
        if initial.end_bookmark {
            let version = initial.snapshot.resource_version();
            let template = self.shared.template.lock();
            batch.append(&self.form.bookmark_frame(&template, version, true));
        }
        self.initial = None;
    }

    /// Appends live events until the batch is full or the seat is dry; appends the bookmark that is
    /// due then.
    fn fill_live(&mut self, batch: &mut Batch, cx: &Context<'_>) -> Filled {
        for _ in 0..READS_PER_POLL {
            if batch.is_full() {
                return Filled::Full;
            }
            let reading = match self.read(batch, cx) {
                Reading::Behind => self.read_history(batch),
                reading => reading,
            };
            match reading {
                Reading::More | Reading::Behind => {}
                Reading::Dry(own) => {
                    self.is_live = true;
                    self.add_bookmark(batch, own);
                    return Filled::Dry;
                }
                Reading::Lost => {
                    self.shared.counters.expired_watchers.bump();
                    return Filled::Ended;
                }
                Reading::Replaced => return Filled::Ended,
            }
        }
        if batch.is_empty() {
            cx.waker().wake_by_ref(); // nothing but misses: others first, then on
            return Filled::Dry;
        }
        Filled::Full
    }

    /// Appends what is unread in the view of the lane.
    fn read(&mut self, batch: &mut Batch, cx: &Context<'_>) -> Reading {
        let Some(seat) = self.seat else {
            return Reading::Replaced;
        };
        let (taste, form, is_live) = (self.taste(), self.form, self.is_live);
        let mut oldest = None;
        let reading = self.lane.view().read(seat, cx.waker(), |framed| {
            let transition = taste.transition(framed.event());
            let arrived = framed.event().arrived();
            let (built, frame) = framed.frame(form, transition);
            let Some(frame) = frame else {
                return (built, Taken::Nothing);
            };
            oldest.get_or_insert(arrived);
            batch.append(frame);
            let taken = if batch.is_full() {
                Taken::Last
            } else {
                Taken::Frame
            };
            (built, taken)
        });
        let news = oldest.filter(|_| is_live);
        self.arrived = self.arrived.or(news);
        reading
    }

    fn refresh(&self) {
        let mut wake = Vec::new();
        self.lane.refresh(&mut wake);
        wake.into_iter().for_each(Waker::wake);
    }

    fn taste(&self) -> Taste<'_> {
        Taste {
            selection: self.selection.as_deref(),
            start: self.start,
            is_quiet: self.is_quiet,
        }
    }

    /// Appends what is unread and only in the history. Its frames are built for this reader alone,
    /// and after the lock.
    fn read_history(&mut self, batch: &mut Batch) -> Reading {
        let Some(seat) = self.seat else {
            return Reading::Replaced;
        };
        let mut events = Vec::new();
        let history = (seat, &self.shared.history);
        let reading = self.lane.read_history(history, BATCH_EVENTS, &mut events);
        let mut delivered = 0;
        for event in &events {
            let transition = self.taste().transition(event);
            if let Some(frame) = event.frame(self.form, transition) {
                batch.append(&frame);
                delivered += 1;
                let news = self.is_live.then(|| event.arrived());
                self.arrived = self.arrived.or(news);
            }
        }
        self.lane.view().delivered += delivered;
        reading
    }

    /// `own` is the version the seat was dry at, so nothing up to it is still to come.
    fn add_bookmark(&mut self, batch: &mut Batch, own: ResourceVersion) {
        if !self.is_due() {
            return;
        }
        let now = Instant::now();
        if self.bookmark.is_none_or(|due| now < due) {
            self.arm();
            return;
        }
        if own > self.start {
            let template = self.shared.template.lock();
            batch.append(&self.form.bookmark_frame(&template, own, false));
        }
        self.bookmark = next_bookmark(now, self.deadline);
        self.arm();
    }

    /// What comes first of the bookmark and the end.
    fn due(&self) -> Instant {
        self.bookmark
            .map_or(self.deadline, |bookmark| bookmark.min(self.deadline))
    }

    /// Whether it may be time for one of them.
    fn is_due(&self) -> bool {
        self.seat.is_none_or(|seat| match self.lane.keeps_time() {
            true => self.lane.view().is_due(seat),
            false => Instant::now() >= self.due(),
        })
    }

    /// Tells the worker when it is time for the next.
    fn arm(&self) {
        if let Some(seat) = self.seat {
            self.lane.view().set_due(seat, self.due());
        }
    }

    /// Arms its own timer, unless a worker keeps the time; ready when it is time now.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.lane.keeps_time() {
            return Poll::Pending;
        }
        let due = self.due();
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }

    fn end(&mut self) {
        self.initial = None;
        if let Some(seat) = self.seat.take() {
            self.lane.leave(seat);
        }
    }
}

impl Stream for Watcher {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        loop {
            if this.is_due() {
                if this.seat.is_none() || Instant::now() >= this.deadline {
                    this.end();
                    return Poll::Ready(None);
                }
                this.refresh(); // so that a bookmark tells the newest version
            }
            let mut batch = Batch::default();
            this.fill_initial(&mut batch);
            let filled = match this.initial {
                Some(_) => Filled::Full,
                None => this.fill_live(&mut batch, cx),
            };
            if filled == Filled::Ended {
                this.end();
            }
            match batch.take() {
                Some(bytes) => return Poll::Ready(Some(bytes)),
                None if filled == Filled::Dry => std::task::ready!(this.poll_timer(cx)),
                None => {}
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

/// What of an event is for one client.
#[derive(Clone, Copy, Debug)]
struct Taste<'a> {
    selection: Option<&'a Selection>,
    start: ResourceVersion,
    is_quiet: bool,
}

impl Taste<'_> {
    fn transition(self, event: &Event) -> Transition {
        // A heartbeat changes nothing that is selected by, so nothing enters or leaves by it.
        let is_nothing = self.is_quiet && event.is_heartbeat();
        if event.resource_version() <= self.start || is_nothing {
            return Transition::Nothing;
        }
        event.transition(|object| self.selection.is_none_or(|it| it.matches(object)))
    }
}

/// How a batch came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// There may be more.
    Full,
    /// There is no more now; the waker is parked or woken already.
    Dry,
    /// There is never more.
    Ended,
}

/// What one poll collects. A single shared frame is passed on as it is; only the second one makes a
/// copy of both.
#[derive(Debug, Default)]
struct Batch {
    single: Option<Bytes>,
    joined: BytesMut,
}

impl Batch {
    fn append(&mut self, frame: &Bytes) {
        if self.is_empty() {
            self.single = Some(frame.clone());
        } else {
            self.buffer().extend_from_slice(frame);
        }
    }

    /// The buffer to append to, the single frame moved into it.
    fn buffer(&mut self) -> &mut BytesMut {
        if let Some(single) = self.single.take() {
            self.joined.extend_from_slice(&single);
        }
        &mut self.joined
    }

    fn len(&self) -> usize {
        self.single.as_ref().map_or(self.joined.len(), Bytes::len)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_full(&self) -> bool {
        self.len() >= BATCH_BYTES
    }

    fn take(self) -> Option<Bytes> {
        match self.single {
            Some(single) => Some(single),
            None if self.joined.is_empty() => None,
            None => Some(self.joined.freeze()),
        }
    }
}

/// A minute from now or just before the end, whichever is first; never again once that has passed.
fn next_bookmark(now: Instant, deadline: Instant) -> Option<Instant> {
    let before_end = deadline.checked_sub(BOOKMARK_BEFORE_END)?;
    (before_end > now).then(|| before_end.min(now + BOOKMARK_PERIOD))
}

#[cfg(test)]
mod tests;
