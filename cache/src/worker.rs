//! The threads that watches live on, and how news reaches them.
//!
//! Owns who is a worker, which worker this thread is, and one list per worker: the lanes that hold
//! news nobody looked at. A writer puts a lane on that list at most once and wakes the worker at
//! most once per event, however many watches it has; the worker's [`Dispatcher`], a task on its own
//! runtime, takes the list and does the rest with memory that no other thread touches.
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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::lane::Lane;

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
        }
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
        poll_fn(move |context| {
            HERE.set(self.worker.number);
            self.worker.dispatcher.register(context.waker());
            self.dispatch();
            Poll::Pending
        })
    }

    /// Wakes the watches that have something new to read, once, for callers that drive several by
    /// hand.
    pub fn dispatch(&self) {
        let ready = self.worker.ready.lock().as_mut().map(std::mem::take);
        dispatch(ready.unwrap_or_default());
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
        let left = self.worker.ready.lock().take();
        dispatch(left.unwrap_or_default());
    }
}

fn dispatch(lanes: Vec<Arc<Lane>>) {
    let mut wake = Vec::new();
    for lane in lanes {
        lane.dispatch(&mut wake);
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
