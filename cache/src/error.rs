//! What a caller of the cache can act on.
//!
//! One variant per decision: answer 429, answer 410, answer 504, or forward the request to the
//! apiserver. Nothing here is a bug of the cache; broken invariants panic instead and end the
//! reflector that owns the writer.

use crate::resource_version::ResourceVersion;

/// Why the cache did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The first sync has not finished, or the cache was closed: answer 429 or forward.
    #[error("storage is (re)initializing")]
    NotReady,
    /// The requested version lies below the window: answer 410. The text is the apiserver's.
    #[error("too old resource version: {requested} ({})", oldest.get().saturating_sub(1))]
    Expired {
        /// What the client asked for.
        requested: ResourceVersion,
        /// Version of the oldest event that can still be replayed; `oldest - 1` is the lowest
        /// acceptable start.
        oldest: ResourceVersion,
    },
    /// The requested version was not reached in time: answer 504.
    #[error("resource version {requested} is too large, current is {current}")]
    ResourceVersionTooLarge {
        /// What the client asked for.
        requested: ResourceVersion,
        /// What the cache has.
        current: ResourceVersion,
    },
    /// Freshness could not be proven: forward the request.
    #[error("the cache could not be proven fresh: {0}")]
    NotFresh(NotFresh),
}

/// Why a consistent read could not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFresh {
    /// The caller's own patience ran out.
    #[error("no proof within the caller's timeout")]
    Timeout,
    /// The upstream did not answer the probe, or answered it with an error.
    #[error("the probe failed")]
    Probe,
    /// The upstream answered the probe with a version older than one that was served before.
    #[error("the probe is older than what was served")]
    Older,
    /// The stream and the fence both stayed behind the version the probe found.
    #[error("the stream stayed behind the probe")]
    Behind,
    /// [`Options::consistent_waiters`](crate::Options::consistent_waiters) readers are waiting
    /// already.
    #[error("too many readers are waiting")]
    Busy,
}

/// The objects outgrew [`Options::objects_bytes`](crate::Options::objects_bytes); the cache is
/// closed and the resource should pass through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("objects take {bytes} bytes, over the budget of {budget}")]
pub struct OverBudget {
    /// What the objects take.
    pub bytes: usize,
    /// What they may take.
    pub budget: usize,
}
