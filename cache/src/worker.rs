//! The threads that watches live on, and how news reaches them.
//!
//! Owns who is a worker, which worker this thread is, and one list per worker: the lanes that hold
//! news nobody looked at. A writer puts a lane on that list at most once and wakes the worker at
//! most once per event, however many watches it has; the worker's [`Dispatcher`], a task on its own
//! runtime, takes the list and does the rest with memory that no other thread touches.
//! It also keeps the time for their bookmarks and ends, so that no idle watch has a timer.
//! It refuses to spawn anything, and to lose anything: a worker whose dispatcher is gone is served
//! by whoever writes.
//!
//! ```text
//!   Writer ──event, once per worker──► inbox of a lane ──► ready list ──one wake──► Dispatcher
//!                                                                                      │ marks, wakes
//!                                                         watches of this thread ◄─────┘
//! ```

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::lane::Lane;
use crate::view::TICK;

/// No worker has this number.
const NOBODY: u64 = 0;

thread_local! {
    /// The number of the worker this thread is.
    static HERE: Cell<u64> = const { Cell::new(NOBODY) };
}

/// The worker threads caches are shared by; the same value goes into the
/// [`Options`](crate::Options) of all of them. Clones are the same workers.
#[derive(Clone, Debug)]
pub struct Workers {
    each: Arc<[Arc<Worker>]>,
}

/// What writers know of one worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Unique in this process.
    number: u64,
    /// Lanes with news, each once; `None` once nobody looks any more.
    ready: Mutex<Option<Vec<Arc<Lane>>>>,
    dispatcher: AtomicWaker,
    is_running: AtomicBool,
    /// Its lanes, for the clock.
    lanes: Mutex<Vec<Weak<Lane>>>,
}

impl Workers {
    /// None: the writer itself wakes every watch. For tests, and wherever one thread does all.
    pub fn inline() -> Self {
        Self { each: Arc::new([]) }
    }

    /// `count` workers, and for each what it has to run. Watches opened on a thread that runs none
    /// of them are served as with [`Self::inline`].
    pub fn new(count: usize) -> (Self, Vec<Dispatcher>) {
        let each: Arc<[_]> = (0..count).map(|_| Arc::new(Worker::new())).collect();
        let dispatcher = |worker: &Arc<Worker>| Dispatcher {
            worker: Arc::clone(worker),
        };
        let dispatchers = each.iter().map(dispatcher).collect();
        (Self { each }, dispatchers)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.each.len()
    }

    pub(crate) fn each(&self) -> &[Arc<Worker>] {
        &self.each
    }

    /// Which of the workers this thread is.
    pub(crate) fn here(&self) -> Option<usize> {
        let here = HERE.get();
        self.each.iter().position(|worker| worker.number == here)
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::inline()
    }
}

impl Worker {
    fn new() -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(NOBODY + 1);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            ready: Mutex::new(Some(Vec::new())),
            dispatcher: AtomicWaker::new(),
            is_running: AtomicBool::new(true),
            lanes: Mutex::default(),
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    /// Adds a lane to those that the worker keeps the time of.
    pub(crate) fn enrol(&self, lane: &Arc<Lane>) {
        self.lanes.lock().push(Arc::downgrade(lane));
    }

    /// Its lanes; those of caches that were closed are forgotten.
    fn lanes(&self) -> Vec<Arc<Lane>> {
        let mut lanes = self.lanes.lock();
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.iter().filter_map(Weak::upgrade).collect()
    }

    /// Tells the worker that a lane has news. False when nobody is there to be told.
    pub(crate) fn announce(&self, lane: &Arc<Lane>) -> bool {
        match &mut *self.ready.lock() {
            Some(ready) => ready.push(Arc::clone(lane)),
            None => return false,
        }
        self.dispatcher.wake();
        true
    }
}

/// The work of one worker thread. Dropping it before its watches are closed is safe: they are then
/// served by whoever writes.
#[derive(Debug)]
pub struct Dispatcher {
    worker: Arc<Worker>,
}

impl Dispatcher {
    /// Makes the thread it is polled on this worker and wakes the watches opened there, for ever:
    /// to be run on the thread's own current-thread runtime, beside the tasks that own the watches.
    pub fn run(self) -> impl Future<Output = ()> + Send {
        let mut clock = None;
        poll_fn(move |context| {
            HERE.set(self.worker.number);
            self.worker.dispatcher.register(context.waker());
            self.dispatch();
            let clock = clock.get_or_insert_with(|| Box::pin(tokio::time::sleep(TICK)));
            while clock.as_mut().poll(context).is_ready() {
                self.tick();
                clock.as_mut().reset(Instant::now() + TICK);
            }
            Poll::Pending
        })
    }

    /// Wakes the watches that have something new to read, once, for callers that drive several by
    /// hand.
    pub fn dispatch(&self) {
        let ready = self.worker.ready.lock().as_mut().map(std::mem::take);
        for_each(ready.unwrap_or_default(), Lane::dispatch);
    }

    /// Wakes the watches whose bookmark or end is due, once, for callers that drive several by
    /// hand.
    pub fn tick(&self) {
        for_each(self.worker.lanes(), Lane::tick);
    }

    /// Makes this thread the worker until the answer is dropped, for callers that drive several by
    /// hand.
    pub fn enter(&self) -> Entered {
        Entered {
            before: HERE.replace(self.worker.number),
            _of_this_thread: PhantomData,
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        if HERE.get() == self.worker.number {
            HERE.set(NOBODY);
        }
        self.worker.is_running.store(false, Ordering::Release);
        let left = self.worker.ready.lock().take();
        for_each(left.unwrap_or_default(), Lane::dispatch);
        for_each(self.worker.lanes(), Lane::wake_all); // to see that nobody keeps their time
    }
}

fn for_each(lanes: Vec<Arc<Lane>>, what: impl Fn(&Lane, &mut Vec<Waker>)) {
    let mut wake = Vec::new();
    for lane in lanes {
        what(&lane, &mut wake);
        wake.drain(..).for_each(Waker::wake);
    }
}

/// See [`Dispatcher::enter`].
#[derive(Debug)]
#[must_use = "this thread is the worker only as long as this lives"]
pub struct Entered {
    before: u64,
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.set(self.before);
    }
}

#[cfg(test)]
mod tests;
