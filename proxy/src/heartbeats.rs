//! Heartbeats of nodes: most renewals of Leases, and of what a Node's status says of being alive, are
//! answered here, and one in a few is written.
//!
//! Owns: the one object that does so for a replica, its task, and what it tells operators. What may
//! be absorbed is decided in the crate `watershed-heartbeats`, which does no I/O; here is the I/O.
//! Refuses: to write anything that no kubelet asked for, and to answer what is not certain: that is
//! forwarded, as everything is while `heartbeats.mode` is `Passthrough`.
//!
//! ```text
//!  handler ─► renewal ─► Ledger (one lock: table of nodes, queue) ─► 200, PUT, forward, 429
//!          └► status ─────┤                                        └► 200, forward
//!                           ▲
//!  caches ──► leases ───────┘   every change of a lease, before any reader hears of it
//! ```

mod head;
mod leases;
mod ledger;
mod metrics;
mod payment;
mod peers;
mod renewal;
mod report;
mod status;

use std::{hash::RandomState, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, request::Parts};
use tokio::time::MissedTickBehavior;

pub(crate) use self::{
    head::Head,
    leases::{LEASES, LeaseFeed, NODES},
    ledger::Ledger,
    metrics::HeartbeatMetrics,
    payment::Payments,
    peers::{PeerMetrics, Peers},
};
use self::{head::What, leases::FRESH};
use crate::{
    authn::Identity, body::Body, caches::Caches, drain::Drain, listener::ConnectionInfo,
    negotiate::ErrorsOf, passthrough::Passthrough,
};

/// How often those are called whose time in the queue is over.
const CALLING: Duration = Duration::from_secs(1);

/// How often it is looked at whether the caches are still believed.
const LOOKING: Duration = Duration::from_secs(5);

/// How long before a quiet cache would no longer be believed it is proven again.
const PROVEN_BEFORE: Duration = Duration::from_secs(30);

/// How long that may take.
const PROVING: Duration = Duration::from_secs(5);

/// A request that may be a heartbeat, and is permitted.
pub(crate) struct Beat<'a> {
    /// Its head.
    pub(crate) head: &'a Head,
    /// As it came.
    pub(crate) parts: &'a Parts,
    /// As it came.
    pub(crate) body: &'a Bytes,
    /// Who sends it.
    pub(crate) identity: &'a Identity,
    /// Over what.
    pub(crate) connection: &'a ConnectionInfo,
    /// How errors are written.
    pub(crate) errors: ErrorsOf<'a>,
}

/// What becomes of it.
pub(crate) enum Renewed {
    /// It is answered.
    Here(Response<Body>),
    /// It is sent on unchanged.
    Forward,
    /// It is sent on with this body, which says all that its own does.
    ForwardWith(Bytes),
}

/// Absorbs the heartbeats of nodes. Clones are the same.
#[derive(Clone)]
pub(crate) struct Absorber {
    ledger: Arc<Ledger>,
    caches: Caches,
    passthrough: Passthrough,
    metrics: HeartbeatMetrics,
    /// Makes a number of a client's address.
    ids: RandomState,
}

impl Absorber {
    /// Decides by `ledger`, whose leases and nodes are in `caches`, and writes by `passthrough`. Its
    /// task is `drain`'s.
    pub(crate) fn start(
        ledger: Arc<Ledger>,
        (caches, passthrough): (Caches, Passthrough),
        metrics: HeartbeatMetrics,
        drain: &Drain,
    ) -> Self {
        let absorber = Self {
            ledger,
            caches,
            passthrough,
            metrics,
            ids: RandomState::new(),
        };
        drain.spawn_background(absorber.clone().call_late());
        drain.spawn_background(absorber.clone().keep_believed());
        absorber
    }

    /// Where what other replicas owed is paid.
    pub(crate) fn payments(&self) -> Payments {
        Payments {
            ledger: Arc::clone(&self.ledger),
            caches: self.caches.clone(),
            passthrough: self.passthrough.clone(),
        }
    }

    /// Answers what may be a heartbeat, or says how it is to be forwarded. The caller tells
    /// [`Self::forwarded`] what came of that.
    pub(crate) async fn absorb(&self, beat: &Beat<'_>) -> Renewed {
        match beat.head.what {
            What::Lease => self.renew(beat).await,
            What::Status => self.patch(beat),
        }
    }

    /// Calls those in the queue whose time is over, for ever.
    async fn call_late(self) {
        let mut calling = tokio::time::interval(CALLING);
        calling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            calling.tick().await;
            self.ledger.call();
        }
    }

    /// Has caches proven of which nothing was heard, for ever: of Nodes that do not change, an
    /// apiserver may say nothing for minutes.
    async fn keep_believed(self) {
        let mut looking = tokio::time::interval(LOOKING);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looking.tick().await;
            for key in LEASES.iter().chain(NODES.iter()) {
                if let Some(cache) = self.caches.ready(key)
                    && !cache.is_fresh(FRESH - PROVEN_BEFORE)
                {
                    // Without a proof renewals are forwarded.
                    drop(cache.consistent(PROVING).await);
                }
            }
        }
    }

    /// Sets the gauges.
    pub(crate) fn read_gauges(&self) {
        self.metrics.read(&self.ledger);
    }
}
