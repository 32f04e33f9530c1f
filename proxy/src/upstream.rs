//! The client of the apiservers: which server, which identity, which connection.
//!
//! Owns: the servers with their availability, three pools of connections per server (one per
//! identity, since a client certificate belongs to a connection), and the rule when a request may
//! be sent again.
//! Refuses: to know Kubernetes, and to limit how long an answer takes: a watch takes for ever.
//! Whoever asks sets the deadline; dropping the future or the body cancels the request at the
//! server.
//! Invariant: a request that may have been processed is never sent twice, unless it only reads.
//! hyper-util's client was rejected: it opens one HTTP/2 connection per host and queues behind its
//! 100 streams.
//!
//! ```text
//!  send ─► server: up, round robin; else due; else down
//!            └► pool: Own | Asserted | Bare ─► lease: a free stream, or open another connection
//!                                                └► request, answer's head ─► body holds the lease
//! ```

mod credentials;
mod dial;
mod pool;
mod refusal;
mod response;
mod server;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, Uri, Version, header, request::Parts};
use hyper::client::conn::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    body::Body,
    drain::Drain,
    metrics::{Code, Metrics, UpstreamRequestLabels},
    tls::{TlsError, reload::Reloaded},
};

use self::{
    credentials::{Credentials, Identities, Tls},
    dial::Dialer,
    pool::{Connections, Lease, NoConnection},
    server::{Address, Availability, Standing},
};

pub(crate) use self::refusal::Refusal;
pub(crate) use self::response::ResponseBody;

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
    /// 503.
    pub(crate) connections_per_pool: usize,
    /// From the first SYN to the end of the TLS and HTTP/2 handshakes.
    pub(crate) connect_timeout: Duration,
    /// Silence after which a server is pinged; as client-go, 30 s.
    pub(crate) keep_alive_interval: Duration,
    /// How long the answer may take before the connection is dead; as client-go, 15 s.
    pub(crate) keep_alive_timeout: Duration,
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

/// The state of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// Configured servers.
    pub(crate) servers: usize,
    /// Those that did not fail last.
    pub(crate) up: usize,
}

/// The apiservers. Clones share connections.
#[derive(Clone)]
pub(crate) struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Vec<Server>,
    next: AtomicUsize,
    credentials: Arc<Reloaded<Credentials>>,
    upgrades: Arc<Semaphore>,
    upgrades_limit: usize,
    drain: Drain,
    metrics: Metrics,
}

struct Server {
    dialer: Dialer,
    availability: Arc<Availability>,
    own: Arc<Connections>,
    asserted: Arc<Connections>,
    bare: Arc<Connections>,
}

/// What became of one attempt.
enum Attempt {
    Answered(Response<ResponseBody>),
    /// Nothing was sent: the body is as it was.
    NotSent(UpstreamError, Body),
    /// It was sent, and the server may or may not have processed it.
    Lost(UpstreamError),
    /// It was sent, and the server says it did not process it.
    Refused(UpstreamError),
}

