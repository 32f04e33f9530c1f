//! Absorbs the renewals of node leases, as far as bytes go: which ones change nothing but
//! `renewTime`, and what is answered to them.

mod lease;
mod micro_time;

pub use lease::{Differs, Encoding, Lease, Owner, Renewal, Uid, Unread};
pub use micro_time::MicroTime;
