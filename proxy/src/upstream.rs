//! The client of the apiservers: servers, credentials, connections, failover.
use std::{
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};

use crate::{
    body::{Body, BodyError},
    drain::Drain,
    metrics::Metrics,
};

/// Where the apiservers are and who the proxy is to them.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamOptions {
    /// Base URLs, `https://host:port`; `http://` only for loopback. Empty: the kubeconfig's or in-cluster one.
    pub(crate) servers: Vec<String>,
    /// PEM bundle the servers' certificates must chain to; `None`: the credential's own.
    pub(crate) ca_file: Option<PathBuf>,
    /// The proxy's own identity.
    pub(crate) credentials: CredentialSource,
    /// How the identity of certificate users is carried.
    pub(crate) asserted: AssertedIdentity,
    /// Connections to one server at once, per pool.
    pub(crate) connections_per_pool: usize,
    /// From the first SYN to the end of the TLS and HTTP/2 handshakes.
    pub(crate) connect_timeout: Duration,
}

/// Where the proxy's own identity comes from.
#[derive(Clone, Debug)]
pub(crate) enum CredentialSource {
    /// The current context of a kubeconfig file.
    Kubeconfig(PathBuf),
    /// The service account mounted into the pod.
    InCluster,
    /// A client certificate, a token, or both.
    Files {
        /// PEM chain and key.
        certificate: Option<(PathBuf, PathBuf)>,
        /// Bearer token, re-read when it changes.
        token: Option<PathBuf>,
    },
    /// None: an apiserver that asks for none.
    None,
}

/// How the identity of a client that did not bring a bearer token is carried.
#[derive(Clone, Debug)]
pub(crate) enum AssertedIdentity {
    /// `X-Remote-*` headers on connections with this front-proxy certificate.
    RequestHeader {
        /// PEM chain.
        certificate: PathBuf,
        /// PEM key.
        key: PathBuf,
    },
    /// `Impersonate-*` headers with the proxy's own credentials.
    Impersonate,
}

/// Whose credentials a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// The proxy's own: watches, reviews, probes.
    Own,
    /// The proxy asserting a client's identity, by the headers passthrough adds.
    Asserted,
    /// None: the request brings its own bearer token.
    Bare,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No server took the connection; nothing was sent. 503.
    #[error("no apiserver can be reached: {0}")]
    Unreachable(String),
    /// Every connection that may be opened is full; nothing was sent. 503, retry.
    #[error("all {connections} connections to {server} are full")]
    Full {
        /// The server.
        server: String,
        /// The limit.
        connections: usize,
    },
    /// The request was sent, or a part of it, and no answer came. 502.
    #[error("apiserver {server} did not answer: {reason}")]
    Failed {
        /// The server.
        server: String,
        /// What happened.
        reason: String,
    },
}

/// Why the upstream settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamConfigError {
    /// A file of the settings.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The credentials.
    #[error("cannot use the upstream credentials: {0}")]
    Credentials(String),
    /// A server's URL.
    #[error("cannot use the upstream server {server:?}: {reason}")]
    Server {
        /// As written.
        server: String,
        /// What is wrong.
        reason: String,
    },
}

/// The state of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// Configured servers.
    pub(crate) servers: usize,
    /// Those that are not backed off after failures.
    pub(crate) healthy: usize,
}

/// The apiservers. Clones share connections.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {}

impl Upstream {
    /// Reads credentials and files; opens nothing yet.
    ///
    /// # Errors
    /// When settings or files cannot be used.
    pub(crate) fn new(
        _options: UpstreamOptions,
        _drain: &Drain,
        _metrics: &Metrics,
    ) -> Result<Self, UpstreamConfigError> {
        todo!()
    }

    /// Sends `request` (origin-form URI; the authority is set here) and returns the answer's head as soon as
    /// it is there. Dropping the future or the body cancels the request upstream.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub(crate) async fn send(
        &self,
        _pool: Pool,
        _request: Request<Body>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        todo!()
    }

    /// Sends an upgrade request on an HTTP/1.1 connection of its own. A 101 can be upgraded with
    /// `hyper::upgrade::on`.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub(crate) async fn open_upgrade(
        &self,
        _pool: Pool,
        _request: Request<Body>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        todo!()
    }

    /// The state of the servers as far as recent requests showed it.
    pub(crate) fn health(&self) -> Health {
        todo!()
    }
}

/// The body of an apiserver's answer. Holds its stream's place on the connection until it is dropped.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    incoming: Incoming,
}

impl ResponseBody {
    /// The whole body.
    ///
    /// # Errors
    /// When it breaks off or is longer than `limit` bytes.
    pub(crate) async fn bytes(self, _limit: usize) -> Result<Bytes, BodyError> {
        todo!()
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.incoming)
            .poll_frame(context)
            .map_err(BodyError::Sender)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
