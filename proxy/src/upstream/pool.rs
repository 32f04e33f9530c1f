//! The connections to one server with one identity, run by one runtime.
//!
//! Owns: which connection the next request goes on, and when another one is opened.
//! Refuses: queues. A request never waits behind a full connection; it waits only for one that is
//! being opened, for at most the connect timeout, and when no more may be opened it fails at once.
//! Invariant: `in_use` of a connection counts its leases, changed only under the pool's lock or by
//! a lease that ends; it never exceeds what the server allowed when the lease was given. A
//! connection holds a place from before it is opened until its task has ended. Opening
//! runs in a task of its own, so a client that goes away does not take the connection of others
//! with it.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};

use crate::{body::Body, drain::Drain};

use super::{
    Pool,
    credentials::Tls,
    dial::{Dialer, Opened, OpenedHttp2},
    server::Availability,
};

/// HTTP/1.1 connections kept without a request.
const IDLE_HTTP1: usize = 32;
/// What an HTTP/2 connection that is being opened is expected to carry; Go's and the apiserver's
/// default.
const EXPECTED_STREAMS: usize = 100;

/// Connections to one server with one identity.
pub(super) struct Connections {
    pool: Pool,
    dialer: Dialer,
    places: Arc<Semaphore>,
    runtime: Handle,
    availability: Arc<Availability>,
    drain: Drain,
    gauge: Gauge,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    http2: Vec<Arc<Http2>>,
    idle_http1: Vec<Http1>,
    /// Connections being opened.
    opening: usize,
    /// Requests that wait for one.
    waiting: usize,
    /// The last connection was HTTP/1.1.
    http1_only: bool,
    failures: u64,
    last_failure: String,
}

struct Http2 {
    sender: http2::SendRequest<Body>,
    allowed: Arc<AtomicUsize>,
    in_use: AtomicUsize,
    fingerprint: u64,
}

struct Http1 {
    sender: http1::SendRequest<Body>,
    fingerprint: u64,
}

/// Why there is no connection for a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoConnection {
    /// None could be opened.
    Unreachable(String),
    /// As many as allowed are open, and all are full.
    Full,
}

/// The right to send one request on a connection, until its answer is over.
pub(super) struct Lease {
    connections: Arc<Connections>,
    on: On,
}

enum On {
    Http2(Arc<Http2>),
    /// `None` once the connection is given back or given up.
    Http1(Option<Http1>),
}

impl Connections {
    /// None yet; their tasks run on `runtime`, each in one of `places`.
    pub(super) fn new(
        pool: Pool,
        dialer: Dialer,
        availability: Arc<Availability>,
        (drain, gauge): (Drain, Gauge),
        (runtime, places): (Handle, Arc<Semaphore>),
    ) -> Arc<Self> {
        Arc::new(Self {
            pool,
            dialer,
            places,
            runtime,
            availability,
            drain,
            gauge,
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// A place on a connection made with `tls` that is open already.
    pub(super) fn lease_open(self: &Arc<Self>, tls: &Tls) -> Option<Lease> {
        let on = self.state.lock().take(tls.fingerprint)?;
        Some(Lease {
            connections: Arc::clone(self),
            on,
        })
    }

    /// A place on a connection made with `tls`.
    pub(super) async fn lease(self: &Arc<Self>, tls: &Tls) -> Result<Lease, NoConnection> {
        let mut waiting = None;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if let Some(on) = state.take(tls.fingerprint) {
                    return Ok(Lease {
                        connections: Arc::clone(self),
                        on,
                    });
                }
                let failures = match &waiting {
                    Some(Waiting { failures, .. }) => *failures,
                    None => {
                        state.waiting += 1;
                        let failures = state.failures;
                        waiting = Some(Waiting {
                            connections: self,
                            failures,
                        });
                        failures
                    }
                };
                if failures != state.failures {
                    let reason = state.last_failure.clone();
                    drop(state);
                    return Err(NoConnection::Unreachable(reason));
                }
                let step = state.next_step(&self.places);
                drop(state); // a task that cannot be started reports so, which takes the lock
                match step {
                    NextStep::Wait => {}
                    NextStep::Open(place) => self.start_opening(place, tls),
                    NextStep::Full => return Err(NoConnection::Full),
                }
            }
            changed.await;
        }
    }

    /// Opens a connection in the background, unless one is being opened.
    pub(super) fn probe(self: &Arc<Self>, tls: &Tls) {
        let mut state = self.state.lock();
        if state.opening == 0
            && let Ok(place) = Arc::clone(&self.places).try_acquire_owned()
        {
            state.opening = 1;
            drop(state);
            self.start_opening(place, tls);
        }
    }

    /// Opens a connection that is counted as being opened.
    fn start_opening(self: &Arc<Self>, place: OwnedSemaphorePermit, tls: &Tls) {
        let opening = Opening {
            connections: Arc::clone(self),
            place: Some(place),
        };
        let opening = opening.run(tls.clone());
        self.drain.spawn_background_on(opening, &self.runtime);
    }
}

/// What a request without a connection does.
enum NextStep {
    /// Wait for one that is being opened.
    Wait,
    /// Open another, which is counted already, and wait.
    Open(OwnedSemaphorePermit),
    /// Give up.
    Full,
}

impl State {
    /// A place on an open connection made with the TLS of `fingerprint`.
    fn take(&mut self, fingerprint: u64) -> Option<On> {
        self.http2
            .retain(|it| it.fingerprint == fingerprint && !it.sender.is_closed());
        let free = self
            .http2
            .iter()
            .find(|it| it.in_use.load(Ordering::Relaxed) < it.allowed.load(Ordering::Relaxed));
        if let Some(free) = free {
            free.in_use.fetch_add(1, Ordering::Relaxed);
            return Some(On::Http2(Arc::clone(free)));
        }
        self.idle_http1
            .retain(|it| it.fingerprint == fingerprint && it.sender.is_ready());
        self.idle_http1.pop().map(|it| On::Http1(Some(it)))
    }

