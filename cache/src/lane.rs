//! The way from one cache to one worker: an inbox the writer fills, a view the worker reads.
//!
//! Owns the hand-over. The writer puts an event into the inbox of each lane once, under the lock of
//! the history, so every inbox has the history's order; the worker takes the whole inbox into its
//! view when its turn comes. The inbox is the only thing both touch, and its size is bounded: what
//! a worker leaves lying for too long the writer takes in for it. A lane without watchers is passed
//! over; whoever sits down first begins at the end of the history, and everyone who sits down takes
//! the inbox in first, so that a seat misses nothing and hears nothing twice.
//!
//! The first lane of a cache has no worker: the writer dispatches it itself, for watches opened on
//! other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};

use crate::error::CacheError;
use crate::event::Event;
use crate::history::{Edge, History};
use crate::interest::Interest;
use crate::resource_version::ResourceVersion;
use crate::view::{Reading, Seat, View};
use crate::worker::{Worker, Workers};

/// Events an inbox holds before the writer takes them in itself.
const INBOX_EVENTS_MAX: usize = 1024;

/// See the module text.
#[derive(Debug)]
pub(crate) struct Lane {
    worker: Option<Arc<Worker>>,
    /// Whether anybody sits here. Set only under the lock of the history, so that the writer sees
    /// it with the next event.
    is_occupied: AtomicBool,
    inbox: Mutex<Inbox>,
    inbox_bytes_max: usize,
    view: Mutex<View>,
}

/// What was handed over and not taken in.
#[derive(Debug, Default)]
struct Inbox {
    events: Vec<Arc<Event>>,
    bytes: usize,
    edge: Edge,
    /// Whether somebody is going to look: it is on the worker's list, or the writer is at it.
    is_announced: bool,
}

/// What the writer owes a lane once it let go of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// To tell the worker.
    Announce,
    /// To take the inbox in itself: it is full.
    Dispatch,
}

impl Lane {
    /// The lanes of a cache, that without a worker first. Together they hold up to `bytes_max`.
    pub(crate) fn all(
        workers: &Workers,
        trigger: Option<usize>,
        bytes_max: usize,
    ) -> Box<[Arc<Self>]> {
        let each = workers.each();
        let share = bytes_max / (each.len() + 1) / 2; // half for frames, half for the inbox
        let of_workers = each.iter().map(|worker| Some(Arc::clone(worker)));
        let lanes = std::iter::once(None).chain(of_workers).map(|worker| {
            Arc::new(Self {
                worker,
                is_occupied: AtomicBool::new(false),
                inbox: Mutex::default(),
                inbox_bytes_max: share,
                view: Mutex::new(View::new(trigger, share)),
            })
        });
        let lanes: Box<[_]> = lanes.collect();
        for lane in &lanes {
            lane.worker.as_ref().inspect(|worker| worker.enrol(lane));
        }
        lanes
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock()
    }

    /// Bytes held beyond the objects, and those of objects the history may have forgotten.
    pub(crate) fn bytes(&self) -> usize {
        let built = self.view.lock().bytes();
        built + self.inbox.lock().bytes
    }

    /// Tells of an event, or that the history ends elsewhere now. To be called under the lock of
    /// the history; what is due then, after it.
    pub(crate) fn hand_over(&self, event: Option<&Arc<Event>>, edge: Edge) -> Option<Due> {
        if !self.is_occupied.load(Ordering::Relaxed) {
            return None;
        }
        let mut inbox = self.inbox.lock();
        let has_ended = inbox.edge.generation != edge.generation;
        if has_ended {
            inbox.clear();
        }
        inbox.edge = edge;
        if let Some(event) = event {
            inbox.bytes += event.memory();
            inbox.events.push(Arc::clone(event));
        } else if !has_ended {
            return None; // whoever wants to know the version asks
        }
        if inbox.bytes > self.inbox_bytes_max || inbox.events.len() > INBOX_EVENTS_MAX {
            return Some(Due::Dispatch);
        }
        let is_first = !std::mem::replace(&mut inbox.is_announced, true);
        is_first.then_some(Due::Announce)
    }

