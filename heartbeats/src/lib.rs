//! Absorbs the heartbeats of nodes, renewals of leases and what a Node's status says of being alive:
//! most are answered here, and one in a few is written.
//!
//! ```text
//!  body of a PUT ─► Lease::compare ──► Renewal ─► Heartbeats::decide ─► Absorb   answer Lease::renewed
//!                    │ anything else                                  ├► Write    PUT Write::body, then
//!                    ▼                                                │           Heartbeats::finished
//!                 forward                                             ├► Wait     Heartbeats::next says
//!                                                                     ├► Forward  unchanged
//!  watch of leases ─► lease_seen, deleted                             └► Shed     429
//!  watch of nodes ──► deleted
//!
//!  body of a PATCH ─► StatusHeartbeat ─► NodeStatus::compare ─► Heartbeats::decide_status
//!                    │ a real one: fold ─► forward         ├► Absorb   answer NodeStatus::renewed
//!                                                          └► WriteThrough, Forward
//!
//!  every moment:  Heartbeats::changes ─► two peers, Heirs::of(node) ─► Estate::hear
//!  a peer dies:   Estate::died, next ─► PUT Debt::body
//! ```
//!
//! What it owns: the bounds within which this is safe ([`Bounds`]), the proof without which nothing
//! is absorbed ([`Honesty`]), and the order of writes. What it refuses: sockets, tasks, clocks,
//! identities. All times are handed in: [`Moment`] by the caller's clock, [`MicroTime`] by a
//! kubelet's. Whoever calls it has authenticated and authorised the renewal, found the query to be
//! nothing but `timeout`, and writes under the node's own identity.
//!
//! Invariants, each by construction: a `renewTime` comes from a kubelet and a resource version from
//! the upstream, because only [`Lease::renewed`] makes bytes; a write carries uid and version and
//! never an older time, because only [`Write::body`] and [`Debt::body`] give one; what is absorbed
//! grows per uid, and the Node owns the lease, because [`Heartbeats::decide`] asks.
//!
//! ```
//! use std::time::Duration;
//! use watershed_heartbeats::{
//!     Asked, Bounds, Decision, Encoding, Heartbeats, Lease, Limits, Moment, Outcome, Settings, Uid,
//! };
//!
//! let bounds = Bounds::new(Settings {
//!     grace_period: Duration::from_secs(50),
//!     tolerated_losses: 2,
//!     latency_spread: Duration::from_secs(3),
//!     flush_period: None,
//!     peers: true,
//! })?;
//! let mut heartbeats = Heartbeats::new(bounds, Limits::default());
//! heartbeats.set_replicated(true);
//!
//! let lease = |version: u32, second: u32| format!(
//!     r#"{{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{{"name":"n1",
//!     "uid":"314280a2-3adc-4ddb-bad2-43b47c7be773","resourceVersion":"{version}","ownerReferences":
//!     [{{"apiVersion":"v1","kind":"Node","name":"n1","uid":"cfd131fb-cefd-42bc-bb35-eadbd338477a"}}]}},
//!     "spec":{{"leaseDurationSeconds":40,"renewTime":"2026-01-01T00:00:{second:02}.000000Z"}}}}"#
//! );
//! let mut renew = |cached: &str, body: &str, second| {
//!     let cached = Lease::read(Encoding::Json, cached.as_bytes())?;
//!     let now = Moment::after_start(Duration::from_secs(second));
//!     let renewal = cached.compare(body.as_bytes())?;
//!     let decision = heartbeats.decide(now, &Asked {
//!         node: "n1",
//!         connection: 1,
//!         renewal,
//!         stored: cached.renew_time(),
//!         owner: cached.owner(),
//!         node_uid: Uid::parse(b"cfd131fb-cefd-42bc-bb35-eadbd338477a"),
//!         fresh: true,
//!     });
//!     if let Decision::Write(write) = decision {
//!         let put = write.body(&cached)?;
//!         heartbeats.finished(now, write, Outcome::Written(8));
//!         return Ok::<_, Box<dyn std::error::Error>>(("written", put));
//!     }
//!     // Something else proves that writes arrive: those of other nodes.
//!     assert_eq!(decision, Decision::Absorb);
//!     Ok(("absorbed", cached.renewed(renewal.renew_time)))
//! };
//! assert_eq!(renew(&lease(7, 0), &lease(7, 4), 4)?, ("written", lease(7, 4).into_bytes()));
//! // A kubelet of default settings renews after ten seconds; this one does after four.
//! assert_eq!(renew(&lease(8, 4), &lease(8, 8), 8)?, ("absorbed", lease(8, 8).into_bytes()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bounds;
mod decision;
mod estate;
mod heartbeats;
mod heirs;
mod honesty;
mod json;
mod lease;
mod micro_time;
mod moment;
mod node;
mod protobuf;
mod status;
mod write;
mod writes;

pub use bounds::{Bounds, BoundsError, Seconds, Settings};
pub use decision::{Asked, AskedStatus, Decision, RETRY_AFTER, Reason, StatusDecision, Turn};
pub use estate::{Debt, Estate, Peer};
pub use heartbeats::{Heartbeats, Report};
pub use heirs::{Heir, Heirs};
pub use honesty::Honesty;
pub use lease::{Differs, Encoding, Lease, Owner, Renewal, Uid, Unread};
pub use micro_time::MicroTime;
pub use moment::Moment;
pub use status::{NodeStatus, StatusHeartbeat, StatusRenewal, StatusTimes, fold};
pub use write::{After, Needless, Outcome, Write};
pub use writes::{Limits, Ticket};

/// Property tests whose failures print their case and leave no files.
#[cfg(test)]
fn unsaved() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        failure_persistence: None,
        ..Default::default()
    }
}
