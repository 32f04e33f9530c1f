//! Reads that have to reach the apiserver, identical ones once.
//!
//! When the cache cannot answer a GET or LIST (no proof of freshness, nothing in its history, not
//! filled yet), everybody who wants the same bytes is answered by one read under the proxy's own
//! credentials.
//! Owns: who waits for which read, one task per read while somebody waits, a place in the budget of
//! lists for the whole answer, and the check that no answer is older than what was served before.
//! Refuses: to read for a caller without a [`Permit`], and to use one caller's identity for
//! another. Only what the apiserver says about the objects is shared. Where it fails, refuses the
//! proxy, says nothing or too much, one caller is sent on alone, and the others come back later.
//! Invariant: a read serves only callers that arrived before it was begun, so what it shows is as
//! new as if each had asked.
//!
//! ```text
//!   caller ─► waiting for its key ─► task: take all who wait ─► read ─► answer them ─► again
//!   caller ─► (read under way) ─────────────────────────────────────────► the next read
//! ```

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};
use watershed_cache::{
    ResourceVersion,
    encoding::{self, Encoding},
};
use watershed_config::Limits;

use crate::{
    authz::Permit,
    body::Body,
    budget::{ListBudget, Place},
    drain::Drain,
    passthrough,
    status::Status,
    upstream::{Pool, ResponseBody, Upstream},
};

/// Different reads that somebody waits for; more are told to come back.
const KEYS_MAX: usize = 4096;

/// Reads under way at one time; more wait.
const READS_MAX: usize = 256;

/// Callers that wait for one read; more are told to come back.
const CALLERS_MAX: usize = 250_000;

/// How often an apiserver is asked that answers with the past: it, and another one.
const ATTEMPTS: usize = 2;

/// How long the apiserver may be silent, before its answer or within it: longer than the three
/// seconds it waits for a version that is still to come.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Seconds after which a caller that was not answered should come back.
const RETRY_AFTER: u32 = 1;

/// Headers that belong to one answer to one caller.
const OF_ONE_ANSWER: [HeaderName; 3] = [
    HeaderName::from_static("audit-id"),
    header::DATE,
    header::CONTENT_LENGTH,
];

/// Headers of the request that decide the bytes of the answer. Answers are not asked for
/// compressed, since their version has to be read.
const DECIDING: [HeaderName; 2] = [header::ACCEPT, header::USER_AGENT];

/// Everything that decides the bytes of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SharedKey {
    /// Path and query, as sent.
    target: Box<str>,
    /// The deciding headers, in their order.
    headers: [Option<HeaderValue>; 2],
    /// What the answer is written in and whether it is a list: how its version is read.
    encoding: Encoding,
    is_list: bool,
}

impl SharedKey {
    /// The key of a GET.
    pub(crate) fn new<B>(request: &Request<B>, encoding: Encoding, is_list: bool) -> Self {
        let target = request.uri().path_and_query().map_or("/", |it| it.as_str());
        Self {
            target: target.into(),
            headers: DECIDING.map(|name| request.headers().get(name).cloned()),
            encoding,
            is_list,
        }
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::Empty);
        *request.uri_mut() = self
            .target
            .parse()
            .expect("it was the target of a request that was understood");
        for (name, value) in DECIDING.iter().zip(&self.headers) {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.clone());
            }
        }
        request
    }

    fn version(&self, body: &[u8]) -> Option<ResourceVersion> {
        let read = if self.is_list {
            encoding::list_version
        } else {
            encoding::object_version
        };
        read(self.encoding, body).ok()
    }
}

/// What a caller is told.
#[derive(Debug)]
pub(crate) enum Shared {
    /// The apiserver's answer.
    Answer(Response<Body>),
    /// There is none to be shared: forward the request itself.
    Alone,
    /// There is none, and forwarding would multiply the load.
    Refused(Status),
}

/// What one read came to, for everybody who waited for it.
#[derive(Clone, Debug)]
enum Outcome {
    Answer(Arc<Answer>),
    Refused(Status),
    /// What came cannot be shared.
    Unshareable,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// Whether its length was announced.
    has_length: bool,
}

