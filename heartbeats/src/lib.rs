//! Absorbs the renewals of node leases.

mod bounds;
mod heartbeats;
mod honesty;
mod lease;
mod micro_time;
mod moment;
mod node;
mod peers;
mod writes;

pub use bounds::{Bounds, BoundsError, Seconds, Settings};
pub use heartbeats::{
    After, Asked, Decision, Heartbeats, Needless, Outcome, RETRY_AFTER, Reason, Report, Turn, Write,
};
pub use honesty::Honesty;
pub use lease::{Differs, Encoding, Lease, Owner, Renewal, Uid, Unread};
pub use micro_time::MicroTime;
pub use moment::Moment;
pub use peers::{Debt, Estate, Peer, heirs};
pub use writes::{Limits, Ticket};
