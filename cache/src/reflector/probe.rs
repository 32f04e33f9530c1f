//! Proofs that the cache holds everything written before a moment.
//!
//! One probe at a time serves every reader that arrived before it started. It is a consistent LIST
//! with a small limit; its version X is at least the newest write of that moment. There are three
//! proofs, cheapest first:
//!
//! 1. The own version is, or within [`STREAM_GRACE`] becomes, X or more: the stream was busy.
//! 2. The list is the whole collection and the store equals it by key and version, or does within
//!    that time: these very objects are the state at X. Only that snapshot is labelled X, and reads
//!    are answered from it until the stream has passed X. The own version stays: an object may have
//!    come and gone in between, and the stream has yet to say so.
//! 3. A *fence*: a short watch from the own version. The apiserver sends a bookmark before its end,
//!    and the fence carries every event up to it, so the own version may advance to the bookmark.
//!    About one second on 1.36, and at most one a second: a stream that overtook a fence is late,
//!    not quiet, and the next reader waits for it.
//!
//! Anything else, silence included, is no proof, and the reader forwards its request. Nor is a list
//! older than what was served: an apiserver that lags is not believed. When nothing else comes for
//! [`RESTORED_AFTER`], the storage was restored, and the cache starts over.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use crate::encoding::{ListPage, WatchEvent};
use crate::error::{CacheError, NotFresh, OverBudget};
use crate::resource_version::ResourceVersion;
use crate::waiting::Proof;

use super::stream::StreamEnd;
use super::{ListRequest, ListerWatcher, Stop, Upstream, WatchRequest};

/// A collection up to this size is probed as a whole, a larger one by a single object.
const WHOLE_OBJECTS: usize = 64;
const WHOLE_BYTES: usize = 256 << 10;

/// How long a probe may take to answer: an apiserver whose own cache lags looks into its storage
/// after three seconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest time between the beginnings of two probes, so that what a storm of readers costs
/// depends on how long it lasts and not on how many they are.
const PACE: Duration = Duration::from_millis(20);

/// How long the main stream may take to pass X before a fence is opened.
const STREAM_GRACE: Duration = Duration::from_millis(100);

/// The shortest time between the beginnings of two fences. One that brings the proof lasts as long;
/// one that the stream overtook says that the stream is late, and deserves more patience.
const FENCE_PACE: Duration = Duration::from_secs(1);

/// `timeoutSeconds` of a fence: the bookmark comes two seconds before the end.
const FENCE_TIMEOUT: Duration = Duration::from_secs(3);

/// When to give up on a fence that does not even end.
const FENCE_PATIENCE: Duration = Duration::from_secs(4);

/// How long consistent lists must all be older than what was served before the storage counts as
/// restored.
const RESTORED_AFTER: Duration = Duration::from_secs(60);

/// Answers those who wait for a proof.
pub(super) struct Prober<'a, L> {
    upstream: &'a Upstream<'a, L>,
    /// Since when probes have been older than what was served, and what that was.
    older: Option<(Instant, ResourceVersion)>,
    /// When the next fence may begin.
    next_fence: Instant,
}

