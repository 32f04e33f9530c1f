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
//!                    (the latter two: on the thread that asks)
//!                                                └► request, answer's head ─► body holds the lease
//! ```

mod attempt;
mod credentials;
mod dial;
mod nearby;
mod options;
mod pool;
mod refusal;
mod response;
mod server;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    body::Body,
    drain::Drain,
    metrics::{Code, Metrics, UpstreamRequestLabels},
    tls::reload::Reloaded,
};

use self::{
    attempt::{Attempt, Server},
    credentials::{Credentials, Identities},
    server::{Address, Standing},
};

pub(crate) use self::options::{
    AssertedIdentity, CredentialSource, Pool, UpstreamConfigError, UpstreamError, UpstreamOptions,
};
pub(crate) use self::refusal::Refusal;
pub(crate) use self::response::ResponseBody;

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
        let (interval, families) = (options.reload_interval, metrics.clone());
        drain.spawn_background(async move {
            polled
                .watch("the upstream credentials", interval, &families)
                .await;
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
                server.probe(pool, identities.tls(pool));
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
