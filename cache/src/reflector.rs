//! Lists and watches one resource upstream and feeds the writer of its cache.
//!
//! Owns the state machine (`reflector/machine.rs`), the proofs of freshness (`reflector/probe.rs`),
//! the questions about the past (`reflector/historian.rs`) and the pace of retries. It refuses to
//! know HTTP: [`ListerWatcher`] moves raw bodies. Machine and prober are two futures of one task
//! that share the one writer; whichever stream delivers an event first applies it, and the other's
//! copy is ignored, because both streams are gapless from a point at or below the own version. The
//! invariant: the own version never goes back. A list older than what the cache has served is
//! discarded, however often that takes; only a restored storage, which nothing but older consistent
//! lists for a minute betrays, empties the cache and starts it over.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;

use crate::encoding::StatusError;
use crate::error::OverBudget;
use crate::watch_cache::Writer;

mod delays;
mod historian;
mod machine;
mod probe;
mod request;
mod stream;
#[cfg(test)]
mod tests;

pub use request::{ListRequest, WatchRequest};

use historian::Historian;
use machine::Machine;
use probe::Prober;

/// The way to the apiserver: raw bodies of one resource in one encoding. Implementations add the
/// path, the encoding's media type and credentials, and bound the size of a list body.
pub trait ListerWatcher: Send + Sync {
    /// Body of a watch, in chunks cut anywhere.
    type Body: Stream<Item = Result<Bytes, UpstreamError>> + Send + Unpin;

    /// Sends a LIST and returns the whole body of a 200.
    fn list(
        &self,
        request: ListRequest,
    ) -> impl Future<Output = Result<Bytes, UpstreamError>> + Send;

    /// Sends a WATCH and returns the body of a 200 as soon as its head has arrived.
    fn watch(
        &self,
        request: WatchRequest,
    ) -> impl Future<Output = Result<Self::Body, UpstreamError>> + Send;
}

/// Why the apiserver did not give what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// It answered with an error.
    #[error("the apiserver answered {code} {reason}: {message}")]
    Status {
        /// HTTP status.
        code: u16,
        /// `reason` of the Status body, if it was one.
        reason: String,
        /// `message` of the Status body, or the beginning of another body.
        message: String,
        /// Seconds from `Retry-After`.
        retry_after: Option<u32>,
    },
    /// It could not be reached, or the connection broke.
    #[error("the connection failed: {0}")]
    Transport(String),
}

impl From<StatusError> for UpstreamError {
    fn from(status: StatusError) -> Self {
        let StatusError {
            code,
            reason,
            message,
            retry_after,
        } = status;
        Self::Status {
            code,
            reason,
            message,
            retry_after,
        }
    }
}

/// How a reflector is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReflectorStatus {
    /// The first sync is under way.
    Syncing,
    /// Events flow.
    Live,
    /// The stream is down and will be opened again; reads are still answered from what is there.
    Retrying {
        /// What went wrong last.
        last_error: String,
    },
    /// The apiserver answers 401 or 403. On 403 the cache is closed and the resource should pass
    /// through. Retried slowly.
    Denied {
        /// What it said.
        message: String,
    },
    /// The apiserver answers 404: the resource was removed. The cache is closed. Retried slowly.
    Gone,
    /// The objects do not fit [`Options::objects_bytes`](crate::Options::objects_bytes); the
    /// reflector has ended.
    OverBudget {
        /// What they would take.
        bytes: usize,
    },
    /// The reflector has ended.
    Stopped,
}

/// Timings and limits of a reflector.
#[derive(Clone, Debug)]
pub struct ReflectorOptions {
    /// Objects per page of a paged LIST (500).
    pub page_size: usize,
    /// Largest watch frame (16 MiB and some): a larger one counts as malformed and drops the
    /// connection.
    pub frame_max: usize,
    /// Shortest `timeoutSeconds` of a watch (300 s); each is random up to twice this.
    pub watch_timeout_min: Duration,
    /// Silence after which a stream counts as dead and is opened anew (150 s).
    pub silence_max: Duration,
    /// How long one request may take to answer (60 s).
    pub request_timeout: Duration,
    /// Seed of jitter and timeouts; `None` for a random one.
    pub seed: Option<u64>,
}

impl Default for ReflectorOptions {
    fn default() -> Self {
        Self {
            page_size: 500,
            frame_max: (16 << 20) + (64 << 10),
            watch_timeout_min: Duration::from_secs(300),
            silence_max: Duration::from_secs(150),
            request_timeout: Duration::from_secs(60),
            seed: None,
        }
    }
}

/// Feeds one writer.
#[derive(Debug)]
pub struct Reflector;

impl Reflector {
    /// Runs until `shutdown` resolves or the objects outgrow their budget. The writer is dropped
    /// then, which closes the cache; the last status says why.
    pub async fn run<L: ListerWatcher>(
        writer: Writer,
        lister_watcher: L,
        options: ReflectorOptions,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let shared = writer.shared();
        let writer = Mutex::new(writer);
        let upstream = Upstream {
            shared,
            writer: &writer,
            lister_watcher: &lister_watcher,
            options: &options,
        };
        tokio::pin!(shutdown);
        loop {
            let ended: Result<Infallible, Stop> = tokio::select! {
                biased; // the machine, which may always have more to do, comes last
                () = &mut shutdown => {
                    upstream.shared.set_status(ReflectorStatus::Stopped);
                    return;
                }
                ended = Prober::new(&upstream).run() => ended,
                never = Historian::new(&upstream).run() => match never {},
                ended = Machine::new(&upstream).run() => ended.map_err(Stop::from),
            };
            let resource = &upstream.shared.resource.resource;
            match ended {
                Ok(never) => match never {},
                Err(Stop::OverBudget(OverBudget { bytes, budget })) => {
                    tracing::warn!(%resource, bytes, budget, "objects outgrew their budget");
                    upstream
                        .shared
                        .set_status(ReflectorStatus::OverBudget { bytes });
                    return;
                }
                Err(Stop::Restored) => {
                    tracing::warn!(%resource, "the apiserver's versions went back, starting over");
                    upstream.shared.set_status(ReflectorStatus::Syncing);
                    upstream.writer.lock().start_over();
                }
            }
        }
    }
}

/// Why machine and prober cannot go on.
#[derive(Debug)]
enum Stop {
    /// The objects do not fit.
    OverBudget(OverBudget),
    /// Every consistent list of a minute was older than what had been served before it was asked
    /// for. No lagging apiserver does that: the storage was restored, and what the cache holds never
    /// happened.
    Restored,
}

impl From<OverBudget> for Stop {
    fn from(over: OverBudget) -> Self {
        Self::OverBudget(over)
    }
}

/// What the two futures of a reflector share.
struct Upstream<'a, L> {
    shared: std::sync::Arc<crate::watch_cache::Shared>,
    writer: &'a Mutex<Writer>,
    lister_watcher: &'a L,
    options: &'a ReflectorOptions,
}