    /// Sees to it that those who wait can expect a connection.
    fn next_step(&mut self, places: &Arc<Semaphore>) -> NextStep {
        let each = if self.http1_only { 1 } else { EXPECTED_STREAMS };
        if self.waiting <= self.opening * each {
            return NextStep::Wait;
        }
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            self.opening += 1;
            return NextStep::Open(place);
        }
        if self.opening > 0 {
            NextStep::Wait
        } else {
            NextStep::Full
        }
    }
}

/// A request that waits for a connection.
struct Waiting<'a> {
    connections: &'a Connections,
    failures: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.connections.state.lock().waiting -= 1;
    }
}

/// A connection being opened.
struct Opening {
    connections: Arc<Connections>,
    /// `None` once it is open or has failed.
    place: Option<OwnedSemaphorePermit>,
}

impl Opening {
    async fn run(mut self, tls: Tls) {
        let connections = Arc::clone(&self.connections);
        match connections.dialer.open(connections.pool, tls.any).await {
            Err(reason) => {
                let server = &connections.dialer.address.authority;
                tracing::debug!(%server, %reason, "cannot connect");
                connections.availability.failed();
                self.settle(|state| {
                    state.failures += 1;
                    state.last_failure = format!("{server}: {reason}");
                });
            }
            Ok(Opened::Http2(opened)) => self.run_http2(*opened, tls.fingerprint).await,
            Ok(Opened::Http1(opened)) => {
                let (sender, connection) = *opened;
                let _open = self.opened(|state| {
                    state.http1_only = true;
                    state.idle_http1.push(Http1 {
                        sender,
                        fingerprint: tls.fingerprint,
                    });
                });
                drop(connection.await);
            }
        }
    }

    async fn run_http2(mut self, opened: OpenedHttp2, fingerprint: u64) {
        let http2 = Arc::new(Http2 {
            sender: opened.sender.clone(),
            allowed: Arc::clone(&opened.streams_allowed),
            in_use: AtomicUsize::new(0),
            fingerprint,
        });
        let _open = self.opened(|state| {
            state.http1_only = false;
            state.http2.push(http2);
        });
        opened.run().await;
    }

    fn opened(&mut self, add: impl FnOnce(&mut State)) -> Open {
        self.connections.availability.worked();
        self.connections.gauge.inc();
        Open {
            _place: self.settle(add),
            connections: Arc::clone(&self.connections),
        }
    }

    fn settle(&mut self, change: impl FnOnce(&mut State)) -> Option<OwnedSemaphorePermit> {
        let place = self.place.take();
        let mut state = self.connections.state.lock();
        state.opening -= 1;
        change(&mut state);
        drop(state);
        self.connections.changed.notify_waiters();
        place
    }
}

impl Drop for Opening {
    /// Those who wait must not wait for a task that was cut.
    fn drop(&mut self) {
        if self.place.is_some() {
            self.settle(|state| {
                state.failures += 1;
                state.last_failure = "the proxy is shutting down".to_owned();
            });
        }
    }
}

/// An open connection, for as long as its task runs.
struct Open {
    connections: Arc<Connections>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.gauge.dec();
        let mut state = self.connections.state.lock();
        state.http2.retain(|it| !it.sender.is_closed());
        state.idle_http1.retain(|it| !it.sender.is_closed());
    }
}

impl Lease {
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.on, On::Http2(_))
    }

    /// Sends the one request this lease is for.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match &mut self.on {
            On::Http2(connection) => connection.sender.clone().try_send_request(request).await,
            On::Http1(connection) => {
                let connection = connection
                    .as_mut()
                    .expect("given back only after the answer");
                connection.sender.try_send_request(request).await
            }
        }
    }

    /// The answer was read to its end: an HTTP/1.1 connection may carry the next request.
    pub(super) fn answered(mut self) {
        if let On::Http1(connection) = &mut self.on
            && let Some(connection) = connection.take()
        {
            let mut state = self.connections.state.lock();
            if state.idle_http1.len() < IDLE_HTTP1 && !connection.sender.is_closed() {
                state.idle_http1.push(connection);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match &self.on {
            On::Http2(connection) => {
                connection.in_use.fetch_sub(1, Ordering::Relaxed);
            }
            // Dropping the sender of an unfinished exchange closes the connection.
            On::Http1(_) => {}
        }
    }
}
