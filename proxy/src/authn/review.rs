//! Asking the apiserver for a review: the seam, the queue before it, and the retries around it.
//!
//! After a cut every client comes back at once, and each of its requests needs a review. Who would
//! wait too long for one is told to come back later, with the apiserver's 429: a 500 would make
//! clients list again what they only have to watch on.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use zeroize::Zeroize as _;

use super::turns::Turns;
use crate::status::{self, Status};

/// One attempt and all its retries together, as the apiserver's webhooks.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts per review.
const ATTEMPTS: u32 = 5;
/// Before the first retry; grows by half each time.
const BACKOFF: Duration = Duration::from_millis(500);
/// Reviews in flight. Further ones wait.
const IN_FLIGHT_MAX: usize = 256;
/// Reviews that wait for others, half of them at most for one [`Behalf`] alone. Further ones are
/// refused.
const WAITING_MAX: usize = 100_000;
/// How long one waits for its turn before it is refused: long, since to ask again costs more than to
/// wait.
const WAIT: Duration = Duration::from_secs(30);

/// For whom a review is made. Turns are shared evenly by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Behalf<'a> {
    /// The address of a peer that has shown nothing but a token yet.
    Peer(IpAddr),
    /// The name of a user.
    User(&'a str),
}

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
    #[error("the answer cannot be read at line {line} column {column}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The time was up.
    #[error("no answer within {} s", REVIEW_TIMEOUT.as_secs())]
    Timeout,
    /// Too many others were to be asked first: nobody was asked.
    #[error("too many reviews are waiting")]
    Busy,
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
            Self::Malformed { .. } | Self::Timeout | Self::Busy => false,
        }
    }

    fn retry_after(&self) -> Duration {
        match self {
            Self::Status {
                retry_after: Some(seconds),
                ..
            } => Duration::from_secs(u64::from(*seconds)),
            Self::Status { .. }
            | Self::Transport(_)
            | Self::Malformed { .. }
            | Self::Timeout
            | Self::Busy => Duration::ZERO,
        }
    }

    /// The same without a text that must not be told, wherever the apiserver repeats it.
    pub(crate) fn without(mut self, secret: &str) -> Self {
        if let Self::Status {
            reason, message, ..
        } = &mut self
        {
            for text in [reason, message] {
                *text = without(text, secret);
            }
        }
        self
    }

    /// What a caller is told whose review did not get its turn; `None` where it did.
    pub(crate) fn refusal(&self) -> Option<Status> {
        (*self == Self::Busy).then(|| Status::overloaded(fastrand::u32(status::RETRY_AFTER)))
    }
}

/// `text` with something else in place of `secret`.
pub(super) fn without(text: &str, secret: &str) -> String {
    text.replace(secret, "[the token]")
}

/// Creates reviews with a bound on time, attempts and number in flight.
pub(crate) struct Reviewer<R> {
    reviews: R,
    turns: Arc<Turns>,
}

impl<R: Reviews> Reviewer<R> {
    /// A reviewer that asks `reviews`.
    pub(crate) fn new(reviews: R) -> Self {
        Self {
            reviews,
            turns: Turns::new(IN_FLIGHT_MAX, WAITING_MAX),
        }
    }

    /// Creates a review and reads its answer.
    ///
    /// # Errors
    /// The last attempt's, [`ReviewError::Timeout`], or [`ReviewError::Busy`] when it would have had
    /// to wait too long for its turn.
    pub(crate) async fn create<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: Bytes,
        behalf: Behalf<'_>,
    ) -> Result<T, ReviewError> {
        let turn = self.turns.take(behalf, WAIT).await;
        let _turn = turn.ok_or(ReviewError::Busy)?;
        let answer = timeout(REVIEW_TIMEOUT, self.attempt(path, body))
            .await
            .map_err(|_| ReviewError::Timeout)??;
        let read = serde_json::from_slice(&answer);
        // It repeats the token of a TokenReview.
        if let Ok(mut unshared) = answer.try_into_mut() {
            unshared.as_mut().zeroize();
        }
        // The parser's own words would quote the answer.
        read.map_err(|error| ReviewError::Malformed {
            line: error.line(),
            column: error.column(),
        })
    }

    /// The requests are boxed, so that only reviews in flight have room for one: after a storm tens
    /// of thousands wait here for their turn.
    async fn attempt(&self, path: &'static str, body: Bytes) -> Result<Bytes, ReviewError> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::StatusCode;
    use tokio::{task::JoinSet, time::Instant};

    use super::*;

    struct Silent;

    impl Reviews for Silent {
        async fn create(&self, _: &'static str, _: Bytes) -> Result<Bytes, ReviewError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_for_a_review_is_told_to_come_back() {
        let reviewer = Arc::new(Reviewer::new(Silent));
        let begun = Instant::now();
        let mut asking = JoinSet::new();
        for user in 0..IN_FLIGHT_MAX + WAITING_MAX + 1 {
            let reviewer = Arc::clone(&reviewer);
            asking.spawn(async move {
                let user = user.to_string();
                let behalf = Behalf::User(&user);
                let error = reviewer.create::<()>("/", Bytes::new(), behalf).await;
                (error.expect_err("nobody answers"), begun.elapsed())
            });
        }
        let mut ends = Vec::new();
        while let Some(end) = asking.join_next().await {
            ends.push(end.expect("no task panics"));
        }
        let refused_after = |time| {
            let refused = ends.iter().filter(|end| **end == (ReviewError::Busy, time));
            refused.count()
        };
        assert_eq!(refused_after(Duration::ZERO), 1, "one too many to wait");
        let asked = ends
            .iter()
            .filter(|(error, _)| *error == ReviewError::Timeout)
            .count();
        assert_eq!(1 + refused_after(WAIT) + asked, ends.len());
        // A turn comes at the beginning, and whenever those before ended, up to the end of the wait.
        let turns = 1 + (WAIT.as_secs() / REVIEW_TIMEOUT.as_secs()) as usize;
        assert!((IN_FLIGHT_MAX..=turns * IN_FLIGHT_MAX).contains(&asked));

        let refusal = ReviewError::Busy.refusal().expect("it had no turn");
        assert_eq!(refusal.code(), StatusCode::TOO_MANY_REQUESTS);
        assert!(ReviewError::Timeout.refusal().is_none());
    }
}
