//! The client side: sockets, TLS, HTTP/1.1 and HTTP/2, and their limits.
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::{
    body::Body,
    drain::Drain,
    metrics::Metrics,
    tls::{ClientCertificate, ServerTls},
};

/// What one client connection may take, and how long it may take for it.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Client connections at once; one more is closed as soon as it is accepted.
    pub(crate) connections: usize,
    /// HTTP/2 streams at once on a connection, watches included.
    pub(crate) streams_per_connection: u32,
    /// From the accepted socket to the end of the TLS handshake.
    pub(crate) handshake_timeout: Duration,
    /// From the handshake, or the end of the last request, to the end of the next request's headers.
    pub(crate) header_timeout: Duration,
    /// Bytes of the headers of one request.
    pub(crate) header_bytes: u32,
    /// How long an HTTP/2 connection without a stream is kept.
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

/// What the requests of one connection have in common.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// The protocol ALPN chose.
    pub(crate) protocol: Protocol,
}

impl ConnectionInfo {
    /// What the client proved with its certificate, judged against the CA bundle in force now.
    pub(crate) fn certificate(&self) -> ClientCertificate {
        todo!()
    }

    /// True once the watches of this connection must end. Every stream of the connection is polled again
    /// when it becomes true, so a body only has to look at it.
    pub(crate) fn watches_end(&self) -> bool {
        todo!()
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

/// A bound socket that does not accept yet.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: tokio::net::TcpListener,
}

/// What a listener needs besides its socket.
#[derive(Clone, Debug)]
pub(crate) struct ListenerOptions {
    /// Certificates.
    pub(crate) tls: ServerTls,
    /// Limits.
    pub(crate) limits: Limits,
    /// Owner of the connections' tasks.
    pub(crate) drain: Drain,
    /// Families.
    pub(crate) metrics: Metrics,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = tokio::net::TcpListener::bind(address).await?;
        Ok(Self { socket })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the socket has none, which does not happen after `bind`.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the drain says leave; every request is given to `handle`.
    pub(crate) async fn serve<H, F>(self, _options: ListenerOptions, _handle: H)
    where
        H: Fn(Request<Incoming>, Arc<ConnectionInfo>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        todo!()
    }
}
