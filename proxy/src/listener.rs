//! The client side: accepts, terminates TLS, speaks HTTP/1.1 or HTTP/2 as ALPN chose, and hands
//! every request to one function.
//!
//! Owns: the limits a client meets before its request is looked at, and the end of every
//! connection.
//! Refuses: to know requests. What is answered is the handler's; so is who the client is.
//! Invariant: a connection is one task of one worker (`workers.rs`) that runs its own streams
//! (`connection.rs`), it holds one place of the connection limit until its socket is closed, and no
//! client can hold that place without making progress: handshake, headers, silence and idleness
//! each have a deadline.
//!
//! ```text
//!  accept ─► limit ─► worker ─► TLS ─► h1 | h2 ──────────────────────────────► closed
//!            close             10 s   headers 32 s, ping 30 s + 15 s, idle 90 s
//! ```

mod serve;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authn::Subject,
    authz::{Member, Revocations},
    body::Body,
    callers::Tally,
    connection::{self, Socket},
    drain::Drain,
    metrics::{Metrics, ReasonLabels},
    tls::{ALPN_H2, Credential, Proof, ServerTls, TlsStream},
    workers::{Load, Workers},
};

use self::serve::WakeWatches;

/// What one client may take, and how long it may take for it. A change applies to new connections.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Client connections at once; one more is closed as soon as it is accepted.
    pub(crate) connections: usize,
    /// HTTP/2 streams at once on a connection, watches included; further ones wait at the client.
    pub(crate) streams_per_connection: u32,
    /// From the accepted socket to the end of the TLS handshake; the connection is closed at its
    /// end.
    pub(crate) handshake_timeout: Duration,
    /// From the handshake to the first request, and for the headers of each HTTP/1.1 request; the
    /// connection is closed at its end.
    pub(crate) header_timeout: Duration,
    /// Bytes of the headers of one request; longer ones get 431.
    pub(crate) header_bytes: u32,
    /// How long an HTTP/2 connection without a stream is kept, at least; twice as long at most.
    pub(crate) idle_timeout: Duration,
    /// Silence after which an HTTP/2 peer is pinged, and a TCP peer probed.
    pub(crate) keep_alive_interval: Duration,
    /// How long the answer to a ping may take before the peer is dead.
    pub(crate) keep_alive_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 250_000,
            streams_per_connection: 250,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(32),
            header_bytes: 64 << 10,
            idle_timeout: Duration::from_secs(90),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(15),
        }
    }
}

/// The HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What the requests of one connection have in common.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// The protocol ALPN chose.
    pub(crate) protocol: Protocol,
    /// Whom the client's certificate names.
    pub(crate) subject: Subject,
    /// What its first caller has under way, on this connection and elsewhere.
    pub(crate) caller: OnceLock<Arc<Tally>>,
    credential: Credential,
    tls: ServerTls,
    requests: AtomicU64,
    watches_end: AtomicBool,
    is_let_go: AtomicBool,
    /// Has every watch of the connection polled.
    wake_watches: OnceLock<Arc<WakeWatches>>,
    /// Where it is told that its watches have to be permitted again; since its first watch.
    pub(crate) member: OnceLock<Member>,
}

impl ConnectionInfo {
    /// What the client proved with its certificate, judged by the CA bundles in force now. Cheap:
    /// the chain is verified again only when a bundle changed, a certificate ended or an hour has
    /// passed.
    pub(crate) fn proof(&self) -> Proof {
        self.tls.judge(&self.credential)
    }

    /// Answers what the connection has asked so far, and no more: over HTTP/2 whoever does not say
    /// who it is gets one request a connection (as gate UnauthenticatedHTTP2DOSMitigation, 1.36).
    /// HTTP/1.1 connections stay.
    pub(crate) fn let_go(&self) {
        let is_http2 = self.protocol == Protocol::Http2;
        self.is_let_go.store(is_http2, Ordering::Relaxed);
    }

    /// Has its watches asked about again from now on, when they have to be.
    pub(crate) fn join(&self, revocations: &Arc<Revocations>) {
        self.member.get_or_init(|| {
            let wake = self.wake_watches.get().map(Arc::clone);
            revocations.join(wake.map_or_else(|| Waker::noop().clone(), Waker::from))
        });
    }

    /// True once the watches of this connection must end. Every stream of the connection is polled
    /// again when it becomes true, so a body only has to look.
    pub(crate) fn watches_end(&self) -> bool {
        self.watches_end.load(Ordering::Relaxed)
    }
}

/// What a listener needs besides its socket.
#[derive(Clone, Debug)]
pub(crate) struct ListenerOptions {
    /// Certificates.
    pub(crate) tls: ServerTls,
    /// Limits in force; replaced when the configuration is reloaded.
    pub(crate) limits: Arc<ArcSwap<Limits>>,
    /// Owner of the connections' tasks.
    pub(crate) drain: Drain,
    /// Where the connections run.
    pub(crate) workers: Workers,
    /// Families.
    pub(crate) metrics: Metrics,
}