impl<'a, L: ListerWatcher> Prober<'a, L> {
    pub(super) fn new(upstream: &'a Upstream<'a, L>) -> Self {
        Self {
            upstream,
            older: None,
            next_fence: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) -> Result<Infallible, Stop> {
        let mut next = Instant::now();
        loop {
            tokio::time::sleep_until(next).await;
            let readers = self.upstream.shared.freshness.demand().await;
            next = Instant::now() + PACE;
            let proof = self.prove().await?;
            for ((), reader) in readers {
                let _ = reader.send(proof.clone()); // a reader that left needs no answer
            }
        }
    }

    async fn prove(&mut self) -> Result<Proof, Stop> {
        let Some(held) = self.upstream.writer.lock().snapshot() else {
            return Ok(Err(CacheError::NotReady));
        };
        self.upstream.shared.counters.probes.bump();
        let small = held.len() < WHOLE_OBJECTS && held.bytes() <= WHOLE_BYTES;
        let limit = if small { held.len() + 1 } else { 1 };
        let served = held.resource_version().max(self.upstream.shared.promised());
        drop(held); // do not hold old objects across the request
        let request = ListRequest {
            limit: Some(limit),
            ..ListRequest::default()
        };
        let page = tokio::time::timeout(PROBE_TIMEOUT, self.upstream.page(request)).await;
        let Ok(Ok(page)) = page else {
            return Ok(Err(CacheError::NotFresh(NotFresh::Probe)));
        };
        if page.resource_version < served {
            return self.older(served);
        }
        self.older = None;
        self.upstream.shared.saw(page.resource_version);
        let patience = self.next_fence.max(Instant::now() + STREAM_GRACE);
        if let Ok(proof) = tokio::time::timeout_at(patience, self.proof(&page)).await {
            return Ok(proof);
        }
        self.next_fence = Instant::now() + FENCE_PACE;
        self.upstream.shared.counters.fences.bump();
        let fenced = tokio::time::timeout(FENCE_PATIENCE, self.fence(&page)).await;
        fenced.unwrap_or(Ok(()))?;
        Ok(self
            .compare(&page)
            .unwrap_or(Err(CacheError::NotFresh(NotFresh::Behind))))
    }

    /// The probe was below what was served. As long as the stream moves on, the storage is the same.
    fn older(&mut self, served: ResourceVersion) -> Result<Proof, Stop> {
        let now = Instant::now();
        let (since, then) = *self.older.get_or_insert((now, served));
        if then != served {
            self.older = Some((now, served));
        } else if now - since >= RESTORED_AFTER {
            return Err(Stop::Restored);
        }
        Ok(Err(CacheError::NotFresh(NotFresh::Older)))
    }

    /// What the cache is worth now, compared with what the probe found; `None` for no proof.
    fn compare(&self, probe: &ListPage) -> Option<Proof> {
        let writer = self.upstream.writer.lock();
        let Some(held) = writer.snapshot() else {
            return Some(Err(CacheError::NotReady));
        };
        if writer.is_complete_at(probe.resource_version) {
            return Some(Ok(held));
        }
        drop(writer);
        let is_whole = probe.continue_token.is_none() && held.holds_exactly(&probe.objects);
        is_whole.then(|| {
            let proven = held.labelled(probe.resource_version);
            self.upstream.shared.promise(&proven);
            Ok(proven)
        })
    }

    /// Waits for the stream to bring what [`Self::compare`] misses.
    async fn proof(&self, probe: &ListPage) -> Proof {
        let mut progress = self.upstream.shared.progress.subscribe();
        loop {
            if let Some(proof) = self.compare(probe) {
                return proof;
            }
            progress
                .changed()
                .await
                .expect("the sender lives as long as the reflector");
        }
    }

    /// Watches until there is a proof, or the fence ends without.
    async fn fence(&self, probe: &ListPage) -> Result<(), OverBudget> {
        let after = self.upstream.writer.lock().resumes_after();
        let request = WatchRequest {
            resource_version: Some(after),
            send_initial_events: false,
            timeout: FENCE_TIMEOUT,
        };
        let Ok(mut stream) = self.upstream.open(request).await else {
            return Ok(());
        };
        loop {
            let event = tokio::select! {
                biased; // a seed of the simulation decides everything
                _ = self.proof(probe) => return Ok(()), // the main stream was faster
                event = stream.next() => event,
            };
            let mut writer = self.upstream.writer.lock();
            match event {
                Ok(WatchEvent::Object { event_type, object }) => {
                    writer.apply(event_type, object)?
                }
                Ok(WatchEvent::Bookmark {
                    resource_version,
                    template,
                    ..
                }) => {
                    writer.advance(resource_version, Some(template));
                }
                Err(StreamEnd::Malformed(_)) => {
                    self.upstream.shared.counters.malformed.bump();
                    return Ok(());
                }
                Ok(WatchEvent::Error(_)) | Err(StreamEnd::Clean | StreamEnd::Cut(_)) => {
                    return Ok(());
                }
            }
        }
    }
}
