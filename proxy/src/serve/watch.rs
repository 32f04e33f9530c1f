//! A WATCH as a response body.
//!
//! Owns: handing a watcher's frames to the connection as they come, and the two reasons to end
//! besides the watcher's own: the connection is drained, or the client has gone.
//! Refuses: to hold frames. What the client does not take stays in the cache's history.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use watershed_cache::Watcher;

use crate::{budget::Place, connection::deadline, listener::ConnectionInfo, metrics::Delays};

/// An open watch of one client.
pub(crate) struct WatchBody {
    watcher: Watcher,
    /// Until the initial events are over.
    admitted: Option<Box<Admitted>>,
    connection: Arc<ConnectionInfo>,
    open: Gauge,
    delays: Delays,
}

/// The right to send initial events.
pub(super) struct Admitted {
    /// Among the running lists.
    pub(super) _place: Place,
    /// How long the client may take none of them.
    pub(super) patience: Duration,
}

impl WatchBody {
    /// Keeps `admitted` until the initial events are over. Counts itself in `open` while it lives;
    /// `delays` takes how long its events took from the apiserver to this connection, those of the
    /// oldest where several go together.
    pub(super) fn new(
        watcher: Watcher,
        admitted: Option<Admitted>,
        connection: Arc<ConnectionInfo>,
        (open, delays): (Gauge, Delays),
    ) -> Self {
        open.inc();
        Self {
            watcher,
            admitted: admitted.map(Box::new),
            connection,
            open,
            delays,
        }
    }

    /// The next frames; `None` is a clean end.
    pub(crate) fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.connection.watches_end() {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.watcher).poll_next(context);
        if let Some(admitted) = &self.admitted {
            if self.watcher.has_initial() {
                deadline::expect(Instant::now() + admitted.patience);
            } else {
                self.admitted = None;
                deadline::over();
            }
        }
        if let Some(arrived) = self.watcher.take_arrival() {
            self.delays.observe(arrived.elapsed());
        }
        polled
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        self.open.dec();
    }
}
