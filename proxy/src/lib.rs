//! The Watershed proxy: clients on one side, kube-apiservers on the other, watch caches in between.
//!
//! Owns: the wiring. [`Proxy::start`] is the only place where the parts meet; `handler.rs` is the
//! path of a request, `caches.rs` the path of an event up to the cache, `drain.rs` the end.
//! Refuses: to parse flags or files. It is given a valid [`Config`] and nothing else.
//! Invariant: everything that runs is a task of the `Drain` (`drain.rs`), so when
//! [`Proxy::drain`] returns nothing of the proxy is left.
//!
//! ```text
//!   listener ─► handler ─► authn ─► authz ─► serve ─► caches ─► watershed_cache
//!                  └─────► passthrough ─────► upstream ◄──────── lister
//! ```

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch};
use watershed_config::{
    Config, Credentials, Heartbeats, Live, RELOAD_INTERVAL, Reloader, Startup, UpstreamIdentity,
};

mod admin;
mod authn;
mod authz;
mod body;
mod budget;
mod caches;
mod callers;
mod connection;
#[cfg(feature = "demo")]
pub mod demo;
pub mod diagnostics;
mod discovery;
#[cfg(feature = "door")]
#[doc(hidden)]
pub mod door;
mod drain;
mod files;
mod handler;
mod health;
mod heartbeats;
mod listener;
mod memo;
mod metrics;
mod negotiate;
mod passthrough;
mod request;
mod serve;
mod shared_reads;
mod status;
mod tls;
mod upstream;
mod workers;

pub use files::{exposed_files, unusable_files};

use crate::{
    admin::{Admin, AdminOptions},
    authn::{Authenticator, FrontProxies, Reviewer},
    authz::{Authorizer, Inputs, Local, Revocations, Tenures},
    budget::ListBudget,
    caches::{Caches, Told},
    callers::Callers,
    drain::Drain,
    handler::Handler,
    health::Health,
    heartbeats::{Absorber, LeaseFeed, Ledger, Peers},
    listener::{Limits, Listener, ListenerOptions},
    metrics::Metrics,
    passthrough::{Assertion, Passthrough},
    serve::Compressor,
    shared_reads::SharedReads,
    tls::{FrontProxyFile, ServerFiles, ServerTls},
    upstream::{AssertedIdentity, CredentialSource, Upstream, UpstreamOptions},
    workers::{Threads, Workers},
};

/// HTTP/2 connections to one apiserver at once, for each kind of credentials. With the apiserver's
/// 100 streams a connection this is room for 6,400 forwarded watches or requests a server.
const CONNECTIONS_PER_POOL: usize = 64;

/// A running proxy.
pub struct Proxy {
    address: SocketAddr,
    admin_address: SocketAddr,
    drain: Drain,
    health: Health,
    live: watch::Receiver<Arc<Live>>,
    threads: Threads,
}

impl Proxy {
    /// Binds both listeners, opens what is to be preloaded and serves. `live` is the part of the
    /// configuration that may change from now on.
    ///
    /// # Errors
    /// When an address cannot be bound or a certificate, key or credential cannot be used. Nothing
    /// runs then.
    pub async fn start(config: &Config, live: watch::Receiver<Arc<Live>>) -> anyhow::Result<Self> {
        Self::start_polling(config, live, RELOAD_INTERVAL).await
    }

