//! What all running lists may hold together (`limits.initialListBytes`): bodies of lists, initial
//! events of watches, answers of shared reads.
//!
//! Owns: who may begin, who waits a moment, and who is told to come back.
//! A list is written as its client takes it, so it is charged what it can hold at once
//! ([`HELD_MAX`], less where the whole collection is less), never its length: a hundred megabytes
//! cost as much as a few hundred kilobytes. What a snapshot keeps alive is the cache's until it is
//! replaced there, and a list that is not taken within its request's time is cut, as an apiserver
//! cuts it, so no client keeps the past for longer.
//! Refuses: to queue for long. A place comes free as soon as some client took its list, or does not.
//! Invariant: places are taken before a byte is sent and given back when the body is over or
//! dropped; a quarter is never given to reads of whole collections, so that nodes get what is
//! theirs while everybody relists.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{metrics::ReasonLabels, status};

/// What one list holds at once at most, in bytes: a piece in hand, one that HTTP/2 was given beyond
/// its buffer of 64 KiB, and what TLS has not sent.
pub(crate) const HELD_MAX: u64 = 256 << 10;

/// The part that is kept for reads of one node's objects.
const RESERVE: usize = 4;

/// How long a list waits for its place: most are taken within milliseconds.
const WAIT: Duration = Duration::from_secs(1);

/// Lists that wait for a place; more are told to come back at once.
const WAITING_MAX: usize = 10_000;

/// How much a read is waited for by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A node's own objects, and what it needs to stay alive.
    Node,
    /// Everything of a resource or a namespace.
    Collection,
}

/// There is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    /// Seconds after which the client should come back.
    pub(crate) retry_after: u32,
}

/// See the module text. One for the whole proxy.
pub(crate) struct ListBudget {
    pots: ArcSwap<Pots>,
    waiting: AtomicUsize,
    held: Gauge,
    refused: Family<ReasonLabels, Counter>,
}

/// The places of one configured size.
struct Pots {
    bytes_max: u64,
    shared: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
}

/// A running list's part of the budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    permit: OwnedSemaphorePermit,
    held: Gauge,
}

impl ListBudget {
    /// Nothing is running yet. `held` tells the bytes that are taken, `refused` counts by priority.
    pub(crate) fn new(held: Gauge, refused: Family<ReasonLabels, Counter>) -> Self {
        Self {
            pots: ArcSwap::from_pointee(Pots::new(0)),
            waiting: AtomicUsize::new(0),
            held,
            refused,
        }
    }

    /// A place for a list that holds up to `bytes` at once, within a second. `bytes_max` is what all
    /// may hold together; a change is for those who come after it.
    ///
    /// # Errors
    /// There is none: come back later.
    pub(crate) async fn admit(
        &self,
        bytes: u64,
        priority: Priority,
        bytes_max: u64,
    ) -> Result<Place, Busy> {
        let pots = self.pots(bytes_max);
        let bytes = u32::try_from(bytes.min(HELD_MAX)).unwrap_or(u32::MAX);
        let permit = match pots.try_take(bytes, priority) {
            Some(permit) => Some(permit),
            None => Box::pin(self.wait(&pots, bytes, priority)).await,
        };
        permit
            .map(|permit| self.place(permit))
            .ok_or_else(|| self.refuse(priority))
    }

    /// A place that grows with what comes in, for an answer whose length nobody knows yet.
    pub(crate) fn growing(&self, bytes_max: u64) -> Place {
        let pots = self.pots(bytes_max);
        let permit = Arc::clone(&pots.shared)
            .try_acquire_many_owned(0)
            .expect("nothing is always there, and the pots are never closed");
        self.place(permit)
    }

    fn pots(&self, bytes_max: u64) -> Arc<Pots> {
        let pots = self.pots.load();
        if pots.bytes_max == bytes_max {
            return Arc::clone(&pots);
        }
        let changed = Arc::new(Pots::new(bytes_max));
        self.pots.store(Arc::clone(&changed));
        changed
    }

    async fn wait(
        &self,
        pots: &Pots,
        bytes: u32,
        priority: Priority,
    ) -> Option<OwnedSemaphorePermit> {
        let _waiting = Waiting::new(&self.waiting)?;
        let pot = Arc::clone(match priority {
            Priority::Node => &pots.reserved,
            Priority::Collection => &pots.shared,
        });
        timeout(WAIT, pot.acquire_many_owned(bytes))
            .await
            .ok()?
            .ok()
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        self.held.inc_by(bytes(&permit));
        Place {
            permit,
            held: self.held.clone(),
        }
    }

    fn refuse(&self, priority: Priority) -> Busy {
        let reason = match priority {
            Priority::Node => "node",
            Priority::Collection => "collection",
        };
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
        Busy {
            retry_after: fastrand::u32(status::RETRY_AFTER),
        }
    }
}

impl Pots {
    fn new(bytes_max: u64) -> Self {
        let all = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let all = all.min(Semaphore::MAX_PERMITS);
        let reserved = all / RESERVE;
        Self {
            bytes_max,
            shared: Arc::new(Semaphore::new(all - reserved)),
            reserved: Arc::new(Semaphore::new(reserved)),
        }
    }

    /// What is there now; a node's read takes what everybody may take first.
    fn try_take(&self, bytes: u32, priority: Priority) -> Option<OwnedSemaphorePermit> {
        let shared = Arc::clone(&self.shared).try_acquire_many_owned(bytes);
        match (shared, priority) {
            (Ok(permit), _) => Some(permit),
            (Err(_), Priority::Node) => Arc::clone(&self.reserved)
                .try_acquire_many_owned(bytes)
                .ok(),
            (Err(_), Priority::Collection) => None,
        }
    }
}

impl Place {
    /// Makes it larger; false if there is no room.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let fits = u32::MAX as usize - self.permit.num_permits();
        let Some(more) = u32::try_from(more)
            .ok()
            .filter(|more| *more as usize <= fits)
        else {
            return false; // places are counted in 32 bits
        };
        let pot = Arc::clone(self.permit.semaphore());
        let Ok(permit) = pot.try_acquire_many_owned(more) else {
            return false;
        };
        self.held.inc_by(bytes(&permit));
        self.permit.merge(permit);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.dec_by(bytes(&self.permit));
    }
}

/// One of those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// `None` if there are too many.
    fn new(count: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < WAITING_MAX).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bytes(permit: &OwnedSemaphorePermit) -> i64 {
    i64::try_from(permit.num_permits()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
