//! What one worker sees of a cache: recent events, index and parked watchers behind one lock that
//! only its own thread takes for an event it delivers.
//!
//! Owns the edge: up to where the lane was told of the shared history. Reading, registering and
//! marking happen under one lock, which is what makes "dry at version x" a fact: a bookmark may
//! carry x because every event up to x was read before. A reader is never shown anything beyond the
//! edge, not even by the history, or it would see it twice: marked once it comes here.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Event;
use crate::history::{Edge, History};
use crate::interest::Interest;
use crate::recent::{Framed, Recent};
use crate::resource_version::ResourceVersion;
use crate::watchers::{EntryId, SlotId, Tick, Watchers};
use crate::window::Sequence;

/// How often a worker looks whose time has come. A bookmark or an end is late by this at most, as
/// those of an apiserver are, whose bookmarks come with a tick of a second.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// One reader's place in a view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    slot: SlotId,
    entry: EntryId,
    /// The generation the seat was taken in.
    generation: u32,
}

/// What a reader made of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing of it is for this reader.
    Nothing,
    /// It goes out, and there is room for more.
    Frame,
    /// It goes out and fills the batch.
    Last,
}

/// What a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// There may be more.
    More,
    /// Everything up to this version was read.
    Dry(ResourceVersion),
    /// What was not read is no longer here; the history may have it.
    Behind,
    /// Unread events were forgotten: this reader was too slow.
    Lost,
    /// The state was replaced; nobody reads on across that.
    Replaced,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct View {
    recent: Recent,
    watchers: Watchers,
    edge: Edge,
    opened: Instant,
    /// Frames handed on.
    pub(crate) delivered: u64,
}

impl View {
    /// Keeps up to `bytes_max` of frames.
    pub(crate) fn new(trigger: Option<usize>, bytes_max: usize) -> Self {
        Self {
            recent: Recent::new(bytes_max),
            watchers: Watchers::new(trigger),
            edge: Edge::default(),
            opened: Instant::now(),
            delivered: 0,
        }
    }

    pub(crate) fn edge(&self) -> Edge {
        self.edge
    }

    pub(crate) fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Bytes of built frames.
    pub(crate) fn bytes(&self) -> usize {
        self.recent.bytes()
    }

    /// First unread events of all watchers that have some.
    pub(crate) fn all_unread(&self) -> impl Iterator<Item = Sequence> {
        self.watchers.all_unread()
    }

    /// Nobody sits here: goes on from `edge`, whatever came before.
    pub(crate) fn restart(&mut self, edge: Edge) {
        assert_eq!(self.watchers.len(), 0, "a seat reads without a gap");
        self.recent.restart(edge.end);
        self.edge = edge;
    }

    /// Takes in what the writer handed over, in order: the events before `edge` that were not told
    /// yet, or those since the state was replaced.
    pub(crate) fn take_in(
        &mut self,
        events: &mut Vec<Arc<Event>>,
        edge: Edge,
        wake: &mut Vec<Waker>,
    ) {
        let begin = edge.end - events.len() as u64;
        if edge.generation != self.edge.generation {
            self.recent.restart(begin);
            self.watchers.wake_all(wake);
        }
        if self.watchers.len() > 0 {
            assert_eq!(self.recent.end(), begin, "events are told without a gap");
            for (event, sequence) in events.iter().zip(begin..) {
                let first = self.recent.first();
                self.watchers.mark(event, (first, sequence), wake);
                self.recent.push(Arc::clone(event));
            }
        } else {
            self.recent.restart(edge.end);
        }
        events.clear();
        self.recent.forget_before(edge.first); // the history's memory is bounded
        self.edge = edge;
    }

    /// Takes a seat that has `unread` before it.
    pub(crate) fn sit(&mut self, interest: &Interest, unread: Option<Sequence>) -> Seat {
        let (slot, entry) = self.watchers.register(interest, unread, self.edge.end);
        Seat {
            slot,
            entry,
            generation: self.edge.generation,
        }
    }

    /// Heartbeats are nothing to who sits here.
    pub(crate) fn quieten(&mut self, seat: Seat) {
        self.watchers.quieten(seat.slot);
    }

    /// Whether the time set for a seat has come and was noticed.
    pub(crate) fn is_due(&self, seat: Seat) -> bool {
        self.watchers.is_due(seat.slot)
    }

    /// Sets the time of a seat, in whole ticks.
    pub(crate) fn set_due(&mut self, seat: Seat, due: Instant) {
        let ticks = self.ticks(due).saturating_add(1);
        self.watchers.set_due(seat.slot, ticks);
    }

    /// Hands out every waker.
    pub(crate) fn wake_all(&mut self, wake: &mut Vec<Waker>) {
        self.watchers.wake_all(wake);
    }

    /// Notices whose time has come.
    pub(crate) fn tick(&mut self, wake: &mut Vec<Waker>) {
        self.watchers.tick(self.ticks(Instant::now()), wake);
    }

    /// Whole ticks from the beginning until `moment`.
    fn ticks(&self, moment: Instant) -> Tick {
        let elapsed = moment.saturating_duration_since(self.opened);
        Tick::try_from(elapsed.as_millis() / TICK.as_millis()).unwrap_or(Tick::MAX - 1)
    }

    /// Gives the seat back; the last one takes what was kept for the readers with it.
    pub(crate) fn leave(&mut self, seat: Seat) {
        self.watchers.unregister(seat.slot, seat.entry);
        if self.watchers.len() == 0 {
            self.recent.restart(self.edge.end);
        }
    }

    /// Shows what is unread and here, until `take` has enough. On a dry seat the waker is parked.
    pub(crate) fn read(
        &mut self,
        seat: Seat,
        waker: &Waker,
        mut take: impl FnMut(&mut Framed) -> (usize, Taken),
    ) -> Reading {
        if seat.generation != self.edge.generation {
            return Reading::Replaced;
        }
        let end = self.recent.end();
        let mut next = self.watchers.unread(seat.slot);
        let known = self.watchers.since(seat.entry).max(self.recent.first());
        if next.is_some_and(|unread| unread < known) {
            return Reading::Behind;
        }
        let mut is_full = false;
        let mut has_read = false;
        while let Some(sequence) = next.filter(|_| !is_full) {
            let taken = self.recent.visit(sequence, &mut take);
            self.delivered += u64::from(taken != Taken::Nothing);
            is_full = taken == Taken::Last;
            has_read = true;
            next = self.watchers.next(seat.entry, sequence + 1, end);
        }
        if has_read {
            self.watchers.set_unread(seat.slot, next);
            self.recent.trim(); // frames were built
        }
        if is_full {
            return Reading::More;
        }
        self.watchers.park(seat.slot, waker);
        Reading::Dry(self.edge.resource_version)
    }

    /// Copies up to `max` unread events that are only in `history`, as far as this view was told.
    pub(crate) fn read_history(
        &mut self,
        seat: Seat,
        history: &History,
        max: usize,
        into: &mut Vec<Arc<Event>>,
    ) -> Reading {
        let generation = self.edge.generation;
        if seat.generation != generation || history.generation() != generation {
            return Reading::Replaced;
        }
        let Some(unread) = self.watchers.unread(seat.slot) else {
            return Reading::More;
        };
        if unread < history.window.first() {
            return Reading::Lost;
        }
        let interest = self.watchers.interest(seat.entry);
        let range = (unread, self.edge.end);
        let next = history.window.collect(interest, range, max, into);
        self.watchers.set_unread(seat.slot, next);
        Reading::More
    }
}