    /// Does what [`Self::hand_over`] left to do.
    pub(crate) fn settle(self: &Arc<Self>, due: Due, wake: &mut Vec<Waker>) {
        let is_told = match (&self.worker, due) {
            (Some(worker), Due::Announce) => worker.announce(self),
            (Some(_), Due::Dispatch) => {
                self.refresh(wake);
                return;
            }
            (None, Due::Announce | Due::Dispatch) => false,
        };
        if !is_told {
            self.dispatch(wake);
        }
    }

    /// Takes in what was announced. The wakers are for the caller to wake.
    pub(crate) fn dispatch(&self, wake: &mut Vec<Waker>) {
        let mut view = self.view.lock();
        self.inbox.lock().is_announced = false;
        self.take_in(&mut view, wake);
    }

    /// Whether somebody calls [`Self::tick`]; if not, watches look at the clock themselves.
    pub(crate) fn keeps_time(&self) -> bool {
        self.worker.as_ref().is_some_and(|it| it.is_running())
    }

    /// Looks whose time has come. The wakers are for the caller to wake.
    pub(crate) fn tick(&self, wake: &mut Vec<Waker>) {
        if self.is_occupied.load(Ordering::Relaxed) {
            self.view.lock().tick(wake);
        }
    }

    /// Hands out every waker. The wakers are for the caller to wake.
    pub(crate) fn wake_all(&self, wake: &mut Vec<Waker>) {
        self.view.lock().wake_all(wake);
    }

    /// Takes in what there is, announced or not. The wakers are for the caller to wake.
    pub(crate) fn refresh(&self, wake: &mut Vec<Waker>) {
        self.take_in(&mut self.view.lock(), wake);
    }

    fn take_in(&self, view: &mut View, wake: &mut Vec<Waker>) {
        let (mut events, edge) = self.inbox.lock().take();
        view.take_in(&mut events, edge, wake);
        self.inbox.lock().reuse(events);
    }

    /// Takes a seat after `start`, which is in `history`. The wakers are for the caller to wake
    /// once it let go of the history.
    pub(crate) fn sit(
        &self,
        interest: &Interest,
        (start, history): (ResourceVersion, &History),
        wake: &mut Vec<Waker>,
    ) -> Result<Seat, CacheError> {
        history.check_start(start)?;
        let mut view = self.view.lock();
        if view.watchers() == 0 {
            let mut inbox = self.inbox.lock();
            inbox.clear();
            inbox.edge = history.edge();
            view.restart(inbox.edge);
        } else {
            self.take_in(&mut view, wake);
        }
        assert_eq!(view.edge(), history.edge(), "a lane is told everything");
        self.is_occupied.store(true, Ordering::Relaxed);
        let window = &history.window;
        Ok(view.sit(interest, window.next(interest, window.after(start))))
    }

    /// Gives a seat back.
    pub(crate) fn leave(&self, seat: Seat) {
        let mut view = self.view.lock();
        view.leave(seat);
        if view.watchers() == 0 {
            self.is_occupied.store(false, Ordering::Relaxed);
        }
    }

    /// Copies up to `max` unread events out of `history`; see [`View::read_history`].
    pub(crate) fn read_history(
        &self,
        (seat, history): (Seat, &Mutex<History>),
        max: usize,
        into: &mut Vec<Arc<Event>>,
    ) -> Reading {
        let history = history.lock();
        self.view.lock().read_history(seat, &history, max, into)
    }
}

impl Inbox {
    fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }

    fn take(&mut self) -> (Vec<Arc<Event>>, Edge) {
        self.bytes = 0;
        (std::mem::take(&mut self.events), self.edge)
    }

    /// Keeps the room of a vector that was taken and emptied, unless it is large.
    fn reuse(&mut self, events: Vec<Arc<Event>>) {
        if self.events.capacity() == 0 && events.capacity() <= 64 {
            self.events = events;
        }
    }
}

#[cfg(test)]
mod tests;