/// How much a shared read may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Of all answers in flight together, in bytes: `limits.initialListBytes`.
    pub(crate) bytes: u64,
    /// Of one read: `limits.requestTimeout`.
    pub(crate) time: Duration,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        Self {
            bytes: limits.initial_list_bytes,
            time: limits.request_timeout,
        }
    }
}

/// A caller: the lowest version it may be shown, and where it waits.
type Caller = (ResourceVersion, oneshot::Sender<Shared>);

/// The shared reads. Clones are the same.
#[derive(Clone)]
pub(crate) struct SharedReads {
    inner: Arc<Inner>,
}

struct Inner {
    upstream: Upstream,
    drain: Drain,
    /// Keys whose task runs, with those who wait for its next read.
    waiting: Mutex<HashMap<SharedKey, Vec<Caller>>>,
    reads: Semaphore,
    budget: Arc<ListBudget>,
}

impl SharedReads {
    /// Reads from `upstream` in tasks of `drain`; answers take places of `budget`.
    pub(crate) fn new(upstream: Upstream, drain: Drain, budget: Arc<ListBudget>) -> Self {
        Self {
            inner: Arc::new(Inner {
                upstream,
                drain,
                waiting: Mutex::default(),
                reads: Semaphore::new(READS_MAX),
                budget,
            }),
        }
    }

    /// Answers a permitted read by the next read of `key`. An answer that speaks of a version below
    /// `lowest` is not believed. The bounds are those of whoever came first.
    pub(crate) async fn read(
        &self,
        _permit: Permit,
        (key, lowest): (SharedKey, ResourceVersion),
        bounds: Bounds,
    ) -> Shared {
        let Some(answer) = self.join(key, lowest, bounds) else {
            return Shared::Refused(busy());
        };
        // The task is gone only when everything is being cut.
        answer.await.unwrap_or_else(|_cut| Shared::Refused(busy()))
    }

    /// Joins those who wait for the next read of `key`; `None` if there are too many.
    fn join(
        &self,
        key: SharedKey,
        lowest: ResourceVersion,
        bounds: Bounds,
    ) -> Option<oneshot::Receiver<Shared>> {
        let (caller, answer) = oneshot::channel();
        let mut waiting = self.inner.waiting.lock();
        let keys = waiting.len();
        match waiting.entry(key) {
            Entry::Occupied(mut entry) => {
                let callers = entry.get_mut();
                if callers.len() >= CALLERS_MAX {
                    callers.retain(|(_, caller)| !caller.is_closed());
                }
                if callers.len() >= CALLERS_MAX {
                    return None;
                }
                callers.push((lowest, caller));
            }
            Entry::Vacant(_) if keys >= KEYS_MAX => return None,
            Entry::Vacant(entry) => {
                let key = entry.key().clone();
                entry.insert(vec![(lowest, caller)]);
                let inner = Arc::clone(&self.inner);
                self.inner.drain.spawn_background(inner.run(key, bounds));
            }
        }
        Some(answer)
    }
}

impl Inner {
    /// Reads `key` until nobody waits for it.
    async fn run(self: Arc<Self>, key: SharedKey, bounds: Bounds) {
        loop {
            let place = self.reads.acquire().await;
            let Some(callers) = self.take(&key) else {
                return;
            };
            let lowest = callers.iter().map(|(lowest, _)| *lowest).max();
            let reading = self.read(&key, lowest.unwrap_or_default(), bounds.bytes);
            let reading = timeout(bounds.time, reading);
            let outcome = reading
                .await
                .unwrap_or_else(|_elapsed| Outcome::Refused(Status::request_timeout()));
            drop(place);
            for (position, (_, caller)) in callers.into_iter().enumerate() {
                let _ = caller.send(outcome.clone().of_caller(position)); // it may have left
            }
        }
    }

