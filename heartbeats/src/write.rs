//! One write of a renewal, from the decision to its end.
//!
//! Owns the bytes that are sent. Refuses to make any that would take the store back in time, or that
//! are of another lease than the one that was renewed.

use std::sync::Arc;

use crate::{Lease, MicroTime, Moment, Uid};

/// A renewal that is to be written. It is the licence for one write.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a write counts as under way until it is finished, or its client is gone"]
pub struct Write {
    pub(crate) node: Arc<str>,
    pub(crate) uid: Uid,
    pub(crate) renew_time: MicroTime,
    /// When the kubelet said it.
    pub(crate) heard_at: Moment,
    /// When it was sent; the last attempt.
    pub(crate) sent_at: Moment,
    pub(crate) attempt: u8,
}

/// Why there is nothing to write into a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Needless {
    /// The store has it already, or something newer.
    #[error("the lease says the same or a later time already")]
    Stored,
    /// The renewal was of another lease.
    #[error("the lease is another one of the same name")]
    OtherLease,
}

/// The body of a write: the lease as it is now, its uid and resource version included, with the
/// renewal's time. The only way to get one.
pub(crate) fn body(
    uid: Uid,
    renew_time: MicroTime,
    lease: &Lease<'_>,
) -> Result<Vec<u8>, Needless> {
    if lease.uid() != uid || lease.is_being_deleted() {
        return Err(Needless::OtherLease);
    }
    if lease.renew_time() >= renew_time {
        return Err(Needless::Stored);
    }
    Ok(lease.renewed(renew_time))
}

impl Write {
    /// The body, to be PUT under the node's own identity.
    ///
    /// # Errors
    ///
    /// If the newest known lease needs no such write: then answer the client from that lease, or
    /// forward its request, and end the write by [`Outcome::Needless`].
    pub fn body(&self, lease: &Lease<'_>) -> Result<Vec<u8>, Needless> {
        body(self.uid, self.renew_time, lease)
    }

    /// Whose lease.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What is to be written.
    pub const fn renew_time(&self) -> MicroTime {
        self.renew_time
    }

    /// Which lease.
    pub const fn uid(&self) -> Uid {
        self.uid
    }
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200, with this resource version.
    Written(u64),
    /// It was not sent: [`Write::body`] gave none.
    Needless(Needless),
    /// 409.
    Conflict,
    /// 404: lease or namespace is not there.
    Missing,
    /// Another answer that is about this request and not about the upstream: 400, 403, 422.
    Refused,
    /// 429, 5xx, no answer in time, or no connection.
    Failed,
}

/// What to do when a write is over.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    /// Answer the client as the upstream did.
    Relay,
    /// Read the lease anew, past the cache if need be, and write once more.
    Again(Write),
    /// Answer 200 with [`Lease::renewed`] of the newest lease: the store is as new as that.
    Absorb,
    /// Forward the client's request unchanged.
    Forward,
}
