//! One renewal, from its body to its answer.
//!
//! Owns: the answer of one that is absorbed or written, and what the ledger is told. Refuses: to
//! authenticate or permit anybody, which has happened, and to understand a body that
//! [`Lease::compare`] does not.
//! Invariant: whatever is not certain is [`Renewed::Forward`], with the client's own bytes.
//!
//! ```text
//!  body ─► compare ─► decide ─┬─ Absorb ──► 200 from the cached lease
//!                             ├─ Write ───► PUT ─► the apiserver's answer
//!                             ├─ Wait ────► its turn, then as above
//!                             ├─ Forward ─► as it came
//!                             └─ Shed ────► 429
//! ```

use std::{hash::BuildHasher, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use watershed_cache::{Object, WatchCache, encoding::Encoding};
use watershed_heartbeats::{Asked, Lease, Needless, Outcome, RETRY_AFTER, Renewal};

use super::{
    Absorber, Beat, Head, Renewed,
    leases::{self, Seen, lease_in},
    ledger::{Followed, Pending, Step},
};
use crate::{body::Body, negotiate::ErrorsOf, status::Status};

/// The longest answer to a write that is read. In bytes.
pub(super) const ANSWER_MAX: usize = 64 << 10;
/// A write that takes longer has failed; a kubelet gives up after 10 s. Nothing is concluded from a
/// client that does so earlier: it may ask for any deadline.
pub(crate) const WRITE_MAX: Duration = Duration::from_secs(9);
/// How long a conflict waits for the cache to have what it is about.
const CATCH_UP: Duration = Duration::from_secs(2);

impl Absorber {
    /// Absorbs or writes a renewal, or says that it is to be forwarded. The caller tells
    /// [`Self::forwarded`] what came of that.
    pub(super) async fn renew(&self, put: &Beat<'_>) -> Renewed {
        let Some(seen) = Seen::find(&self.caches, put.head.sent).await else {
            return self.forward("unready");
        };
        let Some(cached) = seen.lease(&put.head.node) else {
            return self.forward("no-lease");
        };
        let compared = leases::read(&cached)
            .ok()
            .and_then(|lease| Some((lease.compare(put.body).ok()?, lease)));
        let Some((renewal, lease)) = compared else {
            return self.forward("differs");
        };
        // Chosen before it is decided: what cannot be answered in the client's encoding is forwarded.
        let Some(shown) = self.shown(put.head, &seen, &cached).await else {
            return self.forward("encoding");
        };
        let owner = lease.owner().filter(|_| !lease.is_being_deleted());
        let step = self.ledger.decide(&Asked {
            node: &put.head.node,
            connection: self.ids.hash_one(put.connection.peer),
            renewal,
            stored: lease.renew_time(),
            owner,
            node_uid: seen.node_uid(&put.head.node),
            fresh: seen.is_fresh(),
        });
        self.follow(put, (&seen, renewal), (cached, &shown), step)
            .await
    }

    async fn follow(
        &self,
        put: &Beat<'_>,
        (seen, renewal): (&Seen, Renewal),
        (cached, shown): (Arc<Object>, &Object),
        step: Step,
    ) -> Renewed {
        let step = match step {
            Step::Wait(parked) => parked.await,
            step => step,
        };
        match step {
            Step::Absorb => self.absorbed(shown, renewal),
            Step::Forward(reason) => self.forward(reason.as_str()),
            Step::Shed => Renewed::Here(self.shed(put.errors)),
            Step::Write(pending) => {
                // It may have waited: the newest lease is the one to be written to.
                let cached = seen.lease(&put.head.node).unwrap_or(cached);
                // Boxed: most renewals are absorbed and need no room for it.
                let writing = self.write(put, (seen, renewal), (cached, shown), pending);
                Box::pin(writing).await
            }
            Step::Wait(_) => unreachable!("a turn is no other place in the queue"),
        }
    }

    /// The cached lease as the client reads it: the same state, maybe in another encoding.
    async fn shown(&self, head: &Head, seen: &Seen, cached: &Arc<Object>) -> Option<Arc<Object>> {
        if head.sent == head.accepted {
            return Some(Arc::clone(cached));
        }
        let other = Seen::find(&self.caches, head.accepted).await?;
        let shown = other.lease(&head.node)?;
        let is_same = shown.uid() == cached.uid()
            && shown.resource_version() == cached.resource_version()
            && seen.is_fresh();
        is_same.then_some(shown)
    }

    /// Writes a renewal, and once more after a conflict.
    async fn write(
        &self,
        put: &Beat<'_>,
        (seen, renewal): (&Seen, Renewal),
        (mut cached, shown): (Arc<Object>, &Object),
        mut pending: Pending,
    ) -> Renewed {
        loop {
            let body = leases::read(&cached)
                .map_err(|_unread| Needless::OtherLease)
                .and_then(|lease| pending.body(&lease));
            let (outcome, answer) = match body {
                Err(needless) => (Outcome::Needless(needless), None),
                Ok(body) => {
                    let (outcome, answer) = self.put(put, body).await;
                    (outcome, Some(answer))
                }
            };
            let ended = pending.end(outcome);
            self.metrics.wrote(outcome);
            pending = match ended {
                Followed::Relay => {
                    return Renewed::Here(answer.expect("only what was sent is relayed"));
                }
                Followed::Absorb => {
                    let newest = seen.lease(&put.head.node);
                    let same = put.head.sent == put.head.accepted;
                    let newest = newest.filter(|_| same);
                    return self.absorbed(newest.as_deref().unwrap_or(shown), renewal);
                }
                Followed::Forward => return self.forward("another-lease"),
                Followed::Again(pending) => pending,
            };
            match newest(&seen.leases, &put.head.node).await {
                Some(lease) => cached = lease,
                None => return self.forward("conflict"),
            }
        }
    }

    /// One PUT under the node's identity, and what came of it.
    async fn put(&self, put: &Beat<'_>, body: Vec<u8>) -> (Outcome, Response<Body>) {
        let mut parts = put.parts.clone();
        parts.headers.remove(header::CONTENT_LENGTH);
        let request = Request::from_parts(parts, Body::full(body));
        let errors = put.errors.format();
        let sending =
            self.passthrough
                .forward(request, put.connection, (put.identity, None), &errors);
        let answering = async {
            let (head, body) = sending.await.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head, body.to_bytes()))
        };
        match timeout(WRITE_MAX, answering).await {
            Ok(Ok((head, body))) => {
                let outcome = outcome(head.status, put.head.accepted, &body);
                (outcome, Response::from_parts(head, Body::full(body)))
            }
            // Lost halfway, longer than any lease, or late.
            Ok(Err(_)) | Err(_) => {
                let status = Status::request_timeout();
                let response = status.into_response(&errors);
                (Outcome::Failed, response.map(Body::full))
            }
        }
    }

    /// 200 with the lease as it is cached, and the renewal's time.
    fn absorbed(&self, shown: &Object, renewal: Renewal) -> Renewed {
        let Ok(lease) = leases::read(shown) else {
            return self.forward("differs");
        };
        // Another connection of the node may have renewed it later: no answer goes back in time.
        let newest = renewal.renew_time.max(lease.renew_time());
        self.metrics.absorbed();
        Renewed::Here(answer(shown.encoding(), lease.renewed(newest)))
    }

    fn shed(&self, errors: ErrorsOf<'_>) -> Response<Body> {
        self.metrics.refused();
        let seconds = u32::try_from(RETRY_AFTER.as_secs()).unwrap_or(1);
        let status = Status::too_many_requests(
            "the apiserver takes no writes of leases, please try again later",
            seconds,
        );
        status.into_response(&errors.format()).map(Body::full)
    }

    pub(super) fn forward(&self, reason: &'static str) -> Renewed {
        self.metrics.forwarded(reason);
        Renewed::Forward
    }

    /// Takes in what the apiserver answered to a renewal that was forwarded, or that it did not
    /// answer a client that waited for `patience`.
    pub(crate) fn forwarded(&self, head: &Head, status: StatusCode, patience: Duration) {
        if !head.is_renewal() {
            return; // nodes and leases may be in different stores
        }
        let succeeded = match outcome_of(status) {
            Outcome::Written(_) => true,
            Outcome::Failed if status == StatusCode::GATEWAY_TIMEOUT && patience < WRITE_MAX => {
                return;
            }
            Outcome::Failed => false,
            Outcome::Needless(_) | Outcome::Conflict | Outcome::Missing | Outcome::Refused => {
                return;
            }
        };
        self.ledger
            .with(|now, table| table.forwarded(now, succeeded));
    }
}

