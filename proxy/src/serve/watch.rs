//! A WATCH as a response body.
//!
//! Owns: handing a watcher's frames to the connection as they come, and the reasons to end besides
//! the watcher's own: the connection is drained, the watch is not permitted any more, or the client
//! has gone.
//! Refuses: to hold frames. What the client does not take stays in the cache's history.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use watershed_cache::Watcher;

use crate::{
    authn::UserInfo,
    authz::{Attributes, Holding, Member, Tenure},
    budget::Place,
    connection::deadline,
    listener::ConnectionInfo,
    metrics::Delays,
    tls::ClientCertificate,
};

/// An open watch of one client.
pub(crate) struct WatchBody {
    watch: Held,
    tenure: Tenure,
    /// Until the initial events are over.
    admitted: Option<Box<Admitted>>,
    open: Gauge,
    delays: Delays,
}

/// A watch and the connection it is on.
pub(super) struct Held {
    pub(super) watcher: Watcher,
    pub(super) connection: Arc<ConnectionInfo>,
}

/// The right to send initial events.
pub(super) struct Admitted {
    /// Among the running lists.
    pub(super) _place: Place,
    /// How long the client may take none of them.
    pub(super) patience: Duration,
}

impl WatchBody {
    /// Delivers while the tenure stands. Keeps `admitted` until the initial events are over. Counts
    /// itself in `open` while it lives; `delays` takes how long its events took from the apiserver
    /// to this connection, those of the oldest where several go together.
    pub(super) fn new(
        (watch, tenure): (Held, Tenure),
        admitted: Option<Admitted>,
        (open, delays): (Gauge, Delays),
    ) -> Self {
        open.inc();
        Self {
            watch,
            tenure,
            admitted: admitted.map(Box::new),
            open,
            delays,
        }
    }

    /// The next frames; `None` is a clean end.
    pub(crate) fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.watch.connection.watches_end() {
            return Poll::Ready(None);
        }
        if !ready!(self.tenure.poll_stands(context, &self.watch)) {
            return Poll::Ready(None);
        }
        let watcher = &mut self.watch.watcher;
        let polled = Pin::new(&mut *watcher).poll_next(context);
        if let Some(admitted) = &self.admitted {
            if watcher.has_initial() {
                deadline::expect(Instant::now() + admitted.patience);
            } else {
                self.admitted = None;
                deadline::over();
            }
        }
        if let Some(arrived) = watcher.take_arrival() {
            self.delays.observe(arrived.elapsed());
        }
        polled
    }
}

impl Holding for Held {
    fn member(&self) -> &Member {
        let member = self.connection.member.get();
        member.expect("a connection is a member before its first watch")
    }

    fn names(&self, user: &UserInfo) -> bool {
        let proof = self.connection.proof();
        self.connection.subject.names(user, &proof.client)
    }

    fn is_front_proxy(&self) -> bool {
        let proof = self.connection.proof();
        matches!(proof.front_proxy, ClientCertificate::Valid(_))
    }

    fn attributes(&self, user: &Arc<UserInfo>) -> Attributes {
        Attributes::of_watch(Arc::clone(user), &self.watcher)
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        self.open.dec();
    }
}