    /// As [`Proxy::start`], with another time between two looks at certificates and credentials.
    ///
    /// # Errors
    /// As there.
    pub async fn start_polling(
        config: &Config,
        live: watch::Receiver<Arc<Live>>,
        reload_interval: Duration,
    ) -> anyhow::Result<Self> {
        let startup = &config.startup;
        let (metrics, registry) = Metrics::new();
        let drain = Drain::new();
        let tls = ServerTls::load(server_files(startup)).context(
            "cannot serve TLS with the files of `listen` and `authentication.requestHeader`",
        )?;
        let upstream_options = upstream_options(config, reload_interval);
        let upstream = Upstream::new(&upstream_options, &drain, &metrics)?;
        let (listener, admin) = bind(startup).await?;
        let (ledger, peers) = ledger(&startup.heartbeats, &drain, &metrics).await?;
        let (workers, threads) = Workers::start(workers::cores(), &metrics)
            .context("cannot start the worker threads")?;
        let (address, admin_address) = (listener.local_address()?, admin.local_address()?);

        let revocations = Arc::<Revocations>::default();
        drain.spawn_background(Arc::clone(&revocations).run(live.clone()));
        let inputs = Inputs::new(startup.authorizers, Arc::clone(&revocations), live.clone());
        let caches = Caches::start(
            upstream.clone(),
            live.clone(),
            drain.clone(),
            metrics.clone(),
            workers.to_caches().clone(),
            told(startup, &inputs, ledger.as_ref()),
        );
        let assertion = Assertion::from(&upstream_options.asserted);
        let passthrough = Passthrough::new(upstream.clone(), assertion, drain.clone());
        let ways = (caches.clone(), passthrough.clone());
        let own = (&drain, &metrics, reload_interval);
        let absorber = ledger.map(|ledger| absorb((ledger, peers), ways, own));
        let seen = (caches.clone(), inputs.clone(), upstream.clone());
        let health = Health::new(seen, absorber.clone(), metrics.clone());
        serve_probes(admin, (&health, absorber.clone()), registry, &drain);
        drain.spawn_background(tls.clone().watch_files(reload_interval, metrics.clone()));

        let limits = Arc::new(ArcSwap::from_pointee(listener_limits(&live.borrow())));
        let following = follow_limits(live.clone(), Arc::clone(&limits), drain.clone());
        drain.spawn(following);
        let local = Local::new(inputs, startup.authorizers);
        let options = ListenerOptions {
            tls,
            limits,
            drain: drain.clone(),
            workers,
            metrics: metrics.clone(),
        };
        let front_proxies = startup.request_header.as_ref().map(FrontProxies::new);
        let handler = Arc::new(handler(
            (upstream, passthrough, front_proxies),
            (caches, local, revocations),
            absorber,
            (metrics, live.clone()),
            drain.clone(),
        ));
        drain.spawn_background(handler.authenticator.forget_expired());
        drain.spawn_background(handler.authorizer.forget_expired());
        drain.spawn(listener.serve(options, move |request, connection| {
            let handler = Arc::clone(&handler);
            async move { handler.handle(request, connection).await }
        }));
        tracing::info!(%address, admin.address = %admin_address, "serving");
        Ok(Self {
            address,
            admin_address,
            drain,
            health,
            live,
            threads,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where probes and scrapes go.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Whether every check behind `/readyz` passes.
    pub fn is_ready(&self) -> bool {
        self.health.is_ready()
    }

    /// Stops in order, within the configured grace period: not ready, no new requests, GOAWAY,
    /// watches ended one connection at a time, everything cut.
    pub async fn drain(self) {
        let grace_period = self.live.borrow().drain.grace_period;
        self.drain.run(grace_period).await;
        self.threads.end().await;
    }
}

/// Runs the proxy of a configuration that was read from `path` until SIGTERM or SIGINT, re-reading the
/// live part of the file when it changes. A second signal ends it at once.
///
/// # Errors
/// See [`Proxy::start`].
pub async fn serve(config: Config, path: &Path) -> anyhow::Result<()> {
    let (reloader, live) = Reloader::new(path.to_owned(), &config);
    // Before anything runs: a signal during the start is a drain too.
    let mut signals = Signals::new().context("cannot listen to signals")?;
    let proxy = Proxy::start(&config, live).await?;
    reloader.run(RELOAD_INTERVAL, signals.next()).await;
    tracing::info!("draining; a second signal ends it at once");
    tokio::select! {
        () = proxy.drain() => tracing::info!("drained"),
        () = signals.next() => tracing::warn!("ended before it was drained"),
    }
    Ok(())
}

fn handler(
    (upstream, passthrough, front_proxies): (Upstream, Passthrough, Option<FrontProxies>),
    (caches, local, revocations): (Caches, Local, Arc<Revocations>),
    absorber: Option<Absorber>,
    (metrics, live): (Metrics, watch::Receiver<Arc<Live>>),
    drain: Drain,
) -> Handler {
    let reviewer = Arc::new(Reviewer::new(upstream.clone()));
    let decisions = metrics.authorization.clone();
    let authorizer = Authorizer::new(local, Arc::clone(&reviewer), decisions);
    let authorizer = Arc::new(authorizer);
    let tenures = Tenures {
        revocations,
        judge: Arc::clone(&authorizer) as _,
        live: live.clone(),
        revoked: metrics.watches_revoked.clone(),
    };
    let lists = (&metrics.initial_list_bytes, &metrics.initial_lists_refused);
    let budget = Arc::new(ListBudget::new(lists.0.clone(), lists.1.clone()));
    Handler {
        authenticator: Authenticator::new(reviewer, front_proxies),
        authorizer,
        tenures: Arc::new(tenures),
        shared_reads: SharedReads::new(upstream, drain.clone(), Arc::clone(&budget)),
        budget,
        passthrough,
        absorber,
        drain,
        compressor: Compressor::new(metrics.compressed.clone(), metrics.compressed_bytes.clone()),
        caches,
        callers: Callers::new(),
        metrics,
        live,
    }
}

fn server_files(startup: &Startup) -> ServerFiles {
    let front_proxies = startup.request_header.as_ref().map(|it| FrontProxyFile {
        ca: it.client_ca_file.clone(),
        any_name: it.allowed_names.is_empty(),
    });
    ServerFiles {
        certificate: startup.listen.cert_file.clone(),
        key: startup.listen.key_file.clone(),
        client_ca: startup.listen.client_ca_file.clone(),
        front_proxies,
    }
}

fn upstream_options(config: &Config, reload_interval: Duration) -> UpstreamOptions {
    let upstream = &config.startup.upstream;
    let credentials = match &upstream.credentials {
        Credentials::Kubeconfig(path) => CredentialSource::Kubeconfig(path.clone()),
        Credentials::InCluster => CredentialSource::InCluster,
        Credentials::ClientCertificate {
            cert_file,
            key_file,
        } => CredentialSource::Files {
            certificate: Some((cert_file.clone(), key_file.clone())),
            token: None,
        },
        Credentials::TokenFile(path) => CredentialSource::Files {
            certificate: None,
            token: Some(path.clone()),
        },
    };
    let asserted = match &upstream.identity {
        UpstreamIdentity::RequestHeader {
            cert_file,
            key_file,
        } => AssertedIdentity::RequestHeader {
            certificate: cert_file.clone(),
            key: key_file.clone(),
        },
        UpstreamIdentity::Impersonate => AssertedIdentity::Impersonate,
    };
    UpstreamOptions {
        servers: upstream.servers.clone(),
        ca_file: upstream.ca_file.clone(),
        credentials,
        asserted,
        connections_per_pool: CONNECTIONS_PER_POOL,
        connect_timeout: config.live.limits.connect_timeout,
        keep_alive_interval: config.live.limits.keep_alive_interval,
        keep_alive_timeout: config.live.limits.keep_alive_timeout,
        reload_interval,
    }
}

/// The table of renewals, if they are absorbed, and the peers that hear of it.
async fn ledger(
    heartbeats: &Heartbeats,
    drain: &Drain,
    metrics: &Metrics,
) -> anyhow::Result<(Option<Arc<Ledger>>, Option<Peers>)> {
    let Heartbeats::Coalesce(coalesce) = heartbeats else {
        return Ok((None, None));
    };
    let ledger = Ledger::new(coalesce.bounds, coalesce.nodes);
    let ledger = Arc::new(ledger.with_status_period(coalesce.node_status_period));
    let Some(settings) = &coalesce.peers else {
        return Ok((Some(ledger), None));
    };
    let listener = TcpListener::bind(settings.listen).await;
    let listener = listener
        .map_err(|error| cannot_listen("heartbeats.peers.listen", settings.listen, &error))?;
    let own = (drain.clone(), metrics.peers.clone());
    let peers = Peers::new(settings, listener, Arc::clone(&ledger), own);
    let peers = peers.context("cannot meet the replicas of `heartbeats.peers`")?;
    Ok((Some(ledger), Some(peers)))
}

/// Begins to absorb, and to tell peers.
fn absorb(
    (ledger, peers): (Arc<Ledger>, Option<Peers>),
    ways: (Caches, Passthrough),
    (drain, metrics, reload_interval): (&Drain, &Metrics, Duration),
) -> Absorber {
    let absorber = Absorber::start(ledger, ways, metrics.heartbeats.clone(), drain);
    if let Some(peers) = peers {
        peers.run(absorber.payments(), reload_interval, metrics);
    }
    absorber
}

/// Binds the addresses of clients and of probes.
async fn bind(startup: &Startup) -> anyhow::Result<(Listener, Admin)> {
    let (listen, admin) = (startup.listen.address, startup.admin.address);
    let listener = Listener::bind(listen).await;
    let listener = listener.map_err(|error| cannot_listen("listen.address", listen, &error))?;
    let probes = Admin::bind(admin).await;
    let probes = probes.map_err(|error| cannot_listen("admin.address", admin, &error))?;
    Ok((listener, probes))
}

fn told(startup: &Startup, inputs: &Inputs, ledger: Option<&Arc<Ledger>>) -> Told {
    Told {
        inputs: inputs.clone(),
        leases: ledger.map(|ledger| LeaseFeed::new(Arc::clone(ledger))),
        without_heartbeats: Arc::new(startup.suppress_node_events.clone()),
    }
}

fn serve_probes(
    admin: Admin,
    (health, absorber): (&Health, Option<Absorber>),
    registry: Registry,
    drain: &Drain,
) {
    drain.spawn_background(admin.serve(AdminOptions {
        checks: health.checks(),
        before_scrape: health.before_scrape(),
        heartbeats: absorber,
        registry: Arc::new(registry),
        drain: drain.clone(),
    }));
}

/// What was to be bound, why it cannot be, and what to do about it.
fn cannot_listen(key: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "; stop what listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => "; choose an address of this machine",
        io::ErrorKind::PermissionDenied => "; choose a port above 1023",
        _ => "",
    };
    anyhow::anyhow!("{key}: cannot listen on {address}: {error}{advice}")
}

fn listener_limits(live: &Live) -> Limits {
    let limits = &live.limits;
    Limits {
        connections: limits.connections as usize,
        streams_per_connection: limits.watches_per_connection,
        handshake_timeout: limits.handshake_timeout,
        header_timeout: limits.header_timeout,
        header_bytes: u32::try_from(limits.header_bytes).unwrap_or(u32::MAX),
        keep_alive_interval: limits.keep_alive_interval,
        keep_alive_timeout: limits.keep_alive_timeout,
        ..Limits::default()
    }
}

/// Puts changed limits in force for new connections, until the drain begins.
async fn follow_limits(
    mut live: watch::Receiver<Arc<Live>>,
    limits: Arc<ArcSwap<Limits>>,
    drain: Drain,
) {
    let follow = async {
        while live.changed().await.is_ok() {
            limits.store(Arc::new(listener_limits(&live.borrow_and_update())));
        }
    };
    drain.leaving().run_until_cancelled(follow).await;
}

/// SIGTERM and SIGINT, each time one comes.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
