//! Who waits for a proof that the cache is fresh.
//!
//! Owns the readers that arrived since the last probe started. The reflector takes all of them at
//! once, probes, and answers each; whoever arrives meanwhile waits for the next probe, because a
//! probe proves nothing about what was written after it started. Waiting is bounded by a count; a
//! reader that gave up is dropped on the way.

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::error::{CacheError, NotFresh};
use crate::store::Snapshot;

/// A proven snapshot, or why there is none.
pub(crate) type Proof = Result<Snapshot, CacheError>;

/// The waiting room of one cache.
#[derive(Debug)]
pub(crate) struct Freshness {
    waiting: Mutex<Option<Vec<oneshot::Sender<Proof>>>>,
    capacity: usize,
    arrived: Notify,
}

impl Freshness {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            waiting: Mutex::new(Some(Vec::new())),
            capacity,
            arrived: Notify::new(),
        }
    }

    /// Joins the readers of the next probe.
    pub(crate) fn ask(&self) -> Result<oneshot::Receiver<Proof>, CacheError> {
        let mut waiting = self.waiting.lock();
        let waiting = waiting.as_mut().ok_or(CacheError::NotReady)?;
        if waiting.len() >= self.capacity {
            waiting.retain(|reader| !reader.is_closed());
        }
        if waiting.len() >= self.capacity {
            return Err(CacheError::NotFresh(NotFresh::Busy));
        }
        let (reader, proof) = oneshot::channel();
        waiting.push(reader);
        self.arrived.notify_one();
        Ok(proof)
    }

    /// Waits until somebody waits, then takes everyone.
    pub(crate) async fn demand(&self) -> Vec<oneshot::Sender<Proof>> {
        loop {
            if let Some(waiting) = self.waiting.lock().as_mut() {
                waiting.retain(|reader| !reader.is_closed());
                if !waiting.is_empty() {
                    return std::mem::take(waiting);
                }
            }
            self.arrived.notified().await;
        }
    }

    /// The writer is gone: nobody will prove anything again.
    pub(crate) fn close(&self) {
        self.waiting.lock().take();
    }
}
