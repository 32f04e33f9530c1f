//! A short, bounded memory of answers that are costly to get: token and access reviews, compressed
//! lists.
//!
//! Owns expiry per answer, the bound in bytes, and single flight: callers that ask the same while
//! an answer is being fetched wait for that one. A caller that goes away hands the fetching on to
//! the next.
//!
//! Refuses to remember errors.
//!
//! What has expired is let go by a task of its owner ([`Memo::forget_expired`]): in passing it would
//! be only when somebody asks, and a proxy whose clients have all their watches is asked nothing.
//!
//! Invariant: no answer is used at or after the instant it expires at, counted from before it was
//! asked for, whatever the eviction of the underlying cache does.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use moka::Expiry;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::time::Instant;

/// Between two times at which what has expired is let go; the cache itself counts in seconds.
const FORGET_INTERVAL: Duration = Duration::from_secs(5);

/// Answers by key. Keys are compared in full.
pub(crate) struct Memo<K, V> {
    answers: Cache<K, Arc<Answer<V>>>,
}

/// A remembered answer.
pub(crate) struct Answer<V> {
    /// What was answered.
    pub(crate) value: V,
    /// From when on it must be asked again.
    pub(crate) expires_at: Instant,
    ttl: Duration,
    bytes: u32,
}

/// What a fetch returns.
pub(crate) struct Fetched<V> {
    /// The answer.
    pub(crate) value: V,
    /// How long it holds; zero is "for this request only".
    pub(crate) ttl: Duration,
    /// What remembering it costs, key included, in bytes.
    pub(crate) bytes: usize,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was remembered, or another request was already asking.
    Memory,
    /// This request asked.
    Fetch,
}

impl<K, V> Memo<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A memory of at most `bytes_max`; beyond it the least useful answers are forgotten.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self::with(bytes_max, EvictionPolicy::tiny_lfu())
    }

    /// The same for questions that are soon asked no more: beyond the limit the answers least
    /// recently used are forgotten, however often they were used before.
    pub(crate) fn of_recent(bytes_max: u64) -> Self {
        Self::with(bytes_max, EvictionPolicy::lru())
    }

    fn with(bytes_max: u64, policy: EvictionPolicy) -> Self {
        let answers = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_, answer: &Arc<Answer<V>>| answer.bytes)
            .eviction_policy(policy)
            .expire_after(ByAnswer)
            .build();
        Self { answers }
    }

    /// What is remembered, in bytes; what came and went in the last moments may not be counted yet.
    pub(crate) fn bytes(&self) -> u64 {
        self.answers.weighted_size()
    }

    /// Lets go of what has expired, for as long as it is polled.
    pub(crate) fn forget_expired(&self) -> impl Future<Output = ()> + Send + 'static {
        let answers = self.answers.clone();
        async move {
            loop {
                tokio::time::sleep(FORGET_INTERVAL).await;
                answers.run_pending_tasks().await;
            }
        }
    }

    /// Does the counting that is otherwise done in passing.
    #[cfg(test)]
    pub(crate) async fn settle(&self) {
        self.answers.run_pending_tasks().await;
    }

    /// The answer for `key`, if it is remembered. Needs little room, where [`Self::answer`] needs
    /// that of the fetch several times over.
    pub(crate) async fn remembered(&self, key: &K) -> Option<Arc<Answer<V>>> {
        let answer = self.answers.get(key).await?;
        if answer.expires_at > Instant::now() {
            return Some(answer);
        }
        Box::pin(self.answers.invalidate(key)).await;
        None
    }

    /// The answer for `key`: remembered, or fetched once for everybody who asks meanwhile.
    ///
    /// # Errors
    /// The fetch's, to everybody who waited for it. The next caller fetches again.
    pub(crate) async fn answer<E, F>(
        &self,
        key: K,
        fetch: F,
    ) -> Result<(Arc<Answer<V>>, Origin), Arc<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<Fetched<V>, E>>,
    {
        if let Some(answer) = self.remembered(&key).await {
            return Ok((answer, Origin::Memory));
        }
        let mut origin = Origin::Memory;
        let fetch = async {
            origin = Origin::Fetch;
            fetch_now(fetch).await
        };
        let answer = self.answers.try_get_with(key, fetch).await?;
        Ok((answer, origin))
    }
}

/// Fetches without remembering.
///
/// # Errors
/// The fetch's.
pub(crate) async fn fetch_now<V, E>(
    fetch: impl Future<Output = Result<Fetched<V>, E>>,
) -> Result<Arc<Answer<V>>, E> {
    let asked_at = Instant::now();
    let Fetched { value, ttl, bytes } = fetch.await?;
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Ok(Arc::new(Answer {
        value,
        expires_at: asked_at + ttl,
        ttl,
        bytes,
    }))
}

/// Lets the cache drop what has expired; correctness does not rest on it.
struct ByAnswer;

impl<K, V> Expiry<K, Arc<Answer<V>>> for ByAnswer {
    fn expire_after_create(
        &self,
        _key: &K,
        answer: &Arc<Answer<V>>,
        _created_at: std::time::Instant,
    ) -> Option<Duration> {
        Some(answer.ttl)
    }

    fn expire_after_update(
        &self,
        _key: &K,
        answer: &Arc<Answer<V>>,
        _updated_at: std::time::Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(answer.ttl)
    }
}

#[cfg(test)]
mod tests;