    /// Everybody who waits for `key`; `None`, and its task is to end, if nobody does.
    fn take(&self, key: &SharedKey) -> Option<Vec<Caller>> {
        let mut waiting = self.waiting.lock();
        let callers = waiting.get_mut(key)?;
        callers.retain(|(_, caller)| !caller.is_closed());
        if callers.is_empty() {
            waiting.remove(key);
            return None;
        }
        Some(std::mem::take(callers))
    }

    async fn read(&self, key: &SharedKey, lowest: ResourceVersion, limit: u64) -> Outcome {
        let mut seen = ResourceVersion::default();
        for _ in 0..ATTEMPTS {
            let asking = self.upstream.send(Pool::Own, key.request());
            let answer = match timeout(SILENCE_MAX, asking).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return Outcome::Refused(passthrough::status(&error)),
                Err(_elapsed) => return Outcome::Unshareable,
            };
            if !is_about_objects(answer.status()) {
                tracing::warn!(
                    target = &*key.target,
                    status = %answer.status(),
                    "the proxy was not answered what its clients may read"
                );
                return Outcome::Unshareable;
            }
            let Some(answer) = self.collect(answer, limit).await else {
                return Outcome::Unshareable;
            };
            if answer.status != StatusCode::OK {
                return Outcome::Answer(Arc::new(answer));
            }
            match key.version(&answer.body) {
                Some(version) if version >= lowest => return Outcome::Answer(Arc::new(answer)),
                Some(version) => seen = version,
                None => return Outcome::Unshareable,
            }
        }
        // As an apiserver whose own cache is behind what the client has seen.
        let status = Status::resource_version_too_large(lowest.get(), seen.get());
        Outcome::Refused(status)
    }

    /// The whole answer; `None` when it breaks off, stalls or does not fit.
    async fn collect(&self, answer: Response<ResponseBody>, limit: u64) -> Option<Answer> {
        let (head, mut incoming) = answer.into_parts();
        let mut place = self.budget.growing(limit);
        let mut body = BytesMut::new();
        while let Some(frame) = timeout(SILENCE_MAX, incoming.frame()).await.ok()? {
            if let Ok(data) = frame.ok()?.into_data() {
                if !place.grow(data.len()) {
                    tracing::info!(limit, "an answer to be shared does not fit");
                    return None;
                }
                body.extend_from_slice(&data);
            }
        }
        let held = Held {
            body: body.freeze(),
            _place: place,
        };
        let mut headers = head.headers;
        let has_length = headers.contains_key(header::CONTENT_LENGTH);
        passthrough::remove_hop_by_hop(&mut headers);
        for name in &OF_ONE_ANSWER {
            headers.remove(name);
        }
        let of_priority = |name: &&HeaderName| name.as_str().starts_with("x-kubernetes-pf-");
        let named: Vec<_> = headers.keys().filter(of_priority).cloned().collect();
        for name in named {
            headers.remove(name);
        }
        Some(Answer {
            status: head.status,
            headers,
            body: Bytes::from_owner(held),
            has_length,
        })
    }
}

impl Outcome {
    /// What the caller at this position of those who waited is told.
    fn of_caller(self, position: usize) -> Shared {
        match self {
            Self::Answer(answer) => Shared::Answer(answer.response()),
            Self::Refused(status) => Shared::Refused(status),
            Self::Unshareable if position == 0 => Shared::Alone,
            Self::Unshareable => Shared::Refused(busy()),
        }
    }
}

impl Answer {
    fn response(&self) -> Response<Body> {
        let body = self.body.clone();
        let mut response = Response::new(if self.has_length {
            Body::full(body)
        } else {
            Body::stream(tokio_stream::once(Ok(body)))
        });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// A body that has its place in the budget until the last caller has sent it.
struct Held {
    body: Bytes,
    _place: Place,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Whether everybody would be told the same: not where the apiserver is in trouble, or judges who
/// asks.
fn is_about_objects(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::GATEWAY_TIMEOUT
    )
}

fn busy() -> Status {
    Status::too_many_requests(
        "too many requests for the same objects, please try again later",
        RETRY_AFTER,
    )
}

#[cfg(test)]
mod tests;
