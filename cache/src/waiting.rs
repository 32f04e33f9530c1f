//! Who waits for an answer that only the apiserver can give, and that many can share.
//!
//! Owns the readers that arrived since the last question was asked. The reflector takes all of them
//! at once, asks, and answers each; whoever arrives meanwhile waits for the next question, because
//! an answer proves nothing about what happened after it was asked for. Waiting is bounded by a
//! count; a reader that gave up is dropped on the way.

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::error::{CacheError, NotFresh};
use crate::store::Snapshot;

/// A proven snapshot, or why there is none.
pub(crate) type Proof = Result<Snapshot, CacheError>;

/// A reader: what it asks, and where it waits.
pub(crate) type Reader<Q, A> = (Q, oneshot::Sender<A>);

/// The waiting room for one kind of question.
#[derive(Debug)]
pub(crate) struct WaitingRoom<Q, A> {
    waiting: Mutex<Option<Vec<Reader<Q, A>>>>,
    capacity: usize,
    arrived: Notify,
}

impl<Q, A> WaitingRoom<Q, A> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            waiting: Mutex::new(Some(Vec::new())),
            capacity,
            arrived: Notify::new(),
        }
    }

    /// Joins the readers of the next question.
    pub(crate) fn ask(&self, question: Q) -> Result<oneshot::Receiver<A>, CacheError> {
        let mut waiting = self.waiting.lock();
        let waiting = waiting.as_mut().ok_or(CacheError::NotReady)?;
        if waiting.len() >= self.capacity {
            waiting.retain(|(_, reader)| !reader.is_closed());
        }
        if waiting.len() >= self.capacity {
            return Err(CacheError::NotFresh(NotFresh::Busy));
        }
        let (reader, answer) = oneshot::channel();
        waiting.push((question, reader));
        self.arrived.notify_one();
        Ok(answer)
    }

    /// Waits until somebody waits, then takes everyone.
    pub(crate) async fn demand(&self) -> Vec<Reader<Q, A>> {
        loop {
            if let Some(waiting) = self.waiting.lock().as_mut() {
                waiting.retain(|(_, reader)| !reader.is_closed());
                if !waiting.is_empty() {
                    return std::mem::take(waiting);
                }
            }
            self.arrived.notified().await;
        }
    }

    /// The writer is gone: nobody will answer anything again.
    pub(crate) fn close(&self) {
        self.waiting.lock().take();
    }
}
