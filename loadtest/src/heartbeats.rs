//! Heartbeats as a control plane lives by them: kubelets that renew, and a controller that judges.
//!
//! ```text
//!  Kubelets ── Lease ──► target, or apiserver ──► store ──► Informer ─► Controller ─► Lifecycle
//!     │ every time that was sent                                            │ every time that came
//!     └────────────────────────────► Journal ◄──────────────────────────────┘
//! ```
//! Owns the two ends of a renewal and the book in which both are entered. Refuses to know how
//! renewals are absorbed between them: what the store shows is all that counts.
//! Invariant: a write that no kubelet sent, or that goes back in time, cannot pass the journal.

mod controller;
pub mod echo;
mod informer;
mod journal;
mod kubelets;
mod lifecycle;

pub use controller::Controller;
pub use journal::{Arrival, Journal, Life, Written};
pub use kubelets::{Kubelets, KubeletsOptions, Loss};
pub use lifecycle::{Change, Lifecycle, Observed};