/// A place among the upgraded connections; put into the answer's extensions, to be kept while the
/// connection lasts.
#[derive(Clone, Debug)]
pub(crate) struct UpgradePlace {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Upstream {
    /// Reads credentials and files, and polls them for changes from then on; opens no connection
    /// yet.
    ///
    /// # Errors
    /// When settings or files cannot be used.
    pub(crate) fn new(
        options: &UpstreamOptions,
        drain: &Drain,
        metrics: &Metrics,
    ) -> Result<Self, UpstreamConfigError> {
        let addresses = addresses(options)?;
        let tls = addresses.iter().any(Address::is_tls);
        let credentials = Arc::new(Reloaded::load(Credentials::new(options, tls))?);
        let polled = Arc::clone(&credentials);
        let families = metrics.clone();
        drain.spawn_background(async move {
            polled.watch("the upstream credentials", &families).await;
        });
        let servers = addresses
            .into_iter()
            .map(|address| Server::new(address, options, drain, metrics))
            .collect();
        let shared = Shared {
            servers,
            next: AtomicUsize::new(fastrand::usize(..1024)),
            credentials,
            upgrades: Arc::new(Semaphore::new(options.connections_per_pool)),
            upgrades_limit: options.connections_per_pool,
            drain: drain.clone(),
            metrics: metrics.clone(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Sends `request` (origin-form URI; authority and `Host` are set here) and returns the
    /// answer's head as soon as it is there. Another server, or another connection, is tried when
    /// nothing was sent, when the server says it processed nothing, or when the request only reads;
    /// the latter two once.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub(crate) async fn send(
        &self,
        pool: Pool,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let verb = verb(request.method());
        let result = self.send_somewhere(pool, request).await;
        self.count(verb, &result);
        result
    }

    /// Sends an upgrade request on an HTTP/1.1 connection of its own. An answer of 101 can be
    /// upgraded with `hyper::upgrade::on`; keep its [`UpgradePlace`] as long.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub(crate) async fn open_upgrade(
        &self,
        pool: Pool,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let verb = verb(request.method());
        let result = self.upgrade_somewhere(pool, request).await;
        self.count(verb, &result);
        result
    }

    /// The state of the servers as far as requests showed it.
    pub(crate) fn health(&self) -> Health {
        let servers = &self.shared.servers;
        let up = servers.iter().filter(|it| it.availability.is_up()).count();
        Health {
            servers: servers.len(),
            up,
        }
    }

    async fn send_somewhere(
        &self,
        pool: Pool,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let (parts, mut body) = request.into_parts();
        let identities = self.shared.credentials.load_current().clone();
        let reads = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let order = self.order(pool, &identities);
        let mut repeated = false;
        let mut last = None;
        // Each server once, and the first once more: its connection may have gone away unnoticed.
        for &server in order.iter().chain(order.first()) {
            let replay = body.replay();
            last = Some(
                match server.attempt(pool, &identities, &parts, body).await {
                    Attempt::Answered(answer) => return Ok(answer),
                    Attempt::NotSent(error, unsent) => {
                        body = unsent;
                        error
                    }
                    Attempt::Lost(error) | Attempt::Refused(error) if repeated => {
                        return Err(error);
                    }
                    Attempt::Lost(error) if !reads => return Err(error),
                    Attempt::Lost(error) | Attempt::Refused(error) => {
                        let Some(replay) = replay else {
                            return Err(error);
                        };
                        (body, repeated) = (replay, true);
                        error
                    }
                },
            );
        }
        Err(last
            .unwrap_or_else(|| UpstreamError::Unreachable("no server is configured".to_owned())))
    }

    async fn upgrade_somewhere(
        &self,
        pool: Pool,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let (parts, body) = request.into_parts();
        let identities = self.shared.credentials.load_current().clone();
        let Ok(permit) = Arc::clone(&self.shared.upgrades).try_acquire_owned() else {
            let connections = self.shared.upgrades_limit;
            return Err(UpstreamError::Full {
                server: "upgrades".to_owned(),
                connections,
            });
        };
        let place = UpgradePlace {
            _permit: Arc::new(permit),
        };
        let mut last = "no server is configured".to_owned();
        for server in self.order(pool, &identities) {
            let tls = identities.tls(pool).http1.clone();
            let (mut sender, connection) = match server.dialer.open_http1(tls).await {
                Ok(opened) => opened,
                Err(reason) => {
                    server.availability.failed();
                    last = format!("{}: {reason}", server.dialer.address.authority);
                    continue;
                }
            };
            server.availability.worked();
            self.shared.drain.spawn_background(async move {
                drop(connection.with_upgrades().await);
            });
            let request = server.address_to(&parts, body, identities.token(pool), false);
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| server.lost(&error))?;
            let mut answer = answer.map(|incoming| ResponseBody::new(incoming, None));
            answer.extensions_mut().insert(place);
            return Ok(answer);
        }
        Err(UpstreamError::Unreachable(last))
    }

    /// The servers in the order they should be tried, the next in turn first. One whose pause is
    /// over is tried in the background while others are up.
    fn order(&self, pool: Pool, identities: &Identities) -> Vec<&Server> {
        let servers = &self.shared.servers;
        let turn = self.shared.next.fetch_add(1, Ordering::Relaxed) % servers.len().max(1);
        let (later, first) = servers.split_at(turn);
        let mut standing: Vec<_> = first
            .iter()
            .chain(later)
            .map(|server| (server.availability.standing(), server))
            .collect();
        if standing
            .iter()
            .any(|(standing, _)| *standing == Standing::Up)
        {
            for (_, server) in standing
                .iter()
                .filter(|(standing, _)| *standing == Standing::Due)
            {
                server.connections(pool).probe(identities.tls(pool));
            }
            standing
                .iter_mut()
                .filter(|it| it.0 == Standing::Due)
                .for_each(|it| {
                    it.0 = Standing::Down;
                });
        }
        standing.sort_by_key(|(standing, _)| *standing);
        standing.into_iter().map(|(_, server)| server).collect()
    }