/// 200 with an object.
pub(super) fn answer(encoding: Encoding, mut body: Vec<u8>) -> Response<Body> {
    if encoding == Encoding::Json {
        body.push(b'\n');
    }
    let mut response = Response::new(Body::full(body));
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_static(encoding.media_type());
    headers.insert(header::CONTENT_TYPE, media_type);
    let private = HeaderValue::from_static("no-cache, private");
    headers.insert(header::CACHE_CONTROL, private);
    response
}

/// The newest lease, past the cache if need be.
pub(super) async fn newest(leases: &WatchCache, node: &str) -> Option<Arc<Object>> {
    let snapshot = leases.consistent(CATCH_UP).await.ok()?;
    lease_in(&snapshot, node)
}

/// What an answer says about a write, with the version it reads from the body.
fn outcome(status: StatusCode, encoding: Encoding, body: &[u8]) -> Outcome {
    match outcome_of(status) {
        Outcome::Written(_) => {
            let body = match encoding {
                Encoding::Json => body.strip_suffix(b"\n").unwrap_or(body),
                Encoding::Protobuf => body,
            };
            let lease = Lease::read(leases::form(encoding), body);
            Outcome::Written(lease.map_or(0, |lease| lease.resource_version()))
        }
        outcome => outcome,
    }
}

pub(super) fn outcome_of(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Written(0),
        404 => Outcome::Missing,
        409 => Outcome::Conflict,
        429 | 500..=599 => Outcome::Failed,
        _ => Outcome::Refused,
    }
}
