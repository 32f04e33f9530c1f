//! A state that is new enough: waits, proofs, and what to say when there is none.
//!
//! Owns: how long a read waits for the cache, and the translation of "not fresh" into what the
//! client is told.
//! Refuses: to answer from a state that does not meet what was asked, under any pressure.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use watershed_cache::{CacheError, NotFresh, ResourceVersion, Snapshot, WatchCache};

use super::Freshness;

/// How long a read waits for a version that is still to come: as apiserver `watch_cache.go`
/// `blockTimeout`, 1.36.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// How much longer than its patience a watch waits to learn what it waits for: an apiserver that
/// lags itself takes [`FUTURE_WAIT`] to tell.
const WATCH_SLACK: Duration = Duration::from_secs(2);

/// The pause before a probe that failed is repeated for a watch.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// Why there is no state to answer from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stale {
    /// The version asked for did not come: 504.
    TooLarge {
        /// What was asked for.
        requested: ResourceVersion,
        /// How far the cache is.
        current: ResourceVersion,
    },
    /// The cache is being filled.
    NotReady,
    /// There is no proof of freshness. A single read can still be forwarded; a watch ends with the
    /// error of an apiserver whose cache lags.
    Unproven,
    /// Too many are waiting for a proof already: 429.
    Busy,
    /// The version asked for is not in the history; the apiserver may still have it: forward.
    Elsewhere,
}

impl Freshness {
    /// A state that meets this, proofs limited to `patience`.
    pub(super) async fn snapshot(
        self,
        cache: &WatchCache,
        patience: Duration,
    ) -> Result<Snapshot, Stale> {
        match self {
            Self::Any => cache.snapshot().map_err(Stale::from),
            Self::AtLeast(version) if cache.resource_version() >= version => {
                cache.snapshot().map_err(Stale::from)
            }
            // Boxed: most states are there and nobody needs room to wait for them.
            Self::AtLeast(_) | Self::Consistent | Self::Exactly(_) | Self::Stored(_) => {
                Box::pin(self.awaited(cache, patience)).await
            }
        }
    }

    /// The same, waiting for what has to be proven or has yet to come.
    async fn awaited(self, cache: &WatchCache, patience: Duration) -> Result<Snapshot, Stale> {
        match self {
            Self::Any => cache.snapshot(),
            Self::Consistent => cache.consistent(patience).await,
            Self::AtLeast(version) => return at_least(cache, version).await,
            Self::Exactly(version) => {
                let exact = cache.exact(version, patience).await;
                return exact.map_err(|_| Stale::Elsewhere);
            }
            Self::Stored(version) => {
                let current = cache.consistent(patience).await.map_err(Stale::from)?;
                let reached = current.resource_version() >= version;
                return reached.then_some(current).ok_or(Stale::Elsewhere);
            }
        }
        .map_err(Stale::from)
    }

    /// A state to begin a watch with. Watches are not forwarded, so all of `patience` is used: a
    /// probe that failed is repeated, and a stream that lags behind a probe is waited for.
    pub(super) async fn snapshot_to_watch(
        self,
        cache: &WatchCache,
        patience: Duration,
    ) -> Result<Snapshot, Stale> {
        match self {
            Self::Consistent => Box::pin(Self::proven_to_watch(cache, patience)).await,
            Self::Any | Self::AtLeast(_) | Self::Exactly(_) | Self::Stored(_) => {
                self.snapshot(cache, patience).await
            }
        }
    }

    async fn proven_to_watch(cache: &WatchCache, patience: Duration) -> Result<Snapshot, Stale> {
        let deadline = Instant::now() + patience + WATCH_SLACK;
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            match cache.consistent(left()).await {
                Err(CacheError::NotFresh(NotFresh::Behind)) => {
                    let target = cache.upstream_seen(); // at least what the probe found
                    let reached = cache.wait_until_fresh(target, left()).await;
                    return reached.and_then(|()| cache.snapshot()).map_err(Stale::from);
                }
                Err(CacheError::NotFresh(NotFresh::Probe | NotFresh::Older))
                    if left() > PROBE_PAUSE =>
                {
                    tokio::time::sleep(PROBE_PAUSE).await;
                }
                proof => return proof.map_err(Stale::from),
            }
        }
    }
}

/// The stream of a quiet resource moves only when somebody probes, so a version ahead of it is waited
/// for with a probe.
async fn at_least(cache: &WatchCache, version: ResourceVersion) -> Result<Snapshot, Stale> {
    if cache.resource_version() >= version {
        return cache.snapshot().map_err(Stale::from);
    }
    let deadline = Instant::now() + FUTURE_WAIT;
    let left = || deadline.saturating_duration_since(Instant::now());
    let proven = tokio::select! {
        reached = cache.wait_until_fresh(version, FUTURE_WAIT) => {
            return reached.and_then(|()| cache.snapshot()).map_err(Stale::from);
        }
        proof = timeout_at(deadline, cache.consistent(FUTURE_WAIT)) => proof.ok().and_then(Result::ok),
    };
    match proven {
        Some(snapshot) if snapshot.resource_version() >= version => Ok(snapshot),
        proven => {
            let reached = cache.wait_until_fresh(version, left()).await;
            let seen = proven.map(|it| it.resource_version()).unwrap_or_default();
            reached
                .and_then(|()| cache.snapshot())
                .map_err(|error| match Stale::from(error) {
                    Stale::TooLarge { requested, current } => Stale::TooLarge {
                        requested,
                        current: current.max(seen),
                    },
                    stale => stale,
                })
        }
    }
}

impl From<CacheError> for Stale {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::NotReady => Self::NotReady,
            CacheError::ResourceVersionTooLarge { requested, current } => {
                Self::TooLarge { requested, current }
            }
            CacheError::NotFresh(NotFresh::Busy) => Self::Busy,
            CacheError::NotFresh(
                NotFresh::Timeout | NotFresh::Probe | NotFresh::Older | NotFresh::Behind,
            )
            | CacheError::Expired { .. } => Self::Unproven,
        }
    }
}
