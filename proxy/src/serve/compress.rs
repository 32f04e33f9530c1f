//! Long answers as gzip: compressed once, sent to everyone who asks the same of the same state.
//!
//! Owns: kube-apiserver's rule of what is compressed (as `responsewriters/writers.go`, 1.36), the
//! memory of compressed answers, and how many are compressed at once. The work is done in steps off
//! the async workers, a list straight from its snapshot. An answer too large to remember is
//! compressed for each client while it is sent.
//! Refuses: to know who asks. A permit is checked for every request before it gets here, and a
//! [`Question`] holds everything the bytes depend on, so what is shared is never more than what was
//! permitted.
//! Invariant: a request waits for others' work only to be given the same bytes.

use std::{io::Write, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::stream::unfold;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tokio::{sync::Semaphore, task::JoinError};
use watershed_cache::{ResourceVersion, Selection, StateId};

use super::{Content, Page, Representation, sending::Pieces};
use crate::{
    body::BodyError,
    memo::{Fetched, Memo, Origin},
    metrics::OutcomeLabels,
};

/// Bodies longer than this are compressed. In bytes.
pub(super) const GZIP_MIN: usize = 128 << 10;

/// As the apiserver: speed before size.
const LEVEL: u32 = 1;

/// Bytes that go into one step: about two milliseconds of work.
const STEP: usize = 256 << 10;

/// How long an answer is remembered. By then the state has moved on, or nobody asks.
const REMEMBERED: Duration = Duration::from_secs(60);

/// What an entry costs besides its bytes, its question included. An estimate, rounded up.
const OVERHEAD: usize = 1024;

/// The part of the memory one answer may take.
const SHARE: u64 = 4;

/// Everything the bytes of an answer depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// The state it is answered from, and of which cache.
    pub(super) state: StateId,
    /// What the answer says it is valid at.
    pub(super) resource_version: ResourceVersion,
    /// What is read.
    pub(super) part: Part,
    /// How it is written.
    pub(super) representation: Representation,
}

/// What is read of a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// One object.
    Object { namespace: String, name: String },
    /// A part of a collection.
    List { selection: Selection, page: Page },
}

/// See the module text. One for the whole proxy.
pub(crate) struct Compressor {
    remembered: ArcSwap<Remembered>,
    slots: Arc<Semaphore>,
    outcomes: Family<OutcomeLabels, Counter>,
    bytes: Gauge,
}

struct Remembered {
    bytes_max: u64,
    /// `None` for an answer that is too large.
    answers: Memo<Question, Option<Vec<Bytes>>>,
}

impl Remembered {
    fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            answers: Memo::of_recent(bytes_max),
        }
    }
}

impl Compressor {
    /// Remembers nothing yet. `outcomes` counts answers: `compressed`, `shared`, `streamed`;
    /// `bytes` is what is remembered.
    pub(crate) fn new(outcomes: Family<OutcomeLabels, Counter>, bytes: Gauge) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            remembered: ArcSwap::from_pointee(Remembered::new(0)),
            slots: Arc::new(Semaphore::new(cores.div_ceil(2))),
            outcomes,
            bytes,
        }
    }

    /// The compressed answer to `question`, which is `content`. At most `bytes_max` bytes are
    /// remembered; a change forgets everything.
    ///
    /// # Errors
    /// The work was lost, because it panicked or the process ends: forward the request.
    pub(super) async fn compress(
        &self,
        question: Question,
        content: &Content,
        bytes_max: u64,
    ) -> Result<Pieces, Arc<JoinError>> {
        if self.remembered.load().bytes_max != bytes_max {
            self.remembered.store(Arc::new(Remembered::new(bytes_max)));
        }
        let remembered = self.remembered.load_full();
        let share = usize::try_from(bytes_max / SHARE).unwrap_or(usize::MAX);
        let work = async { self.whole(content.clone(), share).await };
        let (answer, origin) = remembered.answers.answer(question, work).await?;
        self.bytes
            .set(i64::try_from(remembered.answers.bytes()).unwrap_or(i64::MAX));
        let Some(pieces) = &answer.value else {
            self.count("streamed");
            return Ok(self.compressing(content.clone()));
        };
        self.count(match origin {
            Origin::Fetch => "compressed",
            Origin::Memory => "shared",
        });
        Ok(Pieces::Compressed(pieces.clone().into_iter()))
    }

    /// The whole of it, or `None` if that is more than `bytes_max`.
    async fn whole(
        &self,
        content: Content,
        bytes_max: usize,
    ) -> Result<Fetched<Option<Vec<Bytes>>>, JoinError> {
        let fetched = |value, bytes| Fetched {
            value,
            ttl: REMEMBERED,
            bytes: bytes + OVERHEAD,
        };
        let mut gzip = Some(Gzip::new(content));
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while let Some(unfinished) = gzip {
            let piece;
            (piece, gzip) = step(&self.slots, unfinished).await?;
            bytes += piece.len();
            if bytes > bytes_max {
                return Ok(fetched(None, 0));
            }
            pieces.push(piece);
        }
        Ok(fetched(Some(pieces), bytes))
    }

    /// Compressed while it is sent.
    fn compressing(&self, content: Content) -> Pieces {
        let start = (Arc::clone(&self.slots), Some(Gzip::new(content)));
        Pieces::Compressing(Box::pin(unfold(start, |(slots, gzip)| async {
            match step(&slots, gzip?).await {
                Ok((piece, rest)) => Some((Ok(piece), (slots, rest))),
                Err(_lost) => Some((Err(BodyError::Lost), (slots, None))),
            }
        })))
    }

    fn count(&self, outcome: &'static str) {
        self.outcomes
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }
}

/// One step, off the async workers, once a slot is free; the rest, unless it was the last.
async fn step(slots: &Arc<Semaphore>, gzip: Gzip) -> Result<(Bytes, Option<Gzip>), JoinError> {
    let slot = Arc::clone(slots).acquire_owned().await;
    tokio::task::spawn_blocking(move || {
        let _slot = slot.expect("slots are never closed");
        gzip.step()
    })
    .await
}

/// Content on its way through the encoder.
struct Gzip {
    content: Content,
    encoder: GzEncoder<Vec<u8>>,
}

impl Gzip {
    fn new(content: Content) -> Self {
        Self {
            content,
            encoder: GzEncoder::new(Vec::new(), Compression::new(LEVEL)),
        }
    }

    fn step(mut self) -> (Bytes, Option<Self>) {
        let in_memory = "writing to memory succeeds";
        let mut taken = 0;
        while taken < STEP {
            let Some(piece) = self.content.piece() else {
                return (self.encoder.finish().expect(in_memory).into(), None);
            };
            taken += piece.len();
            self.encoder.write_all(&piece).expect(in_memory);
        }
        let out = std::mem::take(self.encoder.get_mut());
        (out.into(), Some(self))
    }
}

#[cfg(test)]
mod tests;
