//! Asking the apiserver for a review: the seam, and the retries around it.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// One attempt and all its retries together, as the apiserver's webhooks.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts per review.
const ATTEMPTS: u32 = 5;
/// Before the first retry; grows by half each time.
const BACKOFF: Duration = Duration::from_millis(500);
/// Reviews in flight. Further ones wait, within their own timeout.
const IN_FLIGHT_MAX: usize = 256;

/// Where reviews are created.
pub(crate) trait Reviews: Send + Sync + 'static {
    /// Posts `body` (JSON) to `path` with the proxy's own credentials and returns the body of a
    /// 2xx answer. One attempt; the caller retries. The body may hold a token: it must not be
    /// logged.
    fn create(
        &self,
        path: &'static str,
        body: Bytes,
    ) -> impl Future<Output = Result<Bytes, ReviewError>> + Send;
}

/// Why there is no answer to a review.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReviewError {
    /// The apiserver answered with an error.
    #[error("the apiserver answered {code} {reason}: {message}")]
    Status {
        /// HTTP code.
        code: u16,
        /// Reason of the Status; may be empty.
        reason: String,
        /// Its message.
        message: String,
        /// Seconds, from header or details.
        retry_after: Option<u32>,
    },
    /// No answer arrived.
    #[error("no answer: {0}")]
    Transport(String),
    /// The answer was no review.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
    /// The time was up.
    #[error("no answer within {} s", REVIEW_TIMEOUT.as_secs())]
    Timeout,
}

impl ReviewError {
    /// Whether another attempt may help, by the apiserver's webhook rule.
    fn is_transient(&self) -> bool {
        match self {
            Self::Status {
                code: 429 | 504, ..
            } => true,
            Self::Status {
                code: 500, reason, ..
            } if reason == "InternalError" => true,
            Self::Status { retry_after, .. } => retry_after.is_some(),
            Self::Transport(_) => true,
            Self::Malformed(_) | Self::Timeout => false,
        }
    }

    fn retry_after(&self) -> Duration {
        match self {
            Self::Status {
                retry_after: Some(seconds),
                ..
            } => Duration::from_secs(u64::from(*seconds)),
            Self::Status { .. } | Self::Transport(_) | Self::Malformed(_) | Self::Timeout => {
                Duration::ZERO
            }
        }
    }
}

/// Creates reviews with a bound on time, attempts and number in flight.
pub(crate) struct Reviewer<R> {
    reviews: R,
    in_flight: Semaphore,
}

impl<R: Reviews> Reviewer<R> {
    /// A reviewer that asks `reviews`.
    pub(crate) fn new(reviews: R) -> Self {
        Self {
            reviews,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        }
    }

    /// Creates a review and reads its answer.
    ///
    /// # Errors
    /// The last attempt's, or [`ReviewError::Timeout`].
    pub(crate) async fn create<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: Bytes,
    ) -> Result<T, ReviewError> {
        let answer = timeout(REVIEW_TIMEOUT, self.attempt(path, body))
            .await
            .map_err(|_| ReviewError::Timeout)??;
        serde_json::from_slice(&answer).map_err(|error| ReviewError::Malformed(error.to_string()))
    }

    /// The requests are boxed, so that only reviews in flight have room for one: after a storm tens
    /// of thousands wait here for their turn.
    async fn attempt(&self, path: &'static str, body: Bytes) -> Result<Bytes, ReviewError> {
        let _place = self
            .in_flight
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let mut backoff = BACKOFF;
        for _ in 1..ATTEMPTS {
            match Box::pin(self.reviews.create(path, body.clone())).await {
                Err(error) if error.is_transient() => {
                    let jittered = backoff.mul_f64(1.0 + 0.2 * fastrand::f64());
                    sleep(jittered.max(error.retry_after())).await;
                    backoff = backoff.mul_f64(1.5);
                }
                settled => return settled,
            }
        }
        Box::pin(self.reviews.create(path, body)).await
    }
}
