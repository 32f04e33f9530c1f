//! What the upstream client is told, and what it can say went wrong.

use std::{path::PathBuf, time::Duration};

use crate::tls::TlsError;

/// Where the apiservers are and who the proxy is to them.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamOptions {
    /// Base URLs, `https://host:port`; `http://` only for loopback. Empty: the kubeconfig's or
    /// in-cluster one.
    pub(crate) servers: Vec<String>,
    /// PEM bundle the servers' certificates must chain to; `None`: the credential's own.
    pub(crate) ca_file: Option<PathBuf>,
    /// The proxy's own identity.
    pub(crate) credentials: CredentialSource,
    /// How the identity of certificate users is carried.
    pub(crate) asserted: AssertedIdentity,
    /// Connections to one server at once, per pool, and upgraded ones in all; further requests get
    /// 429.
    pub(crate) connections_per_pool: usize,
    /// From the first SYN to the end of the TLS and HTTP/2 handshakes.
    pub(crate) connect_timeout: Duration,
    /// Silence after which a server is pinged; as client-go, 30 s.
    pub(crate) keep_alive_interval: Duration,
    /// How long the answer may take before the connection is dead; as client-go, 15 s.
    pub(crate) keep_alive_timeout: Duration,
    /// Time between two looks at the files above.
    pub(crate) reload_interval: Duration,
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
    /// Every connection that may be opened is full; nothing was sent. 429, retry.
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
    Tls(#[from] TlsError),
    /// A server's URL.
    #[error("cannot use the upstream server {server:?}: {reason}")]
    Server {
        /// As written.
        server: String,
        /// What is wrong.
        reason: String,
    },
}