/// A bound socket that does not accept yet.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: tokio::net::TcpListener,
}

/// Connections the system may hold before they are accepted, where `somaxconn` allows: a tier that
/// restarts is met by all its clients at once.
const BACKLOG: u32 = 16_384;
/// Pause after an `accept` that failed for want of something, as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        Ok(Self { socket })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the drain has let go of every connection it found; every request is given to
    /// `handle`, whose future runs on the connection's task and is dropped when the client goes
    /// away. Who comes during the drain is still accepted, to be told to go elsewhere.
    pub(crate) async fn serve<H, F>(self, options: ListenerOptions, handle: H)
    where
        H: Fn(Request<Incoming>, Arc<ConnectionInfo>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let leaving = options.drain.leaving().clone();
        let (early, over) = (TaskTracker::new(), CancellationToken::new());
        let options = Arc::new(options);
        let accepting = async {
            let open = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
            loop {
                let (socket, peer) = match self.socket.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        options.refused("accept");
                        tracing::debug!(%error, "cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let limits = options.limits.load_full();
                let taken = Semaphore::MAX_PERMITS - open.available_permits();
                if taken >= limits.connections {
                    options.refused("limit");
                    continue;
                }
                let worker = options.workers.least_loaded();
                let (Some(worker), Ok(socket)) = (worker, socket.into_std()) else {
                    options.refused("accept");
                    continue;
                };
                let place = Arc::clone(&open).try_acquire_owned();
                let (own, handle, load) = (Arc::clone(&options), handle.clone(), worker.take());
                let connection = async move {
                    let _counted = Counted::new(&own.metrics);
                    own.connection((socket, peer), load, &limits, handle).await;
                    drop(place);
                };
                let drain = &options.drain;
                if leaving.is_cancelled() {
                    let connection = over.clone().run_until_cancelled_owned(connection);
                    drain.spawn_connection(connection.map(|_over| ()), worker.runtime());
                } else {
                    drain.spawn_connection(early.track_future(connection), worker.runtime());
                }
            }
        };
        let left = async {
            leaving.cancelled().await;
            early.close();
            early.wait().await;
        };
        tokio::select! {
            () = accepting => {}
            () = left => over.cancel(),
        }
    }
}

impl ListenerOptions {
    /// One connection, from the accepted socket to its end.
    async fn connection<H, F>(
        &self,
        (socket, peer): (std::net::TcpStream, SocketAddr),
        load: Load,
        limits: &Limits,
        handle: H,
    ) where
        H: Fn(Request<Incoming>, Arc<ConnectionInfo>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        // Each phase is boxed, so that a connection does not keep room for the phases behind it.
        let handshake = Box::pin(self.handshake(socket, peer, limits));
        let Some(Some(stream)) = self.drain.cut().run_until_cancelled(handshake).await else {
            return;
        };
        let protocol = match stream.alpn_protocol() {
            Some(ALPN_H2) => Protocol::Http2,
            Some(_) | None => Protocol::Http1,
        };
        let info = Arc::new(ConnectionInfo {
            peer,
            protocol,
            subject: Subject::default(),
            caller: OnceLock::new(),
            credential: Credential::new(stream.peer_certificates()),
            tls: self.tls.clone(),
            requests: AtomicU64::new(0),
            watches_end: AtomicBool::new(false),
            is_let_go: AtomicBool::new(false),
            wake_watches: OnceLock::new(),
            member: OnceLock::new(),
        });
        match protocol {
            Protocol::Http1 => {
                Box::pin(serve::http1(stream, info, limits, &self.drain, handle)).await;
            }
            Protocol::Http2 => {
                let info = (info, load);
                Box::pin(serve::http2(stream, info, limits, &self.drain, handle)).await;
            }
        }
    }

    /// The socket in this worker's care and the TLS handshake, in its time.
    async fn handshake(
        &self,
        socket: std::net::TcpStream,
        peer: SocketAddr,
        limits: &Limits,
    ) -> Option<Box<TlsStream<Socket>>> {
        let socket = match TcpStream::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                self.refused("accept");
                tracing::debug!(client.addr = %peer, %error, "cannot hand over");
                return None;
            }
        };
        if let Err(error) = connection::tune(
            &socket,
            limits.keep_alive_interval,
            limits.keep_alive_timeout,
        ) {
            tracing::debug!(client.addr = %peer, %error, "cannot set socket options");
        }
        let handshake = self.tls.accept(Socket(socket));
        match timeout(limits.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            Ok(Err(error)) => {
                self.refused("handshake");
                tracing::debug!(client.addr = %peer, %error, "TLS handshake failed");
                None
            }
            Err(_elapsed) => {
                self.refused("handshake_timeout");
                None
            }
        }
    }

    fn refused(&self, reason: &'static str) {
        self.metrics
            .connections_refused
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }
}

/// One connection in the gauge, while it lives.
struct Counted(prometheus_client::metrics::gauge::Gauge);

impl Counted {
    fn new(metrics: &Metrics) -> Self {
        metrics.connections.inc();
        Self(metrics.connections.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
pub(crate) mod tests;