    fn count(&self, verb: &'static str, result: &Result<Response<ResponseBody>, UpstreamError>) {
        let code = match result {
            Ok(answer) => Code::Status(answer.status().as_u16()),
            Err(_) => Code::Error,
        };
        let labels = UpstreamRequestLabels { verb, code };
        self.shared
            .metrics
            .upstream_requests
            .get_or_create(&labels)
            .inc();
    }
}

impl Server {
    fn new(address: Address, options: &UpstreamOptions, drain: &Drain, metrics: &Metrics) -> Self {
        let dialer = Dialer {
            address,
            timeout: options.connect_timeout,
            keep_alive: (options.keep_alive_interval, options.keep_alive_timeout),
        };
        let availability = Arc::new(Availability::default());
        let connections = |pool| {
            Connections::new(
                pool,
                dialer.clone(),
                options.connections_per_pool,
                Arc::clone(&availability),
                (drain.clone(), metrics.upstream_connections.clone()),
            )
        };
        Self {
            own: connections(Pool::Own),
            asserted: connections(Pool::Asserted),
            bare: connections(Pool::Bare),
            dialer,
            availability,
        }
    }

    fn connections(&self, pool: Pool) -> &Arc<Connections> {
        match pool {
            Pool::Own => &self.own,
            Pool::Asserted => &self.asserted,
            Pool::Bare => &self.bare,
        }
    }

    async fn attempt(
        &self,
        pool: Pool,
        identities: &Identities,
        parts: &Parts,
        body: Body,
    ) -> Attempt {
        let tls: &Tls = identities.tls(pool);
        let mut lease: Lease = match self.connections(pool).lease(tls).await {
            Ok(lease) => lease,
            Err(reason) => return Attempt::NotSent(self.no_connection(pool, reason), body),
        };
        let request = self.address_to(parts, body, identities.token(pool), lease.is_http2());
        match lease.send(request).await {
            Ok(answer) => {
                self.availability.worked();
                Attempt::Answered(answer.map(|it| ResponseBody::new(it, Some(lease))))
            }
            Err(mut failure) => self.failed(&mut failure),
        }
    }

    fn failed(&self, failure: &mut TrySendError<Request<Body>>) -> Attempt {
        let server = self.dialer.address.authority.to_string();
        let reason = with_causes(failure.error());
        if let Some(unsent) = failure.take_message() {
            let error = UpstreamError::Unreachable(format!("{server}: {reason}"));
            return Attempt::NotSent(error, unsent.into_body());
        }
        if not_processed(failure.error()) {
            return Attempt::Refused(UpstreamError::Failed { server, reason });
        }
        Attempt::Lost(self.lost(failure.error()))
    }

    fn lost(&self, error: &hyper::Error) -> UpstreamError {
        // A stream that was reset, and what a client did to its own request, say nothing about the
        // server.
        let one_stream = h2_cause(error).is_some_and(h2::Error::is_reset);
        if !one_stream && !error.is_user() {
            self.availability.failed();
        }
        let server = self.dialer.address.authority.to_string();
        UpstreamError::Failed {
            server,
            reason: with_causes(error),
        }
    }

    fn no_connection(&self, pool: Pool, reason: NoConnection) -> UpstreamError {
        match reason {
            NoConnection::Unreachable(reason) => UpstreamError::Unreachable(reason),
            NoConnection::Full => UpstreamError::Full {
                server: self.dialer.address.authority.to_string(),
                connections: self.connections(pool).limit(),
            },
        }
    }

    /// The request as this server must see it.
    fn address_to(
        &self,
        parts: &Parts,
        body: Body,
        token: Option<&HeaderValue>,
        http2: bool,
    ) -> Request<Body> {
        let mut parts = parts.clone();
        let Address {
            scheme, authority, ..
        } = &self.dialer.address;
        let target = parts.uri.path_and_query().cloned();
        let target = target.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        if http2 {
            parts.version = Version::HTTP_2;
            parts.headers.remove(header::HOST);
            let mut uri = http::uri::Parts::default();
            uri.scheme = Some(scheme.clone());
            uri.authority = Some(authority.clone());
            uri.path_and_query = Some(target);
            parts.uri = Uri::from_parts(uri).expect("scheme, authority and path make a URI");
        } else {
            parts.version = Version::HTTP_11;
            let host =
                HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII");
            parts.headers.insert(header::HOST, host);
            parts.uri = Uri::from(target);
        }
        if let Some(token) = token {
            parts.headers.insert(header::AUTHORIZATION, token.clone());
        }
        Request::from_parts(parts, body)
    }
}

fn addresses(options: &UpstreamOptions) -> Result<Vec<Address>, UpstreamConfigError> {
    if options.servers.is_empty() {
        let (server, name) = credentials::server(&options.credentials)?;
        return Ok(vec![Address::parse(&server, name.as_deref())?]);
    }
    options
        .servers
        .iter()
        .map(|server| Address::parse(server, None))
        .collect()
}

/// True when the server said that it did not touch the request: the stream was refused, or is above
/// the last one that a GOAWAY names.
fn not_processed(error: &hyper::Error) -> bool {
    h2_cause(error).is_some_and(|error| {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || refused)
    })
}

fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A method as a label; clients may invent methods.
fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Upstream")
            .field("health", &self.health())
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
