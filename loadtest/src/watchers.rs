//! Watchers: the cheapest client that still proves what it was sent.
//!
//! ```text
//!  scenario ── Crew ──JSON lines──► loader process ── connection ── streams
//!                │                        │               │           └ Track: version, beats
//!                └─ one socket each       └ one thread    └ one task, one certificate
//! ```
//! Owns connections by the ten thousand, over several processes where one runs out of file
//! descriptors, and the check of every event against the writer's beats. Refuses to behave like a
//! kubelet beyond the look of its watches: that is [`kubelet`](crate::kubelet)'s.
//! Invariant: whatever ends a run ends its processes: each lives as long as the socket it was
//! started with.

mod connection;
mod crew;
mod frame;
mod loader;
mod message;
mod plan;
mod track;

pub(crate) use crew::Process;
pub use crew::{Crew, CrewOptions};
pub use frame::{BEAT, Beat, PAYLOAD};
pub(crate) use loader::stdin_socket;
pub use loader::{serve, serve_stdin};
pub use message::{Histogram, Report};
pub use plan::{MOUNTED, NAMESPACE, Plan, mounted, node};

use std::time::{SystemTime, UNIX_EPOCH};

/// Lanes from here on are seen by one watcher each; those below by everybody.
pub const SINGLE: u32 = 1_000;

/// Microseconds on the clock that all processes of a machine share.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}
