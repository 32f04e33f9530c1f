//! The lease client of a kubelet, as component-helpers `lease/controller.go`, 1.36.
//!
//! ```text
//!           ┌── nothing held ──► GET, or GET node and POST; back off and try again, for ever
//!  sync ────┤                          │ it was there
//!           └── held ──► PUT, up to 5 times at once ──200──► held: the server's answer
//!                          │ 409: GET or create for a new base, which costs one of the five
//!                          └── all failed: as if nothing were held
//! ```
//! Owns the order and the retries of these calls. Refuses to add an owner to a lease that lost it:
//! nobody here takes owners away.
//! Invariant: a lease is renewed from the server's last answer, never from an invented base.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::time::sleep;

use super::client::{Answer, Call, CallError, PROTOBUF};
use super::decode::{Object, unwrap};
use super::encode;
use crate::scenario::Encoding;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// Deadline of one call, retries on `Retry-After` included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Immediate attempts at a renewal before the lease is read again.
const ATTEMPTS: u32 = 5;
/// First and longest wait of the loop that reads or creates.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(7));
/// `nodeLeaseDurationSeconds` of a kubelet that is not told otherwise.
pub(crate) const USUAL_DURATION: u32 = 40;

/// Whoever sends for a lease client, and hears of everything.
pub(crate) trait Sender {
    /// Sends a request; waits and retries where the answer carries `Retry-After`.
    async fn call(&self, call: &Call, limit: Duration) -> Result<Answer, CallError>;
    /// A lease with this `renewTime` goes out next.
    fn renews(&self, renew_time: Timestamp);
    /// A renewal was answered with 200.
    fn renewed(&self);
    /// An answer that a healthy server would not give.
    fn unexpected(&self, what: &str, answer: &Answer);
}

/// A lease and the one who renews it.
#[derive(Debug)]
pub(crate) struct Renewer {
    name: String,
    /// Of the lease; it is renewed four times in that.
    duration_seconds: u32,
    encoding: Encoding,
    /// What is appended to the query of a renewal.
    query: &'static str,
    held: Option<Bytes>,
}

impl Renewer {
    /// As kubelets do it by default.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            duration_seconds: USUAL_DURATION,
            encoding: Encoding::Protobuf,
            query: "",
            held: None,
        }
    }

    /// With a lease of another duration, renewed in another encoding, with more in the query.
    pub(crate) fn with(
        mut self,
        duration_seconds: u32,
        encoding: Encoding,
        query: &'static str,
    ) -> Self {
        (self.duration_seconds, self.encoding, self.query) = (duration_seconds, encoding, query);
        self
    }

    /// Whether the last sync succeeded.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// How long to wait after a sync: a quarter of the duration and up to 4 % more.
    pub(crate) fn pause(&self) -> Duration {
        let quarter = Duration::from_secs(self.duration_seconds.into()) / 4;
        quarter.mul_f64(1.0 + 0.04 * fastrand::f64())
    }

    /// Renews the lease, or creates it.
    pub(crate) async fn sync(&mut self, sender: &impl Sender) {
        if let Some(base) = self.held.take() {
            self.held = self.renew(sender, base).await;
        }
        if self.held.is_none() {
            self.held = match self.read_or_create(sender).await {
                Some((lease, true)) => Some(lease),
                Some((lease, false)) => self.renew(sender, lease).await,
                None => None,
            };
        }
    }

    /// The server's answer; `None` when all attempts failed.
    async fn renew(&self, sender: &impl Sender, mut base: Bytes) -> Option<Bytes> {
        let path = format!("{LEASES}/{}?timeout=10s{}", self.name, self.query);
        for _ in 0..ATTEMPTS {
            let now = Timestamp::now();
            let call = match self.encoding {
                Encoding::Protobuf => {
                    let body = encode::renewed(unwrap(&base).ok()?, now).ok()?;
                    Call::write(Method::PUT, &path, PROTOBUF, body)
                }
                Encoding::Json => {
                    let body = encode::renewed_json(&base, now)?;
                    Call::write(Method::PUT, &path, "application/json", body).json()
                }
            };
            sender.renews(now);
            let answer = sender.call(&call, TIMEOUT).await;
            match expect(sender, "renew the lease", answer, RENEWED) {
                Some(answer) if answer.status == StatusCode::OK => {
                    sender.renewed();
                    return Some(answer.body);
                }
                Some(_) => base = self.read_or_create(sender).await?.0,
                None => {}
            }
        }
        None
    }

    /// The lease, and whether it was created just now; `None` where the owner is not to be had.
    async fn read_or_create(&self, sender: &impl Sender) -> Option<(Bytes, bool)> {
        let read = Call::read(format!("{LEASES}/{}?timeout=10s", self.name));
        let mut wait = BACKOFF.0;
        loop {
            let answer = sender.call(&self.shaped(read.clone()), TIMEOUT).await;
            match expect(sender, "get the lease", answer, FOUND) {
                Some(answer) if answer.status == StatusCode::OK => {
                    return Some((answer.body, false));
                }
                Some(_) => {
                    let owner = self.owner(sender).await?;
                    let now = Timestamp::now();
                    let body = encode::lease(&self.name, &owner, self.duration_seconds, now);
                    let create = format!("{LEASES}?timeout=10s");
                    let create = Call::write(Method::POST, create, PROTOBUF, body);
                    sender.renews(now);
                    let answer = sender.call(&self.shaped(create), TIMEOUT).await;
                    if let Some(answer) = expect(sender, "create the lease", answer, CREATED) {
                        return Some((answer.body, true));
                    }
                }
                None => {}
            }
            sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// UID of the Node, which owns the lease.
    async fn owner(&self, sender: &impl Sender) -> Option<String> {
        let call = Call::read(format!("/api/v1/nodes/{}?timeout=10s", self.name));
        let answer = sender.call(&call, TIMEOUT).await;
        let answer = expect(sender, "get the node", answer, FOUND)?;
        let object = Object::decode(unwrap(&answer.body).ok()?).ok()?;
        (answer.status == StatusCode::OK).then(|| object.metadata.uid.to_owned())
    }

    fn shaped(&self, call: Call) -> Call {
        match self.encoding {
            Encoding::Protobuf => call,
            Encoding::Json => call.json(),
        }
    }
}

const RENEWED: &[StatusCode] = &[StatusCode::OK, StatusCode::CONFLICT];
const FOUND: &[StatusCode] = &[StatusCode::OK, StatusCode::NOT_FOUND];
const CREATED: &[StatusCode] = &[StatusCode::CREATED];

/// The answer if its code is one of `expected`; another code is noted as an error. A lost connection
/// is none: every call of a kubelet is made again.
pub(super) fn expect(
    sender: &impl Sender,
    what: &str,
    answer: Result<Answer, CallError>,
    expected: &[StatusCode],
) -> Option<Answer> {
    let answer = answer.ok()?;
    if expected.contains(&answer.status) {
        return Some(answer);
    }
    sender.unexpected(what, &answer);
    None
}

#[cfg(test)]
mod tests;
